"""Tables and readers of the experiments, on numbers made by hand; one trial of a whole script."""

import json
import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sae_store import noise, write_store

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.outcomes import wilson
from trm_interp.runtime.errors import UserError
from trm_interp.sae.results import (
    EVERY_TICK,
    Baseline,
    DecoderCosines,
    InTheLoop,
    LoopedRun,
    SAEMeasures,
    SiteFit,
    Spliced,
    TickFit,
)
from trm_interp.sae.settings import BASELINES
from trm_interp.tasks.sudoku.canonical import canonical_forms
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.grid import from_tokens

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def script(name: str) -> dict[str, Any]:
    sys.path.insert(0, str(EXPERIMENTS))  # as where a script is run
    try:
        return runpy.run_path(str(EXPERIMENTS / f"{name}.py"))
    finally:
        sys.path.remove(str(EXPERIMENTS))


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return script("table2_tables")


def test_depth_is_read_at_powers_of_two_and_breadth_at_the_end(tables: dict[str, Any]):
    deep = np.zeros((2, 8), bool)
    deep[0, 3:] = True  # solved at its fourth step
    wide = np.array([[False, False], [False, True]])
    none = np.zeros((2, 2), bool)
    part = {
        "1x8/1/best_q": deep, "1x8/1/pass_at_k": deep,
        "4x2/1/best_q": none, "4x2/1/pass_at_k": none,
        "4x2/4/best_q": wide, "4x2/4/pass_at_k": wide,
    }  # fmt: skip
    table = tables["depth_table"](part, per_step=21)
    rows = table[["k", "steps", "evaluations", "best_q", "n"]].to_numpy().tolist()
    assert rows == [
        [1, 1, 21, 0, 2], [1, 2, 42, 0, 2], [1, 4, 84, 0.5, 2], [1, 8, 168, 0.5, 2],
        [1, 2, 42, 0, 2], [4, 2, 168, 0.5, 2],
    ]  # fmt: skip
    assert (table["best_q_low"][3], table["best_q_high"][3]) == wilson(1, 2)


def test_a_miss_is_a_wrong_choice_while_a_right_one_is_there(tables: dict[str, Any]):
    frame = pd.DataFrame({"step": 0, "pass_at_k": [1, 1, 1, 0], "best_q": [1, 0, 0, 0]})
    part = {"frame": frame.to_numpy(), "columns": np.array(list(frame))}
    (row,) = tables["misses"](part, (1,))
    assert (row["puzzles"], row["of"], row["share"]) == (2, 3, 2 / 3)


def test_differences_are_of_the_same_puzzles(tables: dict[str, Any]):
    one, other = np.ones(4, bool), np.array([1, 0, 0, 0], bool)
    paired = tables["difference"](one, other, draws=400)
    assert paired["difference"] == 0.75 and paired["verdict"] == "supported"
    assert tables["difference"](other, one, draws=400)["verdict"] == "refuted"
    assert tables["difference"](one, one, draws=400)["verdict"] == "undecided at this n"


def test_escapes_and_their_rating(tables: dict[str, Any]):
    solved = np.array([[1, 1], [1, 0], [0, 0]], bool)
    ratings = {name: np.arange(3) for name in ("clues", "waves", "tier", "guesses_all", "effort")}
    table = tables["escape_table"](np.array([4, 6, 9]), solved, ratings)
    assert table["escape"].tolist() == [1.0, 0.5, 0.0]
    assert tables["correlation"](table, "waves", draws=50)["rho"] == pytest.approx(-1.0)


def search_quickly(out: Path, *more: str) -> None:
    """A trial of table2_search.py on the default checkpoint."""
    argv, sys.argv = sys.argv, ["table2_search.py", "--quick", "--out", str(out), *more]
    try:
        script("table2_search")["main"]()
    finally:
        sys.argv = argv


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table2")
    search_quickly(out)
    return out


def test_a_trial_of_table_2_keeps_out_of_what_ships(quick: Path):
    summary = json.loads((quick / "tables" / "summary.json").read_text())
    table = pd.read_csv(quick / "tables" / "table2.csv")
    assert set(table["search"]) == {"paper", "ptrm"} and summary["sizes"]["table"] == 10
    plain = table.groupby("step")["baseline"].nunique()
    assert (plain == 1).all()  # neither noise touches the plain run
    equal = pd.read_csv(quick / "tables" / "breadth_depth.csv")
    most = equal.query("evaluations == evaluations.max()")
    assert (most["k"] * most["steps"] == 16).all() and set(most["k"]) == {1, 4}


