"""Folders of results: nothing foreign is removed, nothing replaced untold, damage is seen."""

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from trm_interp.figures.style import styled
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.outputs import MARKER, mark
from trm_interp.runtime.records import Record
from trm_interp.studies.results import StudyResult, results_of
from trm_interp.studies.settings import CONFIGS, BasinsConfig, OutcomesConfig

Cli = Callable[..., Any]
NAMES = ("outcomes", "plane-*")
TABLE = pd.DataFrame({"a": [1]})


def write(out: Path, *tables: str, command: str = "outcomes", overwrite: bool = False) -> None:
    with results_of(command, OutcomesConfig(out=out, overwrite=overwrite), NAMES) as results:
        results.write({}, {name: TABLE for name in tables or ("outcomes",)})
        results.finish(StudyResult())


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_what_a_summary_says_was_written_is_not_believed(tmp_path: Path):
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.mkdir()
    for folder in (victim, out):
        folder.mkdir(exist_ok=True)
        for kind in (".csv", ".html", ".png", ".pdf"):
            (folder / f"paper{kind}").write_text("mine")
    written = ["../victim/paper", str(victim / "paper"), "paper"]
    (out / "summary.json").write_text(json.dumps({"written": written}))
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is not empty and has no marker"):
            write(out, overwrite=overwrite)
    mark(out, "outcomes")
    write(out, overwrite=True)
    assert len(names(victim)) == 4
    assert names(out) >= {"paper.csv", "paper.html", "paper.png", "paper.pdf", "outcomes.csv"}


