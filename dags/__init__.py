"""The DAGs: wiring only; the work is in `jobs/`, one command a task."""
