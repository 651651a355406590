"""Expectations: what a batch must be, derived from contracts and feature views, and the house's own rules."""
