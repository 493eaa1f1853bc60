"""Files that lie about what they hold: one line each, no allocation by what they claim, no hang."""

import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from published import error_of, lightning, public_state
from safetensors.torch import load_file, save_file

from trm_interp.core.checkpoints.folder import CheckpointError, load_checkpoint, save_checkpoint
from trm_interp.core.convert import convert
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig


@pytest.fixture
def published() -> TRM:
    return TRM(TRMConfig(cells=16, vocab=6, d_model=64, multiple=32, prefix=1), torch.Generator())


@pytest.fixture
def step(published: TRM, tmp_path: Path) -> Path:
    """A public file."""
    torch.save(public_state(published), tmp_path / "step_1")
    return tmp_path / "step_1"


@pytest.fixture
def ours(tiny_mlp: TRM, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "ours", tiny_mlp, {})
    return tmp_path / "ours"


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """What Python allocates stays below 50 MB; torch's tensors are made on `meta` or refused."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def no_model_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only shapes may be worked out: `reset_parameters` of a real model fails the test."""

    def reset(self: TRM, generator: Any = None) -> None:
        assert self.z_H_init.device.type == "meta"

    monkeypatch.setattr(TRM, "reset_parameters", reset)


# our folder


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"d_model": 16_384}, "the configuration gives"),
        ({"vocab": 256, "cells": 65_536, "prefix": 0, "d_model": 16_384}, "lacks|unknown|gives"),
        ({"n_layers": 64}, "lacks net.blocks"),
    ],
)
def test_a_configuration_is_not_believed_before_the_weights(
    ours: Path, changes: Any, says: str, monkeypatch: pytest.MonkeyPatch
):
    file = ours / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    no_model_is_made(monkeypatch)
    message = error_of(ours)
    assert message.startswith(f"{ours / 'model.safetensors'}: ")
    assert any(part in message for part in says.split("|"))


LIMITED = [f.name for f in fields(TRMConfig) if "most" in f.metadata]


@pytest.mark.parametrize("name", [*LIMITED, "l_cycles, h_cycles"])
def test_settings_beyond_every_model_are_refused(ours: Path, name: str):
    file = ours / "config.json"
    value = 200 if ", " in name else 10**12 if name != "rope_base" else 1e300
    changes = {part: value for part in name.split(", ")}
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    message = error_of(ours)
    assert message.startswith(f"{file}: ") and "must be at most" in message


