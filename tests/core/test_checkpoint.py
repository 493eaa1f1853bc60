"""Every spelling that is read, and for every file that is not: one line that names it."""

import json
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from published import error_of, lightning, public_state, same_weights
from safetensors.torch import load_file, save_file
from torch import Tensor

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.runtime.artifacts import FORMS
from trm_interp.runtime.outputs import mark


@pytest.fixture
def published() -> TRM:
    """The published cycles and widths at a small size: 4x4 cells, 128 wide, so 2 heads of 64.

    Its 17 positions can only be 16 cells and a prefix of 1.
    """
    return TRM(
        TRMConfig(cells=16, vocab=6, d_model=128, prefix=1), torch.Generator().manual_seed(1)
    )


# ours


def test_our_folder_round_trips_bit_for_bit(tiny_trm: TRM, tmp_path: Path, puzzles: Any):
    save_checkpoint(tmp_path / "run", tiny_trm, {"validation": {"exact": 0.5}})
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.format == "trm-interp" and loaded.card == {"validation": {"exact": 0.5}}
    assert loaded.model.config == tiny_trm.config
    assert same_weights(loaded.model, tiny_trm)
    assert not loaded.model.training
    x = tiny_trm.embed(puzzles[0])
    state = tiny_trm.initial_state(x)
    assert torch.equal(tiny_trm.advance(state, x)[0].z_H, loaded.model.advance(state, x)[0].z_H)
    save_checkpoint(tmp_path / "again", loaded.model, {})
    assert load_checkpoint(tmp_path / "again").sha256 == loaded.sha256
    assert not list(tmp_path.glob("**/*.partial"))


def test_reading_draws_no_random_numbers(tiny_mlp: TRM, tmp_path: Path):
    save_checkpoint(tmp_path, tiny_mlp, {})
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_checkpoint(tmp_path)
    assert torch.equal(torch.rand(1), expected)


# the public file


@pytest.mark.parametrize("prefix", ["_orig_mod.model.inner.", "model.inner.", "inner.", ""])
@pytest.mark.parametrize("mixer", ["mlp", "attention"])
def test_a_public_file_without_its_settings_has_those_of_sudoku(
    tmp_path: Path, prefix: str, mixer: Any
):
    config = TRMConfig(cells=16, vocab=6, d_model=128, mixer=mixer, n_heads=2)
    model = TRM(config, torch.Generator().manual_seed(1))
    torch.save(public_state(model, prefix), tmp_path / "step_65100")
    # attention does not tell the number of cells, 32 mixed positions can be 31 cells
    loaded = load_checkpoint(tmp_path / "step_65100", cells=16)
    assert loaded.format == "TRM" and same_weights(loaded.model, model)
    read = loaded.model.config
    assert (read.h_cycles, read.l_cycles, read.prefix, read.mixer) == (3, 6, 16, mixer)
    assert (read.cells, read.expansion, read.multiple) == (16, 4.0, 256)
    if mixer == "attention":
        assert read.n_heads == 2  # 128 / 64


def test_settings_beside_a_public_file_count(tmp_path: Path):
    config = TRMConfig(
        cells=16, vocab=6, d_model=32, mixer="attention", n_heads=4, prefix=3, h_cycles=2,
        l_cycles=5, expansion=2.0, multiple=256,
    )  # fmt: skip
    model = TRM(config, torch.Generator().manual_seed(1))
    torch.save(public_state(model), tmp_path / "step_10")
    arch = "H_cycles: 2, L_cycles: 5, num_heads: 4, puzzle_emb_len: 3, expansion: 2, seq_len: 16"
    (tmp_path / "all_config.yaml").write_text(f"arch: {{{arch}}}\nlr: 1e-4\n")
    loaded = load_checkpoint(tmp_path)
    read = loaded.model.config
    assert (read.h_cycles, read.l_cycles, read.n_heads, read.prefix) == (2, 5, 4, 3)
    assert read.swiglu_width(32) == config.swiglu_width(32)
    assert loaded.card["settings"]["num_heads"] == 4


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1", True),
        ("recursive_reasoning.other@TinyRecursiveReasoningModel_ACTV1", False),
    ],
)
def test_settings_that_name_another_network_are_refused(
    tmp_path: Path, published: TRM, name: str, reads: bool
):
    torch.save(public_state(published), tmp_path / "step_1")
    (tmp_path / "all_config.yaml").write_text(f"arch: {{name: {name}, seq_len: 16}}")
    if reads:
        load_checkpoint(tmp_path)
        return
    message = error_of(tmp_path)
    assert f"arch.name is '{name}'" in message and "this version has trm" in message


