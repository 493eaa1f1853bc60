"""nano-trm's Lightning files: its vocabulary, its averages, which of several, its classes."""

import argparse
import copyreg
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from published import error_of, lightning, public_state, same_weights
from torch import Tensor
from toy_task import Latin

from trm_interp.core.checkpoints.folder import CheckpointError, load_checkpoint
from trm_interp.core.convert import convert
from trm_interp.core.infer import run
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.recording.info import describe
from trm_interp.recording.opening import recorded_checkpoint
from trm_interp.subjects.evaluate import solve
from trm_interp.subjects.opening import open_both, open_checkpoint
from trm_interp.tasks import registry

SETTINGS: dict[str, Any] = {
    "cells": 16, "vocab": 6, "d_model": 32, "prefix": 0, "q_outputs": 1, "expansion": 2.0,
    "h_cycles": 2, "l_cycles": 3, "n_heads": 4,
}  # fmt: skip
TRAINED = ("embedding_weight", "weight", "bias")  # endings; the start vectors have no average


def made(seed: int = 1, **changes: Any) -> TRM:
    return TRM(TRMConfig(**SETTINGS | changes), torch.Generator().manual_seed(seed)).eval()


@pytest.fixture
def model() -> TRM:
    return made()


@pytest.fixture
def other() -> TRM:
    return made(seed=2)


def with_eos(tensor: Tensor) -> Tensor:
    """With a row for EOS, token 1."""
    return torch.cat([tensor[:1], 100 * tensor.sum(0, keepdim=True), tensor[1:]])


def nano(model: TRM, **changes: Any) -> dict[str, Any]:
    """As nano-trm saves: PAD 0, EOS 1, blank 2, digits from 3; vocabulary side + 3."""
    file = lightning(model, vocab_size=model.config.vocab + 1, **changes)
    for name in ("input_embedding.embedding_weight", "lm_head.weight"):
        file["state_dict"][name] = with_eos(file["state_dict"][name])
    return file | {"global_step": 7, "callbacks": {}}


def averaged(model: TRM, other: TRM, prefix: str = "") -> dict[str, Any]:
    """Trained weights of `model`, averages of `other`."""
    file, shadow = nano(model), nano(other)["state_dict"]
    shadow = {f"{prefix}{k}": v for k, v in shadow.items() if k.endswith(TRAINED)}
    file["callbacks"] = {"EMACallback": {"shadow": shadow, "decay": 0.999}}
    return file


@pytest.mark.parametrize("mixer", ["mlp", "attention"])
def test_its_tokens_are_numbered_as_ours(tmp_path: Path, puzzles: Any, mixer: Any):
    model = made(mixer=mixer)
    torch.save(nano(model), tmp_path / "last.ckpt")
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.config.vocab == 6 and same_weights(loaded.model, model)
    assert "EOS" in loaded.card["settings"]["dropped"]
    ours, theirs = (run(m, *puzzles, steps=2, keep_logits=True) for m in (model, loaded.model))
    assert torch.equal(ours.logits, theirs.logits)  # type: ignore[arg-type]


def test_its_own_file_opens_with_puzzles(tmp_path: Path, model: TRM, grids: Path):
    torch.save(nano(model), tmp_path / "last.ckpt")
    checkpoint, puzzles = open_both(str(tmp_path), grids, torch.device("cpu"))
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    expected = run(model, inputs, labels, steps=2)
    assert torch.equal(solve(checkpoint.model, puzzles, 2).tokens, expected.tokens)


def test_padded_grids_keep_their_tokens(tmp_path: Path):
    """Generated 4x4 puzzles lie in grids of 6x6, where EOS is used."""
    torch.save(nano(made(cells=36), seq_len=36), tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path).model.config.vocab == 7


def test_a_task_with_just_this_vocabulary_keeps_it(tmp_path: Path, model: TRM):
    """Of other puzzles on a 4x4 grid, all seven tokens may mean something."""
    torch.save(nano(model), tmp_path / "last.ckpt")
    for seven, kept in ((True, 7), (False, 6)):
        fits = lambda cells, vocab, seven=seven: seven and (cells, vocab) == (16, 7)  # noqa: E731
        assert load_checkpoint(tmp_path, fits=fits).model.config.vocab == kept