@pytest.mark.parametrize("name", ["expansion", "norm_eps", "rope_base"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_settings_that_are_no_numbers(ours: Path, name: str, value: float):
    file = ours / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    assert error_of(ours).startswith(f"{file}: {name} must be")


@pytest.mark.parametrize("text", ["null", "[" * 100_000, '{"d_model": 1' + "0" * 5000 + "}"])
def test_json_that_is_no_object(ours: Path, text: str):
    (ours / "config.json").write_text(text)
    assert error_of(ours).startswith(f"{ours / 'config.json'}: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(ours: Path, step: Path, published: TRM, value: float):
    file = ours / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"][2, 1] = value
    save_file(weights, file)
    assert f"{file}: lm_head.weight has NaN or infinite entries (1 of 48)" in error_of(ours)
    state = public_state(published)
    state["_orig_mod.model.inner.H_init"] = torch.full((64,), value)
    torch.save(state, step)
    assert f"{step}: z_H_init has NaN or infinite entries (64 of 64)" in error_of(step)


# what is no file


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "card.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipes_and_folders_in_our_folder(ours: Path, name: str, make: Callable[[Path], None]):
    (ours / name).unlink()
    make(ours / name)
    assert str(ours / name) in error_of(ours)


@pytest.mark.parametrize("name", ["step_3", "checkpoint", "last.ckpt", "all_config.yaml"])
def test_pipes_among_the_files_of_others(tmp_path: Path, published: TRM, name: str):
    os.mkfifo(tmp_path / name)
    if name == "all_config.yaml":
        torch.save(public_state(published), tmp_path / "step_1")
    if name != "checkpoint":  # passed over: a folder may be called so
        assert f"{tmp_path / name} is a named pipe" in error_of(tmp_path)
        assert "is a named pipe" in error_of(tmp_path / "step_1" if "all" in name else tmp_path)


def test_devices_and_names_that_cannot_be(tmp_path: Path):
    assert "/dev/zero is a device" in error_of("/dev/zero")
    assert "too long" in error_of(tmp_path / ("x" * 300))


# archives and pickles


def rewritten(
    source: Path, to: Path, how: int, edit: Callable[[str, bytes], bytes] = lambda name, data: data
) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w", how) as new:
        for member in old.namelist():
            new.writestr(member, edit(member, old.read(member)))
    return to


def test_a_compressed_archive_is_not_unpacked(step: Path, tmp_path: Path):
    zeros = lambda name, data: bytes(40_000_000) if "/data/" in name else data  # noqa: E731
    tracemalloc.stop()
    bomb = rewritten(step, tmp_path / "step_2", zipfile.ZIP_DEFLATED, zeros)
    tracemalloc.start()
    assert bomb.stat().st_size < 3e6
    assert error_of(bomb) == f"{bomb}: a compressed archive, which torch.save never makes"


def test_a_directory_that_promises_more_than_the_file(step: Path):
    """All entries of the directory point to the largest member."""
    content = bytearray(step.read_bytes())
    with zipfile.ZipFile(step) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 20 : at + 28] = largest.file_size.to_bytes(4, "little") * 2
        at = content.find(b"PK\x01\x02", at + 4)
    step.write_bytes(content)
    assert "its directory promises" in error_of(step)


class Bytes:
    def __reduce__(self) -> Any:
        return bytearray, (2_000_000_000,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_call_that_fills_the_memory(step: Path, published: TRM, zipped: bool):
    torch.save(
        public_state(published) | {"x": Bytes()}, step, _use_new_zipfile_serialization=zipped
    )
    assert "asks for a bytearray" in error_of(step)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(1).expand(256, 16_000), "claims 4096000 entries"),
        (torch.empty(6, 64, device="meta"), "not weights"),
        (torch.zeros(6, 64).to_sparse(), "not weights"),
        (torch.zeros(6, 64, dtype=torch.int8), "not floating-point"),
        (torch.zeros(6, 64, dtype=torch.complex64), "not floating-point"),
    ],
)
def test_tensors_that_are_no_weights(step: Path, published: TRM, tensor: Any, says: str):
    state = public_state(published)
    state["_orig_mod.model.inner.lm_head.weight"] = tensor
    torch.save(state, step)
    assert says in error_of(step)


@pytest.mark.parametrize("layer", [63, 999_999_999])
def test_layers_that_are_not_there(
    step: Path, published: TRM, layer: int, monkeypatch: pytest.MonkeyPatch
):
    state = public_state(published)
    renamed = {name.replace("layers.1.", f"layers.{layer}."): t for name, t in state.items()}
    torch.save(renamed, step)
    no_model_is_made(monkeypatch)
    message = error_of(step)
    assert "missing" in message or "n_layers must be at most" in message


# settings of others


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds a NoneType"),
        ("null", "holds a NoneType"),
        ("[1, 2]", "holds a list"),
        ("arch: null", "arch holds a NoneType"),
        ("arch: [1]", "arch holds a list"),
        ("arch: {H_cycles: abc}", "H_cycles is 'abc', not a number"),
        ("arch: {H_cycles: true}", "H_cycles is True, not a number"),
        ("arch: {H_cycles: .nan}", "H_cycles is nan, not a number"),
        ("arch: {L_cycles: .inf}", "L_cycles is inf, not a number"),
        ("arch: {L_cycles: 2.5}", "L_cycles is 2.5, not a count"),
        ("arch: {L_cycles: -2}", "L_cycles is -2, not a count"),
        ("arch: {H_cycles: 1000000000000}", "h_cycles must be at most 256"),
        ("arch: {H_cycles: 1e999}", "H_cycles is"),
        ("arch: {expansion: 0}", "expansion must be above 0"),
        ("arch: {seq_len: 1000000000000}", "the weights mix 17 positions"),
        ("arch: {rms_norm_eps: 1e400}", "rms_norm_eps"),
        ("x: " + "y" * 70_000, "at most 0.064 MB"),
        ("[" * 5000, "too many brackets"),
        ("[" * 190, "not a model configuration"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "merge keys"),
        ("\xff\xfe", "damaged"),
    ],
)
def test_settings_that_lie(step: Path, text: str, says: str):
    (step.parent / "all_config.yaml").write_bytes(text.encode("latin-1"))
    message = error_of(step)
    assert message.startswith(f"{step.parent}/") and says in message and len(message) < 300


