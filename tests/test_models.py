"""The models' commands run a job in its own environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tidewatch import models
from tidewatch.errors import ServiceError
from tidewatch.settings import load


def test_a_job_that_breaks_leaves_what_it_said(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    python = settings.env_python("spark")
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho 'first words' >&2\nexec {sys.executable} -c 'raise KeyError(1)'\n")
    python.chmod(0o755)
    with pytest.raises(ServiceError, match=r"(?s)1.*rollback\.log"):
        models.rollback(settings, "leak", None)
    said = (tmp_path / "log" / "rollback.log").read_text()
    assert said.startswith("first words") and "KeyError" in said
