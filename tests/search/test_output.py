"""The files of a search: only its own are removed, and what is damaged is no result."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.outputs import mark
from trm_interp.search.output import COUNTS, Identity, SearchWork
from trm_interp.search.results import SearchSummary, curves_of
from trm_interp.search.run import gain_line
from trm_interp.search.selection import SHARES, share_table
from trm_interp.search.settings import SearchConfig, SearchRun
from trm_interp.tasks.base import PuzzleSet
from trm_interp.tasks.sudoku.task import Sudoku

Cli = Callable[..., Any]
NOW = Identity(
    checkpoint_sha256="c0ffee",
    data_sha256={"p.txt": "feed"},
    search={"k": 2, "steps": 1, "seed": 0},
    batch_size=1,
    device="cpu",
    dtype="float32",
    limit=None,
    skip_bad=False,
    compile=False,
)
ROW: dict[str, Any] = {"line": 1, "step": 0, "answer": "1234" * 4} | dict.fromkeys(COUNTS, 1)
TABLE = pd.DataFrame([ROW | {"q": 0.5, "steps_run": 2} | dict.fromkeys(SHARES, True)])
SUMMARY = SearchSummary(
    ckpt="c",
    checkpoint_sha256="c0ffee",
    puzzles="p",
    n=1,
    config=SearchConfig(target="z_H", **NOW.search),
    **curves_of(share_table(TABLE)),
    evaluations=14,
    evaluations_of_the_full_grid=14,  # 2 trajectories x 1 step x 7 evaluations
)
GRID = np.array([[2, 3, 4, 5] * 4], np.uint8)  # the rows need not obey rules here
PUZZLE = PuzzleSet(Sudoku(4), GRID, GRID, np.array([1]), "p", {})


def test_the_gain_is_paired_by_puzzle():
    """Of 50 puzzles best Q solves 48, the plain run 38: 36 both, 12 only the first, 2 only the
    second. Newcombe (1998), table II, method 10: 0.20 [0.0569, 0.3404]."""
    curves = {
        name: replace(SUMMARY.best_q, share=[share])
        for name, share in (("best_q", 0.96), ("baseline", 0.76))
    }
    paired = replace(replace(SUMMARY, **curves), n=50, gained=[12])
    (gain,) = paired.gain
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=1e-4)
    line = gain_line(paired)
    assert line == "best Q less baseline, of the same puzzles: +20.0% [+5.7%, +34.0%] at step 1"
    earlier = replace(paired, gained=None)
    assert earlier.gain[0].value == pytest.approx(0.2) and earlier.gain[0].low is None
    assert gain_line(earlier).endswith(": +20.0% at step 1")


def run_of(out: Path, **more: Any) -> SearchRun:
    return SearchRun(ckpt="ckpt", puzzles=Path("p.txt"), out=out, **more)


def work_on(out: Path, identity: Identity = NOW, **flags: bool) -> SearchWork:
    return SearchWork.of(run_of(out, **flags), identity, tell=lambda line: None)


def write_block(work: SearchWork) -> None:
    work.block("block-00000000.csv", PUZZLE, 1, lambda: TABLE)


def search(out: Path, identity: Identity = NOW, killed: bool = False, **flags: bool) -> Any:
    """A search without its work, and what was complete; killed: before its table."""
    with work_on(out, identity, **flags) as work:
        if not (work.finished or killed):
            (work.blocks / "block-00000000.csv").touch()
            work.finish(TABLE, SUMMARY)
        return work.finished


def refused(out: Path, match: str, **flags: bool) -> None:
    before = {f: f.read_bytes() for f in sorted(out.parent.rglob("*")) if f.is_file()}
    with pytest.raises(UserError, match=match):
        search(out, **flags)
    assert {f: f.read_bytes() for f in sorted(out.parent.rglob("*")) if f.is_file()} == before


FLAGS = [{}, {"overwrite": True}, {"resume": True}]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{}", "\xff", "[" * 10**5, '{"thesis": 1}', '{"summary": {}}'),
        json.dumps({"summary": SUMMARY.to_json(), "identity": {}}),
        json.dumps({"summary": SUMMARY.to_json() | {"steps": 10**9}, "identity": vars(NOW)}),
        json.dumps({"summary": SUMMARY.to_json() | {"vote": "all"}, "identity": vars(NOW)}),
    ],
)
def test_what_is_beside_and_no_summary_stays(tmp_path: Path, text: str, flags: dict[str, bool]):
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    refused(tmp_path / "x.csv", "x.json", **flags)


@pytest.mark.parametrize("flags", FLAGS)
def test_a_table_that_no_search_made_stays(tmp_path: Path, flags: dict[str, bool]):
    (tmp_path / "x.csv").write_text("mine")
    refused(tmp_path / "x.csv", "x.csv has no summary of a search next to it", **flags)


@pytest.mark.parametrize("flags", FLAGS)
def test_a_folder_that_no_search_made_stays(tmp_path: Path, flags: dict[str, bool]):
    (tmp_path / "x.csv.parts").mkdir()
    (tmp_path / "x.csv.parts" / "block-1.csv").touch()
    refused(tmp_path / "x.csv", "x.csv.parts .*, so `search` leaves it alone", **flags)
    mark(tmp_path / "x.csv.parts", "basins")
    refused(tmp_path / "x.csv", "x.csv.parts .*, so `search` leaves it alone", **flags)


def test_earlier_work_needs_a_flag(tmp_path: Path):
    out = tmp_path / "x.csv"
    assert search(out, killed=True) is None
    refused(out, "x.csv.parts exists: use --resume to continue or --overwrite to start over")
    assert search(out, resume=True) is None
    assert {file.name for file in tmp_path.iterdir()} == {"x.csv", "x.json"}
    refused(out, "x.csv exists: use --resume")
    assert search(out, resume=True).summary == SUMMARY
    with pytest.raises(UserError, match=r"of another run: search.seed \(0 there, 1 now\)"):
        search(out, replace(NOW, search=NOW.search | {"seed": 1}), resume=True)
    assert search(out, overwrite=True, killed=True) is None
    assert {file.name for file in tmp_path.iterdir()} == {"x.csv", "x.json", "x.csv.parts"}


OTHER = replace(NOW, search=NOW.search | {"seed": 1})


def test_overwriting_costs_nothing_before_the_first_block(tmp_path: Path):
    out = tmp_path / "x.csv"
    search(out)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    search(out, OTHER, killed=True, overwrite=True)
    assert {file: file.read_bytes() for file in before} == before
    assert search(out, resume=True).summary == SUMMARY  # the earlier one, which is whole
    search(out, OTHER, killed=True, overwrite=True)
    assert search(out, OTHER, resume=True) is None  # goes on
    assert json.loads((tmp_path / "x.json").read_text())["identity"]["search"]["seed"] == 1


@pytest.mark.parametrize("identity", [NOW, OTHER])
def test_overwriting_that_was_killed_after_a_block_goes_on(tmp_path: Path, identity: Identity):
    out = tmp_path / "x.csv"
    search(out)
    with work_on(out, identity, overwrite=True) as work:
        write_block(work)
    assert {file.name for file in tmp_path.iterdir()} == {"x.csv", "x.csv.parts"}
    with work_on(out, identity, resume=True) as work:
        assert work.finished is None and (work.blocks / "block-00000000.csv").exists()
        assert work.begun


def test_links_are_written_through(tmp_path: Path):
    out, real = tmp_path / "x.csv", tmp_path / "real"
    search(real / "y.csv")
    for kind in ("csv", "json"):
        (tmp_path / f"x.{kind}").symlink_to(real / f"y.{kind}")
    (real / "y.csv").write_text("old")
    with work_on(out, OTHER, overwrite=True) as work:
        write_block(work)
        assert not (real / "y.json").exists()
        work.finish(TABLE, SUMMARY)
    assert out.is_symlink() and (tmp_path / "x.json").is_symlink()
    assert (real / "y.csv").read_text() == TABLE.to_csv(index=False)
    assert json.loads((real / "y.json").read_text())["identity"]["search"]["seed"] == 1


def test_a_table_of_the_same_name_keeps_its_summary(tmp_path: Path):
    search(tmp_path / "x.csv")
    refused(tmp_path / "x.parquet", "x.json describes x.csv: choose another name", overwrite=True)


@pytest.mark.parametrize("cut", [0, 5])
def test_a_table_that_was_cut_is_not_complete(tmp_path: Path, cut: int):
    out = tmp_path / "x.csv"
    search(out)
    out.write_bytes(out.read_bytes()[:cut])
    refused(out, "x.csv is not the table that .*x.json describes: use --overwrite", resume=True)
    sidecar = json.loads((tmp_path / "x.json").read_text())
    del sidecar["table_sha256"], sidecar["table"]  # as older ones have it
    (tmp_path / "x.json").write_text(json.dumps(sidecar))
    refused(out, "x.csv is not the table", resume=True)


@pytest.mark.parametrize("text", ["", "[]", "null", "\xff"])
def test_a_damaged_identity_is_one_line(tmp_path: Path, text: str):
    out = tmp_path / "x.csv"
    search(out, killed=True)
    (tmp_path / "x.csv.parts" / "identity.json").write_text(text, encoding="latin-1")
    refused(out, "identity.json.*: start over with --overwrite", resume=True)
    (tmp_path / "x.csv.parts" / "identity.json").write_text('{"search": {}}')
    refused(out, "x.csv.parts is of another run: .* or --overwrite to start over", resume=True)
    assert search(out, overwrite=True) is None


def test_blocks_of_nobody_knows_which_settings_are_searched_again(tmp_path: Path):
    with work_on(tmp_path / "x.csv") as work:
        write_block(work)
        (work.blocks / "identity.json").unlink()
    with work_on(tmp_path / "x.csv", OTHER, resume=True) as work:
        assert not work.begun and not (work.blocks / "block-00000000.csv").exists()


@pytest.mark.parametrize(
    "lie",
    [{"vote": [0.25]}, {"n": 2}, {"seed": 3}, {"k": 4}, {"evaluations": 2}, {"best_q_low": [0]}],
)
def test_a_summary_of_other_numbers_is_refused(tmp_path: Path, lie: dict[str, Any]):
    out = tmp_path / "x.csv"
    search(out)
    sidecar = json.loads((tmp_path / "x.json").read_text())
    sidecar["summary"] |= lie
    (tmp_path / "x.json").write_text(json.dumps(sidecar))
    refused(out, "x.csv is not the table that .*x.json describes: use --overwrite", resume=True)


def test_files_that_were_renamed_together_are_complete(tmp_path: Path):
    search(tmp_path / "x.csv")
    for kind in ("csv", "json"):
        (tmp_path / f"x.{kind}").rename(tmp_path / f"y.{kind}")
    assert search(tmp_path / "y.csv", resume=True).summary == SUMMARY


def test_an_output_is_no_input_and_has_one_writer(tmp_path: Path):
    for name in ("x.csv", "x.json"):
        run = SearchRun(ckpt="c", puzzles=tmp_path / name, out=tmp_path / "x.csv", overwrite=True)
        with pytest.raises(UserError, match="is what --puzzles reads"), SearchWork.of(run, NOW):
            pass
    with work_on(tmp_path / "x.csv"):
        refused(tmp_path / "x.parquet", "is being written by another process")


def test_blocks_from_before_the_markers_are_gone_on_with(tmp_path: Path):
    search(tmp_path / "x.csv", killed=True)
    (tmp_path / "x.csv.parts" / ".trm-interp.json").unlink()
    refused(tmp_path / "x.csv", "has no marker, so `search` leaves it alone", overwrite=True)
    refused(tmp_path / "x.csv", "x.csv.parts exists: use --resume to continue, or delete it$")
    assert search(tmp_path / "x.csv", resume=True) is None
    assert (tmp_path / "x.csv").exists()


def test_blocks_that_are_damaged_are_searched_again(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Five blocks of one or two puzzles, each damaged in its own way."""
    import trm_interp.search.run as module

    monkeypatch.setattr(module, "block_puzzles", lambda *size: 2)
    words = ["search", "--ckpt", copier, "--puzzles", grids, "--k", 2, "--steps", 2]
    words += ["--limit", 9, "--device", "cpu"]
    assert cli(*words, "--out", tmp_path / "whole.csv").code == 0

    with monkeypatch.context() as patched:
        stopped = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
        patched.setattr(SearchWork, "finish", stopped)
        assert cli(*words, "--out", tmp_path / "x.csv").code == 130
    empty, cut, binary, other, order = sorted((tmp_path / "x.csv.parts").glob("block-*"))
    empty.write_text("")
    cut.write_bytes(cut.read_bytes()[:-20])
    binary.write_bytes(bytes(range(256)) * 20)
    other.write_text("a,b\n1,2\n1,2\n1,2\n1,2\n")
    rows = order.read_text().splitlines()
    order.write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    answer = cli(*words, "--out", tmp_path / "x.csv", "--resume")
    assert answer.code == 0, answer.err
    assert answer.err.count("is damaged: searching its puzzles again") == 5
    assert (tmp_path / "x.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_checkpoint_is_not_destroyed(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    before = {file.name: file.read_bytes() for file in copier.iterdir()}
    words = ["search", "--ckpt", copier, "--puzzles", grids, "--out", copier / "config.csv"]
    for flag in ([], ["--overwrite"], ["--resume"]):
        answer = cli(*words, *flag)
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert "config.json" in answer.err and "choose another --out" in answer.err
    assert {file.name: file.read_bytes() for file in copier.iterdir()} == before
