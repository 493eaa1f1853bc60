"""Looped models whose code comes with their weights, any other model, and nnsight."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from looped_standins import VOCAB, Huginn, Ouro, bridge_of, clean, hrm_text, plain_hook
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformers import HrmTextConfig

from trm_interp.recording.looped import LoopedModel, fires_per_forward
from trm_interp.recording.loops import loops_of


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, VOCAB, (2, 7), generator=torch.Generator().manual_seed(1))


def test_ouro_has_one_loop(tokens: Tensor):
    """A stand-in in the adapter of transformer-lens."""
    model = Ouro(passes=3)
    looped, states, norms = LoopedModel(bridge_of(Ouro(passes=3), "OuroForCausalLM")), [], []
    with (
        torch.no_grad(),
        plain_hook(model.model.layers[1], lambda k, z: states.append(z)),
        plain_hook(model.model.norm, lambda k, z: norms.append(z)),
    ):
        logits = model(tokens).logits
    names = [
        f"loop.{k}.{at}" for k in range(3) for at in ("blocks.1.hook_out", "ln_final.hook_out")
    ]
    result, cache = looped.run_with_cache(tokens, names_filter=names)
    assert list(cache) == names
    seen = dict(
        zip(names, [z for pair in zip(states, norms, strict=True) for z in pair], strict=True)
    )
    torch.testing.assert_close(cache, seen, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result, logits, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no hook point 'loop.3.blocks.1.hook_out'; .* loop.2.bl"):
        looped.run_with_cache(tokens, names_filter="loop.3.blocks.1.hook_out")


def test_the_forward_of_huginn_decides_its_loops(tokens: Tensor):
    """A stand-in in the adapter of transformer-lens."""
    model, states = Huginn(), []
    looped = LoopedModel(bridge_of(Huginn(), "RavenForCausalLM"))
    assert "loop.*.core_block.1.hook_out" in looped.hook_names()
    with (
        torch.no_grad(),
        plain_hook(model.transformer.core_block[1], lambda k, z: states.append(z)),
    ):
        model(tokens, num_steps=5)
    last = "loop.4.core_block.1.hook_out"
    for names in (last, lambda name: name == last):
        _, cache = looped.run_with_cache(tokens, names_filter=names, num_steps=5)
        torch.testing.assert_close(cache, {last: states[4]}, rtol=1e-5, atol=1e-6)
    four = ", ".join(f"loop.{k}.core_block.1.hook_out" for k in range(4))
    with pytest.raises(ValueError, match=f"'{last}' did not fire; what did: {four}$"):
        looped.run_with_cache(tokens, names_filter=last)  # 4 by its configuration
    with pytest.raises(ValueError, match="nothing that the filter accepts fired; what did: loop.0"):
        looped.run_with_cache(tokens, names_filter=lambda name: name == last)
    assert [name for name in looped.fired_names(tokens) if "ln_final.hook_out" in name] == [
        "call.0.ln_final.hook_out",
        "call.1.ln_final.hook_out",
    ]
    assert clean(looped.model)


class Doubling(HookedRootModule):
    """x -> 16 x in 4 loops; not a model that anybody's table has."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_x = HookPoint()
        self.setup()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = self.hook_x(2 * x)
        return x


def test_any_model_with_hook_points():
    model, x = Doubling(), torch.ones(1)
    assert fires_per_forward(model, x) == {"hook_x": 4}
    looped = LoopedModel(model, loops={"hook_x": {"loop": 4}})
    result, cache = looped.run_with_cache(x)
    assert result.item() == 16
    assert {name: z.item() for name, z in cache.items()} == {
        f"loop.{k}.hook_x": 2.0 ** (k + 1) for k in range(4)
    }
    # 2 -> 4 -> 8, replaced by 1 -> 2
    one = looped.run_with_hooks(x, fwd_hooks=[("loop.2.hook_x", lambda z, hook: 0 * z + 1)])
    assert one.item() == 2
    assert clean(model)


def test_what_loops_must_be():
    model, x = Doubling(), torch.ones(1)
    with pytest.raises(ValueError, match=r"are not known, .*HrmText.*loops=\{'blocks'"):
        LoopedModel(model)
    with pytest.raises(ValueError, match="no hook point below 'blocks'"):
        LoopedModel(model, loops={"blocks": {"loop": 4}})
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        LoopedModel(model, loops={"hook_x": {"loop": 0}})
    with pytest.raises(ValueError, match="only the outermost axis of 'hook_x' may be None"):
        LoopedModel(model, loops={"hook_x": {"h": 2, "l": None}})
    too_few: list[tuple[Any, int]] = [({}, 2), ({"hook_x": {"loop": 3}}, 4)]
    for loops, fires in too_few:
        with pytest.raises(ValueError, match=f"hook_x fired {fires} times in one forward"):
            LoopedModel(model, loops=loops).run_with_cache(x)
    assert clean(model)


def test_loops_come_from_either_configuration():
    config = HrmTextConfig(H_cycles=2, L_cycles=5)
    assert loops_of(config)["L_blocks"] == {"h": 2, "l": 5}
    named = SimpleNamespace(architectures=["OuroForCausalLM"], total_ut_steps=4)
    assert loops_of(named)["blocks"] == {"loop": 4}
    with pytest.raises(ValueError, match="the loops of 'LlamaForCausalLM' are not known"):
        loops_of(SimpleNamespace(architecture="LlamaForCausalLM"))


def test_the_equivalent_in_nnsight(tokens: Tensor):
    nnsight = pytest.importorskip("nnsight")
    looped = LoopedModel(bridge_of(hrm_text()))
    model = nnsight.NNsight(hrm_text())
    with torch.no_grad(), model.trace(tokens) as tracer:
        for _ in tracer.iter[1 * 3 + 2]:  # h.1.l.2 where L_cycles is 3
            state = model.model.L_module.layers[0].output.save()
    _, cache = looped.run_with_cache(tokens, names_filter="h.1.l.2.L_blocks.0.hook_out")
    torch.testing.assert_close(state, cache["h.1.l.2.L_blocks.0.hook_out"], rtol=1e-5, atol=1e-6)
