"""A store holds what a plain run with hooks gives, rounded to float16, and its read-outs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trm_interp.recording.collect
from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.clock import schedule
from trm_interp.core.infer import run
from trm_interp.recording.collect import _check_range
from trm_interp.recording.hooks import HookedTRM
from trm_interp.recording.store import Store, validate
from trm_interp.runtime.errors import UserError
from trm_interp.subjects.settings import CollectConfig
from trm_interp.tasks.sudoku.dataset import load

Cli = Callable[..., Any]
N, STEPS, H, L = 13, 4, 2, 2
BLOCK = "blocks.1.hook_mlp_out"
SITES = f"z_L,z_H,resid,embed,logits,{BLOCK}"


@pytest.fixture(scope="module")
def truth(copier: Path, grids: Path) -> dict[str, np.ndarray]:
    """Every site of every puzzle from one plain `run_with_cache`, in float16."""
    puzzles = load(grids)
    hooked = HookedTRM.of(load_checkpoint(copier).model, STEPS)
    with torch.no_grad():
        _, cache = hooked.run_with_cache(torch.from_numpy(puzzles.inputs))
    ticks = schedule(STEPS, H, L)

    def stacked(names: list[str], *axes: int) -> np.ndarray:
        rows = torch.stack([cache[name] for name in names], dim=1)  # [puzzle, moment, ...]
        return rows.unflatten(1, axes).to(torch.float16).numpy()

    arrays = {
        "z_L": stacked([t.hook for t in ticks if t.writes == "z_L"], STEPS, H, L),
        "z_H": stacked([t.hook for t in ticks if t.writes == "z_H"], STEPS, H),
        "embed": cache["hook_embed"].to(torch.float16).numpy(),
        "logits": stacked([f"step.{s}.hook_logits" for s in range(STEPS)], STEPS),
    }
    resid = [f"blocks.{b}.hook_resid_{at}" for b in range(2) for at in ("mid", "post")]
    for site in (*resid, BLOCK):
        arrays[site] = stacked([f"{tick.name}.{site}" for tick in ticks], STEPS, H, L + 1)
    return arrays


def collect(cli: Cli, copier: Path, grids: Path, out: Path, *more: object) -> Any:
    words = ["--ckpt", copier, "--puzzles", grids, "--out", out, "--steps", STEPS]
    return cli("collect", *words, *more)


@pytest.fixture
def batched_like_the_truth() -> list[object]:
    """All puzzles at once: matrix products of other sizes may round otherwise."""
    return ["--batch-size", N]


def test_every_site_is_the_plain_run_in_float16(
    cli: Cli, copier: Path, grids: Path, truth: dict, batched_like_the_truth, tmp_path: Path
):
    out = tmp_path / "store"
    answer = collect(cli, copier, grids, out, "--sites", SITES, *batched_like_the_truth)
    assert answer.code == 0 and str(out) in answer.out
    with Store(out) as store:
        assert store.complete and set(truth) < set(store.names)
        for name, expected in truth.items():
            assert store[name].dtype == np.float16
            np.testing.assert_array_equal(store[name][:], expected, err_msg=name)
        for tick in schedule(STEPS, H, L):
            place = (tick.h_cycle, tick.l_cycle) if tick.writes == "z_L" else (tick.h_cycle,)
            expected = truth[tick.writes][:, tick.step, *place]
            np.testing.assert_array_equal(store.at(tick), expected)
    assert validate(out) == []


def test_selections_are_the_same_values(
    cli: Cli, copier: Path, grids: Path, truth: dict, batched_like_the_truth, tmp_path: Path
):
    out = tmp_path / "store"
    words = ["--sites", SITES, "--steps", "1,3", "--positions", "0,3-5"]
    assert collect(cli, copier, grids, out, *words, *batched_like_the_truth).code == 0
    with Store(out) as store:
        assert store.steps == [1, 3] and store.positions == [0, 3, 4, 5]
        for name, expected in truth.items():
            if name != "embed":
                expected = expected[:, [1, 3]]
            if name != "logits":
                expected = expected[..., [0, 3, 4, 5], :]
            np.testing.assert_array_equal(store[name][:], expected, err_msg=name)
        assert store["loss"].shape == (N, STEPS)  # read-outs are there for all steps


def test_a_smaller_last_batch_and_a_limit(
    cli: Cli, copier: Path, grids: Path, truth: dict, tmp_path: Path
):
    out = tmp_path / "store"
    words = ["--sites", "z_L,z_H", "--batch-size", 4, "--limit", 11]  # 4, 4, 3
    assert collect(cli, copier, grids, out, *words).code == 0
    with Store(out) as store:
        assert store.n_puzzles == 11
        for name in ("z_L", "z_H"):
            np.testing.assert_allclose(store[name][:], truth[name][:11], atol=2e-3)
        assert store["puzzle_id"][:].tolist() == list(range(1, 12))  # lines of the file


def test_readouts_equal_inference_and_recording_changes_no_bit(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    puzzles, model = load(grids), load_checkpoint(copier).model
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    read = run(model, inputs, labels, STEPS, batch_size=4)
    out = tmp_path / "store"
    words = ["--sites", f"z_L,{BLOCK}", "--batch-size", 4]
    assert collect(cli, copier, grids, out, *words).code == 0
    with Store(out) as store:
        for name, expected in {
            **{"predictions": read.tokens, "solved": read.solved, "loss": read.loss},
            **{"q_halt": read.q_halt, "halt_step": read.halt_step},
            **{"inputs": inputs, "labels": labels},
        }.items():
            assert store[name][:].tobytes() == expected.numpy().tobytes(), name


def test_bfloat16_states_are_exact(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    out = tmp_path / "store"
    words = ["--dtype", "bfloat16", "--limit", 3]
    assert collect(cli, copier, grids, out, *words).code == 0
    with Store(out) as store:
        z_L = torch.from_numpy(store["z_L"][:])
    large = z_L.abs() >= 2**-14  # below, float16 is coarser
    rounded = z_L.to(torch.bfloat16).to(torch.float16)
    assert large.float().mean() > 0.99 and torch.equal(z_L[large], rounded[large])


def test_size_is_told_before_any_state_is_written(copier: Path, grids: Path, tmp_path: Path):
    config = CollectConfig(
        ckpt=str(copier), puzzles=grids, out=tmp_path / "store", steps=str(STEPS)
    )
    notices: list[tuple[str, bool]] = []

    def tell(line: str) -> None:
        notices.append((line, any(config.out.glob("shard*"))))

    trm_interp.recording.collect.collect(config, tell)
    line, has_states = notices[0]
    # z_L 4 x 2 x 2, z_H 4 x 2 states of 18 x 16 float16 = 24 * 576 = 13 824 bytes a puzzle
    assert "13 puzzles x 0.01 MB" in line and "z_L, z_H" in line and not has_states


@pytest.mark.parametrize(("trained", "told"), [(2, True), (STEPS, False), ("2", False)])
def test_runs_that_are_longer_than_those_of_training_are_told(
    copier: Path, grids: Path, tmp_path: Path, trained: object, told: bool
):
    ckpt = tmp_path / "ckpt"
    save_checkpoint(ckpt, load_checkpoint(copier).model, {"train": {"n_sup": trained}})
    lines: list[str] = []
    steps = f"0,{STEPS - 1}"
    settings = {"ckpt": str(ckpt), "puzzles": grids, "out": tmp_path / "store", "limit": 1}
    trm_interp.recording.collect.collect(CollectConfig(**settings, steps=steps), lines.append)
    line = f"runs of {STEPS} supervision steps; in training they had at most {trained}"
    assert (line in lines) == told


def test_progress_counts_puzzles(copier: Path, grids: Path, tmp_path: Path):
    config = CollectConfig(
        ckpt=str(copier), puzzles=grids, out=tmp_path / "store", steps="2", batch_size=5
    )
    seen: list[tuple[int, int]] = []
    trm_interp.recording.collect.collect(config, lambda line: None, lambda *done: seen.append(done))
    assert seen == [(0, N), (5, N), (10, N), (N, N)]


def test_the_manifest_says_where_a_store_comes_from(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    out = tmp_path / "store"
    assert collect(cli, copier, grids, out).code == 0
    with Store(out) as store:
        meta = store.meta
    identity, checkpoint = meta["identity"], load_checkpoint(copier)
    assert identity["checkpoint_sha256"] == checkpoint.sha256
    assert identity["data_sha256"] == load(grids).sha256
    assert (identity["batch_size"], identity["dtype"], identity["device"]) == (16, "float32", "cpu")
    assert meta["model"]["d_model"] == 16 and meta["settings"]["sites"] == "z_L,z_H"
    assert {"torch", "numpy", "h5py", "trm_interp"} <= meta["versions"].keys()
    assert "git_commit" in meta


def test_overwrite_replaces_and_resume_of_a_whole_store_changes_nothing(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path
):
    out = tmp_path / "store"
    assert collect(cli, copier, grids, out, "--limit", 5).code == 0
    assert collect(cli, copier, grids, out, "--overwrite").code == 0
    with Store(out) as store:
        assert store.n_puzzles == N
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    assert collect(cli, copier, grids, out, "--resume").code == 0
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before
    shutil.rmtree(out)
    assert collect(cli, copier, grids, out, "--resume").code == 0  # nothing there: a fresh start


def test_a_value_beyond_float16_is_refused_and_named():
    fine, beyond = np.array([65504.0], "float16"), np.array([np.inf], "float16")
    _check_range("logits", fine, 0)
    with pytest.raises(UserError, match="logits: a value of step 3 does not fit float16"):
        _check_range("logits", beyond, 3)
