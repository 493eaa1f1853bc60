"""Long waiting is said."""

import io
import time

import pytest

from trm_interp.runtime import progress
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
