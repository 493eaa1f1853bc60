"""Names of files that a terminal, a table or a progress bar could take for something else."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from trm_interp.cli.options import show
from trm_interp.runtime.errors import UserError, one_line, printable
from trm_interp.runtime.progress import progress

HOSTILE = "a[/b] [red]:smile: {x}"


def test_titles_and_cells_of_tables_are_no_markup(capsys: pytest.CaptureFixture[str]):
    table = Table(title=f"{HOSTILE} on 3 puzzles", caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    show(table)
    assert capsys.readouterr().out.count(HOSTILE) == 4


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_labels_and_notes_as_they_are(monkeypatch: pytest.MonkeyPatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERM", "xterm")
    with progress(HOSTILE, HOSTILE, lambda: HOSTILE) as update:
        update(1, 2)
    assert screen.getvalue().count("a[/b] [red]:smile:") >= 3


def test_eval_in_a_folder_that_looks_like_markup(
    cli: Callable[..., Any], copier: Path, grids: Path, tmp_path: Path
):
    folder = tmp_path / "a[" / "b]"  # in full: a[/b]
    shutil.copytree(copier, folder)
    file = folder / "p.txt"
    shutil.copy(grids, file)
    both = ["--ckpt", folder, "--puzzles", file, "--limit", 2, "--steps", 1]
    for words in (["eval", *both], ["search", *both, "--k", 1]):
        answer = cli(*words)
        assert answer.code == 0, answer.err
        assert "a[/b] on" in "".join(line.strip() for line in answer.out.splitlines())


@pytest.mark.parametrize("name", ["x\ny", "x\x1b[2Jy", "x\ty", "x\udcffy", "9" * 400])
def test_names_in_messages_stay_on_one_line(cli: Callable[..., Any], tmp_path: Path, name: str):
    answer = cli("eval", "--ckpt", tmp_path / name)
    assert answer.code == 2 and answer.err.count("\n") == 1 and answer.err[:-1].isprintable()
    assert len(answer.err.replace(str(tmp_path), "")) < 400
    assert one_line(FileNotFoundError(2, "No such file or directory", name)).isprintable()


def test_printable():
    assert printable("p\u00fczzles 日本") == "p\u00fczzles 日本"
    assert printable("x\r\n\x07") == r"x\r\n\x07"
    assert one_line(UserError("first\nsecond  third")) == "first; second third"


def test_standard_output_takes_any_file_name(copier: Path, tmp_path: Path):
    """A name that is not in its encoding is printed escaped, not a traceback."""
    folder = tmp_path / "日"
    shutil.copytree(copier, folder)
    done = subprocess.run(
        [sys.executable, "-m", "trm_interp", "info", folder],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert r"\u65e5" in done.stdout
