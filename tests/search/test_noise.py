"""Noise is named by seed, puzzle, trajectory, step and state, and by nothing else."""

import math

import pytest
import torch

from trm_interp.core.counter import normal
from trm_interp.core.models.trm import TRM, State
from trm_interp.runtime.errors import UserError
from trm_interp.search.noise import perturb, puzzle_keys, symmetric_copies, target_states
from trm_interp.search.settings import SearchConfig
from trm_interp.tasks.sudoku.task import Sudoku

MASK = 2**64 - 1


def splitmix(bits: int) -> int:
    """The reference generator on Python integers."""
    bits = (bits + 0x9E3779B97F4A7C15) & MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def test_two_normal_draws_by_hand():
    # hash64(3, 4) names the stream; its pair i comes from hash64(stream, i)
    stream = splitmix(splitmix(3) ^ 4)
    for pair in range(3):
        bits = splitmix(splitmix(stream) ^ pair)
        radius = math.sqrt(-2 * math.log(((bits >> 32) + 0.5) / 2**32))
        angle = 2 * math.pi * (bits & (2**32 - 1)) / 2**32
        expected = torch.tensor([radius * math.cos(angle), radius * math.sin(angle)])
        torch.testing.assert_close(normal(6, 3, 4)[2 * pair : 2 * pair + 2], expected)


def test_normal_draws_have_the_moments_of_a_normal():
    x = normal(200, torch.arange(1000)).double()
    n = x.numel()
    # standard errors: 1 / sqrt(n) of the mean, sqrt(2 / n) of x^2, sqrt(96 / n) of x^4
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.square().mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs(x.pow(4).mean() - 3) < 4 * math.sqrt(96 / n)
    # neighbours in a stream, and the same place in neighbouring streams
    for a, b in ((x[:, ::2], x[:, 1::2]), (x[:-1], x[1:])):
        assert abs((a * b).mean()) < 4 / math.sqrt(a.numel())


@pytest.fixture
def state() -> State:
    generator = torch.Generator().manual_seed(0)
    z_H, z_L = torch.randn(2, 6, 5, 4, generator=generator)
    return State(z_H, z_L)


ROWS = torch.tensor([1, 4, 5])
KEYS, TRAJECTORY, STEP = torch.tensor([[11, -7, 11], [1, 1, 2], [0, 3, 0]])


TARGETS = {"z_H": ("z_H",), "z_L": ("z_L",), "both": ("z_H", "z_L")}


def noise(
    state: State, rows: slice = slice(None), target: str = "z_H", **settings: object
) -> State:
    """What is added to each of ROWS."""
    config = SearchConfig(target=target, **settings)  # type: ignore[arg-type]
    named = (part[rows] for part in (ROWS, KEYS, TRAJECTORY, STEP))
    after = perturb(state, TARGETS[target], *named, config)
    return State(*(new - old for new, old in zip(after, state, strict=True)))


@pytest.mark.parametrize("target", ["z_H", "z_L", "both"])
def test_only_the_target_of_the_named_rows_changes(state: State, target: str):
    added = noise(state, target=target, sigma=0.5)
    for name, change in added._asdict().items():
        rows = change.abs().amax(dim=(1, 2)) > 0
        hit = target in (name, "both")
        assert rows.tolist() == [hit and row in ROWS for row in range(6)]
    if target == "both":
        assert not torch.equal(added.z_H, added.z_L)


def test_a_target_is_a_state_by_name_or_by_role_or_all_of_them(tiny_trm: TRM):
    by_target = {
        **{name: (name,) for name in ("z_H", "z_L")},
        **{"answer": ("z_H",), "latent": ("z_L",), "all": ("z_H", "z_L"), "both": ("z_H", "z_L")},
    }
    for target, states in by_target.items():
        assert target_states(tiny_trm, target) == states
    with pytest.raises(
        UserError, match="--target 'y': no such state; give one of z_H, z_L, answer, latent, all"
    ):
        target_states(tiny_trm, "y")
    assert target_states(tiny_trm, SearchConfig().target) == ("z_H",)


def test_draws_keep_their_names(state: State):
    """Noise on z_H is stream 0 and on z_L stream 1 of seed, puzzle, trajectory and step."""
    zeros = State(*torch.zeros(2, 6, 5, 4))
    added = noise(zeros, target="both", sigma=1.0, seed=7)
    for which, z in enumerate(added):
        drawn = normal(5 * 4, 7, KEYS, TRAJECTORY, STEP, which)
        assert torch.equal(z[ROWS], drawn.unflatten(1, (5, 4)))


def test_noise_does_not_depend_on_the_batch(state: State):
    together = noise(State(*torch.zeros(2, 6, 5, 4)), target="both").z_L
    for row in range(3):
        alone = noise(State(*torch.zeros(2, 6, 5, 4)), slice(row, row + 1), target="both").z_L
        assert torch.equal(alone[ROWS[row]], together[ROWS[row]])
    # other trajectory, step, puzzle or seed: other noise
    assert not torch.equal(together[1], together[5]) and not torch.equal(together[1], together[4])
    other_seed = noise(State(*torch.zeros(2, 6, 5, 4)), target="both", seed=1).z_L
    assert not torch.equal(together[1], other_seed[1])


def test_sigma_is_absolute_and_a_shared_vector_is_the_same_at_every_position(state: State):
    one, three = (noise(state, sigma=sigma).z_H for sigma in (1.0, 3.0))
    torch.testing.assert_close(three, 3 * one, atol=1e-5, rtol=1e-5)
    shared = noise(State(*torch.zeros(2, 6, 5, 4)), shared=True).z_H
    assert torch.equal(shared[1], shared[1][:1].expand(5, -1))
    assert not torch.equal(one[1], one[1][:1].expand(5, -1))
    big = State(*torch.zeros(2, 1, 200, 500))
    config = SearchConfig(sigma=0.25, target="z_L")
    drawn = perturb(big, ("z_L",), *torch.zeros(4, 1, dtype=torch.int64), config).z_L
    assert abs(drawn.std() - 0.25) < 4 * 0.25 / math.sqrt(2 * drawn.numel())


def test_sigma_0_changes_no_bit(state: State):
    assert noise(state, sigma=0.0).z_H.count_nonzero() == 0
    config = SearchConfig(sigma=0.0)
    assert perturb(state, ("z_H",), ROWS, KEYS, TRAJECTORY, STEP, config) is state


def test_a_puzzle_is_known_by_its_digits(puzzles: tuple[torch.Tensor, torch.Tensor]):
    keys = puzzle_keys(puzzles[0])
    assert len(set(keys.tolist())) == len(keys)
    assert torch.equal(puzzle_keys(puzzles[0].flip(0).to(torch.uint8)), keys.flip(0))
    turned = symmetric_copies(Sudoku(4), keys, torch.arange(5), 0)
    one = symmetric_copies(Sudoku(4), keys[2:3], torch.tensor([2]), 0)
    assert torch.equal(turned.cells[2], one.cells[0])
