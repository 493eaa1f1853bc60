"""One machinery for outputs: identity, parts, interruption, one writer, honest time left."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trm_interp.runtime.progress
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.file_run import FileRun
from trm_interp.runtime.files import write_text
from trm_interp.runtime.outputs import maker, mark, own_json, own_table
from trm_interp.runtime.progress import Meter, progress
from trm_interp.runtime.runs import Interrupted, Run
from trm_interp.runtime.signals import how_to_resume

NAMES = ("*.csv", "summary.json", "parts/")
SHAPES = {"a": (2,)}


def opened(out: Path, identity: dict[str, Any] | None = None, **options: Any) -> Run:
    names = {"identity": identity or {"seed": 0}, "identity_file": "parts/identity.json"}
    return Run(out, "basins", NAMES, **names, **options)


def ones() -> dict[str, np.ndarray]:
    return {"a": np.ones(2)}


def fails() -> dict[str, np.ndarray]:
    raise AssertionError("it is there")


def test_parts_of_a_stopped_run_are_read_by_the_resumed_one(tmp_path: Path):
    out = tmp_path / "out"
    with (
        pytest.raises(Interrupted, match="run the same command with --resume"),
        opened(out) as run,
    ):
        assert not run.begun
        run.part("puzzle/1", SHAPES, ones)
        raise KeyboardInterrupt
    with (
        pytest.raises(UserError, match="exists: use --resume to continue or --overwrite"),
        opened(out),
    ):
        pass
    with opened(out, resume=True) as run:
        assert run.begun
        assert run.part("puzzle/1", SHAPES, fails)["a"].tolist() == [1, 1]
        run.finish({"n": np.int64(1), "share": np.nan})
    assert '"n": 1' in (out / "summary.json").read_text()
    assert maker(out) == maker(out / "parts") == "basins"


def test_the_fields_of_another_identity_are_named(tmp_path: Path):
    with opened(tmp_path, {"seed": 0, "model": {"width": 8}, "sites": ("z_L",)}):
        pass
    before = (tmp_path / "parts" / "identity.json").read_bytes()
    other = {"seed": 0, "model": {"width": 16}, "sites": ["z_L"]}
    with (
        pytest.raises(UserError, match=r"is of another run: model.width \(8 there, 16 now\): give"),
        opened(tmp_path, other, resume=True),
    ):
        pass
    assert (tmp_path / "parts" / "identity.json").read_bytes() == before
    newer = {"seed": 0, "model": {"width": 8}, "sites": ["z_L"], "late": 3}
    with opened(tmp_path, newer, resume=True, older={"late": 3}) as run:
        assert run.begun


@pytest.mark.parametrize("clear", [True, False])
def test_overwriting_starts_anew_with_other_settings(tmp_path: Path, clear: bool):
    with opened(tmp_path) as run:
        run.part("1", SHAPES, ones)
        run.write_text("a.csv", "a")
    (tmp_path / "notes.txt").write_text("mine")
    with opened(tmp_path, {"seed": 1}, overwrite=True, clears_at_once=clear) as run:
        assert (tmp_path / "a.csv").exists() != clear
        assert run.part("1", SHAPES, lambda: {"a": np.zeros(2)})["a"].tolist() == [0, 0]
    assert (tmp_path / "notes.txt").exists()


def test_an_identity_beside_its_parts_in_the_folder_itself(tmp_path: Path):
    options: dict[str, Any] = {"identity_file": "identity.json", "resume": True}
    names = ("identity.json", "*.npz")
    for identity, reused in ((0, False), (0, True)):
        with Run(tmp_path, "table2", names, identity={"seed": identity}, **options) as run:
            run.part("plain", None, fails if reused else lambda: {"x": np.array(["a"])})
    with (
        pytest.raises(UserError, match=r"seed \(0 there, 1 now\)"),
        Run(tmp_path, "table2", names, identity={"seed": 1}, **options),
    ):
        pass


def test_a_folder_of_parts_that_the_command_did_not_make_stays(tmp_path: Path):
    mark(tmp_path, "basins")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "engine.step").touch()
    both: list[dict[str, Any]] = [{"resume": True}, {"overwrite": True}]
    for flags in both:
        with (
            pytest.raises(UserError, match="parts was not made by `basins`"),
            opened(tmp_path, **flags),
        ):
            pass
    assert (tmp_path / "parts" / "engine.step").exists()


CHILD = """
import sys, time
from pathlib import Path
from trm_interp.runtime.{module} import {kind} as Kind
with Kind(Path(sys.argv[1]), "search", {names}):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["Run", "FileRun"])
def test_a_second_process_is_refused_with_one_line(tmp_path: Path, kind: str):
    out = tmp_path / "out"
    names = '["*.csv"]' if kind == "Run" else "lambda file: None"
    module = "runs" if kind == "Run" else "file_run"
    code = CHILD.format(module=module, kind=kind, names=names)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        run = (
            Run(out, "search", ["*.csv"], resume=True)
            if kind == "Run"
            else FileRun(out, "search", lambda file: None)
        )
        with pytest.raises(UserError, match="is being written by another process") as error, run:
            pass
        assert "\n" not in str(error.value)
        child.terminate()  # an interrupt for it, so that the folder without results goes
        assert child.wait(30) != 0
    finally:
        child.kill()
        child.wait()
    assert not list(tmp_path.iterdir())


