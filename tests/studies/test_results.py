"""Folders of results: nothing foreign is removed, nothing replaced untold, damage is seen."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.outputs import MARKER, mark
from trm_interp.runtime.parts import IDENTITY, Parts
from trm_interp.studies.config import BasinsConfig, OutcomesConfig
from trm_interp.studies.results import StudyResult, results_of

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
    with pytest.raises(UserError, match="exists: use --overwrite to replace its results"):
        write(tmp_path, "outcomes")
    assert "plane-3.csv" in names(tmp_path)
    write(tmp_path, "outcomes", overwrite=True)
    assert names(tmp_path) == {MARKER, "notes.csv", "outcomes.csv", "summary.json"}


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
    assert names(tmp_path) == {MARKER, "summary.json"}


# parts

SHAPES = {"a": (2, 3), "b": (2,)}
IDENTITY_NOW = {"seed": 0, "radius": np.float32(0.5)}


def compute() -> dict[str, np.ndarray]:
    return {"a": np.arange(6).reshape(2, 3), "b": np.array([True, False])}


def archive(**arrays: Any) -> bytes:
    to = io.BytesIO()
    np.savez(to, **arrays)
    return to.getvalue()


def bomb() -> bytes:
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.npy", bytes(10**6))
    return to.getvalue()


DAMAGED = {
    "empty": b"",
    "text": b"no archive",
    "truncated": archive(**compute())[:-40],
    "flipped": archive(**compute()).replace(b"\x05", b"\x06"),
    "other arrays": archive(a=compute()["a"], c=np.zeros(2)),
    "other shapes": archive(a=np.zeros((3, 2)), b=np.zeros(2)),
    "text in arrays": archive(a=np.full((2, 3), "x"), b=np.zeros(2)),
    "objects": archive(a=np.full((2, 3), None), b=np.zeros(2)),
    "bomb": bomb(),
}


def opened(tmp_path: Path, tell: Callable[[str], None] = print, **more: Any) -> Parts:
    return Parts(tmp_path / "parts", "basins", IDENTITY_NOW | more, tell)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_part_is_computed_again(tmp_path: Path, damage: str):
    told: list[str] = []
    opened(tmp_path).get("x/1", SHAPES, compute)
    file = tmp_path / "parts" / "x" / "1.npz"
    file.write_bytes(DAMAGED[damage])
    found = opened(tmp_path, told.append).get("x/1", SHAPES, compute)
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert told == [f"{file} is damaged: computing it again"]

    def fails() -> Any:
        raise AssertionError("it is there")

    assert opened(tmp_path).get("x/1", SHAPES, fails)["b"].tolist() == [True, False]


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\xff", "3"])
def test_a_damaged_identity_is_one_line(tmp_path: Path, text: str):
    opened(tmp_path)
    (tmp_path / "parts" / IDENTITY).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=IDENTITY) as error:
        opened(tmp_path)
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_parts_of_another_question_or_of_nobody_are_left_alone(tmp_path: Path):
    opened(tmp_path)
    with pytest.raises(UserError, match="was begun with seed 0: give that"):
        opened(tmp_path, seed=1)
    (tmp_path / "foreign" / "parts").mkdir(parents=True)
    with pytest.raises(UserError, match="parts was not made by `basins`"):
        opened(tmp_path / "foreign")


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
    with results_of("basins", BasinsConfig(out=tmp_path), NAMES, ("parts",)) as results:
        Parts(tmp_path / "parts", "basins", {"seed": 0}, print)
        results.write({}, {"outcomes": TABLE})
    with (
        pytest.raises(UserError, match="begun with seed 0"),
        results_of("basins", BasinsConfig(out=tmp_path, resume=True), NAMES, ("parts",)),
    ):
        Parts(tmp_path / "parts", "basins", {"seed": 1}, print)
    assert "outcomes.csv" in names(tmp_path)
    with results_of("basins", BasinsConfig(out=tmp_path, overwrite=True), NAMES, ("parts",)):
        assert names(tmp_path) == {MARKER, ".lock", "outcomes.csv"}


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