def test_unknown_settings_without_an_architecture_name_those_that_exist(ours: Path):
    file = ours / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "l_steps": 3}))
    message = error_of(ours)
    assert "unknown setting 'l_steps': it is none of trm, and the file names no other" in message
    assert "this version has trm" in message


def test_an_embedding_length_of_zero_is_one_position(tmp_path: Path):
    config = TRMConfig(cells=16, vocab=6, d_model=32, mixer="attention", n_heads=4, prefix=1)
    torch.save(public_state(TRM(config)), tmp_path / "step_1")
    (tmp_path / "all_config.yaml").write_text("arch: {puzzle_emb_len: 0, num_heads: 4}")
    assert load_checkpoint(tmp_path, cells=16).model.config.prefix == 1


@pytest.mark.parametrize(("cells", "prefix"), [(10, 1), (16, 1), (30, 0)])
def test_token_mixing_tells_the_cells_where_one_number_is_possible(
    tmp_path: Path, cells: int, prefix: int
):
    config = TRMConfig(cells=cells, vocab=6, d_model=32, prefix=prefix)
    torch.save(public_state(TRM(config)), tmp_path / "step_1")
    read = load_checkpoint(tmp_path).model.config
    assert (read.cells, read.prefix) == (cells, prefix)


def test_the_newest_step_of_a_folder_counts(tmp_path: Path, published: TRM):
    for step in (9, 100, 20):
        with torch.no_grad():
            published.q_head.bias.fill_(float(step))  # type: ignore[union-attr]
        torch.save(public_state(published), tmp_path / f"step_{step}")
    (tmp_path / "step_999_all_preds.0").write_bytes(b"not a checkpoint")
    loaded = load_checkpoint(str(tmp_path))
    assert loaded.path.name == "step_100" and loaded.model.q_head.bias[0] == 100  # type: ignore[index]


def test_what_only_training_needs_is_passed_over(tmp_path: Path, published: TRM):
    state = public_state(published)
    state["_orig_mod.model.inner.puzzle_emb.local_weights"] = torch.zeros(4, 128)
    state["_orig_mod.model.inner.puzzle_emb.local_ids"] = torch.zeros(4, dtype=torch.int32)
    state["_orig_mod.model.inner.rotary_emb.cos_cached"] = torch.zeros(32, 64)
    torch.save(state, tmp_path / "step_1")
    assert same_weights(load_checkpoint(tmp_path).model, published)


def test_a_public_safetensors_file_in_bfloat16(tmp_path: Path, published: TRM):
    state = {k: v.bfloat16() for k, v in public_state(published).items()}
    save_file(state, tmp_path / "weights.safetensors")
    model = load_checkpoint(tmp_path / "weights.safetensors").model
    assert model.lm_head.weight.dtype == torch.float32
    assert torch.equal(model.lm_head.weight, published.lm_head.weight.bfloat16().float())


# nano-trm


@pytest.mark.parametrize("mixer", ["mlp", "attention"])
def test_a_lightning_file_of_nano_trm(tmp_path: Path, puzzles: Any, mixer: Any):
    config = TRMConfig(
        cells=16, vocab=6, d_model=32, prefix=0, q_outputs=1, expansion=2.0, h_cycles=2,
        l_cycles=3, mixer=mixer, n_heads=4,
    )  # fmt: skip
    model = TRM(config, torch.Generator().manual_seed(1))
    torch.save(lightning(model), tmp_path / "last.ckpt")
    loaded = load_checkpoint(tmp_path)
    assert loaded.format == "nano-trm" and same_weights(loaded.model, model)
    x = model.embed(puzzles[0])
    ours, theirs = (m.advance(m.initial_state(x), x)[0].z_H for m in (model, loaded.model))
    assert torch.equal(ours, theirs)
    assert loaded.model.readout(theirs).q_halt.shape == (5,)


