"""Sign descent for puzzle embeddings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import FAST, SMALL, assert_same_bits

from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.sign_sgd import SignSGD
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import Trainer
from trm_interp.runtime.errors import UserError

SIGN: dict[str, Any] = {"prefix_optimizer": "sign-sgd", "prefix_lr": 0.5, "prefix_decay": 0.1}


def trainer_of(data: TrainData, out: Path, n_identifiers: int = 0, **settings: Any) -> Trainer:
    config = replace(SMALL, n_identifiers=n_identifiers)
    if n_identifiers:  # puzzle i is puzzle i % 3, so that row 3 is of none
        own = torch.arange(len(data.inputs)) % 3
        data = replace(data, identifiers=own, val_identifiers=own[: len(data.val_inputs)])
    return Trainer(config, TrainConfig(**{**FAST, **settings}), data, out)


def test_a_step_by_hand():
    table = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    table.grad = torch.tensor([[0.3, 0.0, -7.0], [0.0, 0.0, 0.0]])
    SignSGD([table], lr=0.1, weight_decay=0.5).step()
    # (1 - 0.05) w - 0.1 sign(g); the second row is of no puzzle of the batch
    expected = torch.tensor([[0.85, -1.9, 2.95], [4.0, 5.0, 6.0]])
    assert torch.allclose(table.detach(), expected)
    vector = torch.tensor([2.0, 2.0], requires_grad=True)
    vector.grad = torch.tensor([0.0, 1e-30])
    SignSGD([vector], lr=torch.tensor(0.5), weight_decay=0.0).step()  # type: ignore[arg-type]
    assert vector.tolist() == [2.0, 1.5]


@pytest.mark.parametrize("n_identifiers", [0, 4])
def test_only_the_puzzle_embeddings_are_trained_by_it(
    data: TrainData, tmp_path: Path, n_identifiers: int
):
    trainer = trainer_of(data, tmp_path, n_identifiers, **SIGN, optimizer="muon", warmup=0.0)
    table = trainer.model.get_parameter("prefix_embedding")
    held = [
        [id(p) for group in one.param_groups for p in group["params"]] for one in trainer.optimizers
    ]
    assert len(held) == 3 and held[-1] == [id(table)]
    assert sorted(one for of in held for one in of) == sorted(map(id, trainer.model.parameters()))
    before = table.detach().clone()
    trainer.step()
    moved = (table.detach() - 0.95 * before).abs()  # 1 - 0.5 * 0.1
    rows = moved.reshape(-1, SMALL.d_model)
    used = rows[:3][rows[:3] > 0]
    assert len(used) and torch.allclose(used, torch.tensor(0.5))
    if n_identifiers:
        assert torch.equal(table.detach()[3], before[3])  # decay does not reach it


def test_it_resumes_bit_for_bit(data: TrainData, tmp_path: Path):
    whole, part = (trainer_of(data, tmp_path / name, 4, **SIGN) for name in ("whole", "part"))
    for _ in range(4):
        whole.step()
    for _ in range(2):
        part.step()
    part.save()
    again = trainer_of(data, tmp_path / "part", 4, **SIGN)
    again.resume()
    for _ in range(2):
        again.step()
    assert_same_bits(whole.state(), again.state())


def test_a_state_of_earlier_versions_has_adamw(data: TrainData, tmp_path: Path):
    earlier = trainer_of(data, tmp_path)
    earlier.step()
    earlier.save()
    file = tmp_path / "train_state.pt"
    state: dict[str, Any] = torch.load(file, weights_only=True)
    for one in (state["identity"], state["settings"]):
        for name in [name for name in one if "prefix_" in name]:
            del one[name]
    torch.save(state, file)
    again = trainer_of(data, tmp_path)
    again.resume()
    assert_same_bits(earlier.state(), again.state())
    with pytest.raises(UserError, match="prefix_optimizer"):
        trainer_of(data, tmp_path, **SIGN).resume()


def test_a_model_without_embeddings_is_refused(data: TrainData, tmp_path: Path):
    with pytest.raises(UserError, match="has no puzzle embeddings; give it a prefix"):
        Trainer(replace(SMALL, prefix=0), TrainConfig(**{**FAST, **SIGN}), data, tmp_path)


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="prefix_lr must be at least 0"):
        TrainConfig(prefix_lr=-1.0)
    with pytest.raises(ValueError, match="prefix_optimizer must be one of"):
        TrainConfig(prefix_optimizer="sgd")  # type: ignore[arg-type]
