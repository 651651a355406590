"""Batch jobs: each runs alone with `python -m jobs.NAME --start --end`, without Airflow."""
