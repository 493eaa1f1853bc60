"""`sweep`: tables of jobs, what is wrong with them, and what they run."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from inline_machine import InlineMachine, in_this_process

import trm_interp.report.sweep.run
from trm_interp.cli.sweep import read_line
from trm_interp.report.sweep.files import identity_of
from trm_interp.report.sweep.run import _machine
from trm_interp.report.sweep.settings import SweepConfig
from trm_interp.report.sweep.table import Table, read_table
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shards import RECORD

Cli = Callable[..., Any]
PAGE = Path(__file__).parents[2] / "docs" / "guides" / "cluster.md"


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Table]:
    def read(text: str) -> Table:
        (tmp_path / "t.yaml").write_text(text)
        return read_table(tmp_path / "t.yaml", read_line, tmp_path / "out")

    return read


def words(table: Table, name: str) -> str:
    (job,) = (job for job in table.jobs if job.name == name)
    return " ".join(job.words).replace(str(table.out), "OUT")


ROWS = """
jobs:
  compare:
    needs: train
    run: compare {train}@p.txt
  train:
    matrix: {seed: [0, 1], size: {small: --d-model 8, large: --d-model 16 --n-heads 2}}
    run: train --train T --val V --preset tiny --seed {seed} {size}
  table:
    needs: train
    matrix: {seed: [0, 1], size: {small: ""}}
    run: [search, --ckpt, "{train}", --limit, 1]
    slurm: {gpus: 1}
  note: {needs: [table, train], matrix: {seed: [1], size: {small: ""}}, run: 'info {table}'}
