"""Tidewatch: watches a network's devices for the three ways they go wrong: silent, leaking, lying."""

__version__ = "0.1.0"