def test_a_trial_goes_on_where_it_was_and_only_with_its_own_settings(
    quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "again"
    shutil.copytree(quick, out)
    (out / "paper.npz").write_bytes((out / "paper.npz").read_bytes()[:1000])  # as a full disk does
    (out / "depth.npz").unlink()
    capsys.readouterr()
    search_quickly(out)
    printed = capsys.readouterr().out
    computed = re.findall(r"^(\w+): \d+ s$", printed, re.M)
    assert computed == ["paper", "depth"] and "paper.npz is damaged" in printed
    for table in ("table2", "ablation", "breadth_depth", "calibration", "escape"):
        name = f"tables/{table}.csv"
        assert (out / name).read_bytes() == (quick / name).read_bytes()
    with pytest.raises(SystemExit):
        search_quickly(out, "--seed", "3")
    error = capsys.readouterr().err.strip()
    assert "is of another run: seed (0 there, 3 now)" in error and "\n" not in error


def test_claims_are_read_from_the_tables_of_the_same_checkpoint(quick: Path, tmp_path: Path):
    landscape = script("landscape")
    sha = json.loads((quick / "tables" / "summary.json").read_text())["checkpoint_sha256"]
    model = SimpleNamespace(answer="z_H")
    plan = SimpleNamespace(checkpoint=SimpleNamespace(sha256=sha, path=Path("mine"), model=model))
    results = landscape["of_search"](quick / "tables", plan)
    table = pd.read_csv(quick / "tables" / "table2.csv").query("search == 'paper'")
    assert results["table2"].best_q.share == table["best_q"].tolist()
    assert results["table2"].steps == 16 and results["table2"].n == 10
    assert results["table2"].target == "z_H"
    cut = tmp_path / "cut"
    shutil.copytree(quick / "tables", cut)
    for name, lines in (("table2.csv", 1),):
        whole = (cut / name).read_text()
        (cut / name).write_text("".join(whole.splitlines(keepends=True)[:lines]))
        with pytest.raises(UserError, match="is not whole .*: run its experiment again"):
            landscape["read"](landscape["of_search"], cut, plan)
        (cut / name).write_text(whole)
    assert landscape["read"](landscape["of_search"], cut, plan) == results
    plan.checkpoint.sha256 = "other"
    with pytest.raises(UserError, match="of another checkpoint than mine"):
        landscape["read"](landscape["of_search"], quick / "tables", plan)


def measures_by_hand() -> SAEMeasures:
    half = Estimate(value=0.5, low=0.4, high=0.6)
    looped = LoopedRun(by_step={}, exact=half, cells=half, loss=half)
    runs = {"clean": looped, "sae": looped}
    spliced = Spliced(
        ticks=1, read_at=0, runs=runs, recovered_over_zero=half, recovered_over_mean=half
    )
    cosines = dict.fromkeys(("nearest_mean", "nearest_median", "nearest_99", "twins"), 0.0)
    return SAEMeasures(
        **{"sae": "sae", "site": "z", "store_sha256": "", "checkpoint_sha256": None},
        **{"mismatch": None, "arch": "gated", "gated_variant": None},
        **{"n_puzzles": 1, "n_trained_on": 1, "n_solved": 1, "ticks": 1, "d_in": 4, "d_sae": 8},
        **{"rows": 1, "fvu": half, "l0": 1.0, "dead": 0.0, "dense": 0.0, "by_outcome": {}},
        decoder=DecoderCosines(**cosines, norm_spread=None),
        by_tick=TickFit(tick=[], fvu=[], l0=[]),
        loop=InTheLoop(mismatch=None, spliced={EVERY_TICK: spliced}),
    )


def test_an_answer_to_another_question_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """fig1_features.py, one SAE: ended while it answered a second question, then asked again."""
    fig1 = script("fig1_features")
    trained: list[int] = []
    ends = {"now": False}

    def train(config: Any, progress: Any) -> None:
        if ends["now"]:
            raise UserError("the loss is not finite")
        trained.append(config.max_steps)
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "card.json").write_text("{}")

    trainer = fig1["train_and_measure"].__globals__
    monkeypatch.setitem(trainer, "train_sae", train)
    monkeypatch.setitem(trainer, "evaluate_sae", lambda *_: measures_by_hand())
    store = write_store(tmp_path / "store", noise(2))
    args = SimpleNamespace(
        **{
            "out": tmp_path / "out",
            "expansion": 2,
            "train_steps": 30,
            "batch": 8,
            "l1": 1.0,
            "k": 2,
        },
        **{"buffer_mb": 1, "autocast": False, "held_out": 2, "seeds": [0]},
    )

    def ask(steps: int) -> Any:
        args.train_steps = steps
        return fig1["train_and_measure"](args, store, Path("ckpt"), "gated", 0)

    args.out.mkdir()
    first = ask(30)
    assert (first["fvu_high"], first["exact_spliced"], first["d_sae"]) == (0.6, 0.5, 8)
    assert ask(30) == first and trained == [30]
    ends["now"] = True
    with pytest.raises(UserError, match="not finite"):
        ask(700)
    ends["now"] = False
    ask(700)
    assert trained == [30, 700]


def plan_of(sha256: str | None) -> SimpleNamespace:
    return SimpleNamespace(checkpoint=SimpleNamespace(sha256=sha256, path=Path("mine")))


