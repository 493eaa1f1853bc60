"""The state that travels: going on from its files equals going on without them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.training import portable
from trm_interp.core.training.portable import INDEX, load_portable, save_portable
from trm_interp.core.training.trainer import Trainer
from trm_interp.runtime.errors import UserError


@pytest.mark.parametrize("settings", [{}, {"optimizer": "muon"}, {"dtype": "bfloat16"}])
def test_going_on_from_the_files_equals_going_on(
    make: Callable[..., Trainer], tmp_path: Path, settings: dict[str, Any]
):
    whole = make(**settings)
    for _ in range(5):
        whole.step()
    whole.validate()
    save_portable(whole, tmp_path / "state")
    resumed = make(**settings)
    load_portable(resumed, tmp_path / "state")
    assert resumed.step_count == 5 and resumed.validated_at == 5
    assert resumed.best == whole.best
    for _ in range(4):
        one, other = whole.step(), resumed.step()
        assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = ([*t.model.parameters(), *t.average.mean] for t in (whole, resumed))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(whole.slots.draws, resumed.slots.draws)
    assert torch.equal(whole.slots.states.z_L, resumed.slots.states.z_L)


def test_twelve_bytes_a_weight_in_parts(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(portable, "PART_BYTES", 20_000)
    trainer = make()
    trainer.step()
    save_portable(trainer, tmp_path)
    first = {file.name for file in tmp_path.glob("*.safetensors")}
    trainer.step()
    save_portable(trainer, tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and not first & {file.name for file in files}
    held = [tensor.nbytes for file in files for tensor in load_file(file).values()]
    n_weights = sum(p.numel() for p in trainer.model.parameters())
    assert 12 * n_weights < sum(held) < 12 * n_weights + 1000  # and counters, and start vectors
    for file in files:
        parts = [tensor.nbytes for tensor in load_file(file).values()]
        assert sum(parts) <= 20_000 or len(parts) == 1


def test_the_published_model_fits_its_bounds():
    """4 + 4 + 2 + 2 bytes for each weight of the shape that is trained."""
    from trm_interp.subjects.presets import PRESETS

    shape = {k: v for k, v in PRESETS["flagship"].items() if k in TRMConfig.__dataclass_fields__}
    with torch.device("meta"):
        weights = TRMConfig(**shape)  # type: ignore[arg-type]
    d, n, wide = weights.d_model, weights.positions, weights.swiglu_width
    block = 3 * (n * wide(n) + d * wide(d))
    heads = 2 * weights.vocab * d + weights.q_outputs * (d + 1)
    assert 12 * (2 * block + heads) < 60e6


def test_what_is_missing_damaged_or_of_another_run_is_named(
    make: Callable[..., Trainer], tmp_path: Path
):
    trainer = make()
    with pytest.raises(UserError, match="state.json is missing"):
        load_portable(trainer, tmp_path)
    trainer.step()
    save_portable(trainer, tmp_path)
    with pytest.raises(UserError, match=r"train.lr \(0.001 there, 0.02 now\)"):
        load_portable(make(lr=2e-2), tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError, match=f"{file.name} is damaged"):
        load_portable(make(), tmp_path)
    file.unlink()
    with pytest.raises(UserError, match=f"{file.name} is missing"):
        load_portable(make(), tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({k: v for k, v in index.items() if k != "step"}))
    with pytest.raises(UserError, match="state.json has no step: not a state"):
        load_portable(make(), tmp_path)
