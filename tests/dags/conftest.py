"""Airflow reads its home when it is imported: the tests give it a folder that goes with them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_home = tempfile.mkdtemp(prefix="tidewatch-airflow-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ.update(AIRFLOW_HOME=_home, AIRFLOW__CORE__LOAD_EXAMPLES="False", AIRFLOW__CORE__UNIT_TEST_MODE="True")
os.environ.pop("AIRFLOW_CONFIG", None)