def test_numbers_as_yaml_reads_them(step: Path):
    """YAML 1.1 takes 1e-5 for text."""
    (step.parent / "all_config.yaml").write_text("arch: {rms_norm_eps: 1e-5, H_cycles: 2.0}")
    config = load_checkpoint(step).model.config
    assert (config.norm_eps, config.h_cycles) == (1e-5, 2)


@pytest.mark.parametrize("value", ["abc", 10**12, float("nan"), None, [1]])
def test_lightning_settings_that_lie(tmp_path: Path, value: Any):
    model = TRM(TRMConfig(cells=16, vocab=6, d_model=32, prefix=0, q_outputs=1, expansion=2.0))
    torch.save(lightning(model, H_cycles=value), tmp_path / "last.ckpt")
    if value is None or isinstance(value, list):  # says nothing
        assert load_checkpoint(tmp_path).model.config.h_cycles == 3
    else:
        assert error_of(tmp_path).startswith(f"{tmp_path / 'last.ckpt'}: ")


# folders of others


def test_files_of_others_beside_a_configuration_of_theirs(tmp_path: Path, published: TRM):
    (tmp_path / "config.json").write_text('{"architectures": ["TRM"], "d_model": 64}')
    assert "model.safetensors: missing" in error_of(tmp_path)
    save_file(public_state(published, ""), tmp_path / "model.safetensors")
    assert load_checkpoint(tmp_path).path == tmp_path / "model.safetensors"
    (tmp_path / "config.json").unlink()
    assert load_checkpoint(tmp_path).format == "TRM"
    (tmp_path / "config.json").write_text('{"architectures": ["TRM"]}')
    torch.save(public_state(published), tmp_path / "step_10")
    assert load_checkpoint(tmp_path).path == tmp_path / "step_10"


# pickles that are malformed, and words that only look like a call


@pytest.mark.parametrize("content", [b"\x80\x02.", b"\x80\x02K\x01(N.", b"\x80\x02h\x07."])
def test_malformed_pickles(step: Path, tmp_path: Path, content: bytes):
    def edit(name: str, data: bytes) -> bytes:
        return content if name.endswith("data.pkl") else data

    bad = rewritten(step, tmp_path / "a.ckpt", zipfile.ZIP_STORED, edit)
    shutil.copy(bad, tmp_path / "b.ckpt")
    step.unlink()
    assert error_of(tmp_path).startswith(f"{bad}: ")  # both are opened for the newer one
    with pytest.raises(CheckpointError, match="a.ckpt: "):
        convert(bad)


def test_weights_may_hold_any_word_and_pickles_any_case(step: Path, tmp_path: Path, published: TRM):
    word = torch.frombuffer(bytearray(b"bytearray\n.."), dtype=torch.float32)
    with torch.no_grad():
        published.lm_head.weight[0, :3] = word
    torch.save(public_state(published), step)
    assert torch.equal(load_checkpoint(step).model.lm_head.weight[0, :3], word)
    torch.save(public_state(published) | {"x": Bytes()}, step)
    content = step.read_bytes().replace(b"/data.pkl", b"/DATA.PKL")
    step.write_bytes(content)
    assert "asks for a bytearray" in error_of(step)


def test_a_lack_of_memory_is_no_damage(step: Path, ours: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", fail)
    monkeypatch.setattr("trm_interp.core.checkpoints.folder.load_tensors", fail)
    for path in (step, ours):
        with pytest.raises(MemoryError):
            load_checkpoint(path)
