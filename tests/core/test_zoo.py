"""The architectures against their public implementations, one supervision step at a time.

The values lie beside the checkout, where they are there at all; those of TRM are in test_model.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from published import error_of, public_golden
from safetensors.torch import load_file
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint, load_checkpoint, save_checkpoint
from trm_interp.core.models.base import States
from trm_interp.core.models.registry import build, config_class
from trm_interp.recording.hooks import HookedModel

GOLDEN = public_golden()
ARCHITECTURES = {
    "hrm_rope": "hrm",
    "hrm_learned": "hrm",
    "trm_singlez": "trm-single-z",
    "trm_hier6": "trm-multi-z",
    "direct": "direct",
    "att_ids": "trm",
    "att_maze10": "trm",
}
MODULES = {  # of the public code; the settings of the values call some of them otherwise
    "hrm_v1": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1",
    "trm": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_singlez": "recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1",
    "trm_hier6": "recursive_reasoning.trm_hier6@TinyRecursiveReasoningModel_ACTV1",
    "transformers_baseline": "recursive_reasoning.transformers_baseline@Model_ACTV2",
}
THEIR_NAMES = {"z": "z_L"}  # ours -> theirs, where they differ


class Public(NamedTuple):
    """What the public implementation computes, and a checkpoint of its weights."""

    name: str
    values: Any
    folder: Path

    @property
    def inputs(self) -> Tensor:
        return torch.from_numpy(self.values["inputs"])

    @property
    def identifiers(self) -> Tensor:
        return torch.from_numpy(self.values["puzzle_identifiers"]).long()

    def settings(self) -> dict[str, Any]:
        arch = json.loads((GOLDEN / f"{self.name}.json").read_text())
        return {**arch, "name": MODULES[arch["arch"]]}

    def state(self) -> dict[str, Tensor]:
        tensors = load_file(GOLDEN / f"{self.name}.safetensors")
        return {f"_orig_mod.model.{name}": tensor for name, tensor in tensors.items()}

    def written(self, drop: tuple[str, ...] = (), /, **change: Any) -> Path:
        """Write the checkpoint, some of its settings left out or changed."""
        torch.save(self.state(), self.folder / "step_100")
        arch = {name: v for name, v in (self.settings() | change).items() if name not in drop}
        (self.folder / "all_config.yaml").write_text(json.dumps({"arch": arch}))  # JSON is YAML
        return self.folder


@pytest.fixture(params=ARCHITECTURES)
def public(request: pytest.FixtureRequest, tmp_path: Path) -> Public:
    file = GOLDEN / f"{request.param}.npz"
    if not file.exists():
        pytest.skip("the values of the public implementation are not here")
    return Public(request.param, np.load(file), tmp_path)


def states_of(public: Public, checkpoint: Checkpoint) -> Iterator[tuple[int, int, States]]:
    """(index among the kept steps, step, state before it), where that state is known."""
    model = checkpoint.model
    yield 0, 0, model.initial_state(model.embed(public.inputs))
    steps = public.values["steps"].tolist()
    names = [THEIR_NAMES.get(name, name) for name in model.state_names]
    for i, step in enumerate(steps):
        if step + 1 in steps:
            kept = (torch.from_numpy(public.values[name][i]) for name in names)
            yield i + 1, step + 1, model.State(*kept)


def assert_near(value: Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(value, torch.from_numpy(expected), rtol=0, atol=1e-4)


@torch.no_grad()
def test_supervision_steps_equal_the_public_ones(public: Public):
    checkpoint = load_checkpoint(public.written())
    model = checkpoint.model
    assert model.architecture == ARCHITECTURES[public.name]
    x = model.embed(public.inputs, identifiers=public.identifiers)
    compared = 0
    for i, step, before in states_of(public, checkpoint):
        after, _ = model.advance(before, x, step)
        read = model.readout(model.answer_of(after), step)
        for name, value in after._asdict().items():
            assert_near(value, public.values[THEIR_NAMES.get(name, name)][i])
        assert_near(read.logits, public.values["logits"][i])
        assert_near(read.q_halt, public.values["q_halt"][step])
        if read.q_continue is not None:
            assert_near(read.q_continue, public.values["q_continue"][step])
        compared += 1
    assert compared == 2


def test_every_evaluation_of_the_first_step_equals_the_public_one(public: Public):
    model = load_checkpoint(public.written()).model
    hooked = HookedModel.of(model, 1)
    _, cache = hooked.run_with_cache(public.inputs[:1], identifiers=public.identifiers[:1])
    ticks = torch.stack([cache[tick.hook] for tick in model.config.schedule.ticks()])
    assert_near(ticks, public.values["step0_ticks"])


def test_the_architecture_shows_in_the_names_of_tensors(public: Public):
    """Without a name in the settings, and without any, but for what shapes leave open."""
    whole = load_checkpoint(public.written()).model.config
    assert load_checkpoint(public.written(("name",))).model.config == whole
    named = public.written(("seq_len",))
    if public.name == "hrm_learned":
        assert load_checkpoint(named).model.config == whole
    else:
        assert "number of cells: give --puzzles or --cells" in error_of(named)
    assert load_checkpoint(named, cells=whole.cells).model.config == whole


def test_stated_layers_count(public: Public):
    layers = "H_layers" if public.name == "direct" else "L_layers"
    assert f"settings state {layers} 9" in error_of(public.written((), **{layers: 9}))


def test_our_folder_of_it_computes_the_same(public: Public, tmp_path: Path):
    model = load_checkpoint(public.written()).model
    save_checkpoint(tmp_path / "ours", model, {})
    again = load_checkpoint(tmp_path / "ours").model
    assert again.config == model.config
    one, other = (
        m(m.initial_state(m.embed(public.inputs)), public.inputs)[1].logits for m in (model, again)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["hrm", "trm-single-z", "trm-multi-z", "trm-continue", "direct"])
def test_published_sizes(name: str):
    """Weights of the defaults, by hand: blocks of mlp 3 x 512 x 1536 and of attention 4 x 512^2 or
    token mixing 3 x 97 x 512; embedding, read-outs, prefix."""
    block = 3 * 512 * 1536 + (4 * 512**2 if name == "hrm" else 3 * 97 * 512)
    blocks = {"hrm": 8, "direct": 8}.get(name, 2)
    ends = 2 * 11 * 512 + 2 * 513 + 512
    config = config_class(name)()
    assert config.n_weights == blocks * block + ends
    with torch.device("meta"):
        assert sum(p.numel() for p in build(config).parameters()) == config.n_weights


def test_a_fixed_number_of_cycles_is_not_read_otherwise(tmp_path: Path):
    if not (GOLDEN / "trm_hier6.npz").exists():
        pytest.skip("the values of the public implementation are not here")
    public = Public("trm_hier6", None, tmp_path)
    assert "l_cycles 4, but multi-scale TRM has 6" in error_of(public.written(L_cycles=4))
