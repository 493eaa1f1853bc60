"""Long waiting is said."""

import io
import time

import pytest

from trm_interp.runtime import progress
from trm_interp.runtime.progress import progress as progress_of
from trm_interp.runtime.progress import waiting


def test_long_waiting_is_said_once_with_dots_and_short_waiting_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with waiting("loading"):
        pass
    assert not capsys.readouterr().err
    monkeypatch.setattr(progress, "SECONDS_BEFORE_WAITING", 0.01)
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    with waiting("loading"):
        while "...." not in said.getvalue():
            time.sleep(0.01)
    assert set(said.getvalue().removeprefix("loading ")) == {".", "\n"}


def test_work_after_the_last_unit_is_said(monkeypatch: pytest.MonkeyPatch):
    """Such as drawing, or an embedding of what was read (`trajectories --umap`)."""
    monkeypatch.setattr(progress, "SECONDS_BEFORE_LINES", 0.01)
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    with progress_of("paths", "puzzles") as meter:
        meter(3, 3)
        assert not said.getvalue()
        until = time.monotonic() + 20
        while not said.getvalue().endswith("\n") and time.monotonic() < until:
            time.sleep(0.01)
    assert said.getvalue().splitlines()[0] == "paths: 3/3 puzzles, finishing"
