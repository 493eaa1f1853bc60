"""Hook points are where the clock says, recording changes nothing, an edit changes only later."""

from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from trm_interp.core.clock import schedule
from trm_interp.core.infer import run
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.recording.hooks import HookedTRM, hook_names, recording

STEPS = 3
TICKS = schedule(STEPS, 2, 2)  # 18
STATES = [tick.hook for tick in TICKS]


@pytest.fixture
def hooked(tiny_trm: TRM) -> HookedTRM:
    return HookedTRM.of(tiny_trm, n_sup=STEPS)


@pytest.fixture
def hooked_mlp(tiny_mlp: TRM) -> HookedTRM:
    return HookedTRM.of(tiny_mlp, n_sup=STEPS)


@torch.no_grad()
def recorded(model: HookedTRM, tokens: Tensor, names: list[str]) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    with recording(model, names, sink=lambda name, z: seen.update({name: z.clone()})):
        model(tokens)
    return seen


# names


def test_the_published_clock_has_336_states_with_the_names_of_the_ticks():
    config = TRMConfig(d_model=8, n_heads=1)
    names = hook_names(config)
    states = [n for n in names if n.endswith(("hook_z_H", "hook_z_L"))]
    assert len(states) == 336
    assert set(states) == {tick.hook for tick in schedule(16, 3, 6)}
    # 336 evaluations x (1 state + 2 blocks x 5 sites), 16 x 2 read-outs, the embedding
    assert len(names) == len(set(names)) == 336 * 11 + 32 + 1
    for name in (
        "hook_embed",
        "step.3.h.1.l.2.hook_z_L",
        "step.3.h.1.hook_z_H",
        "step.3.h.1.l.2.blocks.0.hook_resid_pre",
        "step.3.h.1.blocks.1.hook_mixer_out",
        "step.15.hook_logits",
        "step.15.hook_q_halt",
    ):
        assert name in names


def test_attention_has_its_own_name_for_the_mixer():
    config = TRMConfig(d_model=8, n_heads=1, mixer="attention")
    assert "step.0.h.0.blocks.1.hook_attn_out" in hook_names(config, n_sup=1)
    assert not any("mixer" in name for name in hook_names(config, n_sup=1))


def test_hook_names_are_those_of_the_model(hooked: HookedTRM):
    assert sorted(hook_names(hooked.config, STEPS)) == sorted(hooked.hook_dict)


def test_weights_have_the_names_of_the_plain_model(tiny_trm: TRM, hooked: HookedTRM):
    assert hooked.state_dict().keys() == tiny_trm.state_dict().keys()


# listening


