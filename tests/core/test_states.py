"""Training states that lie: one line, before memory is spent and before the run is touched."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trm_interp.core.training.portable import INDEX, load_portable, save_portable
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.runtime.errors import UserError

Make = Callable[..., Trainer]


@pytest.fixture
def saved(make: Make, tmp_path: Path) -> Path:
    trainer = make()
    trainer.step()
    trainer.validate()
    trainer.save()
    return tmp_path / "run" / STATE_FILE


def refusal(make: Make, **settings: Any) -> str:
    """One short line, the test's own folder apart."""
    trainer = make(**settings)
    with pytest.raises(UserError) as caught:
        trainer.resume()
    line = str(caught.value)
    assert "\n" not in line and len(line.replace(str(trainer.out.parent), "")) < 300
    return line


def test_of_many_changed_settings_three_are_told(make: Make, saved: Path):
    state = torch.load(saved, weights_only=True)
    torch.save(state | {"identity": state["identity"] | {"data": "0" * 64, "puzzles": 9}}, saved)
    others: dict[str, Any] = {"lr": 1.0, "seed": 5, "weight_decay": 0.5, "ema": 0.5}
    line = refusal(make, **others, beta2=0.5, explore=0.25)
    assert line.count(" there, ") == 3 and re.search(r" and \d more: ", line)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_a_lack_of_memory_is_no_damage(
    make: Make, saved: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    trainer = make()
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(trainer.model, "load_state_dict", fail)
        trainer.resume()
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        trainer.resume()


FIELDS = (
    *("identity", "settings", "changes", "step", "seconds", "rows", "summed_steps", "best"),
    *("validated_on", "validated_at", "model", "average", "best_weights", "optimizers", "slots"),
    "sums",
)


def test_every_field_is_asked_for(make: Make, saved: Path):
    state = torch.load(saved, weights_only=True)
    assert set(FIELDS) <= state.keys()
    for name in FIELDS:
        torch.save({k: v for k, v in state.items() if k != name}, saved)
        assert f"{saved} has no {name}: not a state of `trm-interp train`" in refusal(make)
        torch.save(state | {name: None}, saved)
        assert f"{name} is a NoneType" in refusal(make)
    torch.save(state, saved)
    make().resume()


@pytest.mark.parametrize("whole", [[], None, torch.ones(3), {"sae": {}, "trainer": {}}])
def test_files_of_other_kinds(make: Make, saved: Path, whole: Any):
    torch.save(whole, saved)
    assert "not a state of `trm-interp train`" in refusal(make)


def wrong_average(state: dict[str, Any]) -> None:
    state["average"][0] = torch.ones(2)


def wrong_best(state: dict[str, Any]) -> None:
    state["best_weights"] = state["best_weights"][1:]


def wrong_slots(state: dict[str, Any]) -> None:
    state["slots"]["z_L"] = torch.ones(5, 3)


def lacking_slots(state: dict[str, Any]) -> None:
    del state["slots"]["draws"]


def wrong_weights(state: dict[str, Any]) -> None:
    state["model"]["lm_head.weight"] = torch.ones(1)


def no_optimizer(state: dict[str, Any]) -> None:
    state["optimizers"] = []


def odd_moments(state: dict[str, Any]) -> None:
    state["optimizers"][0] = {"state": 3}


def no_best(state: dict[str, Any]) -> None:
    state["best"] = {}


LIES = [wrong_average, wrong_best, wrong_slots, lacking_slots, wrong_weights]
LIES += [no_optimizer, odd_moments, no_best]


@pytest.mark.parametrize("lie", LIES)
def test_content_of_another_shape(make: Make, saved: Path, lie: Callable[[dict[str, Any]], None]):
    state = torch.load(saved, weights_only=True)
    lie(state)
    torch.save(state, saved)
    assert "start the run over" in refusal(make)


def test_a_bomb_is_not_unpacked(make: Make, saved: Path):
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert saved.stat().st_size < 10**5 and "a compressed archive" in refusal(make)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"files": {"../../x.safetensors": "0"}}, "is no part of a state"),
        ({"files": {"/etc/passwd": "0"}}, "is no part of a state"),
        ({"files": []}, "files is a list"),
        ({"step": "x"}, "step is a str"),
        ({"step": True}, "step is a bool"),
        ({"files": {}}, "damaged (KeyError"),
    ],
)
def test_an_index_that_lies(make: Make, tmp_path: Path, change: dict[str, Any], problem: str):
    trainer = make()
    trainer.step()
    save_portable(trainer, tmp_path / "state")
    index = tmp_path / "state" / INDEX
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(UserError) as caught:
        load_portable(make(), tmp_path / "state")
    assert problem in str(caught.value) and "\n" not in str(caught.value)
