"""A device without float64, as an Apple GPU is: chosen, and never asked for one.

The device itself is simulated: the CPU stands in its place, and nothing of a step may be float64.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trm_interp.core import counter, devices
from trm_interp.core.counter import normal, uniform
from trm_interp.core.devices import widened, widest
from trm_interp.core.infer import run_batch
from trm_interp.core.losses import stablemax_cross_entropy
from trm_interp.core.training.loop import train
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.runtime.errors import UserError
from trm_interp.subjects import opening as sources
from trm_interp.subjects.opening import open_device


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose PyTorch has MPS and no CUDA."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    sources._say_once.cache_clear()
    yield
    sources._say_once.cache_clear()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No device has float64."""
    for module in (devices, counter):
        monkeypatch.setattr(module, "has_float64", lambda device: False)


class NoFloat64(TorchDispatchMode):
    """Refuses every operation that makes a float64 tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(value, Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{func}: the MPS framework doesn't support float64")
        return made


def test_the_widest_dtype_of_a_device():
    kinds = ("cpu", "cuda", "cuda:1", "mps", "mps:0")
    dtypes = [widest(torch.device(kind)) for kind in kinds]
    assert dtypes == [torch.float64] * 3 + [torch.float32] * 2
    assert widened(torch.ones(1)).dtype == torch.float64


def test_an_apple_gpu_is_taken_and_its_limit_told_once(apple: None, capsys: Any):
    assert open_device("auto") == open_device("mps") == torch.device("mps")
    printed = capsys.readouterr().err
    assert printed == "mps has no float64: losses and sums are in float32\n"
    assert open_device("cpu") == torch.device("cpu") and not capsys.readouterr().err


def test_what_needs_float64_goes_to_the_cpu(apple: None, capsys: Any):
    for name in ("auto", "mps"):
        assert open_device(name, float64=True) == torch.device("cpu")
    assert capsys.readouterr().err == "mps has no float64: computing on the CPU\n"


def test_processes_that_work_together_leave_it(apple: None, monkeypatch: pytest.MonkeyPatch):
    together = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    for name, value in together.items():
        monkeypatch.setenv(name, value)
    assert open_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="--device mps: this PyTorch sees no Apple GPU for one"):
        open_device("mps")


def test_without_one_it_is_refused():
    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="--device mps: this PyTorch sees no Apple GPU.*cpu"):
        open_device("mps")


def test_cuda_comes_first_and_its_index_must_exist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert open_device("auto") == torch.device("cuda") and chosen == [1]
    for index, problem in (("2", "LOCAL_RANK is 2, but there are 2"), ("x", "LOCAL_RANK='x'")):
        monkeypatch.setenv("LOCAL_RANK", index)
        with pytest.raises(UserError, match=problem):
            open_device("auto")


# values without float64


def test_random_numbers_are_those_of_float64_to_the_last_bits(monkeypatch: pytest.MonkeyPatch):
    index = torch.arange(2000)
    fine, same = uniform(1, index), normal(5, 1, index)
    for module in (devices, counter):
        monkeypatch.setattr(module, "has_float64", lambda device: False)
    coarse = uniform(1, index)
    assert coarse.dtype == torch.float32 and coarse.max() < 1
    assert torch.equal(coarse.double(), (fine * 2**24).floor() / 2**24)
    assert torch.equal(normal(5, 1, index), same)


def test_the_loss_is_float32_then(narrow: None, puzzles: Any):
    logits = torch.randn(5, 16, 6, generator=torch.Generator().manual_seed(0))
    loss = stablemax_cross_entropy(logits, puzzles[1])
    assert loss.dtype == torch.float32
    # s(1) = 2, s(-1) = 1/2: p = 2 / 2.5 = 0.8
    by_hand = stablemax_cross_entropy(torch.tensor([[-1.0, 1.0]]), torch.tensor([1]))
    torch.testing.assert_close(by_hand, -torch.tensor([0.8]).log())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_asks_for_no_float64(
    narrow: None, make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, optimizer: str
):
    # a number that the host hands over is float64 on the CPU only
    trainer = make(steps=3, eval_every=100, log_every=1, explore=0.5, optimizer=optimizer)
    assert trainer.sums.dtype == torch.float32
    with NoFloat64():
        for _ in range(2):
            trainer.step()
        run_batch(trainer.model, trainer.data.val_inputs, trainer.data.val_labels, 2)
    train(trainer)
    assert trainer.finished()


def test_a_state_from_a_wider_device_is_taken(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    wide = make("run", steps=5, save_every=5, eval_every=2, log_every=3)
    train(wide)
    assert torch.load(wide.out / STATE_FILE, weights_only=True)["sums"].dtype == torch.float64
    monkeypatch.setattr(devices, "has_float64", lambda device: False)
    narrow = make("run", steps=8)
    narrow.resume()
    assert narrow.sums.dtype == torch.float32
    torch.testing.assert_close(narrow.sums, wide.sums.float())
    train(narrow)
    assert narrow.step_count == 8
