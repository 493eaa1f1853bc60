"""The commands end to end on a tiny checkpoint, and the dashboard in a real browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

Cli = Callable[..., Any]
TRAIN = ["--expansion", 4, "--train-steps", 60, "--batch-size", 64, "--l1", 0.3, "--device", "cpu"]


@pytest.fixture(scope="module")
def store(cli: Cli, copier: Path, grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sae") / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", 4]
    assert cli("collect", *words, "--sites", "z_L,z_H").code == 0
    return out


@pytest.fixture(scope="module")
def sae(cli: Cli, store: Path) -> Path:
    out = store.parent / "sae"
    answer = cli("train-sae", store, "--site", "z_L", "--out", out, *TRAIN, "--held-out", 0.4)
    assert answer.code == 0 and f"wrote {out}" in answer.out
    return out


@pytest.fixture(scope="module")
def features(cli: Cli, sae: Path, store: Path) -> Path:
    out = store.parent / "features"
    answer = cli("features", sae, store, "--out", out, "--all-puzzles", "--examples", 3)
    assert answer.code == 0, answer.err
    return out


def test_several_sites_are_pooled(cli: Cli, store: Path, tmp_path: Path):
    words = [*TRAIN, "--train-steps", 5, "--arch", "topk", "--active", 4]
    out = tmp_path / "pooled"
    assert cli("train-sae", store, "--site", "z_L,z_H", "--out", out, *words).code == 0
    assert json.loads((out / "card.json").read_text())["sae"]["sites"] == ["z_L", "z_H"]
    assert cli("sae-eval", out, store, "--no-loop", "--site", "z_H", "--json").code == 0


def test_measures_of_the_command(cli: Cli, sae: Path, store: Path):
    answer = cli("sae-eval", sae, store, "--tick", 4, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert result["n_puzzles"] == 5 and result["mismatch"] is None  # 0.4 x 13 held out
    assert {"every_tick", "tick_4"} <= result["loop"].keys()
    assert result["loop"]["every_tick"]["ticks"] == 16 and result["loop"]["tick_4"]["ticks"] == 1
    assert json.loads((sae / "measures.json").read_text()) == result
    printed = cli("sae-eval", sae, store, "--overwrite").out
    assert "FVU" in printed and "loss recovered" in printed
    refused = cli("sae-eval", sae, store, "--tick", 5)
    assert refused.code == 2 and "z_L is not read at tick 5" in refused.err


def test_a_finished_run_is_resumed_in_a_tidy_line(cli: Cli, sae: Path, store: Path):
    words = ["--site", "z_L", "--out", sae, *TRAIN, "--held-out", 0.4, "--resume"]
    answer = cli("train-sae", store, *words)
    assert answer.code == 0
    assert answer.out == f"wrote {sae} (measure it: trm-interp sae-eval {sae} STORE)\n"


def test_tables_of_features(features: Path, sae: Path):
    table = pd.read_csv(features / "features.csv")
    assert len(table) == 64 and table["density"].between(0, 1).all()
    assert {"recurrence_solved_low", "drift_failed", "transient_solved", "lead_p", "fact"} <= {
        *table.columns
    }
    fires = table[table["density"] > 0]
    assert fires["fact_auc"].between(0, 1).all() and (fires["largest"] > 0).all()
    summary = json.loads((features / "summary.json").read_text())
    assert summary["alive"] == len(fires) and summary["n_puzzles"] == 13
    assert summary["n_trained_on"] == 8  # the others were held out: 0.4 x 13
    numbers = pd.read_csv(features / "figure1.csv")
    assert set(numbers["outcome"]) == {"solved", "failed"} and numbers["tick"].nunique() == 16
    assert ((numbers["low"] <= numbers["mean"]) & (numbers["mean"] <= numbers["high"])).all()
    assert numbers["feature"].nunique() == 10
    total = pd.read_csv(features / "figure1_total.csv")
    assert len(total) == 2 * 16 and set(total["outcome"]) == {"solved", "failed"}
    assert ((total["low"] <= total["mean"]) & (total["mean"] <= total["high"])).all()
    top = numbers.groupby(["outcome", "tick"])["mean"].sum()  # of ten features, so not more
    whole = total.set_index(["outcome", "tick"])["mean"].loc[top.index]
    assert (whole >= top - 1e-5).all() and (whole > top + 1e-3).any()
    page = (features / "figure1.html").read_text()
    assert "all features together" in page and "a supervision step begins" in page
    assert "supervision" in page or "most active features" in page


def test_the_same_command_gives_the_same_tables(
    cli: Cli, sae: Path, store: Path, features: Path, tmp_path: Path
):
    words = ["--out", tmp_path / "again", "--all-puzzles", "--examples", 3]
    assert cli("features", sae, store, *words).code == 0
    pages = ("figure1.html", "drift.html", "dashboard.html")
    for name in ("features.csv", "figure1.csv", "summary.json", *pages):
        assert (tmp_path / "again" / name).read_bytes() == (features / name).read_bytes(), name


@pytest.mark.parametrize("mode", ["ablate", "clamp", "steer"])
def test_steering(cli: Cli, sae: Path, store: Path, features: Path, tmp_path: Path, mode: str):
    table = pd.read_csv(features / "features.csv").sort_values("mean")
    feature = int(table["feature"].iloc[-1])
    words = ["--feature", feature, "--mode", mode, "--value", 2, "--controls", 2, "--all-puzzles"]
    more = ["--ticks", "0,1,3", "--at-cells", "0-3", "--out", tmp_path / "steer.json", "--json"]
    answer = cli("steer", sae, store, *words, *more)
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert result == json.loads((tmp_path / "steer.json").read_text())
    assert result["ticks_changed"] == 3 and len(result["controls"]) == 2
    effect = result["feature"]["loss"]
    assert effect["value"] != 0 and effect["low"] <= effect["value"] <= effect["high"]
    assert 0 < result["rank_p"] <= 1
    assert result["last_change"] == 0 and result["steps"] == 4  # ticks 0, 1 and 3 of 6 a step
    assert result["feature"]["after_last_change"]["loss"]["value"] not in (0, effect["value"])
    if mode == "ablate":
        assert "control" in cli("steer", sae, store, *words).out
        printed = cli("steer", sae, store, *words, "--ticks", "0,1,3").out
        assert "after supervision step 1, that of the last change: loss" in printed
        one = " ".join(cli("steer", sae, store, *words, "--limit", 1, "--ticks", 0).out.split())
        assert "at 1 tick, cells all, 1 puzzle " in one


def test_bad_words_end_in_one_line_and_exit_status_2(
    cli: Cli, sae: Path, store: Path, copier: Path, tmp_path: Path
):
    out = tmp_path / "new"
    train = ["train-sae", store, "--out", out, "--device", "cpu"]
    cases = {
        "holds no 'blocks.7.x'; it holds z_L, z_H": [*train, "--site", "blocks.7.x"],
        "holds no z_L at tick 99": [*train, "--site", "z_L", "--ticks", "0,99"],
        "holds no 'embed'": [*train, "--site", "embed"],
        "the shuffle buffer would need": [*train, "--site", "z_L", "--buffer-mb", 10**9],
        "fewer than a batch": [*train, "--site", "z_L", "--batch-size", 10**6],
        "no store here; record one with": ["train-sae", tmp_path, "--site", "z_L", "--out", out],
        "--held-out must be between": [*train, "--site", "z_L", "--held-out", 1],
        "ticks: 'x' is no index": [*train, "--site", "z_L", "--ticks", "x"],
        "no finished SAE here": ["sae-eval", tmp_path, store],
        "--feature 64: there are 64": ["steer", sae, store, "--feature", 64],
        "--at-cells 16: cells are 0 to 15": ["steer", sae, store, "--feature", 0, "--at-cells", 16],
    }
    for words, command in cases.items():
        answer = cli(*command)
        assert answer.code == 2 and words in answer.err, (words, answer)
        assert len(answer.err.strip().splitlines()) <= 2, answer.err
    assert not out.exists()


def test_another_checkpoint_is_refused_unless_forced(
    cli: Cli, sae: Path, store: Path, copier: Path, tmp_path: Path
):
    import torch

    from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint

    model = load_checkpoint(copier).model
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    save_checkpoint(tmp_path / "other", model, {})
    words = ["sae-eval", sae, store, "--out", tmp_path / "found.json", "--ckpt", tmp_path / "other"]
    refused = cli(*words)
    assert refused.code == 2 and "--force-mismatch" in refused.err
    forced = cli(*words, "--force-mismatch", "--json")
    assert forced.code == 0 and "has weights" in json.loads(forced.out)["loop"]["mismatch"]


PROBE = """
<script>
const seen = { errors: [] };
window.addEventListener("error", event => seen.errors.push(event.message));
window.addEventListener("load", () => {
  const lines = () => [...document.querySelectorAll("#list tbody tr")];
  const rows = () => lines().map(line => Number(line.dataset.feature));
  const click = key => document.querySelector(`#list th[data-key="${key}"]`).click();
  const type = text => { const box = document.getElementById("search"); box.value = text;
    box.dispatchEvent(new Event("input")); };
  seen.first = rows();
  click("density"); seen.dense = rows();
  click("density"); seen.sparse = rows();
  type("row"); seen.facts = lines().map(line => line.children[3].textContent);
  type("nothing like it"); seen.none = rows().length;
  type(String(seen.first[0])); seen.number = rows();
  type("");
  document.querySelector("#list tbody tr").click();
  setTimeout(() => {
    seen.heading = document.getElementById("heading").textContent;
    seen.hash = location.hash;
    seen.boards = document.querySelectorAll("svg.board-grid").length;
    seen.cells = document.querySelectorAll("svg.board-grid rect title").length;
    seen.plots = document.querySelectorAll(".js-plotly-plot .main-svg").length;
    const done = document.createElement("pre"); done.id = "seen";
    done.textContent = JSON.stringify(seen); document.body.append(done);
  }, 500);
});
</script>
"""


def test_the_dashboard_in_chromium_without_a_network(features: Path, tmp_path: Path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    html = (features / "dashboard.html").read_text()
    own = re.sub(r"<script>/\*.*?</script>", "", html, count=1, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!data:)', own)
    page = tmp_path / "page.html"
    page.write_text(html.replace("</head>", PROBE + "</head>", 1))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    flags += [
        "--enable-logging=stderr",
        "--virtual-time-budget=8000",
        f"--user-data-dir={tmp_path}",
    ]
    done = subprocess.run(
        [chromium, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    result = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)
    assert result, done.stderr[-2000:]
    seen = json.loads(result[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    assert seen["errors"] == [] and "CONSOLE" not in done.stderr, done.stderr[-2000:]
    table = pd.read_csv(features / "features.csv")
    fires = table[table["density"] > 0]
    assert len(seen["first"]) == len(fires)
    by_mean = fires.sort_values(["mean", "feature"], ascending=[False, True])["feature"]
    assert seen["first"][0] == by_mean.iloc[0]
    density = dict(zip(fires["feature"], fires["density"].round(6), strict=True))
    dense = [density[f] for f in seen["dense"]]
    sparse = [density[f] for f in seen["sparse"]]
    assert dense == sorted(dense, reverse=True) and sparse == sorted(sparse)
    assert seen["facts"] == [f for f in seen["facts"] if "row" in f]
    assert len(seen["facts"]) == fires["fact"].str.contains("row").sum()
    assert seen["none"] == 0 and seen["first"][0] in seen["number"]
    assert seen["heading"] == f"feature {seen['sparse'][0]}"
    assert seen["hash"] == f"#feature={seen['sparse'][0]}"
    assert seen["boards"] >= 1 and seen["cells"] == 16 * seen["boards"] and seen["plots"] >= 2


@pytest.mark.parametrize("command", ["train-sae", "sae-eval", "features", "steer"])
def test_help_has_examples_with_options_that_exist(cli: Cli, command: str):
    answer = cli(command, "--help")
    assert answer.code == 0 and f"trm-interp {command}" in answer.out
    examples, options = answer.out.split("Examples:")[1].split("Options", 1)
    assert set(re.findall(r"--[a-z-]+", examples)) <= set(re.findall(r"--[a-z0-9-]+", options))