def test_results_are_replaced_when_told_and_not_mixed(tmp_path: Path):
    write(tmp_path, "outcomes", "plane-3")
    (tmp_path / "notes.csv").write_text("mine")
    with pytest.raises(UserError, match="exists: use --overwrite to replace it, or choose another"):
        write(tmp_path, "outcomes")
    assert "plane-3.csv" in names(tmp_path)
    write(tmp_path, "outcomes", overwrite=True)
    assert names(tmp_path) == {MARKER, "notes.csv", "outcomes.csv", "summary.json", "index.html"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_results_of_another_command_stay(tmp_path: Path, overwrite: bool):
    write(tmp_path)
    before = names(tmp_path)
    with pytest.raises(UserError, match="was written by `outcomes`, so `losses` leaves it alone"):
        write(tmp_path, command="losses", overwrite=overwrite)
    assert names(tmp_path) == before


def test_a_result_that_the_command_does_not_know_is_a_mistake(tmp_path: Path):
    with pytest.raises(ValueError, match="extra is none of the results outcomes, plane-"):
        write(tmp_path / "out", "extra")


def test_a_page_goes_with_its_numbers(tmp_path: Path):
    def draw(overwrite: bool) -> None:
        config = OutcomesConfig(out=tmp_path, overwrite=overwrite)
        with results_of("outcomes", config, NAMES) as results:
            if not overwrite:
                results.write({"plane-1": (go.Figure(), TABLE)}, {})
            results.finish(StudyResult())

    draw(False)
    assert {"plane-1.html", "plane-1.csv"} < names(tmp_path)
    draw(True)
    assert names(tmp_path) == {MARKER, "summary.json", "index.html"}


@pytest.mark.parametrize("alone", [False, True])
def test_the_page_of_a_folder_names_files_with_a_sentence_and_the_command(
    tmp_path: Path, alone: bool
):
    out = tmp_path / "a <b>"
    config = OutcomesConfig(out=out, limit=7, overwrite=True, self_contained=alone)
    with results_of("outcomes", config, NAMES) as results:
        figure = styled(go.Figure(), "t", caption="What is shown, of 3 puzzles.")
        results.write({"plane-1": (figure, TABLE)}, {"outcomes": TABLE})
        results.finish(StudyResult())
    page = (out / "index.html").read_text()
    flag = " --self-contained" if alone else ""
    command = f"trm-interp outcomes --out &#x27;{tmp_path}/a &lt;b&gt;&#x27; --limit 7{flag}"
    assert f"<code>{command}</code>" in page
    assert '<a href="plane-1.html">plane-1.html</a>: What is shown, of 3 puzzles.' in page
    assert '<a href="outcomes.csv">outcomes.csv</a>: 1 row: a.' in page
    assert ("plotly.min.js" in names(out)) != alone
    drawn = (out / "plane-1.html").read_text()
    assert (len(drawn) > 1_000_000) == alone and "97vh" in drawn and figure.layout.height == 640


def test_basins_removes_no_parts_but_its_own(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    words = ["basins", "--ckpt", copier, "--puzzles", grids, "--device", "cpu", "--out", tmp_path]
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "engine.step").touch()
    for flag in ([], ["--resume"], ["--overwrite"]):
        answer = cli(*words, *flag)
        assert answer.code == 2 and "has no marker, so `basins` leaves it alone" in answer.err
    mark(tmp_path, "basins")
    answer = cli(*words, "--overwrite")
    assert answer.code == 2 and "parts was not made by `basins`" in answer.err
    assert (tmp_path / "parts" / "engine.step").exists()


def test_a_resumed_run_of_other_settings_keeps_the_results(tmp_path: Path):
    """Tables of a finished run go when new ones are there, not when the settings are refused."""

    def parts_of(seed: int, **flags: bool) -> Any:
        config = BasinsConfig(out=tmp_path, **flags)
        return results_of("basins", config, NAMES, identity={"seed": seed})

    with parts_of(0) as results:
        results.write({}, {"outcomes": TABLE})
    with (
        pytest.raises(UserError, match=r"is of another run: seed \(0 there, 1 now\)"),
        parts_of(1, resume=True),
    ):
        pass
    assert "outcomes.csv" in names(tmp_path)
    with parts_of(1, overwrite=True):
        assert names(tmp_path) == {MARKER, ".lock", "outcomes.csv", "parts"}
        assert json.loads((tmp_path / "parts" / "identity.json").read_text()) == {"seed": 1}


@pytest.mark.parametrize("error", [UserError, MemoryError, KeyboardInterrupt])
def test_overwriting_costs_nothing_until_there_is_a_table(
    tmp_path: Path, error: type[BaseException]
):
    write(tmp_path, "outcomes", "plane-3")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    config = OutcomesConfig(out=tmp_path, overwrite=True)
    with pytest.raises(error), results_of("outcomes", config, NAMES):
        raise error
    assert {file: file.read_bytes() for file in before} == before
    with pytest.raises(error), results_of("outcomes", config, NAMES) as results:
        results.write({}, {"outcomes": pd.DataFrame()})
        raise error
    assert names(tmp_path) - {".lock"} == {MARKER, "outcomes.csv"}


def test_a_second_process_is_refused(tmp_path: Path):
    with (
        results_of("outcomes", OutcomesConfig(out=tmp_path), NAMES),
        pytest.raises(UserError, match="is being written by another process"),
    ):
        write(tmp_path, overwrite=True)


def records_in(kind: Any) -> list[type[Record]]:
    """The records that a field's type speaks of."""
    cls = getattr(kind, "__origin__", kind)
    own = [cls] if inspect.isclass(cls) and issubclass(cls, Record) else []
    return own + [one for inner in getattr(kind, "__args__", ()) for one in records_in(inner)]


@pytest.mark.parametrize("name", CONFIGS)
def test_all_that_a_result_holds_is_frozen_and_described(name: str):
    kinds: list[Any] = [import_module(f"trm_interp.studies.{name}").Result]
    for kind in kinds:  # grows by the records inside
        assert kind.__dataclass_params__.frozen
        assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("), kind
        inner = [one for field in fields(kind) for one in records_in(field.type)]
        kinds += [one for one in inner if one not in kinds]
    assert len(kinds) > 1 or name == "trajectories"
