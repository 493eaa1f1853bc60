"""experiments/causal.py and what it runs: parts are commands that exist, each done once."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import causal
import children
import plotly.graph_objects as go
import pytest
from option_world import commands
from plotly.io import to_html

from trm_interp.cli.app import COMMANDS


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of every command that would have run; one of a `broken` folder fails."""
    words: list[list[str]] = []

    def finished(command: list[str], log: Path) -> tuple[int, float]:
        words.append(command)
        return int("broken" in command), 2.0

    monkeypatch.setattr(causal, "finished", finished)
    return words


def part(name: str, folder: Path, scale: float = 1.0, ckpt: str = "trm") -> bool:
    return causal.run_part(name, ckpt, folder / name, scale, [])


def test_every_part_is_a_command_that_exists(ran: list[list[str]], tmp_path: Path):
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands()
    }
    resumable = {row.name for row in COMMANDS if "resume" in row.config.__dataclass_fields__}
    assert all(part(name, tmp_path) for name in causal.PARTS)
    assert len(ran) == len(causal.PARTS)
    for (command, *words), name in zip(ran, causal.PARTS, strict=True):
        assert {word for word in words if word.startswith("--")} <= options[command], name
        assert words[words.index("--out") + 1] == str(tmp_path / name)
        assert len({"--resume", "--overwrite"} & set(words)) == 1  # both begin where nothing is
        assert (command in resumable) == ("--resume" in words), name  # not only as a shard
        assert not {"CKPT", "AT/states", "AT/sae"} & set(words)
    circuits = next(words for words in ran if words[0] == "circuits")
    assert circuits[1:3] == [str(tmp_path / "sae"), str(tmp_path / "states")]


def test_a_part_that_is_done_is_not_run_again(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert part("spread", tmp_path) and part("spread", tmp_path) and len(ran) == 1
    assert not part("spread", tmp_path, scale=0.5) and len(ran) == 1
    assert "choose another --out" in capsys.readouterr().out
    for _ in range(2):
        assert not part("used", tmp_path, ckpt="broken")
    assert len(ran) == 3 and part("used", tmp_path)


def test_no_part_is_begun_after_one_that_was_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(causal, "STOPPED", threading.Event())
    monkeypatch.setattr(causal, "finished", lambda words, log: (130, 1.0))
    args = SimpleNamespace(out=tmp_path, scale=1.0, more="", ship=None)
    assert causal.run_subject("maze10", ["spread", "used"], args) == [
        "maze10 spread",
        "maze10 used",
    ]
    assert (tmp_path / "maze10" / "seconds.csv").read_text() == "spread,1.0,130\n"


def test_a_command_is_timed_and_keeps_its_words(tmp_path: Path):
    code, took = causal.finished(["no-such-command"], tmp_path / "log")
    assert code == 2 and took > 0 and "no-such-command" in (tmp_path / "log").read_text()


def test_what_ends_the_script_ends_its_commands(tmp_path: Path):
    """SIGTERM reaches it alone: a command that it runs would go on."""
    long = tmp_path / "long"
    long.write_text(
        "#!/bin/sh\ntrap 'echo ended; exit' INT\necho begun\nwhile :; do sleep 0.1; done"
    )
    long.chmod(0o755)
    code = (
        "import pathlib, sys, children; children.end_together(); sys.executable = './long'; "
        "children.finished([], pathlib.Path('log'))"
    )
    own = {"PYTHONPATH": str(Path(children.__file__).parent)}
    script = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | own)
    log = tmp_path / "log"

    def says(word: str) -> bool:
        for _ in range(1000):
            if log.exists() and word in log.read_text():
                return True
            time.sleep(0.02)
        return False

    assert says("begun")
    script.terminate()
    assert says("ended") and script.wait(20) != 0


def test_figures_that_ship_are_those_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figure = go.Figure(go.Scatter(x=[1, 2], y=["a, b", "]}"]), {"title": {"text": "</i> (x)"}})
    page = tmp_path / "out/trace/sealed.html"
    page.parent.mkdir(parents=True)
    page.write_text(to_html(figure, include_plotlyjs=False))
    drawn: list[dict[str, Any]] = []

    def draw(of: str, kind: str, **size: int) -> bytes:
        drawn.append(json.loads(of))
        return kind.encode()

    monkeypatch.setattr(causal, "draw", draw)
    causal.ship(tmp_path / "out", tmp_path / "to")
    assert (tmp_path / "to/trace/sealed.png").read_text() == "png" and len(drawn) == 1
    assert drawn[0]["data"] == json.loads(figure.to_json())["data"]
    assert drawn[0]["layout"]["title"] == {"text": "</i> (x)"}


def test_the_estimate_by_hand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(causal, "BY_ITSELF", 10.0)
    model = causal.Model("trm", a_step=100.0, pairs=0.5)
    # 50 ends of 192 x 50 / 24 = 400 puzzles: 400 x 16 + 50 x 2000 steps of 0.1 s
    assert causal.seconds("robustness", model, 50 / 24) == pytest.approx(10 + 640 + 10_000)
    assert causal.seconds("sae", model, 1.0) == 10 + 20
    few = causal.seconds("trace", model._replace(pairs=0), 1.0)  # one pair at least, of 16
    assert few == pytest.approx(10 + 0.1 * (192 * 128 + 2 * 152 * 18))
    each = [causal.seconds("trace", causal.SUBJECTS[one], 1.0) for one in ("sudoku6", "sudoku9")]
    text = causal.in_all(["sudoku6", "sudoku9"], ["trace"], 1.0, workers=2)
    assert text.startswith(f"about {sum(each) / 60:.0f} minutes of one core, {max(each) / 60:.0f} ")


def test_all_subjects_take_under_an_hour_on_two_cores():
    text = causal.in_all(list(causal.SUBJECTS), list(causal.PARTS), causal.SCALE, workers=2)
    assert int(text.split(", ")[1].split()[0]) < 55


def test_numbers_follow_the_scale(ran: list[list[str]], tmp_path: Path):
    assert part("trace", tmp_path, scale=0.01)
    words = ran[0]
    numbers = [words[words.index(name) + 1] for name in ("--limit", "--pairs", "--exact")]
    assert numbers == ["2", "2", "2"]  # 1.92, 0.16 and 0.48


def test_what_ships_replaces_what_was_there_of_a_part(tmp_path: Path):
    out, to = tmp_path / "out", tmp_path / "to"
    for file, size in (("trace/trace.csv", 10), ("trace/huge.csv", causal.SMALL + 1)):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text("x" * size)
    (out / "used").mkdir()
    for file in (
        *("trace/huge.csv", "spread/old.csv", "trace-all-cells/kept.csv"),
        "used-sae/replaced.csv",  # used has it all
    ):
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        (to / file).write_text("of an earlier run")
    causal.ship(out, to)
    names = sorted(str(file.relative_to(to)) for file in to.rglob("*.csv"))
    assert names == ["spread/old.csv", "trace-all-cells/kept.csv", "trace/trace.csv"]