def test_a_termination_is_an_interrupt_that_says_how_to_resume(tmp_path: Path):
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(Interrupted, match="--resume instead of --overwrite"),
        Run(tmp_path, "basins", NAMES, overwrite=True) as run,
    ):
        run.write_text("a.csv", "whole")
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "a.csv").read_text() == "whole"
    with pytest.raises(Interrupted) as error, Run(tmp_path / "b", "eval", NAMES, resumable=False):
        raise KeyboardInterrupt
    assert (
        str(error.value) == ""
        and how_to_resume() == "to continue, run the same command with --resume"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_loop_that_asks_ends_at_a_whole_step(tmp_path: Path, number: signal.Signals):
    steps = 0
    with Run(tmp_path, "train", NAMES, stops_at_steps=True) as run:
        while not run.should_stop():
            steps += 1
            if steps == 3:
                os.kill(os.getpid(), number)
        run.write_text("state.csv", str(steps))
    assert (tmp_path / "state.csv").read_text() == "3"
    with (
        pytest.raises(Interrupted),
        Run(tmp_path, "train", NAMES, resume=True, stops_at_steps=True),
    ):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)


def test_threads_run_without_signals(tmp_path: Path):
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with Run(tmp_path, "train", NAMES, stops_at_steps=True) as run:
                run.write_text("a.csv", str(run.should_stop()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors and (tmp_path / "a.csv").read_text() == "False"


class Team:
    """Two processes of a torchrun, one after the other; the second gets what the first sent."""

    def __init__(self, rank: int, sent: list[Any]) -> None:
        self.rank, self.sent = rank, sent

    def objects(self, mine: Any) -> list[Any]:
        if self.rank == 0:
            self.sent.append(mine)
        return [self.sent[-1], None]


def test_of_a_team_the_first_process_writes_and_speaks(tmp_path: Path):
    sent: list[Any] = []
    notices: list[str] = []
    done: list[int] = []
    watching: dict[str, Any] = {"tell": notices.append, "progress": lambda n, of: done.append(n)}
    with Run(tmp_path, "train", NAMES, team=Team(0, sent), **watching) as first:
        with Run(tmp_path, "train", NAMES, team=Team(1, sent), **watching) as other:
            other.write_text("a.csv", "other")
            other.tell("other")
            other.advance(1, 2)
            assert not (tmp_path / "a.csv").exists()
        first.write_text("a.csv", "first")
        first.tell("first")
        first.advance(2, 2)
    assert ((tmp_path / "a.csv").read_text(), notices, done) == ("first", ["first"], [2])
    for rank in (0, 1):
        with (
            pytest.raises(UserError, match="exists: use --resume"),
            Run(tmp_path, "train", NAMES, team=Team(rank, sent)),
        ):
            pass


# single files


def test_a_file_is_replaced_when_told_and_only_if_it_is_the_commands(tmp_path: Path):
    out, own = tmp_path / "new" / "a.csv", own_table(["step", "exact"])
    with FileRun(out, "eval", own) as run:
        run.write_text("step,exact\n0,1\n")
    with pytest.raises(UserError, match="exists: use --overwrite"), FileRun(out, "eval", own):
        pass
    with FileRun(out, "eval", own, overwrite=True) as run:
        run.write_text("step,exact\n0,0\n")
    assert out.read_text().endswith("0,0\n") and [out] == list(out.parent.iterdir())
    write_text(out, "mine\n")
    with (
        pytest.raises(UserError, match="is no table of this command"),
        FileRun(out, "eval", own, overwrite=True),
    ):
        pass
    with (
        pytest.raises(UserError, match="is what --puzzles reads"),
        FileRun(out, "eval", own, overwrite=True, inputs={"puzzles": out}),
    ):
        pass
    assert out.read_text() == "mine\n"
    with pytest.raises(UserError, match="is a folder"), FileRun(tmp_path, "eval", own):
        pass


def test_a_file_that_never_came_to_be_leaves_no_folders(tmp_path: Path):
    own = own_table(["step"])
    with (
        pytest.raises(UserError, match="no such"),
        FileRun(tmp_path / "a" / "b" / "c", "eval", own),
    ):
        raise UserError("no such checkpoint")
    assert not list(tmp_path.iterdir())


def test_json_of_a_schema(tmp_path: Path):
    out = tmp_path / "a.json"
    own = own_json(dict[str, int], "steer")  # type: ignore[arg-type]
    with FileRun(out, "steer", own) as run:
        run.write_json({"a": np.int64(1)})
    with FileRun(out, "steer", own, overwrite=True):
        pass
    write_text(out, '["b"]')
    with (
        pytest.raises(UserError, match="no result of `steer`"),
        FileRun(out, "steer", own, overwrite=True),
    ):
        pass


# time left


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_is_that_of_this_process(tmp_path: Path):
    """500 of 1000 are there already: at 1 s each the rest takes 500 s, not 1 s."""
    clock = Clock()
    meter = Meter(lambda shown: None, clock)
    assert meter.seconds_left() is None
    meter(500, 1000)
    assert meter.seconds_left() is None
    clock.now = 10
    meter(510, 1000)
    assert meter.seconds_left() == 490


def test_time_left_where_later_units_cost_more():
    """100 of 1000 units are a hundredth of the work: 18 s for two hundredths more, 97 are left."""
    clock = Clock()
    meter = Meter(lambda shown: None, clock)
    meter.share = 0.01
    meter(100, 1000)
    clock.now = 18
    meter.share = 0.03
    meter(300, 1000)
    assert meter.seconds_left() == pytest.approx(18 * 97 / 2)
    meter.start("another stage")
    meter(0, 10)
    clock.now = 20
    meter(1, 10)
    assert meter.seconds_left() == 18


def test_parts_that_are_read_count_for_no_rate(tmp_path: Path):
    """Two parts of 10 s each, of which the first is read at once: 10 s are left, then none."""
    clock = Clock()
    meter = Meter(lambda shown: None, clock)
    with opened(tmp_path / "out") as run:
        run.part("1", SHAPES, ones)
    with opened(tmp_path / "out", resume=True, progress=meter) as run:
        run.advance(0, 3)
        run.part("1", SHAPES, fails)
        clock.now = 0.1
        run.advance(1, 3)
        assert meter.seconds_left() is None
        run.part("2", SHAPES, ones)
        clock.now = 10.1
        run.advance(2, 3)
    assert meter.seconds_left() == pytest.approx(10.1)


def test_the_rate_is_the_recent_one():
    """A slow start (a step that compiles) is forgotten: 100 s for the first unit, then 1 s each."""
    clock = Clock()
    meter = Meter(lambda shown: None, clock)
    meter(0, 1000)
    for done in range(1, 201):
        clock.now = 100.0 + done
        meter(done, 1000)
    assert meter.seconds_left() == pytest.approx(800)


def test_a_slow_start_is_forgotten_after_three_units():
    """70 s until the first of 1000 units is compiled and done, then 0.03 s each in threes a second:
    not 70 000 s are left at the third second, but 33 a hundred units."""
    clock = Clock()
    meter = Meter(lambda shown: None, clock)
    meter(0, 1000)
    for second in range(3):
        clock.now = 70.0 + second
        meter(1 + 30 * second, 1000)
    assert meter.seconds_left() == pytest.approx((1000 - 61) / 30)


def test_where_there_is_no_terminal_lines_come_often_for_a_minute_then_seldom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = Clock()
    monkeypatch.setattr(trm_interp.runtime.progress, "SECONDS_BEFORE_LINES", 3.0)
    monkeypatch.setattr(trm_interp.runtime.progress.time, "monotonic", lambda: clock.now)
    with progress("work", "units") as meter:
        for seconds in (0, 2, 3, 6, 7, 35, 38, 67, 69, 96, 97):
            clock.now = float(seconds)
            meter(seconds, 100)
    told = [line.partition(" units")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == [f"work: {n}/100" for n in (3, 7, 35, 67, 97)]


def test_a_note_stands_behind_the_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    meter = Meter(lambda shown: print(shown.done, shown.note))
    with Run(tmp_path, "train", NAMES, progress=meter) as run:
        run.note("loss 0.5")
        run.advance(1, 2)
    assert capsys.readouterr().out == "1 loss 0.5\n"