"""


def test_rows_are_multiplied_and_find_what_they_need(read: Callable[[str], Table]):
    table = read(ROWS)
    names = [job.name for job in table.jobs]
    assert names == [
        *("train-0-small", "train-0-large", "train-1-small", "train-1-large"),
        *("compare", "table-0-small", "table-1-small", "note-1-small"),
    ]
    after = {job.name: job.after for job in table.jobs}
    assert after["compare"] == tuple(names[:4]) and after["table-1-small"] == (names[2],)
    assert after["note-1-small"] == ("table-1-small", "train-1-small")
    assert words(table, "train-1-large") == (
        "train --train T --val V --preset tiny --seed 1 --d-model 16 --n-heads 2 "
        "--out OUT/train-1-large"
    )
    each = " ".join(f"OUT/{name}@p.txt" for name in names[:4])
    assert words(table, "compare") == f"compare {each} --out OUT/compare"
    assert words(table, "note-1-small") == "info OUT/table-1-small/table-1-small.csv"
    jobs = {job.name: job for job in table.jobs}
    search = jobs["table-0-small"]
    assert search.done == "table-0-small.json" and search.resources == {"gpus": 1}
    assert jobs["train-0-small"].flags == ("--resume", "--overwrite")
    assert jobs["note-1-small"].made == (table.out / "note-1-small-log.txt").absolute()
    assert jobs["compare"].basis and jobs["compare"].done == "compare.json"


ONE = "jobs: {a: {run: 'hooks --steps 1'}}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("jobs: [", "t.yaml is no YAML: line "),
        ("jobs: {a: {run: info}, a: {run: info}}", "is no YAML: line 1: 'a' is there twice"),
        ("- a", "must be names with values, got ['a']"),
        ("job: {}", "unknown 'job'; there are out, executor"),
        ("out: x", "jobs: must be names with values, got nothing"),
        ("jobs: {}", "jobs: there are none"),
        ("jobs: {1: {run: x}}", "1 is no name: letters, digits, - and _"),
        ("jobs: {a: {}}", "a: run: the command line is missing"),
        ("jobs: {a: {run: hooks, need: b}}", "a: unknown 'need'; there are run, matrix, needs"),
        ("jobs: {a: {run: 'hooks \"'}}", "a: run: No closing quotation"),
        ("jobs: {a: {run: nonsense --x}}", "a: run: no command 'nonsense'; see trm-interp --help"),
        ("jobs: {a: {run: hooks --stps 1}}", "a: run: no option --stps; did you mean --steps?"),
        ("jobs: {a: {run: hooks --steps x}}", "a: run: --steps must be a whole number, got 'x'"),
        ("jobs: {a: {run: basins --starts 0}}", "a: run: --starts must be at least"),
        ("jobs: {a: {run: train --train T}}", "a: run: --val is missing"),
        ("jobs: {a: {run: hooks --help}}", "a: run: hooks --help runs nothing"),
        ("jobs: {a: {run: explore}}", "a: run: explore cannot be a job"),
        ("jobs: {a: {run: basins --out b}}", "a: run: --out is the table's to give: leave it out"),
        ("jobs: {a: {run: 'hooks --steps {n}'}}", "a: run: no value {n}; there are none"),
        ("jobs: {a: {run: hooks, needs: b}}", "a: needs 'b'; there are a"),
        ("jobs: {a: {run: hooks, needs: [1]}}", "a: needs: must be names of jobs, got [1]"),
        (
            "jobs: {a: {run: hooks, needs: b}, b: {run: info x, needs: c}, "
            "c: {run: hooks, needs: b}}",
            "jobs need each other: b needs c needs b",
        ),
        (
            "jobs: {a: {run: hooks, matrix: {s: 1}}}",
            "a: matrix: s: must be a list of values, got 1",
        ),
        ("jobs: {a: {run: hooks, matrix: {s: []}}}", "a: matrix: s: there are no values"),
        ("jobs: {a: {run: hooks, matrix: {s: [1, 1]}}}", "a: matrix: s: a value is there twice"),
        (
            "jobs: {a: {run: hooks, matrix: {s: [1]}}, "
            "b: {run: hooks, needs: a, matrix: {s: [2]}}}",
            "b-2: needs 'a', but none has its values",
        ),
        (
            "jobs: {a: {run: hooks, matrix: {s: [b/c, b c]}}}",
            "a and a both make a job a-b_c: give one of the rows another name",
        ),
        (f"{ONE}\nexecutor: lsf", "executor: 'lsf' is not one of local, slurm"),
        (f"{ONE}\nworkers: 0", "workers: must be 1 to 1024, got 0"),
        (f"{ONE}\nslurm: {{nodes: 4}}", "slurm: unknown 'nodes'; there are partition"),
        (f"{ONE}\nslurm: {{time: long}}", "slurm: time: must be 1 to 1000000, got 'long'"),
        (
            "jobs: {a: {run: hooks, shards: 2}}",
            "a: shards: hooks has no --shard",
        ),
    ],
)
def test_what_is_wrong_is_one_line(read: Callable[[str], Table], text: str, problem: str):
    with pytest.raises(UserError) as caught:
        read(text)
    line = str(caught.value)
    assert problem in line and "t.yaml" in line and "\n" not in line, line


@pytest.fixture
def small(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """A table of real commands, which run in this process: two that need nothing, one that needs
    each, one that fails, its child, and one in parts. The names of the jobs that have run."""
    on = f"--ckpt {copier} --puzzles {grids}"
    numbers = {"n": [2, 3]}
    rows = {
        "store": {"matrix": numbers, "run": f"collect {on} --steps 1 --limit {{n}}"},
        "look": {"needs": "store", "matrix": numbers, "run": "info {store}"},
        "bad": {"run": f"eval --ckpt {tmp_path}/nowhere --puzzles {grids} --steps 1"},
        "child": {"needs": ["bad"], "run": "info {bad}"},
        "parts": {"shards": 2, "run": f"eval {on} --steps 1 --limit 4"},
    }
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump({"workers": 3, "jobs": rows}, sort_keys=False))
    ran: list[str] = []
    here = in_this_process(cli)
    machine = InlineMachine(lambda task: (ran.append(task.name), here(task))[1])
    monkeypatch.setattr(trm_interp.report.sweep.run, "_machine", lambda *args: machine)
    return ran


def test_a_dry_run_tells_what_is_known_and_does_nothing(cli: Cli, small: list[str]):
    answer = cli("sweep", "small.yaml", "--dry-run")
    assert answer.code == 0 and not Path("runs").exists() and small == []
    assert "store-2: to do, time unknown, 0.0 MB (its plan)" in answer.out
    assert "look-3: to do, time unknown, size unknown, needs store-3" in answer.out
    assert "parts: to do, time unknown, size unknown, needs parts-shard-1, parts-shard-2" in (
        answer.out
    )
    assert "to do: 9 jobs of 9; time unknown and 0.0 MB (2 known, 7 unknown)" in answer.out


def test_a_sweep_runs_once_and_tells_what_it_took(
    cli: Cli, copier: Path, grids: Path, small: list[str]
):
    answer = cli("sweep", "small.yaml")
    assert answer.code == 2
    last = answer.err.splitlines()[-1]
    assert last == "error: bad, child failed; the same command with --retry-failed tries again"
    out = Path("runs/small")
    jobs = pd.read_csv(out / "jobs.csv").set_index("job")
    assert set(jobs.index[jobs["state"] == "failed"]) == {"bad", "child"} and len(jobs) == 9
    assert jobs.loc["child", "problem"] == "needs bad, which failed"
    assert "no such checkpoint" in (out / "bad-log.txt").read_text()
    page = (out / "index.html").read_text()  # of a job without results its log
    assert "<h2>Jobs</h2>" in page and "<h2>Figures</h2>" not in page
    for name in set(jobs.index) - {"child"}:
        assert f'href="{name}/' in page or f'href="{name}-log.txt"' in page
    assert "puzzle 3, int16" in (out / "look-3-log.txt").read_text()
    assert jobs.loc["store-3", "bytes"] > jobs.loc["store-2", "bytes"] > 0
    first = ["store-2", "store-3", "look-2", "look-3", "bad"]
    assert small == [*first, "parts-shard-1", "parts-shard-2", "parts"]
    # shards merge to what one process prints
    whole = cli("eval", "--ckpt", copier, "--puzzles", grids, "--steps", 1, "--limit", 4)
    assert whole.code == 0 and whole.out in (out / "parts-log.txt").read_text()

    small.clear()
    assert cli("sweep", "small.yaml").code == 2 and small == []
    answer = cli("sweep", "small.yaml", "--dry-run", "--only", "bad,store")
    assert "store-2: done" in answer.out and "bad: failed before" in answer.out
    assert cli("sweep", "small.yaml", "--retry-failed").code == 2 and small == ["bad"]
    # what has been measured is what is expected of the other jobs of a row
    (out / "store-2-asked.json").unlink()
    answer = cli("sweep", "small.yaml", "--dry-run", "--only", "store-2")
    assert re.search(r"store-2: to do, about \d.*MB \(as 1 of store took\)", answer.out)
    # a file that jobs depend on is another one now
    small.clear()
    then = grids.read_text()
    try:
        grids.write_text(then + "\n")
        answer = cli("sweep", "small.yaml", "--only", "look-3")
    finally:
        grids.write_text(then)
    assert answer.code == 0 and small == ["store-3", "look-3"], answer.err
    states = pd.read_csv(out / "jobs.csv").set_index("job")["state"]  # of the whole table
    assert len(states) == 9 and states["look-3"] == "done" and states["bad"] == "to do"


def test_shards_are_jobs_and_so_is_their_merge(read: Callable[[str], Table]):
    table = read("jobs: {t: {run: basins --starts 90, shards: 3}, u: {needs: t, run: 'info {t}'}}")
    names = ["t-shard-1", "t-shard-2", "t-shard-3"]
    assert [job.name for job in table.jobs] == [*names, "t", "u"]
    jobs = {job.name: job for job in table.jobs}
    assert words(table, "t-shard-2") == "basins --starts 90 --shard 2/3 --out OUT/t-shard-2"
    assert words(table, "t") == f"merge {' '.join(f'OUT/{name}' for name in names)} --out OUT/t"
    assert jobs["t"].after == tuple(names) and jobs["u"].after == ("t",)
    assert jobs["t-shard-1"].done == RECORD and jobs["t"].done == "summary.json"
    assert words(table, "u") == "info OUT/t"


def test_a_merge_ends_and_goes_on_as_the_command_itself(read: Callable[[str], Table]):
    runs = {"s": "search --k 2", "o": "outcomes", "b": "basins", "c": "collect", "e": "eval"}
    whole = read(yaml.safe_dump({"jobs": {name: {"run": run} for name, run in runs.items()}}))
    rows = {name: {"run": run, "shards": 2} for name, run in runs.items()}
    merged = {job.name: job for job in read(yaml.safe_dump({"jobs": rows})).jobs}
    assert merged["s"].done == "s.json" and merged["o"].flags == ("--overwrite",)
    for job in whole.jobs:
        own = merged[job.name]
        assert (own.done, own.flags, own.made) == (job.done, job.flags, job.made), job.name


def test_files_are_told_by_what_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "w").write_text("1")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    line = [
        "compare",
        f"{tmp_path}/ckpt@{tmp_path}/a.txt",
        f"--x={tmp_path}/a.txt",
        f"{out}/mine.txt",
    ]
    first = identity_of(line, out)
    assert first.count("a.txt") == 1 and "ckpt" in first and "mine" not in first
    (tmp_path / "ckpt" / "w").write_text("2")
    assert identity_of(line, out) != first
    assert identity_of(["lens", "--seed", "1"], out) == ""
    assert identity_of(["info", str(tmp_path)], out) == ""  # what is around changes with the jobs
    monkeypatch.chdir(tmp_path)
    assert "ckpt" in identity_of(["basins", "--ckpt", "ckpt"], out)  # a folder needs no separator
    assert identity_of(["ckpt"], out) == ""  # the command's name is none


def test_a_job_is_new_where_what_it_needs_was_made_of_other_files(
    read: Callable[[str], Table], tmp_path: Path
):
    """Also where that was run again before, and the sweep killed between the two."""
    (tmp_path / "p.txt").write_text("a")
    text = f"jobs: {{a: {{run: 'info {tmp_path}/p.txt'}}, b: {{needs: a, run: 'info {{a}}'}}}}"
    before = {job.name: job for job in read(text).jobs}
    (tmp_path / "p.txt").write_text("b")
    after = {job.name: job for job in read(text).jobs}
    assert before["b"].words == after["b"].words and before["b"].files == after["b"].files
    assert before["b"].basis != after["b"].basis


def test_gpus_are_divided_among_the_jobs_at_a_time(
    read: Callable[[str], Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table = read(f"{ONE}\nworkers: 3\ngpus: 2\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine: Any = _machine(table, SweepConfig(table=Path("t.yaml")))(tmp_path / "hidden")
    job = table.jobs[0]
    assert machine.room(1) == 2
    assert [machine._devices(slot, job) for slot in range(3)] == ["0,1", "2,3", "4,5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,6,5,4,3,2")
    assert machine._devices(1, job) == "5,4"
    fewer = replace(job, resources={"gpus": 1})
    assert machine._devices(1, fewer) == "5"  # never one of another slot
    machine.gpus = None
    assert machine._devices(1, job) == machine._devices(1, fewer) == "7,6,5,4,3,2"
    machine.stop([])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # a job would be left without
    with pytest.raises(UserError, match="3 workers with 2 GPUs each need 6, but .* is 0,1: lower"):
        _machine(table, SweepConfig(table=Path("t.yaml")))(tmp_path / "hidden")


def test_the_tables_of_the_documentation_can_run(tmp_path: Path):
    tables = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
    assert len(tables) >= 2
    for text in tables:
        (tmp_path / "t.yaml").write_text(text)
        assert read_table(tmp_path / "t.yaml", read_line, tmp_path / "out").jobs
