"""Origins of failures: what a start is, planted origins, and a run that is killed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_copier import N_FULL, N_OPEN, save_squares, save_toy

from trm_interp.studies.origins import Runs, measure, moved, run_all
from trm_interp.studies.settings import OriginsConfig
from trm_interp.studies.subject import Subject, open_subject

N = N_FULL + N_OPEN


@pytest.fixture
def config(tmp_path: Path) -> OriginsConfig:
    return OriginsConfig(
        out=tmp_path / "out",
        ckpt=str(save_toy(tmp_path / "toy")),
        puzzles=save_squares(tmp_path / "squares.txt"),
        device="cpu",
        copies=4,
        starts=4,
        steps=2,
        target="slow",
        batch_size=7,
    )


@pytest.fixture
def subject(config: OriginsConfig) -> Subject:
    return open_subject(config, lambda line: None)


def test_a_start_is_named_by_its_number_alone(config: OriginsConfig, subject: Subject):
    """Start 0 stays; another one gets the same noise in any company, in the target only."""
    own, _ = subject.begin(slice(0, 3))
    zero, two, alone = (torch.tensor(starts) for starts in ([0, 2, 1], [2, 0, 2], [2]))
    first = moved(subject, config, zero, own)
    assert torch.equal(first.slow[0], own.slow[0])
    assert torch.equal(first.fast, own.fast)
    second = moved(subject, config, two, own)
    assert torch.equal(second.slow[0] - own.slow[0], first.slow[1] - own.slow[1])
    assert torch.equal(second.slow[0], second.slow[2])
    one, _ = subject.begin(slice(0, 1))
    assert torch.equal(moved(subject, config, alone, one).slow[0], second.slow[0])
    noise = first.slow[1] - own.slow[1]
    assert not torch.equal(noise[0], noise[1])  # a vector for every position
    assert float(noise.std()) == pytest.approx(config.sigma, rel=0.3)
    assert not torch.equal(noise, first.slow[2] - own.slow[2])


def planted(solved: np.ndarray, deep: np.ndarray | None = None) -> Runs:
    """Runs whose halting logit is right."""
    q_halt = np.where(solved, 1.0, -1.0).astype(np.float32)
    return Runs(solved, q_halt, solved[:, 0, 0] if deep is None else deep)


def test_planted_origins(config: OriginsConfig, subject: Subject):
    rng, shape = np.random.default_rng(0), (N, 4, 4)
    by_start = np.broadcast_to(rng.random((N, 1, 4)) < 0.5, shape)
    result, tables = measure(subject, config, planted(by_start))
    assert result.shares["start"].value == pytest.approx(1, abs=0.4)
    assert result.shares["copy"].value == pytest.approx(0)
    assert sum(one.value or 0 for one in result.shares.values()) == pytest.approx(1)
    failed = ~by_start[:, 0, 0]
    rescued = by_start[failed].any((1, 2)).sum()
    assert (result.recovered_by_starts.hits, result.recovered_by_starts.n) == (
        rescued,
        failed.sum(),
    )
    assert result.recovered_by_copies.hits == 0
    assert result.breadth_by_starts == result.any_start
    assert result.gain.value == pytest.approx((by_start.any((1, 2)) & failed).mean())
    assert len(tables.runs) == N * 16 and np.mean(result.gains) == pytest.approx(result.gain.value)
    assert result.start_over_input == pytest.approx(2 * result.shares["start"].value - 1)  # type: ignore[operator]
    drawn = result.start_over_input_draws(0)
    assert np.quantile(drawn, 0.025) < result.start_over_input < np.quantile(drawn, 0.975) + 1e-9

    by_copy = np.broadcast_to(rng.random((N, 4, 1)) < 0.5, shape)
    result, _ = measure(subject, config, planted(by_copy, np.ones(N, bool)))
    assert result.shares["start"].value == pytest.approx(0)
    assert result.shares["copy"].value > 0.5  # type: ignore[operator]
    assert result.depth.share == 1 and (result.gain.value or 0) <= 0


def test_one_copy_has_no_share_of_copies(config: OriginsConfig, subject: Subject):
    solved = np.arange(N * 3).reshape(N, 1, 3) % 2 == 0
    result, _ = measure(subject, config, planted(solved))
    assert list(result.shares) == ["puzzle", "start"]
    flat, _ = measure(subject, config, planted(np.ones((N, 1, 3), bool)))
    assert np.isnan(flat.shares["start"].value)  # type: ignore[arg-type]


def test_batches_of_any_size_give_the_same(config: OriginsConfig, subject: Subject):
    class Plain:
        """A run that saves nothing."""

        def part(self, name: str, shapes: Any, compute: Callable[[], Any]) -> Any:
            computed = compute()
            assert {key: value.shape for key, value in computed.items()} == shapes
            return computed

        def advance(self, done: int, of: int) -> None:
            assert 0 < done <= of

    small = run_all(subject, config, 4, Plain())  # type: ignore[arg-type]
    whole = Subject(subject.checkpoint, subject.puzzles, subject.device, 64)
    for one, other in zip(small, run_all(whole, config, 4, Plain()), strict=True):  # type: ignore[arg-type]
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_stopped_run_goes_on_and_another_design_is_refused(
    cli: Callable[..., Any], tmp_path: Path
):
    words = ["origins", "--ckpt", save_toy(tmp_path / "toy"), "--copies", 2, "--starts", 2]
    words += ["--puzzles", save_squares(tmp_path / "squares.txt"), "--steps", 1, "--device", "cpu"]
    out = tmp_path / "out"
    assert cli(*words, "--out", out).code == 0
    before = pd.read_csv(out / "runs.csv")
    (out / "summary.json").unlink()
    for part in sorted((out / "parts").glob("line-*.npz"))[::2]:
        part.unlink()
    answer = cli(*words, "--out", out, "--resume")
    assert answer.code == 0, answer.err
    pd.testing.assert_frame_equal(pd.read_csv(out / "runs.csv"), before)
    (out / "summary.json").unlink()
    other = cli(*words, "--out", out, "--resume", "--sigma", 2)
    assert other.code == 2 and "sigma" in other.err and other.err.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"starts": 1}, "starts must be at least 2 to compare some, got 1"),
        ({"sigma": 0.0}, "sigma must be above 0, got 0.0"),
        ({"copies": 0}, "copies must be at least 1, got 0"),
        ({"starts": 2000, "steps": 1000}, "starts x steps must be at most 1000000"),
    ],
)
def test_bad_settings(settings: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        OriginsConfig(out=Path("out"), **settings)
