"""Long commands compile by themselves, record it, and a resumed run keeps it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from trm_interp.core import when_compiled
from trm_interp.search import run as search_run
from trm_interp.studies.starts import Starts

Cli = Callable[..., Any]
SMALL_BASINS = ["--starts", 8, "--neighbours", 2, "--slice", 0, "--n-puzzles", 2]
SMALL_BASINS += ["--shuffles", 19, "--batch-size", 3, "--steps", 3]
STUDIES = {
    "outcomes": ["--steps", 4],
    "losses": ["--steps", 2],
    "basins": SMALL_BASINS,
    "settling": ["--steps", 6, "--long", 8, "--long-limit", 2],
}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In place of torch's compiler: the batches that went through compiled networks."""
    batches: list[int] = []

    def compile_(self: nn.Module, **how: Any) -> None:
        def call(h: Any, injection: Any) -> Any:
            batches.append(len(h))
            return self._call_impl(h, injection)

        self._compiled_call_impl = call  # type: ignore[assignment]

    monkeypatch.setattr(nn.Module, "compile", compile_)
    return batches


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold that every run is above."""
    monkeypatch.setattr(when_compiled, "PAYS_FROM", 1.0)


@pytest.fixture
def on(copier: Path, grids: Path) -> list[object]:
    return ["--ckpt", copier, "--puzzles", grids, "--device", "cpu"]


@pytest.mark.parametrize("name", STUDIES)
def test_a_long_study_compiles_and_records_it(
    name: str, cli: Cli, on: list[object], compiled: list[int], low: None, tmp_path: Path
):
    done = cli(name, *on, *STUDIES[name], "--out", tmp_path / "auto")
    assert done.code == 0, done.err
    assert "compiling the network: about 0 s of work ahead" in done.err
    assert compiled
    summary = json.loads((tmp_path / "auto" / "summary.json").read_text())
    assert summary["compiled"] is True
    compiled.clear()
    never = [*STUDIES[name], "--compile", "never"]
    done = cli(name, *on, *never, "--out", tmp_path / "never")
    assert done.code == 0 and "compiling" not in done.err and not compiled
    plain = json.loads((tmp_path / "never" / "summary.json").read_text())
    assert plain["compiled"] is False
    apart = {"compiled", "settings"}
    assert {k: v for k, v in plain.items() if k not in apart} == {
        k: v for k, v in summary.items() if k not in apart
    }


@pytest.mark.parametrize("name", [*STUDIES, "eval", "search"])
def test_a_short_command_does_not_compile(
    name: str, cli: Cli, on: list[object], compiled: list[int], tmp_path: Path
):
    more = STUDIES.get(name, ["--steps", 2])
    out = ["--out", tmp_path / "out"] if name in STUDIES else []
    done = cli(name, *on, *more, *out, "--limit", 5)
    assert done.code == 0 and "compiling" not in done.err and not compiled


@pytest.mark.parametrize(
    ("typed", "is_compiled"),
    [([], True), (["--compile", "never"], False), (["--no-compile"], False), (["--compile"], True)],
)
def test_eval_says_whether_it_compiled(
    cli: Cli, on: list[object], compiled: list[int], low: None, typed: list[str], is_compiled: bool
):
    done = cli("eval", *on, "--steps", 2, *typed, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["compiled"] is is_compiled and bool(compiled) is is_compiled
    assert ("is now called" in done.err) == (typed in (["--compile"], ["--no-compile"]))


def stopped_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Ctrl-C at this call of a function, counted from 0."""
    original, calls = getattr(owner, name), []

    def moody(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call + 1:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, moody)


@pytest.mark.parametrize("command", ["search", "basins"])
@pytest.mark.parametrize("begun", ["compiled", "eager"])
def test_a_resumed_run_goes_on_as_it_began(
    command: str,
    begun: str,
    cli: Cli,
    on: list[object],
    compiled: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Whatever the rule would say now, as after an update that changes it."""
    if command == "search":
        out, owner, name = tmp_path / "t.csv", search_run, "search"
        words = ["search", *on, "--k", 2, "--steps", 2, "--batch-size", 1, "--out", out]
        identity, key = tmp_path / "t.csv.parts" / "identity.json", "compile"
    else:
        out, owner, name = tmp_path / "basins", Starts, "follow"
        words = ["basins", *on, *SMALL_BASINS, "--out", out]
        identity, key = out / "parts" / "identity.json", "compiled"
    thresholds = {"compiled": 1.0, "eager": 1e18}
    with monkeypatch.context() as patch:
        patch.setattr(when_compiled, "PAYS_FROM", thresholds[begun])
        stopped_at(patch, owner, name, 1)
        assert cli(*words).code == 130
    assert bool(json.loads(identity.read_text()).get(key)) == (begun == "compiled")
    compiled.clear()
    other = "eager" if begun == "compiled" else "compiled"
    monkeypatch.setattr(when_compiled, "PAYS_FROM", thresholds[other])
    refused = cli(*words, "--resume", "--compile", {"compiled": "never", "eager": "always"}[begun])
    assert refused.code == 2 and key in refused.err
    compiled.clear()
    done = cli(*words, "--resume")
    assert done.code == 0, done.err
    assert bool(compiled) == (begun == "compiled")
    file = out / "summary.json" if command == "basins" else out.with_suffix(".json")
    written = json.loads(file.read_text())
    recorded = written if command == "basins" else written["identity"]
    assert bool(recorded[key]) == (begun == "compiled")
    if command == "search":
        compiled.clear()
        again = cli(*words, "--resume")  # complete: nothing is left to compile for
        assert again.code == 0 and not compiled and "compiling" not in again.err
