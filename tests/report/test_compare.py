"""`compare`: studies of several subjects, each once; effects and verdicts over all of them."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from inline_machine import InlineMachine, in_this_process

import trm_interp.report.plan
import trm_interp.report.sweep.engine
from trm_interp.figures.index import INDEX
from trm_interp.report.claims import CLAIMS
from trm_interp.report.compare import Compared, fault, lines, run
from trm_interp.report.compare_subjects import Asked, open_subjects, training_step
from trm_interp.report.compare_tables import EFFECTS, FACTS, OVER
from trm_interp.report.effects import VERDICTS
from trm_interp.report.settings import CompareConfig
from trm_interp.report.sweep.engine import AGAIN
from trm_interp.report.sweep.worker import Task
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import write_json

Cli = Callable[..., Any]
QUICK = "T1,F2,F4,W1"  # outcomes, losses and settling


class Here(InlineMachine):
    """Command lines run in this process; `ran` has their first words.

    At the `dies`-th it kills the process, as SIGKILL from outside would.
    """

    def __init__(self, cli: Cli, dies: int = 0) -> None:
        super().__init__(self._run)
        self.cli, self.dies, self.ran = cli, dies, []

    def _run(self, task: Task) -> None:
        self.ran.append((Path(task.log).parent.name, task.command[3]))
        if len(self.ran) == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        in_this_process(self.cli)(task)


@pytest.fixture
def here(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Here:
    machine = Here(cli)
    monkeypatch.setattr(trm_interp.report.sweep.engine, "LocalMachine", machine)
    return machine


@pytest.fixture(scope="module")
def two(halves: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One checkpoint, and its twin by another training run, on the same puzzles."""
    ckpt, puzzles = halves
    folder = tmp_path_factory.mktemp("two")
    for seed, name in enumerate(("first", "second")):
        shutil.copytree(ckpt, folder / name)
        train = {"seed": seed, "data_sha256": "0", "steps_done": 9}
        write_json(folder / name / "card.json", {"train": train, "validation": {"step": 5 + seed}})
    return [f"{folder / name}@{puzzles}" for name in ("first", "second")]


def config(subjects: list[str], out: Path, **settings: Any) -> CompareConfig:
    small: dict[str, Any] = {"scale": 0.01, "device": "cpu", "workers": 1, "only": QUICK}
    return CompareConfig(subjects=subjects, out=out, **(small | settings))


def compared(subjects: list[str], out: Path, **settings: Any) -> tuple[Compared, list[str]]:
    told: list[str] = []
    result = run(config(subjects, out, **settings), told.append)
    assert result.failed == [], told
    return result, told


@pytest.fixture(scope="module")
def done(
    cli: Cli, two: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Compared, list[tuple[str, str]]]:
    """Both subjects with QUICK: the folder, the result and what was run."""
    out, machine = tmp_path_factory.mktemp("done") / "out", Here(cli)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trm_interp.report.sweep.engine, "LocalMachine", machine)
        result, _ = compared(two, out)
    return out, result, machine.ran


