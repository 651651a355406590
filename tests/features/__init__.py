"""Tests of the feature renderer."""
