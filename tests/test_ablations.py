"""experiments/ablations.py: rules of stopping, commands that exist, the verdict, a whole run."""

import itertools
from pathlib import Path

import ablation_tables as tables
import ablations
import numpy as np
import pandas as pd
import pytest
from option_world import commands

DATA = Path(__file__).parents[1] / "artifacts/data/sudoku6"


def plan(*words: str) -> ablations.Plan:
    return ablations.Plan(ablations.options().parse_args(["--out", "runs/none", *words]))


# what is run


def test_both_rules_give_about_the_weights_of_the_trm_and_one_its_operations():
    """A TRM's step is 21 evaluations and twice 7 with gradient, 35 units; with a one-step gradient
    21 + 2 x 2 = 25; a direct prediction 3, and a read-out that all have."""
    every = plan()
    assert every.steps("one-step", "flops") == pytest.approx(1000 * 35 / 25, rel=0.01)
    assert every.steps("direct", "flops") == pytest.approx(1000 * 35 / 3, rel=0.01)
    # 12 evaluations, 4 with gradient, of twice the blocks; 6 evaluations, 3 with gradient
    assert every.steps("4-layers", "flops") == pytest.approx(1000 * 35 / 40, rel=0.01)
    assert every.steps("t2-n2", "flops") == pytest.approx(1000 * 35 / 12, rel=0.01)
    by_name = {run.name: run for run in every.runs()}
    trm = by_name.pop("trm-steps-seed0")
    assert trm.shared and trm.weights == 169_922 and trm.steps == 1000
    assert trm.flops == 1000 * 128 * 511_100_928
    for run in by_name.values():
        assert run.weights == pytest.approx(trm.weights, rel=0.1), run.name
        if run.stop == "steps":
            assert run.steps == 1000
        else:
            assert run.flops == pytest.approx(trm.flops, rel=0.001)
    assert by_name["single-z-steps-seed0"].shared and "single-z-flops-seed0" not in by_name


def test_every_run_is_a_command_that_exists():
    options = {
        option
        for name, command in commands()
        if name == "train"
        for parameter in command.params
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    every = plan("--only", *ablations.MODELS, "--seeds", "2", "--no-compile")
    seen = set()
    for run in every.runs():
        words = every.command(run)
        assert {word for word in words if word.startswith("--")} <= options, run.name
        assert words[words.index("--seed") + 1] == "2" and "--compile" not in words
        assert every.training(run.model).steps
        seen.add(tuple(words[words.index("--out") + 2 :]))
    assert len(seen) == len(every.runs())  # no two are the same run


# what is said


def first(n_solved: int, n: int = 200) -> np.ndarray:
    return np.arange(n) < n_solved


def test_the_order_on_one_seed_by_hand():
    """160 of 200 less 100 of the same: 0.3; equal runs differ by 0, and 3 puzzles are too few."""
    found = tables.order({0: first(160)}, {0: first(100)}, "x")
    assert found.value == pytest.approx(0.3) and found.low > 0.2 and found.high < 0.4
    assert found.verdict == "holds, on one seed only"
    reverse = tables.order({0: first(100)}, {0: first(160)}, "x")
    assert reverse.verdict == "reversed, on one seed only"
    for other in (first(160), first(157)):
        close = tables.order({0: first(160)}, {0: other}, "x")
        assert close.verdict == "inconclusive, on one seed only" and close.low < 0.01
    assert tables.order({0: first(160)}, {1: first(100)}, "x").verdict == "not measured"


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        ((100, 110, 90), "holds"),
        ((190, 195, 185), "reversed"),
        ((100, 195, 110), "mixed"),
        ((160, 158, 162), "inconclusive"),
        ((100, 165, 110), "inconclusive"),  # two below, one open on the other side
    ],
)
def test_the_order_over_seeds(others: tuple[int, ...], verdict: str):
    reference = {seed: first(160) for seed in range(3)}
    found = tables.order(reference, {s: first(n) for s, n in enumerate(others)}, "x")
    assert found.verdict == verdict and len(found.effects) == 3
    assert found.value == pytest.approx((160 - sum(others) / 3) / 200)


def plant(out: Path, run: tables.Run, n_solved: tuple[int, ...], n: int) -> None:
    """The table of a test in which the first so many puzzles are solved at each step."""
    file = run.solved(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [(line, step, line < n_solved[step]) for line in range(n) for step in range(16)]
    pd.DataFrame(rows, columns=["line", "step", "baseline"]).to_csv(file, index=False)


def test_tables_of_planted_runs(tmp_path: Path):
    """`direct` counts at step 1; HRM has a run by each rule; single-z is one run for both."""
    every = plan("--only", "trm", "hrm", "single-z", "direct", "equilibrium", "--seeds", "0", "1")
    late = {"trm": 160, "hrm": 100, "single-z": 158, "equilibrium": 150, "direct": 190}
    for run in every.runs():
        at_1 = 20 if run.model == "direct" else 40
        plant(tmp_path, run, (at_1, *[late[run.model]] * 15), 200)
    text = tables.write_tables(tmp_path, every.runs(), ablations.MODELS)
    by_model = pd.read_csv(tmp_path / "orders.csv").set_index(["stop", "model"])
    for stop in ("steps", "flops"):
        assert by_model.loc[(stop, "direct prediction"), "difference"] == pytest.approx(0.7)
        assert by_model.loc[(stop, "HRM"), "verdict"] == "holds"
        assert by_model.loc[(stop, "single z"), "verdict"] == "inconclusive"
        assert by_model.loc[(stop, "equilibrium"), "verdict"] == "none published"
        assert by_model.loc[(stop, "TRM"), "verdict"] == "reference"
    tidy = pd.read_csv(tmp_path / "ablations.csv")
    assert len(tidy) == 16 * len(every.runs())
    row = tidy.query("model == 'hrm' and stop == 'flops' and seed == 1 and step == 15").iloc[0]
    assert row["exact"] == 0.5 and row["exact_low"] < 0.5 < row["exact_high"]
    assert "| HRM | 55.0 (table 1) |" in text
    assert "| 2 | 20.0 (20.0-20.0) | 50.0 (50.0-50.0) |" in text
    assert r"\toprule" in (tmp_path / "ablations.tex").read_text()


# a whole run


def test_a_run_is_trained_tested_and_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, n in (("train", 12), ("val", 4), ("test", 5)):
        lines = (DATA / f"{name}.txt").read_text().splitlines(keepends=True)
        (tmp_path / f"{name}.txt").write_text("".join(itertools.islice(lines, n)))
    out = tmp_path / "runs"
    words = ["--out", str(out), "--data", str(tmp_path), "--only", "direct", "--stop", "steps"]
    words += ["--train-steps", "2", "--batch-size", "4", "--limit", "5", "--no-compile"]
    words += ["--d-model", "16"]
    assert ablations.main(words) == 0
    assert "direct prediction (read at step 1)" in capsys.readouterr().out
    run = plan(*words[2:], "--out", str(out)).runs()[0]
    assert tables.read_solved(run.solved(out)).shape == (5, 16)  # type: ignore[union-attr]
    (row,) = pd.read_csv(out / "orders.csv").to_dict("records")
    assert row["verdict"] == "not measured" and row["n"] == 5  # there is no TRM beside it
    assert ablations.main([*words, "--plan"]) == 0
    assert "to do: 0 core minutes" in capsys.readouterr().out
    assert ablations.main(words) == 0
    assert capsys.readouterr().out.count("done before") == 2