def test_two_subjects_from_end_to_end(done: tuple[Path, Compared, list[tuple[str, str]]]):
    out, result, ran = done
    names = ["first@halves", "second@halves"]
    assert ran == [(name, c) for name in names for c in ("outcomes", "losses", "settling")]

    effects = pd.read_csv(out / "effects.csv")
    assert list(effects.columns) == [*EFFECTS, *FACTS, "verdict", "command"]
    assert set(effects["claim"]) <= set(QUICK.split(",")) and len(effects)
    one = effects[effects["subject"] == names[1]].iloc[0]
    assert (one["task"], one["architecture"], one["seed"]) == ("sudoku4", "trm", 1)
    assert one["training_step"] == 6
    assert re.match(r"trm-interp outcomes .*--ckpt \S*second ", one["command"])
    # the same weights on the same puzzles: every effect is the same, and so is their mean
    same = effects.pivot(index=["claim", "effect"], columns="subject", values="estimate")
    assert np.allclose(same[names[0]], same[names[1]], equal_nan=True)
    over = pd.read_csv(out / "over.csv").set_index(["claim", "effect"])
    assert set(over["n"]) == {2} and set(over["subjects"]) == {" ".join(names)}
    assert np.allclose(over["estimate"], same[names[0]].dropna().loc[over.index])

    verdicts = pd.read_csv(out / "verdicts.csv")
    assert list(verdicts.columns) == ["id", "claim", "published", *names, OVER]
    assert list(verdicts["id"]) == [one.id for one in CLAIMS if one.id in QUICK.split(",")]
    assert set(verdicts[names[0]]) <= set(VERDICTS)
    measured = [row for row in verdicts.to_dict("records") if row[names[0]] != "not measured"]
    assert measured and all(row[OVER].endswith("(over 2 checkpoints)") for row in measured)
    summary = json.loads((out / "compare.json").read_text())
    assert [one["seed"] for one in summary["subjects"]] == [0, 1]
    assert result.verdicts.shape == verdicts.shape
    for page in (out / INDEX, out / names[0] / INDEX):  # subjects as they were given, and the size
        made_by = re.search(r"<code>(trm-interp compare .*)</code>", page.read_text())
        assert made_by is not None and "second@" in made_by[1] and "--scale 0.01" in made_by[1]


def test_the_page_stands_alone_and_needs_no_colour(done: tuple[Path, Compared, Any]):
    out, *_ = done
    page = (out / "verdicts.html").read_text()
    assert not re.search(r'src=|<link|href="(?!first|second)', page)
    words = re.findall(r'<span class="sign"[^>]*>(.)</span><b>([a-z ]+)', page)
    signs = {word.removesuffix(" (over ").strip(): sign for sign, word in words}
    assert signs.keys() == set(VERDICTS) and len(set(signs.values())) == len(VERDICTS)
    assert page.count("trm-interp outcomes ") == 2
    for link in re.findall(r'href="([^"]*)"', page):
        assert (out / link).is_dir(), link


def test_the_table_of_latex_has_a_row_a_claim(done: tuple[Path, Compared, Any]):
    out, *_ = done
    lines = (out / "verdicts.tex").read_text().splitlines()
    body = lines[lines.index("\\midrule") + 1 : lines.index("\\bottomrule")]
    assert len(body) == 4 and all(line.count(" & ") == 4 for line in body)
    assert all(re.search(r"(?<!\\)[%_#]", line) is None for line in lines[1:])
    assert lines[3].startswith(" & claim & first@halves & second@halves & over checkpoints")


def test_what_is_done_is_not_done_again(here: Here, two: list[str], tmp_path: Path):
    compared(two[:1], tmp_path, only="T1")
    assert here.ran == [("first@halves", "outcomes")]
    _, told = compared(two, tmp_path, only="T1,W1")
    rest = [("first@halves", "settling"), ("second@halves", "outcomes")]
    assert here.ran[1:] == [*rest, ("second@halves", "settling")]
    assert "first@halves: table1: done before" in told
    # claims whose results are there from before stay in the tables
    here.ran.clear()
    result, _ = compared(two, tmp_path, only="W1")
    assert here.ran == [] and list(result.verdicts["id"]) == ["T1", "F2", "W1"]
    assert result.verdicts.set_index("id").loc["T1", OVER] != "not measured"