def test_every_command_reads_the_same_tokens(tmp_path: Path, model: TRM):
    class Sevens(Latin):
        family, name, cells, vocab, grid = "sevens", "sevens4", 16, 7, (4, 4)

    file = tmp_path / "last.ckpt"
    torch.save(nano(model), file)
    registry.register_task(Sevens)
    try:
        opened = open_checkpoint(file)
        facts = {"checkpoint_sha256": opened.sha256, "checkpoint_path": str(file)}
        identity = SimpleNamespace(random_weights=None)
        store: Any = SimpleNamespace(**facts, model=SimpleNamespace(cells=16), identity=identity)
        again, mismatch = recorded_checkpoint(store, None, torch.device("cpu"))
    finally:
        registry.unregister("sevens")
    assert mismatch is None and again.model.config.vocab == opened.model.config.vocab == 7


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_averages_are_read(tmp_path: Path, model: TRM, other: TRM, prefix: str):
    torch.save(averaged(model, other, prefix), tmp_path / "last.ckpt")
    loaded = load_checkpoint(tmp_path)
    assert loaded.weights == "averages (callbacks.EMACallback.shadow)"
    assert loaded.card["weights"] == loaded.weights == describe(str(tmp_path))["weights"]
    assert torch.equal(loaded.model.lm_head.weight, other.lm_head.weight)
    assert torch.equal(loaded.model.z_H_init, model.z_H_init)  # has none
    last = load_checkpoint(tmp_path, averages=False)
    assert same_weights(last.model, model) and "without the averages" in last.weights


def test_without_averages_that_is_said(tmp_path: Path, model: TRM):
    torch.save(nano(model), tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path).weights == "state_dict, no averages in the file"


def test_the_newest_of_several_files_by_what_they_say(tmp_path: Path, model: TRM):
    steps = {"epoch=9.ckpt": 90, "epoch=10.ckpt": 100, "last.ckpt": 40, "last-v1.ckpt": 120}
    for count in range(2, len(steps) + 1):
        for name, step in list(steps.items())[:count]:
            torch.save(nano(model) | {"global_step": step}, tmp_path / name)
        newest = max(list(steps)[:count], key=lambda name: steps[name])
        assert load_checkpoint(tmp_path).path.name == newest
    torch.save(nano(model)["state_dict"], tmp_path / "other.ckpt")
    assert "other.ckpt: no global_step" in error_of(tmp_path)
    assert load_checkpoint(tmp_path / "last.ckpt").path.name == "last.ckpt"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pos_emb_type": None}, "rotary positions"),
        ({"pos_emb_type": "2d"}, "2-D rotary"),
        ({"use_2d_rope": True}, "2-D rotary"),
        ({"attn_gate_type": "headwise"}, "no gate"),
    ],
)
def test_attention_that_is_another_model(tmp_path: Path, changes: Any, says: str):
    torch.save(nano(made(mixer="attention"), **changes), tmp_path / "last.ckpt")
    assert says in error_of(tmp_path)


# dictionaries and prefixes of others


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state, _: {f"module.{k}": v for k, v in state.items()},
        lambda state, _: {f"_orig_mod.module.{k}": v for k, v in state.items()},
        lambda state, _: {f"module._orig_mod.model.inner.{k}": v for k, v in state.items()},
        lambda state, _: {"model_state_dict": state, "step": 3},
        lambda state, _: {"model": state, "optimizer": {"state": {}}},
        lambda state, other: {"model": other, "ema": state},
        lambda state, other: {"model": other, "ema": {"shadow": state, "mu": 0.999}},
        lambda state, _: {"ema": state},
        lambda state, other: {"state_dict": other, "ema_state_dict": state},
    ],
)
def test_wrapped_weights(tmp_path: Path, model: TRM, other: TRM, wrap: Callable[..., Any]):
    state, raw = public_state(model, ""), public_state(other, "")
    torch.save(wrap(state, raw), tmp_path / "step_1")
    loaded = load_checkpoint(tmp_path)
    assert same_weights(loaded.model, model)
    assert loaded.weights.startswith("averages") == ("ema" in str(wrap({}, {})))


