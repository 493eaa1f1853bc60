"""What `cost` counts is what commands then compute, and its times are that over a rate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sae_store import noise, write_store
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.flops import step_flops
from trm_interp.core.models.base import RecursiveModel
from trm_interp.recording.store import Store

Cli = Callable[..., Any]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Network evaluations of puzzles that were computed together."""
    run: list[int] = []
    unroll = RecursiveModel.unroll

    def counting(self: Any, schedule: Any, state: Any, x: Any, *more: Any, **named: Any) -> Any:
        run.append(len(x) * schedule.evaluations)
        return unroll(self, schedule, state, x, *more, **named)

    monkeypatch.setattr(RecursiveModel, "unroll", counting)
    return run


def told(cli: Cli, line: str, *more: object) -> dict[str, Any]:
    answer = cli("cost", line, "--json", *more)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


@pytest.mark.parametrize(
    "line",
    [
        "eval --steps 3 --limit 5",
        "outcomes --steps 3 --limit 5 --out OUT",
        "search --steps 2 --k 3 --limit 4 --stop never",
        "basins --steps 2 --n-puzzles 2 --starts 7 --slice 3 --neighbours 2 --limit 6 --out OUT",
        "settling --steps 5 --long 66 --long-limit 3 --limit 6 --out OUT",
    ],
)
def test_a_command_computes_what_cost_counts(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, evaluated: list[int], line: str
):
    line = f"{line} --ckpt {copier} --puzzles {grids}".replace("OUT", str(tmp_path / "out"))
    found = told(cli, line, "--tflops", 0.5)
    assert not evaluated and not (tmp_path / "out").exists()  # nothing is run or written
    config = load_checkpoint(copier).model.config
    assert found["flops"] == found["supervision_steps"] * step_flops(config)
    assert found["evaluations"] == found["supervision_steps"] * config.schedule.evaluations
    assert found["seconds"] == pytest.approx(found["flops"] / 0.5e12)
    assert cli(*line.split()).code == 0
    assert sum(evaluated) == found["evaluations"]


def counted(cli: Cli, line: str, out: Path) -> int:
    """What PyTorch counts of a command."""
    plain = sdpa_kernel(SDPBackend.MATH)  # products that can be counted
    with plain, FlopCounterMode(display=False) as flops:
        answer = cli(*line.split(), "--out", out)
    assert answer.code == 0, answer.err
    return flops.get_total_flops()


@pytest.mark.parametrize(
    "line",
    [
        "stability --steps 5 --exponents 3 --sample 4 --fixed 0 --limit 6",
        "trace --steps 4 --then 3 --starts 3 --sigma 4 --pairs 3 --window 2 --exact 9 --later 0",
        "trace --steps 4 --then 1 --starts 3 --sigma 4 --pairs 2 --exact 20 --later 5 "
        "--sites states,blocks.0.hook_resid_mid --every h_cycle",
    ],
)
def test_studies_of_causes_compute_what_cost_counts(
    cli: Cli, copier: Path, grids: Path, tmp_path: Path, line: str
):
    """Within 3 %: patched runs are read once at their end, and tangents not at all."""
    line = f"{line} --ckpt {copier} --puzzles {grids}"
    found = told(cli, line, "--tflops", 1)
    assert counted(cli, line, tmp_path / "out") == pytest.approx(found["flops"], rel=0.03)


@pytest.mark.parametrize(
    "arch", ["gated", "gated --gated-variant paper", "standard", "topk --active 3", "jumprelu"]
)
def test_training_an_sae_computes_and_writes_what_cost_counts(cli: Cli, tmp_path: Path, arch: str):
    store = write_store(tmp_path / "store", noise(8, d_model=16))
    line = f"train-sae {store} --site z_L --expansion 64 --train-steps 20 --batch-size 64"
    line = f"{line} --log-every 20 --arch {arch}"
    found = told(cli, line)
    assert found["rows"] == 20 * 64 and found["timed_rows"] == 64 and found["timed_seconds"] > 0
    flops = counted(cli, line, tmp_path / "sae")
    assert flops == pytest.approx(found["flops"], rel=0.06)  # held-out rows, and of the bias
    written = sum(file.stat().st_size for file in (tmp_path / "sae").iterdir())
    assert written == pytest.approx(found["bytes"], rel=0.1)


def test_bytes_are_those_of_the_states(cli: Cli, copier: Path, grids: Path, tmp_path: Path):
    line = f"collect --ckpt {copier} --puzzles {grids} --steps 0,2 --sites z_L --limit 5"
    found = told(cli, line, "--tflops", 1)
    assert found["supervision_steps"] == 5 * 3
    assert cli(*line.split(), "--out", tmp_path / "store").code == 0
    with Store(tmp_path / "store") as store:
        assert found["bytes"] == store["z_L"][:].nbytes


def test_a_batch_is_timed(cli: Cli, copier: Path, grids: Path, evaluated: list[int]):
    found = told(cli, f"eval --ckpt {copier} --puzzles {grids} --batch-size 6")
    assert len(set(evaluated)) == 1 and found["timed_puzzles"] == 6
    by_hand = found["timed_seconds"] / 6 * found["supervision_steps"]
    assert found["seconds"] == pytest.approx(by_hand)


def test_training_counts_gradients(cli: Cli, grids: Path, copier: Path):
    words = f"train --train {grids} --val {grids} --preset tiny --train-steps 7 --batch-size 3"
    found = told(cli, words)
    assert found["supervision_steps"] == 21 and found["timed_seconds"] > 0
    plain = told(cli, f"eval --ckpt {copier} --puzzles {grids}", "--tflops", 1)
    each = found["flops"] / found["evaluations"], plain["flops"] / plain["evaluations"]
    assert each[0] > each[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lens STORE --out OUT", "cost counts eval, outcomes"),
        ("eval --stepps 3", "--stepps"),
        ("evaluate", "no command"),
        ("eval 'x", "No closing quotation"),
        ("", "no command"),
    ],
)
def test_what_cannot_be_counted_is_said_in_one_line(cli: Cli, line: str, said: str):
    answer = cli("cost", line)
    assert answer.code == 2 and said in answer.err
    assert answer.err.strip().count("\n") == 0