def test_nano_trm_variants_that_are_other_models(tmp_path: Path, published: TRM):
    torch.save(lightning(published, use_conv_swiglu=True), tmp_path / "last.ckpt")
    assert "convolutional SwiGLU" in error_of(tmp_path)


# the hub


def fake_hub(monkeypatch: pytest.MonkeyPatch, snapshot_download: Any) -> None:
    hub = ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_a_checkpoint_on_the_hub(monkeypatch: Any, tmp_path: Path, published: TRM):
    (tmp_path / "sudoku").mkdir()
    torch.save(public_state(published), tmp_path / "sudoku" / "step_5")
    asked = []
    fake_hub(monkeypatch, lambda repo, **rest: (asked.append(repo), str(tmp_path))[1])
    for url in ("hf://owner/repo/sudoku", "hf://owner/repo/sudoku/step_5"):
        assert same_weights(load_checkpoint(url).model, published)
    assert asked == ["owner/repo"] * 2
    assert "no such checkpoint" in error_of("hf://owner/repo/maze")
    assert "expected hf://owner/repo" in error_of("hf://owner")


def test_the_hub_out_of_reach(monkeypatch: Any):
    def offline(repo: str, **rest: Any) -> str:
        raise ConnectionError("we could not connect to 'https://huggingface.co'\ntry again")

    fake_hub(monkeypatch, offline)
    message = error_of("hf://owner/repo")
    assert message.startswith("hf://owner/repo: download failed (we could not connect")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if not installed
    assert error_of("hf://owner/repo") == "hf://owner/repo: needs 'pip install huggingface_hub'"


# bad files


def test_nothing_there(tmp_path: Path):
    said = error_of(tmp_path / "gone")
    assert said.startswith(f"{tmp_path / 'gone'}: no such checkpoint; those that ship: artifacts/")
    assert "artifacts/trm-sudoku6," in said


def test_an_empty_file_and_text(tmp_path: Path):
    (tmp_path / "step_1").touch()
    assert error_of(tmp_path / "step_1").endswith(f"an empty file; a checkpoint is {FORMS}")
    (tmp_path / "notes").write_text("text")
    assert error_of(tmp_path / "notes").endswith(f"no weights in it; a checkpoint is {FORMS}")


def test_a_folder_around_checkpoints_or_of_a_command(tmp_path: Path, published: TRM):
    for name in ("a", "b"):
        save_checkpoint(tmp_path / "all" / name, published, {})
    assert error_of(tmp_path / "all").endswith("a folder of checkpoints: name one of a, b")
    mark(tmp_path / "out", "trm-interp collect")
    assert error_of(tmp_path / "out").endswith(
        "the output of `trm-interp collect`, not a checkpoint"
    )
    assert "no step_N and no *.ckpt" in error_of(tmp_path)


@pytest.fixture
def ours(tiny_mlp: TRM, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "ours", tiny_mlp, {})
    return tmp_path / "ours"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_half_a_folder(ours: Path, missing: str):
    (ours / missing).unlink()
    assert error_of(ours).startswith(f"{ours / missing}: ")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_safetensors(ours: Path, keep: int):
    file = ours / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert error_of(ours).startswith(f"{file}: truncated or damaged (")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"format": "trm-in', "truncated or damaged"),
        ("\xff\xfe", "truncated or damaged"),
        ("[1, 2]", "holds a list"),
        ("{}", "not written by this project"),
        ('{"format": "trm-interp/1", "depth": 3}', "unknown setting 'depth'"),
        ('{"format": "trm-interp/1", "d_model": "8"}', "d_model is '8', not a int"),
        ('{"format": "trm-interp/1", "d_model": null}', "d_model is None"),
        ('{"format": "trm-interp/1", "h_cycles": 2.5}', "h_cycles is 2.5"),
        ('{"format": "trm-interp/1", "normalised_swiglu": "no"}', "normalised_swiglu is 'no'"),
        ('{"format": "trm-interp/1", "n_layers": 0}', "n_layers must be at least 1"),
        ('{"format": "trm-interp/1", "mixer": "conv"}', "mixer must be"),
    ],
)
def test_broken_config(ours: Path, text: str, says: str):
    (ours / "config.json").write_bytes(text.encode("latin-1"))
    message = error_of(ours)
    assert message.startswith(f"{ours / 'config.json'}: ") and says in message


