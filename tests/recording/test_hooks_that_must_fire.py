"""A hook that would not fire is an error, and a run with a cache keeps no graph."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trm_interp.core.models.trm import TRM
from trm_interp.recording.hooks import HookedTRM, hook_names, recording

INSIDE = "step.0.h.0.blocks.0.hook_mlp_out"
WRONG = "step.0.h.0.block.0.hook_mlp_out"


@pytest.fixture
def hooked(tiny_mlp: TRM) -> HookedTRM:
    return HookedTRM.of(tiny_mlp, n_sup=2)


def nothing(value: Tensor, hook: Any) -> None: ...


def on(model: Any, tokens: Tensor, name: Any) -> dict[str, Callable[[], Any]]:
    """Every way to add a hook to points of this name."""

    def within(**hooks: Any) -> None:
        with model.hooks(**hooks):
            pass

    def record() -> None:
        with recording(model, [name], sink=lambda name, z: None):
            pass

    ways: dict[str, Callable[[], Any]] = {
        "run_with_hooks": lambda: model.run_with_hooks(tokens, fwd_hooks=[(name, nothing)]),
        "hooks": lambda: within(fwd_hooks=[(name, nothing)]),
        "hooks, backward": lambda: within(bwd_hooks=[(name, nothing)]),
        "add_hook": lambda: model.add_hook(name, nothing),
        "add_perma_hook": lambda: model.add_perma_hook(name, nothing),
        "run_with_cache": lambda: model.run_with_cache(tokens, names_filter=name),
        "get_caching_hooks": lambda: model.get_caching_hooks(name),
        "add_caching_hooks": lambda: model.add_caching_hooks(name),
        "cache_some": lambda: model.cache_some({}, name),
    }
    return ways if callable(name) else ways | {"recording": record}


WAYS = list(on(None, torch.empty(0), INSIDE))


def clean(model: HookedTRM) -> bool:
    points = model.hook_dict.values()
    return not any(p._forward_hooks or p._backward_hooks for p in points)


@pytest.mark.parametrize("way", WAYS)
def test_an_unknown_name_is_refused_with_the_nearest(hooked: HookedTRM, puzzles: Any, way: str):
    with pytest.raises(ValueError, match=f"no hook point '{WRONG}'; there are 137: .*{INSIDE}"):
        on(hooked, puzzles[0], WRONG)[way]()
    assert clean(hooked)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "recording"])
def test_a_filter_that_accepts_nothing_is_refused(hooked: HookedTRM, puzzles: Any, way: str):
    with pytest.raises(ValueError, match="accepts none of 137 hook points: hook_embed, step.0"):
        on(hooked, puzzles[0], lambda name: name.startswith("blocks"))[way]()
    assert clean(hooked)


@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_model_is_refused(hooked: HookedTRM, puzzles: Any, way: str):
    hooked.net.compile()  # compiled at its first call, which does not come
    with pytest.raises(TypeError, match="hook the eager model"):
        on(hooked, puzzles[0], INSIDE)[way]()
    assert clean(hooked)


def test_nor_is_one_that_was_compiled_whole(hooked: HookedTRM, puzzles: Any):
    hooked.compile()
    with pytest.raises(TypeError, match="hook the eager model"):
        hooked.run_with_cache(puzzles[0], names_filter=INSIDE)


def test_the_names_of_a_cache_are_one_several_or_a_function(hooked: HookedTRM, puzzles: Any):
    def cached(names_filter: Any) -> list[str]:
        return list(hooked.run_with_cache(puzzles[0], names_filter=names_filter)[1])

    several = ["hook_embed", INSIDE]
    assert cached(INSIDE) == [INSIDE]
    assert cached(several) == cached(tuple(several)) == several
    assert cached(lambda name: name.endswith("q_halt")) == [
        "step.0.hook_q_halt",
        "step.1.hook_q_halt",
    ]
    assert sorted(cached(None)) == sorted(hook_names(hooked.config, 2))


def test_a_run_with_a_cache_keeps_no_graph_unless_asked(hooked: HookedTRM, puzzles: Any):
    readout, cache = hooked.run_with_cache(puzzles[0])
    read = (readout.logits, readout.q_halt, *cache.values())
    assert not any(value.requires_grad for value in read)
    assert torch.is_grad_enabled()
    again, cache = hooked.run_with_cache(puzzles[0], with_grad=True)
    assert again.logits.requires_grad and torch.equal(again.logits, readout.logits)
    again.logits[:, -1].sum().backward()
    assert hooked.lm_head.weight.grad is not None
    assert hooked.run_with_hooks(puzzles[0], fwd_hooks=[(INSIDE, nothing)])[0].requires_grad


def test_gradients_of_a_cache_need_a_loss(hooked: HookedTRM, puzzles: Any):
    with pytest.raises(TypeError, match="a loss of your own"):
        hooked.run_with_cache(puzzles[0], incl_bwd=True)
    seen: list[Tensor] = []
    with hooked.hooks(bwd_hooks=[(INSIDE, lambda grad, hook: seen.append(grad))]):
        hooked(puzzles[0])[0].square().sum().backward()
    assert len(seen) == 1 and seen[0].abs().sum() > 0


def test_names_are_not_gathered_again_at_every_run(
    hooked: HookedTRM, puzzles: Any, monkeypatch: pytest.MonkeyPatch
):
    def walked(*_: Any, **__: Any) -> None:
        raise AssertionError("thousands of modules")

    for name in ("modules", "named_modules"):
        monkeypatch.setattr(nn.Module, name, walked)
    assert list(hooked.run_with_cache(puzzles[0], names_filter=INSIDE)[1]) == [INSIDE]
    hooked.run_with_hooks(puzzles[0], fwd_hooks=[(INSIDE, nothing)])
    with recording(hooked, [INSIDE], sink=lambda name, z: None):
        pass