def test_wrappings_that_are_not_known_are_named(tmp_path: Path, model: TRM):
    torch.save({"net": public_state(model, ""), "epoch": 3}, tmp_path / "step_1")
    assert "no weights under its keys 'net', 'epoch'" in error_of(tmp_path)
    twice = public_state(model, "") | public_state(model, "module.")
    torch.save(twice, tmp_path / "step_1")
    assert "comes twice" in error_of(tmp_path)


def test_a_second_network_is_no_trm(tmp_path: Path, model: TRM):
    state = public_state(model, "model.inner.")
    torch.save(state, tmp_path / "checkpoint")
    assert same_weights(load_checkpoint(tmp_path).model, model)
    state["model.inner.H_level.layers.0.mlp.down_proj.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "checkpoint")
    assert "H_level.layers.1 is missing, of 2 layers of this HRM checkpoint" in error_of(tmp_path)


# classes around the settings


def node_class(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> type:
    """A class that pickles as OmegaConf's do: made by `copyreg.__newobj__`, then its state."""
    kind = type(name, (), {"__module__": module})
    kind.__reduce__ = lambda self: (copyreg.__newobj__, (kind,), vars(self))  # type: ignore
    monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
    home = ModuleType(module)
    setattr(home, name, kind)
    monkeypatch.setitem(sys.modules, module, home)
    return kind


def node(kind: type, **state: Any) -> Any:
    made = kind()
    vars(made).update(state)
    return made


def test_harmless_classes_are_opened_without_being_loaded(
    tmp_path: Path, model: TRM, monkeypatch: pytest.MonkeyPatch
):
    leaf = node_class(monkeypatch, "omegaconf.nodes", "AnyNode")
    branch = node_class(monkeypatch, "omegaconf.dictconfig", "DictConfig")
    file = nano(model)
    settings = {k: node(leaf, _val=v, _parent=None) for k, v in file["hyper_parameters"].items()}
    file["hyper_parameters"] = node(branch, _content=settings, _parent=None)
    file["callbacks"] = {"ModelCheckpoint": {"dirpath": PurePosixPath("/data"), "best": Path("a")}}
    file["args"] = argparse.Namespace(batch=3)
    torch.save(file, tmp_path / "last.ckpt")
    for module in ("omegaconf", "omegaconf.nodes", "omegaconf.dictconfig"):  # not installed
        monkeypatch.setitem(sys.modules, module, None)
    loaded = load_checkpoint(tmp_path)
    assert same_weights(loaded.model, model) and loaded.model.config.l_cycles == 3
    assert loaded.card["settings"]["ffn_expansion"] == 2


def test_settings_in_a_namespace(tmp_path: Path, model: TRM):
    file = nano(model)
    file["hyper_parameters"] = argparse.Namespace(**file["hyper_parameters"], out=Path("x"))
    torch.save(file, tmp_path / "last.ckpt")
    settings = load_checkpoint(tmp_path).card["settings"]
    assert settings["L_cycles"] == 3 and "out" not in settings


def test_other_classes_are_refused_with_the_command_that_converts(tmp_path: Path, model: TRM):
    file = nano(model)
    file["hyper_parameters"]["scheduler"] = argparse.ArgumentError(None, "mine")
    torch.save(file, tmp_path / "last.ckpt")
    message = error_of(tmp_path)
    assert "it names argparse.ArgumentError); it was not run" in message
    assert "python -m trm_interp.core.convert FILE" in message and "weights_only" not in message
    copy = convert(tmp_path / "last.ckpt")
    assert copy == tmp_path / "last-plain.ckpt"
    assert same_weights(load_checkpoint(copy).model, model)
    with pytest.raises(CheckpointError, match="exists"):
        convert(tmp_path / "last.ckpt")


def test_a_legacy_file_is_refused_with_what_helps_there(tmp_path: Path, model: TRM):
    file = nano(model)
    file["hyper_parameters"]["scheduler"] = argparse.ArgumentError(None, "mine")
    torch.save(file, tmp_path / "last.ckpt", _use_new_zipfile_serialization=False)
    message = error_of(tmp_path)
    assert "it names argparse.ArgumentError); it was not run" in message
    assert "cannot be converted: save the state_dict alone" in message