@torch.no_grad()
def test_recording_changes_no_bit(hooked: HookedTRM, puzzles: Any):
    plain = hooked(puzzles[0])
    with recording(hooked, sorted(hooked.hook_dict), sink=lambda name, z: None):
        listened = hooked(puzzles[0])
    for one, other in zip(plain[:2], listened[:2], strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_hooked_equals_plain_step_by_step(tiny_trm: TRM, hooked: HookedTRM, puzzles: Any):
    x = tiny_trm.embed(puzzles[0])
    assert torch.equal(x, hooked.embed(puzzles[0]))
    state = tiny_trm.initial_state(x)
    logits, q_halt, *_ = hooked(puzzles[0])
    for step in range(STEPS):
        theirs, cycles_there = hooked.advance(state, x, step)
        state, cycles = tiny_trm.advance(state, x, step)
        for one, other in zip([*theirs, *cycles_there], [*state, *cycles], strict=True):
            assert torch.equal(one, other)
        read = tiny_trm.readout(state.z_H)
        assert torch.equal(logits[:, step], read[0]) and torch.equal(q_halt[:, step], read[1])
    plain, same = (run(model, *puzzles, steps=STEPS) for model in (tiny_trm, hooked))
    assert torch.equal(plain.loss, same.loss)


def test_states_arrive_in_clock_order(hooked: HookedTRM, puzzles: Any):
    seen = recorded(hooked, puzzles[0], STATES[::-1])  # asked for backwards
    assert list(seen) == STATES
    assert len({z.numpy().tobytes() for z in seen.values()}) == len(STATES)


@torch.no_grad()
def test_the_states_are_those_of_the_recursion(hooked: HookedTRM, puzzles: Any):
    """z_L = f(z_L, z_H + x) and z_H = f(z_H, z_L), replayed tick by tick from what was recorded."""
    seen = recorded(hooked, puzzles[0], [*STATES, "hook_embed"])
    x = seen["hook_embed"]
    z_H, z_L = hooked.initial_state(x)
    for tick in TICKS:
        now = seen[tick.hook]
        if tick.writes == "z_L":
            assert torch.equal(now, hooked.net(z_L, z_H + x))
            z_L = now
        else:
            assert torch.equal(now, hooked.net(z_H, z_L))
            z_H = now


def test_inside_an_evaluation_the_sites_are_chained(hooked: HookedTRM, puzzles: Any):
    """pre -> norm(pre + mixed) = mid -> norm(mid + out) = post, the next block's pre."""
    mixer = hooked.config.mixer_site
    for at in ("step.1.h.0.l.1", "step.1.h.1"):
        names = [n for n in hooked.hook_dict if n.startswith(f"{at}.")]
        names = [n for n in names if ".l." not in n[len(at) :]]
        seen = recorded(hooked, puzzles[0], names)
        block = {n.removeprefix(f"{at}.blocks."): z for n, z in seen.items()}
        dim = -1 if hooked.config.mixer == "attention" else -2
        for i in ("0", "1"):
            mid = block[f"{i}.hook_resid_pre"] + block[f"{i}.{mixer}"]
            mid = mid / (mid.square().mean(dim, keepdim=True) + 1e-5).sqrt()
            torch.testing.assert_close(mid, block[f"{i}.hook_resid_mid"])
            post = mid + block[f"{i}.hook_mlp_out"]
            post = post / (post.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            torch.testing.assert_close(post, block[f"{i}.hook_resid_post"])
        assert torch.equal(block["0.hook_resid_post"], block["1.hook_resid_pre"])
        (state,) = (z for n, z in seen.items() if n.endswith(("hook_z_L", "hook_z_H")))
        assert torch.equal(block["1.hook_resid_post"], state)


@torch.no_grad()
def test_the_cache_of_transformer_lens_holds_the_same_distinct_states(
    hooked: HookedTRM, puzzles: Any
):
    _, cache = hooked.run_with_cache(puzzles[0], names_filter=lambda name: name in STATES)
    seen = recorded(hooked, puzzles[0], STATES)
    assert set(cache.keys()) == set(STATES)
    for name in STATES:
        assert torch.equal(cache[name], seen[name]), name
    assert len({cache[name].data_ptr() for name in STATES}) == len(STATES)


# editing


@torch.no_grad()
@pytest.mark.parametrize("at", [0, 5, 9, 17])  # 5 writes z_H; 17 is the last
def test_an_edit_changes_only_what_comes_later(hooked_mlp: HookedTRM, puzzles: Any, at: int):
    before = recorded(hooked_mlp, puzzles[0], STATES)
    after: dict[str, Tensor] = {}

    def edit(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[:, 4] = -z[:, 4]
        return z

    def keep(name: str) -> Callable[..., None]:
        return lambda z, hook: after.update({name: z.clone()})

    hooks = [(STATES[at], edit), *((name, keep(name)) for name in STATES)]
    logits = hooked_mlp.run_with_hooks(puzzles[0], fwd_hooks=hooks).logits
    for i, name in enumerate(STATES):
        assert torch.equal(before[name], after[name]) == (i < at), name
    flipped = before[STATES[at]].clone()
    flipped[:, 4] *= -1
    assert torch.equal(after[STATES[at]], flipped)
    plain = hooked_mlp(puzzles[0]).logits  # and the hooks are gone
    unchanged = [torch.equal(plain[:, s], logits[:, s]) for s in range(STEPS)]
    assert unchanged == [s < TICKS[at].step for s in range(STEPS)]


@torch.no_grad()
def test_writing_a_state_back_changes_nothing(hooked_mlp: HookedTRM, puzzles: Any):
    plain = hooked_mlp(puzzles[0]).logits
    kept = recorded(hooked_mlp, puzzles[0], STATES)[STATES[7]]
    patched, *_ = hooked_mlp.run_with_hooks(
        puzzles[0], fwd_hooks=[(STATES[7], lambda z, hook: kept)]
    )
    assert torch.equal(plain, patched)


def test_gradient_reaches_a_state_of_any_step(hooked_mlp: HookedTRM, puzzles: Any):
    """Against a central difference of the last logits along a random direction of that state."""
    model = hooked_mlp.double()
    generator = torch.Generator().manual_seed(1)
    name, direction = STATES[2], torch.randn(5, 18, 8, generator=generator, dtype=torch.float64)

    def answer(shift: float | Tensor) -> Tensor:
        def push(z: Tensor, hook: Any) -> Tensor:
            return z + shift * direction

        logits, *_ = model.run_with_hooks(puzzles[0], fwd_hooks=[(name, push)], dtype=torch.float64)
        return logits[:, -1, 3, 2].sum()

    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(answer(shift), shift)
    h = 1e-6
    with torch.no_grad():
        numeric = (answer(h) - answer(-h)) / (2 * h)
    torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-7)
    assert slope.abs() > 1e-3


# what can go wrong


def test_hooks_go_after_an_error(hooked_mlp: HookedTRM, puzzles: Any):
    def fail(name: str, z: Tensor) -> None:
        raise RuntimeError("disk full")

    with (
        pytest.raises(RuntimeError, match="disk full"),
        recording(hooked_mlp, STATES, sink=fail),
    ):
        hooked_mlp(puzzles[0])
    assert not any(point._forward_hooks for point in hooked_mlp.hook_dict.values())
    hooked_mlp(puzzles[0])


def test_an_unknown_name_is_named(hooked_mlp: HookedTRM, tiny_mlp: TRM):
    with (
        pytest.raises(ValueError, match="no hook point 'step.9.hook_z_H'; there are 2"),
        recording(hooked_mlp, ["step.9.hook_z_H"], sink=print),
    ):
        pass
    assert not any(point._forward_hooks for point in hooked_mlp.hook_dict.values())
    with (
        pytest.raises(ValueError, match="no hook point 'step.0.h.0.hook_z_H'; there are 0"),
        recording(tiny_mlp, ["step.0.h.0.hook_z_H"], sink=print),  # not a HookedTRM
    ):
        pass


def test_a_compiled_model_cannot_be_recorded(hooked_mlp: HookedTRM):
    wrapped: Any = torch.compile(hooked_mlp)
    with pytest.raises(TypeError, match="eager model"), recording(wrapped, STATES, sink=print):
        pass
    hooked_mlp.net.compile()
    with pytest.raises(TypeError, match="eager model"), recording(hooked_mlp, STATES, sink=print):
        pass


def test_more_steps_than_hook_points(hooked_mlp: HookedTRM, puzzles: Any):
    with pytest.raises(ValueError, match="no hook points for step 3; this model has 3 steps"):
        run(hooked_mlp, *puzzles, steps=STEPS + 1)


def test_the_copy_is_apart_and_leaves_the_random_state(tiny_mlp: TRM):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    hooked = HookedTRM.of(tiny_mlp, n_sup=1)
    assert torch.equal(torch.rand(1), expected)
    with torch.no_grad():
        hooked.lm_head.weight.zero_()
    assert tiny_mlp.lm_head.weight.abs().sum() > 0


def test_shapes_are_checked_here_too(hooked_mlp: HookedTRM):
    with pytest.raises(jaxtyping.TypeCheckError):
        hooked_mlp(torch.zeros(16, dtype=torch.int64))