def test_another_spelling_of_a_path_is_no_other_run(
    here: Here, two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compared(two[:1], tmp_path / "out", only="T1")
    here.ran.clear()
    monkeypatch.chdir(tmp_path)
    ckpt, puzzles = two[0].split("@")
    other = f"first@halves={os.path.relpath(ckpt)}@{os.path.relpath(puzzles)}"
    compared([other], Path("out"), only="T1")
    assert here.ran == []


def test_killed_in_the_middle_and_run_again(
    here: Here, two: list[str], tmp_path: Path, done: tuple[Path, Compared, Any]
):
    """SIGKILL at the second study of the second subject."""
    out, (whole, *_) = tmp_path / "out", done
    child = os.fork()
    if child == 0:
        here.dies = 5
        run(config(two, out), lambda line: None)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (out / "effects.csv").exists()
    compared(two, out)
    assert here.ran == [("second@halves", "losses"), ("second@halves", "settling")]
    for name in ("verdicts.csv", "over.csv", "verdicts.tex"):
        assert (out / name).read_text() == (whole / name).read_text()


def test_progress_counts_all_subjects_once(here: Here, two: list[str], tmp_path: Path):
    seen: list[tuple[int, int]] = []
    progress = lambda done, of: seen.append((done, of))  # noqa: E731
    run(config(two, tmp_path, only="T1"), lambda line: None, progress)
    (total,) = {of for _, of in seen}
    done = [count for count, _ in seen]
    assert done == sorted(done) and done[0] == 0 and done[-1] == total
    seen.clear()
    run(config(two, tmp_path, only="T1"), lambda line: None, progress)
    assert set(seen) == {(total, total)}


def test_a_study_that_fails_is_told_and_leaves_the_others(
    here: Here, two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = here.cli
    here.cli = lambda *words: plain("nonsense") if words[0] == "losses" else plain(*words)
    result = run(config(two, tmp_path, only="T1,F4"), lambda line: None)
    assert result.failed == ["first@halves: fig4", "second@halves: fig4"]
    assert result.unmeasured == [
        f"F4 was not measured on {name}: needs fig4" for name in ("first@halves", "second@halves")
    ]
    assert result.unmeasured[0] in lines(result)
    verdicts = pd.read_csv(tmp_path / "verdicts.csv")
    assert dict(zip(verdicts["id"], verdicts[OVER], strict=True))["F4"] == "not measured"
    assert "T1" in set(pd.read_csv(tmp_path / "effects.csv")["claim"])
    here.ran.clear()
    again = run(config(two, tmp_path, only="T1,F4"), lambda line: None)
    assert again.failed == result.failed and here.ran == []  # not before it is asked for
    assert fault(again) == f"{', '.join(again.failed)} failed; {AGAIN}"
    here.cli = plain
    settings = config(two[:1], tmp_path, only="T1,F4", retry_failed=True)
    assert run(settings, lambda line: None).failed == []
    assert here.ran == [("first@halves", "losses")]
    assert "--retry-failed" not in (tmp_path / "index.html").read_text()


def test_a_subject_has_a_factor_of_its_own(here: Here, two: list[str], tmp_path: Path):
    compared(two, tmp_path, only="T1", scales="second@halves=0.02")
    words = {
        path.name: json.loads((path / "table1-asked.json").read_text())
        for path in sorted(tmp_path.glob("*halves"))
    }
    limits = [re.findall(r"--limit[\", ]+(\d+)", json.dumps(one))[0] for one in words.values()]
    assert limits == ["16", "20"]
    for scales, problem in (
        ("third=1", "scales: no subject 'third'; there are first@halves, second@halves"),
        ("first@halves=0", "scales: 'first@halves=0' is not NAME=FACTOR"),
        ("first@halves", "scales: 'first@halves' is not NAME=FACTOR"),
        ("first@halves=inf", "scales: 'first@halves=inf' is not NAME=FACTOR"),
    ):
        with pytest.raises(UserError, match=problem):
            run(config(two, tmp_path, scales=scales))


def test_stopped_it_says_how_to_go_on(
    two: list[str], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trm_interp.report.plan, "run_jobs", stop)
    answer = cli("compare", *two, "--out", str(tmp_path), "--only", "T1", "--device", "cpu")
    assert answer.code == 130
    assert answer.err.splitlines()[-1] == "stopped; to continue, run the same command again"


# models


def test_one_checkpoint_alone_and_snapshots_of_one_run(here: Here, two: list[str], tmp_path: Path):
    result, _ = compared(two[:1], tmp_path / "one", only="T1")
    assert list(result.verdicts[OVER]) == ["on this model only"]
    ckpt, puzzles = (Path(part) for part in two[0].split("@"))
    late = tmp_path / "late"
    shutil.copytree(ckpt, late)
    card = json.loads((late / "card.json").read_text())
    card["step"] = card["train"]["steps_done"] = 20
    write_json(late / "card.json", card)
    result, _ = compared([two[0], f"{late}@{puzzles}"], tmp_path / "run", only="T1")
    assert list(result.verdicts[OVER]) == ["on this model only"]
    steps = pd.read_csv(tmp_path / "run" / "effects.csv")["training_step"]
    assert set(steps) == {5, 20}


def test_the_step_of_a_card():
    assert training_step({"step": 3, "validation": {"step": 4}}) == 3
    assert training_step({"validation": {"step": 4}, "train": {"steps_done": 9}}) == 4
    assert training_step({"train": {"steps_done": 9}}) == 9
    assert training_step({"train": "lost"}) is None


# what is asked


def test_names_of_subjects():
    def named(text: str) -> tuple[str, str, Path | None]:
        one = Asked.parsed(text)
        return one.name, one.checkpoint, one.puzzles

    assert named("runs/mine") == ("mine", "runs/mine", None)
    assert named("runs/mine/kept/step-000250/")[0] == "step-000250"
    assert named("a/b@data/nine/test.txt") == ("b@nine", "a/b", Path("data/nine/test.txt"))
    assert named("a/b@hard.csv") == ("b@hard", "a/b", Path("hard.csv"))
    assert named("late=a/b") == ("late", "a/b", None)
    assert named("n=a/x=1") == ("n", "a/x=1", None)


def test_a_path_that_exists_is_one_whatever_signs_it_has(tmp_path: Path):
    odd = tmp_path / "a@b"
    odd.mkdir()
    assert Asked.parsed(str(odd)).checkpoint == str(odd)


@pytest.mark.parametrize(
    ("subjects", "more", "problem"),
    [
        (["nowhere"], {}, "nowhere: no such checkpoint"),
        (["{first}", "{first}"], {}, "are both called first: give one of them a name"),
        (["{ckpt}"], {}, "no test puzzles of this size ship; give {ckpt}@PUZZLES"),
        (["{first}@nowhere.txt"], {}, "nowhere.txt: no such file"),
        (["@x.txt"], {}, "'@x.txt' is no subject: give CHECKPOINT or CHECKPOINT@PUZZLES"),
        (["{first}"], {"--only": "F2,F9"}, "no claim 'F9'; there are T1"),
        (["..=x"], {}, "cannot name a folder: give NAME=CHECKPOINT"),
    ],
)
def test_what_is_wrong_is_one_line(
    cli: Cli,
    two: list[str],
    tmp_path: Path,
    subjects: list[str],
    more: dict[str, str],
    problem: str,
):
    names = {"first": two[0].split("@")[0], "ckpt": two[1].split("@")[0]}
    words = [text.format(**names) for text in subjects]
    options = [word for pair in more.items() for word in pair]
    out = tmp_path / "out"
    answer = cli("compare", *words, *options, "--out", out)
    assert (answer.code, answer.out) == (2, "") and not out.exists()
    line = answer.err.splitlines()[-1]
    assert problem.format(**names) in line and "--ckpt" not in line and "--puzzles" not in line


def test_the_plan_says_what_is_left_out_and_does_nothing(cli: Cli, two: list[str], tmp_path: Path):
    answer = cli("compare", *two, "--out", tmp_path / "out", "--plan")
    assert answer.code == 0 and not (tmp_path / "out").exists()
    assert "first@halves: settling" in answer.out and "core minutes" in answer.out
    assert "F1, F1b, S1, S1b (--sae)" in answer.out and "T2b (--search)" in answer.out
    more = cli("compare", *two, "--out", tmp_path / "out", "--plan", "--sae", "--search")
    assert "left out" not in more.out
    assert "fig1-sae" in more.out and "table2" in more.out


def test_a_folder_of_something_else_is_left_alone(here: Here, two: list[str], tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="has no marker, so `compare` leaves it alone"):
        run(config(two, tmp_path), lambda line: None)
    assert here.ran == []


def test_puzzles_of_another_size_are_told(two: list[str], tmp_path: Path):
    six = tmp_path / "six.txt"
    six.write_text("123456456123231564564231312645645312\n")
    with pytest.raises(UserError, match="6x6 Sudoku puzzles, but") as caught:
        open_subjects(config([f"{two[0].split('@')[0]}@{six}"], tmp_path / "out"), [], print)
    assert "--" not in str(caught.value)