def test_tables_of_features_of_earlier_versions_are_read(tmp_path: Path):
    """What ships was measured at one site, without baselines."""
    run = EXPERIMENTS.parent / "artifacts" / "features-sudoku6"
    sha = json.loads((run / "features" / "summary.json").read_text())["checkpoint_sha256"]
    shutil.copytree(run, tmp_path / "run")
    table = pd.read_csv(run / "table.csv")
    if "control" in table:
        table = table.query("control.isna()")
    old = [name for name in table if name.split()[0] not in BASELINES and name != "control"]
    table.loc[:, old].to_csv(tmp_path / "run" / "table.csv", index=False)
    sae = script("landscape")["of_features"](tmp_path / "run", plan_of(sha))["sae"]
    assert sae.seeds == 3 and sae.baselines is None
    assert sae.exact["clean"] == pytest.approx(0.75, abs=0.02) and 0 < sae.exact["sae"] < 1


def test_codes_beside_the_sae_go_into_the_table_and_from_there_to_the_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fig1 = script("fig1_features")
    whole = measures_by_hand()
    assert whole.loop
    spliced = whole.loop.spliced[EVERY_TICK]
    quarter = Estimate(value=0.25, low=0.2, high=0.3)
    pca = Baseline(active=7, bits=56, fvu=quarter, sae_less=quarter)
    runs = spliced.runs | {"pca": replace(spliced.runs["sae"], exact=quarter)}
    loop = replace(whole.loop, spliced={EVERY_TICK: replace(spliced, runs=runs)})
    fit = SiteFit(fvu=quarter, l0=1.0)
    beside = replace(whole, baselines={"pca": pca}, bits=60.0, by_site={"a": fit}, loop=loop)
    monkeypatch.setitem(fig1["measure"].__globals__, "evaluate_sae", lambda *_: beside)
    row = fig1["measure"](None)
    assert (row["pca fvu"], row["pca less_high"], row["pca exact"]) == (0.25, 0.3, 0.25)
    assert (row["fvu a"], row["bits"], row["exact_spliced"]) == (0.25, 60.0, 0.5)
    control = row | {"control": "residuals", "fvu": 0.9, "pca fvu": 0.9}
    rows = [{"arch": "gated", "seed": 0, "control": ""} | row, {"arch": "gated"} | control]
    folder = tmp_path / "features"
    folder.mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    summary = EXPERIMENTS.parent / "artifacts" / "features-sudoku6" / "features" / "summary.json"
    shutil.copy(summary, folder / "summary.json")
    sha = json.loads(summary.read_text())["checkpoint_sha256"]
    sae = script("landscape")["of_features"](tmp_path, plan_of(sha))["sae"]
    assert sae.fvu == 0.5 and sae.baselines == {"pca": pca}  # the control is left out
    assert sae.exact == {"clean": 0.5, "sae": 0.5, "pca": 0.25}
    frame = pd.DataFrame(rows).fillna({"control": ""})
    assert "| pca beside gated | 7 | 56 | 0.250 | - | 0.500 -> 0.250 |" in fig1["_others"](
        "gated", frame[:1]
    )


def test_every_entry_of_the_log_is_in_its_index_by_topic():
    head, *entries = (EXPERIMENTS / "LOG.md").read_text().split("\n## ")
    links = re.findall(r"\[([^]]+)\]\(#([^)]+)\) (\S+)", head)
    titles = [entry.split("\n")[0] for entry in entries]
    assert sorted(f"{date} {title}" for title, _, date in links) == sorted(titles)
    for title, anchor, date in links:  # as GitHub makes anchors of headings
        kept = re.sub(r"[^\w\- ]", "", f"{date} {title}".lower())
        assert anchor == kept.replace(" ", "-"), title


def test_a_mix_has_the_base_as_it_stands_and_copies_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Each line of the second file comes twice, as other puzzles of the same kind, and solved."""
    data, out = Path(__file__).parents[1] / "artifacts" / "data" / "sudoku6", tmp_path / "mix.txt"
    head = [file.read_text().split()[:4] for file in (data / "val.txt", data / "test.txt")]
    paths = [tmp_path / "base.txt", tmp_path / "others.txt"]
    for path, lines in zip(paths, head, strict=True):
        path.write_text("\n".join(lines) + "\n")
    words = ["mix.py", *map(str, paths), "--copies", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    script("mix")["main"]()
    lines = out.read_text().split()
    assert len(lines) == len(set(lines)) == 12 and set(head[0]) < set(lines)
    assert not set(head[1]) & set(lines)
    mixed, others = load(out), load(paths[1])  # `load` refuses a wrong solution
    key = [bytes(one) for one in canonical_forms(from_tokens(mixed.inputs))]
    assert (
        sorted(
            key.count(one)
            for one in (bytes(one) for one in canonical_forms(from_tokens(others.inputs)))
        )
        == [2] * 4
    )
    assert "others.txt: 8 lines, 66.7%" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"mix\.txt exists"):
        script("mix")["main"]()
