"""What the commands print and write when all is well."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trm_interp.report.quickstart
from trm_interp.analysis.outcomes import wilson
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.recording.hooks import hook_names
from trm_interp.recording.store import Store
from trm_interp.runtime.outputs import MARKER, mark
from trm_interp.tasks.sudoku.dataset import load

Cli = Callable[..., Any]
COMMANDS = ["quickstart", "eval", "collect", "train", "info", "hooks", "explore", "push", "merge"]
COMMANDS += ["train-sae", "sae-eval", "features", "steer", "search", "solve", "figures", "compare"]
COMMANDS += ["circuits", "sweep", "cost"]
COMMANDS += ["outcomes", "trajectories", "divergence", "losses", "basins", "origins"]
COMMANDS += ["trace", "used", "spread", "stitch"]
COMMANDS += ["lens", "probes"]
COMMANDS += ["settling", "stability", "robustness", "internalisation"]
COMMANDS += ["data make", "data import", "data rate", "data check", "data download"]
STEPS = 4


# help


def test_help_imports_no_torch():
    code = """
import sys
from trm_interp.cli import main
sys.argv = ["trm-interp", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
slow = {"torch", "numba", "h5py", "pandas", "transformer_lens", "sklearn"} & set(sys.modules)
assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("quickstart", "collect", "train", "data"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(cli: Cli, command: str):
    answer = cli(*command.split(), "--help")
    assert answer.code == 0 and answer.err == ""
    _, examples = re.split(r"Examples?:", answer.out)
    assert f"trm-interp {command}" in examples


@pytest.mark.parametrize("command", ["eval", "collect", "train", "quickstart"])
def test_examples_of_help_name_options_that_exist(cli: Cli, command: str):
    text = cli(command, "--help").out
    examples, options = text.split("Examples:")[1].split("Options", 1)
    for option in set(re.findall(r"--[a-z-]+", examples)) - {"--nproc-per-node", "--seed"}:
        assert option in options


def test_without_arguments_the_commands_are_listed(cli: Cli):
    answer = cli()
    assert all(word in answer.out + answer.err for word in ("eval", "collect", "quickstart"))


# eval


def counted(copier: Path, grids: Path) -> np.ndarray:
    """[puzzle, step] solved, one puzzle at a time with the bare model."""
    model, puzzles = load_checkpoint(copier).model, load(grids)
    rows = []
    with torch.no_grad():
        for given, label in zip(puzzles.inputs, puzzles.labels, strict=True):
            x = model.embed(torch.from_numpy(given)[None])
            state, row = model.initial_state(x), []
            for step in range(STEPS):
                state, _ = model.advance(state, x, step)
                decoded = model.readout(state.z_H, step).logits.argmax(-1)[0]
                row.append(bool((decoded.numpy() == label).all()))
            rows.append(row)
    return np.array(rows)


@pytest.fixture(scope="module")
def solved(copier: Path, grids: Path) -> np.ndarray:
    solved = counted(copier, grids)
    share = solved.mean(0)
    assert share.min() > 0 and share.max() < 1 and (solved[:, :-1] & ~solved[:, 1:]).any()
    return solved


def test_eval_json_equals_a_hand_count(cli: Cli, copier: Path, grids: Path, solved: np.ndarray):
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", STEPS, "--batch-size", 5]
    answer = cli("eval", *words, "--json")
    assert answer.code == 0 and answer.err == ""
    assert answer.out.count("\n") == 1
    summary = json.loads(answer.out)
    n = len(solved)
    assert summary["n"] == n == 13
    exact = [sum(row[step] for row in solved) for step in range(STEPS)]
    ever = [sum(any(row[: step + 1]) for row in solved) for step in range(STEPS)]
    assert summary["exact_at_step"] == [count / n for count in exact]
    assert summary["ever_solved_by"] == [count / n for count in ever]
    bounds = list(zip(summary["exact_low"], summary["exact_high"], strict=True))
    assert bounds == [wilson(int(count), n) for count in exact]
    lost = [
        sum(a and not b for a, b in zip(solved[:, s - 1], solved[:, s], strict=True)) / exact[s - 1]
        for s in range(1, STEPS)
    ]
    assert summary["lost_again_at_step"] == [None, *lost]
    assert summary["checkpoint_sha256"] == load_checkpoint(copier).sha256


def test_eval_of_16_steps_gives_lists_of_16(cli: Cli, copier: Path, grids: Path):
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", 16, "--limit", 2, "--json"]
    summary = json.loads(cli("eval", *words).out)
    assert summary["n"] == 2
    assert len(summary["exact_at_step"]) == len(summary["ever_solved_by"]) == 16


def test_eval_table_and_csv(
    cli: Cli, copier: Path, grids: Path, solved: np.ndarray, tmp_path: Path
):
    file = tmp_path / "new" / "table.csv"
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", STEPS]
    answer = cli("eval", *words, "--csv", file)
    assert answer.code == 0
    rows = list(csv.DictReader(StringIO(file.read_text())))
    assert [float(row["exact"]) for row in rows] == solved.mean(0).tolist()
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert all(row["n"] == "13" for row in rows)
    shown = re.findall(r"^│ +(\d+) │ +([\d.]+) \[", answer.out, re.MULTILINE)
    expected = [(str(step + 1), f"{share:.1%}"[:-1]) for step, share in enumerate(solved.mean(0))]
    assert shown == expected
    assert "wrote" in answer.err and str(file) in answer.err


def test_eval_skips_bad_lines_and_says_which(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    good = grids.read_text().splitlines()
    file = tmp_path / "some.txt"
    file.write_text("\n".join(["11" + "." * 14, good[0], "." * 16, "12", good[1]]))
    words = ["--ckpt", copier, "--puzzles", file, "--steps", 1, "--json"]
    answer = cli("eval", *words, "--skip-bad")
    assert answer.code == 0 and json.loads(answer.out)["n"] == 2
    notices = answer.err.splitlines()
    assert [line.split(":")[0] for line in notices] == [f"skipped line {i}" for i in (1, 3, 4)]


# info, hooks


def test_info_of_a_checkpoint(cli: Cli, copier: Path):
    facts = json.loads(cli("info", copier, "--json").out)
    loaded = load_checkpoint(copier)
    assert facts["kind"] == "checkpoint" and facts["sha256"] == loaded.sha256
    assert facts["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert facts["evaluations_per_step"] == 2 * (2 + 1)
    assert facts["config"]["d_model"] == 16 and facts["card"] == {"note": "for tests"}
    lines = cli("info", copier).out.splitlines()
    config = next(line for line in lines if line.startswith("config: "))
    assert "kind: checkpoint" in lines and ", d_model 16, " in config


def test_info_of_a_store(cli: Cli, copier: Path, grids: Path, solved: np.ndarray, tmp_path: Path):
    out = tmp_path / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", "0,3", "--positions", "1-2"]
    assert cli("collect", *words, "--out", out).code == 0
    answer = cli("info", out, "--json")
    assert answer.code == 0 and answer.out.count("\n") == 1
    facts = json.loads(answer.out)
    assert facts["kind"] == "store" and facts["complete"] and facts["problems"] == []
    assert (facts["puzzles"], facts["supervision_steps"]) == (13, 4)
    assert (facts["kept_steps"], facts["kept_positions"]) == ([0, 3], [1, 2])
    dims = ["puzzle", "step", "h_cycle", "l_cycle", "pos", "d_model"]
    expected = {"dims": dims, "shape": [13, 2, 2, 2, 2, 16], "dtype": "float16"}
    assert facts["sites"]["z_L"] == expected
    assert facts["exact_at_step"] == solved.mean(0).tolist()
    assert facts["bytes"] == sum(file.stat().st_size for file in out.glob("shard-*.h5"))
    assert facts["meta"]["identity"]["checkpoint_sha256"] == load_checkpoint(copier).sha256
    assert "kind: store" in cli("info", out).out.splitlines()


def test_info_of_a_store_is_short_and_full_where_asked(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    out = tmp_path / "store"
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", 2, "--sites", "states,resid"]
    assert cli("collect", *words, "--out", out).code == 0
    lines = cli("info", out).out.splitlines()
    assert len(lines) <= 40
    for line in (
        "kept_steps (from 0): 0-1",
        "  z_L: puzzle 13 x step 2 x h_cycle 2 x l_cycle 2 x pos 18 x d_model 16, float16",
        "  solved: puzzle 13 x step 2, bool",
        "problems: none seen (--validate reads every shard, --all shows all)",
    ):
        assert line in lines
    assert lines.index("states:") < lines.index("sites:") < lines.index("read-outs:")
    validated = cli("info", out, "--validate").out.splitlines()
    assert validated == [*lines[:-1], "validated: 1 shard read, their sha256 agree"]
    full = cli("info", out, "--all").out.splitlines()
    assert "    dims: puzzle step" in full and len(full) > 2 * len(lines)


def test_info_of_a_file_of_puzzles(cli: Cli, grids: Path, tmp_path: Path):
    answer = cli("info", grids, "--validate")
    first = grids.read_text().split(",")[0]
    assert answer.code == 0 and f"first: {first}" in answer.out.splitlines()
    assert "puzzles: 13" in answer.out and "trm-interp data rate" in answer.out
    assert answer.err == f"--validate has no effect: {grids} is no store\n"
    facts = json.loads(cli("info", grids, "--json").out)
    assert (facts["kind"], facts["task"], facts["puzzles_read"]) == ("puzzles", "sudoku4", 13)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.txt").write_text(grids.read_text())
    answer = cli("info", tmp_path / "data")
    assert answer.code == 2 and "a folder of puzzle files: name one of test.txt" in answer.err


def test_info_of_a_checkpoint_fits_a_screen(cli: Cli, copier: Path):
    lines = cli("info", copier).out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) < 300
    assert "schedule: 2 H-cycles of z_L z_L z_H" in lines
    answer = cli("info", copier, "--full")  # its name before
    assert answer.code == 0 and "  h_cycles: 2" in answer.out.splitlines()


def test_info_knows_an_sae(cli: Cli, tmp_path: Path):
    ours = {"sites": ["z_L"], "arch": "gated", "train_boards": ["a"] * 100}
    config = {"d_in": 4, "d_sae": 8, "architecture": "gated", "metadata": {"trm_interp": ours}}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    (tmp_path / "sae_weights.safetensors").write_bytes(b"not read")
    lines = cli("info", tmp_path).out.splitlines()
    assert {"kind: sparse autoencoder", "features: 8", "sites: z_L"} <= set(lines)
    (tmp_path / "cfg.json").write_text("{}")
    answer = cli("info", tmp_path)
    assert answer.code == 2 and "d_in" in answer.err


def test_info_says_which_command_made_a_folder(cli: Cli, tmp_path: Path):
    mark(tmp_path, "outcomes")
    answer = cli("info", tmp_path)
    assert answer.code == 2 and "the output of `outcomes`" in answer.err


def test_hooks_are_those_of_the_recorder(cli: Cli, copier: Path):
    answer = cli("hooks", "--ckpt", copier, "--steps", 2)
    assert answer.code == 0
    assert answer.out.splitlines() == hook_names(load_checkpoint(copier).model.config, 2)


# data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "sudoku4"


def test_data_make_then_import_then_rate(cli: Cli, made: Path, tmp_path: Path):
    answer = cli("data", "make", "sudoku4", "--out", made)
    assert answer.code == 0
    assert f"wrote {made / 'train.txt'} (200 puzzles)" in answer.out.splitlines()
    assert {file.name for file in made.iterdir()} == {
        *("train.txt", "val.txt", "test.txt", "card.json")
    }
    again = tmp_path / "again"
    cli("data", "make", "sudoku4", "--out", again)
    assert (again / "test.txt").read_bytes() == (made / "test.txt").read_bytes()
    small = ["--n-train", 1, "--n-val", 1, "--n-test", 1, "--workers", 1]
    told = cli("data", "make", "sudoku4", "--out", tmp_path / "small", *small)
    assert told.code == 0 and "--workers has no effect with sudoku4" in told.err
    refused = cli("data", "make", "sudoku4", "--out", again)
    assert refused.code == 2 and str(again) in refused.err
    assert cli("data", "make", "sudoku4", "--out", again, "--overwrite").code == 0

    source = tmp_path / "source.txt"
    source.write_text((made / "test.txt").read_text() + "." * 16 + "\n")
    out = tmp_path / "imported.txt"
    answer = cli("data", "import", source, "--out", out, "--skip-bad")
    assert answer.code == 0 and "line 51: several solutions" in answer.err
    assert out.read_bytes() == (made / "test.txt").read_bytes()
    assert json.loads(out.with_suffix(".json").read_text())["n"] == 50

    answer = cli("data", "rate", out, "--json")
    ratings = json.loads(answer.out)
    assert answer.code == 0 and answer.out.endswith("]\n") and len(ratings) == 50
    puzzle = out.read_text().split(",")[0]
    assert ratings[0]["line"] == 1 and ratings[0]["puzzle"] == puzzle
    assert ratings[0]["clues"] == 16 - puzzle.count(".")
    table = list(csv.DictReader(StringIO(cli("data", "rate", out).out)))
    assert [int(row["clues"]) for row in table] == [row["clues"] for row in ratings]


# quickstart


def stopped(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_quickstart_writes_a_table_a_store_and_a_page(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "look"
    words = ["--ckpt", copier, "--puzzles", grids, "--limit", 10, "--record", 4, "--out", out]
    answer = cli("quickstart", *words)
    assert answer.code == 0
    named = {file.name for file in out.iterdir()}
    pages = {"trajectories.html", "index.html", "plotly.min.js"}
    assert named == {"accuracy.csv", "store", *pages, MARKER}
    rows = list(csv.DictReader((out / "accuracy.csv").open()))
    assert len(rows) == 16 and {row["n"] for row in rows} == {"10"}
    with Store(out / "store") as store:
        assert store.n_puzzles == 4 and store.n_steps == 16
        assert {"z_L", "z_H", "blocks.1.hook_resid_post"} <= set(store.names)
        exact, ids = store["solved"][:, -1], store["puzzle_id"][:]
    summary = json.loads(
        cli("eval", "--ckpt", copier, "--puzzles", grids, "--limit", 10, "--json").out
    )
    assert float(rows[-1]["exact"]) == summary["exact_at_step"][-1]
    assert 1 <= exact.sum() <= 2 and sorted(ids) == ids.tolist()  # half failed, file order
    html = (out / "trajectories.html").read_text()
    assert re.findall(r'(?:src|href)="([^"]+)"', html) == ["plotly.min.js"]
    assert not re.findall(r"https?://", html)
    for file in ("accuracy.csv", "store", "trajectories.html"):
        assert str(out / file) in answer.out
    # a second look replaces the first, when told
    before = (out / "store" / "store.h5").stat().st_mtime_ns
    answer = cli("quickstart", *words)
    assert answer.code == 2 and f"{out} exists: use --overwrite to replace" in answer.err
    assert (out / "store" / "store.h5").stat().st_mtime_ns == before
    with monkeypatch.context() as patched:
        patched.setattr(trm_interp.report.quickstart, "solve", stopped)
        assert cli("quickstart", *words, "--overwrite").code == 130
    assert (out / "store" / "store.h5").stat().st_mtime_ns == before
    assert cli("quickstart", *words, "--overwrite").code == 0
    assert (out / "store" / "store.h5").stat().st_mtime_ns != before


def test_quickstart_leaves_a_store_of_another_origin(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    out = tmp_path / "look"
    words = ["--ckpt", copier, "--puzzles", grids]
    assert cli("collect", *words, "--limit", 2, "--steps", 1, "--out", out / "store").code == 0
    before = {file: file.stat().st_mtime_ns for file in (out / "store").iterdir()}
    for flag in ([], ["--overwrite"]):
        answer = cli("quickstart", *words, "--out", out, *flag)
        assert answer.code == 2 and "has no marker, so `quickstart` leaves it" in answer.err
    mark(out, "quickstart")
    answer = cli("quickstart", *words, "--out", out, "--overwrite")
    assert answer.code == 2 and "store was not made by `quickstart`" in answer.err
    assert {file: file.stat().st_mtime_ns for file in (out / "store").iterdir()} == before


def test_eval_writes_over_no_input_and_no_other_file(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    words = ["eval", "--ckpt", copier, "--puzzles", grids, "--limit", 2, "--steps", 1]
    before = grids.read_bytes()
    (tmp_path / "link.csv").symlink_to(grids)
    for name in (grids, tmp_path / "link.csv"):
        answer = cli(*words, "--csv", name, "--overwrite")
        assert answer.code == 2 and "is what --puzzles reads" in answer.err
    assert grids.read_bytes() == before
    table = tmp_path / "table.csv"
    assert cli(*words, "--csv", table).code == 0
    answer = cli(*words, "--csv", table)
    assert answer.code == 2 and "table.csv exists: use --overwrite" in answer.err
    assert cli(*words, "--csv", table, "--overwrite").code == 0
    for text in ("mine", "", "\x00" * 20):
        table.write_text(text)
        answer = cli(*words, "--csv", table, "--overwrite")
        assert answer.code == 2 and "is no table of this command" in answer.err
        assert table.read_text() == text
