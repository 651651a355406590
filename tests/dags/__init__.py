"""Tests of the DAGs and of what starts and watches them."""
