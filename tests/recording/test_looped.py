"""Loops of other people's models: names, caches and edits at one loop only."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from looped_standins import VOCAB, bridge_of, clean, hrm_text, plain_hook
from torch import Tensor

from trm_interp.recording.looped import LoopedModel, LoopPoint, fires_per_forward

L_OUT = [f"h.{h}.l.{i}.L_blocks.0.hook_out" for h in range(2) for i in range(3)]
H_OUT = [f"h.{h}.H_blocks.0.hook_out" for h in range(2)]
IN_ORDER = [*L_OUT[:3], H_OUT[0], *L_OUT[3:], H_OUT[1]]  # H ends a cycle


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, VOCAB, (2, 7), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def looped() -> LoopedModel:
    return LoopedModel(bridge_of(hrm_text()))


def block_out(name: str) -> bool:
    return name.endswith("_blocks.0.hook_out")


def zero(state: Tensor, hook: LoopPoint) -> Tensor:
    return 0 * state


def test_names_are_those_of_the_schedule(looped: LoopedModel, tokens: Tensor):
    fired = looped.fired_names(tokens)
    assert [name for name in fired if block_out(name)] == IN_ORDER
    assert len(set(fired)) == len(fired) and set(fired) <= set(looped.hook_names())
    # 2 H-cycles of 3 L evaluations and one H evaluation
    fires = fires_per_forward(looped.model, tokens)
    assert sum(fires.values()) == len(fired)
    sizes = {"L_blocks": 6, "L_ln_final": 6, "H_blocks": 2, "H_ln_final": 2}
    assert {(name, of) for name, of in fires.items()} == {
        (name, sizes.get(name.split(".")[0], 1)) for name in fires
    }


@pytest.mark.parametrize(("h_cycles", "l_cycles"), [(1, 1), (3, 1), (1, 4)])
def test_other_schedules(tokens: Tensor, h_cycles: int, l_cycles: int):
    looped = LoopedModel(bridge_of(hrm_text(h_cycles, l_cycles)))
    names = [name for name in looped.fired_names(tokens) if block_out(name)]
    assert len(names) == h_cycles * (l_cycles + 1)
    assert names[-2:] == [
        f"h.{h_cycles - 1}.l.{l_cycles - 1}.L_blocks.0.hook_out",
        f"h.{h_cycles - 1}.H_blocks.0.hook_out",
    ]


def test_a_cache_holds_what_plain_torch_hooks_see(looped: LoopedModel, tokens: Tensor):
    plain, seen = hrm_text(), {}
    with (
        torch.no_grad(),
        plain_hook(plain.model.L_module.layers[0], lambda k, z: seen.update({L_OUT[k]: z})),
        plain_hook(plain.model.H_module.layers[0], lambda k, z: seen.update({H_OUT[k]: z})),
    ):
        logits = plain(tokens).logits
    result, cache = looped.run_with_cache(tokens, names_filter=block_out)
    assert list(cache) == IN_ORDER and set(seen) == set(IN_ORDER)
    torch.testing.assert_close(cache, seen, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result, logits, rtol=1e-5, atol=1e-6)
    assert not result.requires_grad
    apart = [(cache[a] - cache[b]).abs().max() for a, b in pairwise(IN_ORDER)]
    assert min(apart) > 0.01  # evaluations differ by far more than the tolerance


def test_transformer_lens_keeps_the_last_loop_only(looped: LoopedModel, tokens: Tensor):
    _, last = looped.model.run_with_cache(tokens, names_filter="L_blocks.0.hook_out")
    _, cache = looped.run_with_cache(tokens, names_filter=L_OUT)
    assert torch.equal(last["L_blocks.0.hook_out"], cache[L_OUT[-1]])
    assert list(cache) == L_OUT


@pytest.mark.parametrize("point", ["hook_out", "attn.q.hook_out", "attn.hook_q", "hook_resid_pre"])
def test_patching_a_loop_with_its_own_activation_changes_no_bit(
    looped: LoopedModel, tokens: Tensor, point: str
):
    name = f"h.1.l.0.L_blocks.1.{point}"
    plain, cache = looped.run_with_cache(tokens, names_filter=name)
    patched = looped.run_with_hooks(tokens, fwd_hooks=[(name, lambda z, hook: cache[hook.name])])
    assert torch.equal(patched, plain)


@pytest.mark.parametrize("name", IN_ORDER)
def test_zeroing_a_loop_changes_the_later_ones_only(looped: LoopedModel, tokens: Tensor, name: str):
    plain, before = looped.run_with_cache(tokens, names_filter=block_out)
    with looped.hooks([(name, zero)]):
        zeroed, after = looped.run_with_cache(tokens, names_filter=block_out)
    k = IN_ORDER.index(name)
    same = [torch.equal(before[at], after[at]) for at in IN_ORDER]
    assert same == [True] * k + [False] * (len(IN_ORDER) - k)
    assert not after[name].any()  # hooks that were added earlier come first
    assert not torch.equal(plain, zeroed)

    module = hrm_text()
    stack = module.model.L_module if ".l." in name else module.model.H_module
    loop = (L_OUT if ".l." in name else H_OUT).index(name)
    with (
        torch.no_grad(),
        plain_hook(stack.layers[0], lambda call, z: 0 * z if call == loop else None),
    ):
        torch.testing.assert_close(zeroed, module(tokens).logits, rtol=1e-5, atol=1e-6)


def test_a_hook_is_told_where_it_is(looped: LoopedModel, tokens: Tensor):
    told = []
    looped.run_with_hooks(tokens, fwd_hooks=[(L_OUT[4], lambda z, hook: told.append(hook))])
    (hook,) = told
    assert (hook.name, hook.index) == ("h.1.l.1.L_blocks.0.hook_out", {"h": 1, "l": 1})
    assert hook.point is looped.points()["L_blocks.0.hook_out"] and hook.ctx is hook.point.ctx


WRONG: dict[Any, str] = {
    "h.2.H_blocks.0.hook_out": f"H_blocks.0.hook_out fires at {', '.join(H_OUT)}",
    "h.0.l.3.L_blocks.0.hook_out": f"L_blocks.0.hook_out fires at {', '.join(L_OUT)}",
    "H_blocks.0.hook_out": f"H_blocks.0.hook_out fires at {', '.join(H_OUT)}",
    "h.0.embed.hook_out": "embed.hook_out fires at embed.hook_out",
    "h.0.H_block.0.hook_out": "there are 1003: the nearest are .*h.0.H_blocks.0.hook_out",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_name_that_cannot_be_is_refused_at_once(looped: LoopedModel, tokens: Tensor, name: str):
    for names in (name, [H_OUT[0], name]):
        with (
            pytest.raises(ValueError, match=f"no hook point '{name}'; {WRONG[name]}"),
            looped.hooks([(names, zero)]),
        ):
            raise AssertionError("the block was entered")
        with pytest.raises(ValueError, match=f"no hook point '{name}'"):
            looped.run_with_cache(tokens, names_filter=names)
    with pytest.raises(ValueError, match="the filter accepts none of 1003 hook points"):
        looped.run_with_cache(tokens, names_filter=lambda at: at == name)
    assert clean(looped.model)


def test_a_hook_that_did_not_fire_is_an_error(looped: LoopedModel, tokens: Tensor):
    with (
        pytest.raises(ValueError, match=r"did not fire; what did: nothing \(did the model run\?\)"),
        looped.hooks([(H_OUT[0], zero)]),
    ):
        pass
    switched_off = "h.0.l.0.L_blocks.0.hook_mlp_in"  # until `set_use_hook_mlp_in`
    with pytest.raises(ValueError, match=f"'{switched_off}' did not fire; what did: {H_OUT[0]}"):
        looped.run_with_cache(tokens, names_filter=[switched_off, *H_OUT])
    with pytest.raises(ValueError, match="nothing that the filter accepts fired"):
        looped.run_with_cache(tokens, names_filter=lambda at: at == switched_off)
    assert clean(looped.model)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_loops_start_anew_after_an_error(looped: LoopedModel, tokens: Tensor, error: type):
    _, whole = looped.run_with_cache(tokens, names_filter=block_out)

    def stop(z: Tensor, hook: LoopPoint) -> None:
        if first:
            first.pop()
            raise error("stop")

    def keep(z: Tensor, hook: LoopPoint) -> None:
        kept.append((hook.name, z))
        depths.append(hook.depth)

    first, kept, depths = [True], [], []
    with looped.hooks([(L_OUT[4], stop), (block_out, keep)]):
        with torch.no_grad(), pytest.raises(error, match="stop"):
            looped.model(tokens)
        assert [name for name, _ in kept] == IN_ORDER[: IN_ORDER.index(L_OUT[4])]
        kept.clear()
        for _ in range(2):  # and in every forward
            with torch.no_grad():
                looped.model(tokens)
    assert [name for name, _ in kept] == 2 * IN_ORDER
    assert all(torch.equal(z, whole[name]) for name, z in kept)
    if error is RuntimeError:  # torch calls no hook when Ctrl-C ends a forward
        assert not any(depths)
    with pytest.raises(error, match="stop"), looped.hooks([(L_OUT[4], stop)]):
        first.append(True)
        looped.model(tokens)
    assert clean(looped.model)


@pytest.mark.parametrize("cached", [True, False])
def test_every_token_of_a_generation_is_a_forward(
    looped: LoopedModel, tokens: Tensor, cached: bool
):
    lengths: dict[str, list[int]] = {}
    names = [*IN_ORDER, "embed.hook_out"]
    options: Any = {"max_new_tokens": 3, "do_sample": False, "use_cache": cached, "pad_token_id": 0}
    model: Any = looped.model.original_model
    plain = model.generate(tokens, **options)
    with looped.recording(names, lambda name, z: lengths.setdefault(name, []).append(z.shape[1])):
        assert torch.equal(model.generate(tokens, **options), plain)
    # 7 tokens, then one more each; a KV cache leaves the new one alone
    assert lengths == dict.fromkeys(lengths, [7, 1, 1] if cached else [7, 8, 9])
    assert sorted(lengths) == sorted(names)


def test_an_inner_run_has_loops_of_its_own(looped: LoopedModel, tokens: Tensor):
    _, whole = looped.run_with_cache(tokens, names_filter=block_out)
    other = tokens.flip(1)
    kept: list[tuple[str, int]] = []
    inside = []

    def patch_from_another_run(z: Tensor, hook: LoopPoint) -> Tensor | None:
        if inside:
            return None
        inside.append(hook.name)
        _, cache = looped.run_with_cache(other, names_filter=hook.name)
        return cache[hook.name]

    with looped.hooks(
        [
            (block_out, lambda z, hook: kept.append((hook.name, hook.depth))),
            (L_OUT[3], patch_from_another_run),
        ]
    ):
        result, outer = looped.run_with_cache(tokens, names_filter=block_out)
    k = IN_ORDER.index(L_OUT[3])
    assert [name for name, _ in kept] == [*IN_ORDER[: k + 1], *IN_ORDER, *IN_ORDER[k + 1 :]]
    assert [depth for _, depth in kept] == [0] * (k + 1) + [1] * 8 + [0] * (7 - k)
    _, source = looped.run_with_cache(other, names_filter=L_OUT[3])
    assert torch.equal(outer[L_OUT[3]], source[L_OUT[3]])
    assert all(torch.equal(outer[name], whole[name]) for name in IN_ORDER[:k])
    by_hand = looped.run_with_hooks(
        tokens, fwd_hooks=[(L_OUT[3], lambda z, hook: source[hook.name])]
    )
    assert torch.equal(result, by_hand)
    assert clean(looped.model)


def test_hooks_of_others_stay(looped: LoopedModel, tokens: Tensor):
    called = []
    looped.model.add_hook("L_blocks.0.hook_out", lambda z, hook: called.append(hook.name))
    looped.run_with_cache(tokens, names_filter=L_OUT)
    assert called == 6 * ["L_blocks.0.hook_out"]
    assert len(looped.points()["L_blocks.0.hook_out"].fwd_hooks) == 1
    looped.model.reset_hooks()
    assert clean(looped.model)


def test_gradients_flow_where_asked(looped: LoopedModel, tokens: Tensor):
    result, cache = looped.run_with_cache(tokens, names_filter=H_OUT, with_grad=True)
    assert result.requires_grad and not any(z.requires_grad for z in cache.values())


def test_a_compiled_model_is_refused(looped: LoopedModel, tokens: Tensor):
    looped.model.original_model.compile()  # at its first call, which does not come
    with pytest.raises(TypeError, match="hook the eager model"):
        looped.run_with_cache(tokens)