def test_broken_card(ours: Path):
    (ours / "card.json").write_text("{")
    assert error_of(ours).startswith(f"{ours / 'card.json'}: truncated or damaged")


def test_config_and_weights_disagree(ours: Path):
    file = ours / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"vocab": 11}))
    weights = ours / "model.safetensors"
    assert "shape [6, 8], the configuration gives [11, 8]" in error_of(ours)
    file.write_text(json.dumps(settings | {"n_layers": 3}))
    assert f"{weights}: lacks net.blocks.2." in error_of(ours)
    file.write_text(json.dumps(settings | {"n_layers": 1}))
    assert f"{weights}: unknown tensor net.blocks.1." in error_of(ours)


@pytest.mark.parametrize("keep", [0, 3, 300, 20_000])
def test_truncated_pickle(tmp_path: Path, published: TRM, keep: int):
    file = tmp_path / "step_1"
    torch.save(public_state(published), file)
    file.write_bytes(file.read_bytes()[:keep])
    assert error_of(file).startswith(f"{file}: ")


class Mine:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path, published: TRM, write: Any):
    trace, file = tmp_path / "was_run", tmp_path / "step_1"
    write(public_state(published) | {"extra": Mine(trace)}, file)
    message = error_of(file)
    assert message == f"{file}: a pickle that is not plain weights; it was not run"
    assert not trace.exists()
    pickle.loads(pickle.dumps(Mine(trace)))  # the bait is live
    assert trace.exists()


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(3), {"a": 1}, {"state_dict": 3}, {}])
def test_a_file_without_weights(tmp_path: Path, value: Any):
    torch.save(value, tmp_path / "step_1")
    assert error_of(tmp_path).startswith(f"{tmp_path / 'step_1'}: ")


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("inner.q_head.weight", torch.zeros(2, 64), "q_head.weight has shape [2, 64]"),
        ("inner.H_init", torch.zeros(1, 128), "z_H_init has shape"),
        ("inner.lm_head.weight", torch.zeros(6), ""),
        ("inner.puzzle_emb.weights", torch.zeros(900, 96), "[900, 96]"),
        ("inner.puzzle_emb.weights", torch.tensor(0.0), ""),
        ("inner.L_level.layers.0.mlp.down_proj.weight", torch.zeros(128, 7), "hidden widths"),
        ("inner.encoder.weight", torch.zeros(3), "unknown tensor inner.encoder.weight"),
        ("inner.H_init", 3, "inner.H_init is a int, not a tensor"),
        ("inner.q_head.weight", None, "no q_head.weight; is this a checkpoint of TRM?"),
    ],
)
def test_public_tensors_that_do_not_fit(
    tmp_path: Path, published: TRM, name: str, tensor: Tensor | int | None, says: str
):
    state = public_state(published, "inner.")
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    torch.save(state, tmp_path / "step_1")
    message = error_of(tmp_path)
    assert message.startswith(f"{tmp_path / 'step_1'}: ") and says in message


@pytest.mark.parametrize("text", ["arch: [", "just words", "arch: {H_cycles: many}", "arch: 3"])
def test_broken_yaml(tmp_path: Path, published: TRM, text: str):
    torch.save(public_state(published), tmp_path / "step_1")
    (tmp_path / "all_config.yaml").write_text(text)
    assert error_of(tmp_path).startswith(f"{tmp_path}/")


def test_yaml_is_needed_only_where_there_is_one(monkeypatch: Any, tmp_path: Path, published: TRM):
    torch.save(public_state(published), tmp_path / "step_1")
    monkeypatch.setitem(sys.modules, "yaml", None)
    load_checkpoint(tmp_path)
    (tmp_path / "all_config.yaml").write_text("arch: {}")
    assert "pip install pyyaml" in error_of(tmp_path)


def test_files_are_whole_or_absent(ours: Path, tiny_mlp: TRM, monkeypatch: Any):
    """An error while writing leaves the old checkpoint."""
    before = load_file(ours / "model.safetensors")

    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("trm_interp.core.checkpoints.folder.save_file", fail)
    with torch.no_grad():
        tiny_mlp.lm_head.weight.zero_()
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(ours, tiny_mlp, {})
    assert torch.equal(load_checkpoint(ours).model.lm_head.weight, before["lm_head.weight"])
