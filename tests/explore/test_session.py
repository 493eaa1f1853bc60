"""Runs and forks of the explorer, against the package's own recursion."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from explore_worlds import (
    SETTINGS,
    STEPS,
    maze_session,
    rows,
    session_of,
    toy_session,
)

from trm_interp import patch
from trm_interp.core.counter import normal
from trm_interp.core.infer import run_batch
from trm_interp.explore.edits import Copied, Given, Node, Noise
from trm_interp.explore.runs import Run
from trm_interp.explore.session import Session
from trm_interp.runtime.errors import UserError

WORLDS: dict[str, Callable[..., Session]] = {
    **{name: (lambda name=name, **how: session_of(name, **how)) for name in SETTINGS},
    "latin squares": toy_session,
    "maze": maze_session,
}


@pytest.fixture(params=WORLDS)
def session(request: pytest.FixtureRequest) -> Session:
    return WORLDS[request.param]()


@pytest.fixture
def trm() -> Session:
    return session_of("trm")


def ends(session: Session) -> list[int]:
    """Moments at the ends of supervision steps."""
    size = session.last // STEPS
    return list(range(size, session.last + 1, size))


def same(one: Run, other: Run, moments: slice = slice(None)) -> None:
    assert (one.q_halt[moments] == other.q_halt[moments]).all()
    for name, reading in one.readings.items():
        for field in ("tokens", "probability", "loss", "change", "speed", "place"):
            mine, theirs = (getattr(of, field) for of in (reading, other.readings[name]))
            np.testing.assert_array_equal(mine[moments], theirs[moments], err_msg=field)


def noise_on(z: torch.Tensor, which: int, size: float, seed: int, at: int) -> torch.Tensor:
    """As documented: named by seed, moment and state."""
    return z + size * normal(z[0].numel(), seed, at, which).view_as(z)


# plain runs


def test_a_plain_run_is_that_of_inference(session: Session):
    """Bit for bit at the ends of supervision steps."""
    inputs, labels = rows(session.puzzles, 1)
    own = session.puzzles.subset([1]).tensors.identifiers
    expected = run_batch(session.model, inputs, labels, STEPS, identifiers=own)
    run, at = session.run(session.plain(1)), ends(session)
    assert (run.answer.tokens[at] == expected.tokens[0].numpy()).all()
    assert (run.halts[at] == expected.halts[0].numpy()).all()
    np.testing.assert_allclose(run.q_halt[at], expected.q_halt[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.answer.loss[at], expected.loss[0], rtol=1e-5)
    assert (run.solved(session.model.answer)[at] == expected.solved[0].numpy()).all()


def test_every_moment_is_what_the_recorder_hears(trm: Session):
    inputs, labels = rows(trm.puzzles, 0)
    recorded = patch.record(trm.model, inputs, labels, STEPS)
    run = trm.run(trm.plain(0))
    assert len(run.moments) == 1 + STEPS * trm.model.config.schedule.evaluations
    current: dict[str, Any] = {n: recorded.value(f"start.hook_{n}") for n in trm.model.state_names}
    for moment in run.moments:
        if moment.tick is not None:
            before = current[moment.tick.writes]
            current[moment.tick.writes] = after = recorded.value(moment.tick.hook)
            moved = (after - before).square().mean().sqrt()
            np.testing.assert_allclose(
                run.readings[moment.tick.writes].speed[moment.at], moved, rtol=1e-5
            )
        for name, reading in run.readings.items():
            logits = trm.model.readout(current[name]).logits[0]
            assert (reading.tokens[moment.at] == logits.argmax(-1).numpy()).all()
            np.testing.assert_allclose(
                reading.probability[moment.at], logits.softmax(-1).detach(), atol=2e-3
            )
        again = trm.states_at(run.node, moment.at)
        assert all(torch.equal(z, current[name]) for name, z in again._asdict().items())


def test_moments_of_models_that_solve_for_fixed_points_are_cycles():
    session = session_of("equilibrium")
    assert session.last == STEPS * session.model.config.schedule.h_cycles
    assert all(moment.tick.ends_cycle for moment in session.moments[1:] if moment.tick)


# forks


def test_noise_between_supervision_steps_is_that_of_inference(session: Session):
    inputs, labels = rows(session.puzzles, 0)
    at, answer = ends(session)[0], session.model.answer
    which = session.model.state_names.index(answer)

    def before_step(step: int, state: Any) -> Any:
        if step != 1:
            return state
        noisy = noise_on(getattr(state, answer), which, 0.7, 5, at)
        return state._replace(**{answer: noisy})

    own = session.puzzles.subset([0]).tensors.identifiers
    expected = run_batch(
        session.model, inputs, labels, STEPS, before_step=before_step, identifiers=own
    )
    plain = session.plain(0)
    run = session.run(plain.fork(Noise(at, (answer,), 0.7, 5)))
    assert (run.answer.tokens[ends(session)[1:]] == expected.tokens[0, 1:].numpy()).all()
    np.testing.assert_allclose(run.answer.loss[ends(session)[-1]], expected.loss[0, -1], rtol=1e-5)
    same(run, session.run(plain), slice(0, at))
    moved = session.states_at(run.node, at)
    assert run.answer.speed[at] == pytest.approx(0.7, rel=0.3)
    assert not torch.equal(getattr(moved, answer), getattr(session.states_at(plain, at), answer))


def test_noise_inside_a_step_is_that_of_a_patch(trm: Session):
    inputs, labels = rows(trm.puzzles, 0)
    moment = next(m for m in trm.moments[8:] if m.tick and m.tick.writes == trm.model.latent)
    assert moment.tick
    which, cells = trm.model.state_names.index(trm.model.latent), (3, 7)
    base = patch.record(trm.model, inputs, labels, STEPS)
    edit = patch.Edit(lambda z: noise_on(z, which, 2.0, 9, moment.at))
    where = patch.positions_of(trm.model.config, cells)
    effects = patch.apply(base, edit, [patch.Cell(moment.tick.hook, where)])
    fork = trm.plain(0).fork(Noise(moment.at, (trm.model.latent,), 2.0, 9, cells))
    run = trm.run(fork)
    assert (run.answer.tokens[-1] == effects.tokens[0, 0].numpy()).all()
    np.testing.assert_allclose(run.answer.loss[-1], effects.loss[0, 0], rtol=1e-5)
    change = run.readings[trm.model.latent].change[moment.at]
    assert (change > 0).nonzero()[0].tolist() == [3, 7]


def test_all_states_of_another_run_give_the_rest_of_it(session: Session):
    plain, every = session.plain(0), tuple(session.model.state_names)
    other = plain.fork(Noise(0, every, 1.0, 3))
    at = ends(session)[0]
    copy = session.run(plain.fork(Copied(at, every, other, at)))
    theirs = session.run(other)
    for name in copy.readings:
        mine, of = copy.readings[name], theirs.readings[name]
        assert (mine.tokens[at:] == of.tokens[at:]).all()
        np.testing.assert_allclose(mine.loss[at:], of.loss[at:], rtol=1e-5)  # read in other batches
        np.testing.assert_allclose(mine.place[at:], of.place[at:], rtol=1e-4, atol=1e-5)
    mine, of = (session.states_at(node, session.last) for node in (copy.node, other))
    assert all(torch.equal(a, b) for a, b in zip(mine, of, strict=True))
    same(copy, session.run(plain), slice(0, at))


def test_a_state_from_another_moment(trm: Session):
    """z_H of the end of the second step, put into the first one."""
    at, from_ = ends(trm)[:2]
    plain, answer = trm.plain(0), trm.model.answer
    fork = plain.fork(Copied(at, (answer,), plain, from_))
    states, source = trm.states_at(fork, at), trm.states_at(plain, from_)
    assert torch.equal(getattr(states, answer), getattr(source, answer))
    latent = trm.model.latent
    assert torch.equal(getattr(states, latent), getattr(trm.states_at(plain, at), latent))
    assert (trm.run(fork).answer.tokens[at] == trm.run(plain).answer.tokens[from_]).all()


def test_a_given_that_changes_half_way(session: Session):
    model, task = session.model, session.task
    at, plain = ends(session)[0], session.plain(0)
    inputs = plain.puzzle.inputs.copy()
    cell = int(np.flatnonzero(~task.asked(inputs))[0])
    token = next(t for t in range(1, task.vocab) if t != inputs[cell])
    changed = inputs.copy()
    changed[cell] = token
    own = None if plain.puzzle.identifier is None else torch.tensor([plain.puzzle.identifier])
    with torch.no_grad():
        x, x_then = (
            model.embed(torch.from_numpy(of)[None], identifiers=own) for of in (inputs, changed)
        )
        state, _ = model.advance(model.initial_state(x), x, 0)
        for step in range(1, STEPS):
            state, _ = model.advance(state, x_then, step)
        tokens = model.readout(model.answer_of(state)).logits.argmax(-1)[0]
    run = session.run(plain.fork(Given(at, cell, token)))
    assert (run.answer.tokens[-1] == tokens.numpy()).all()
    assert (run.inputs[:at] == inputs).all() and (run.inputs[at:] == changed).all()
    same(run, session.run(plain), slice(0, at))


def test_the_solution_of_a_puzzle_that_changes(trm: Session):
    """12.4 ...2 .... 4..1 with its solution 1234/3412/2143/4321."""
    plain = trm.plain(0)
    before = plain.puzzle.labels
    filled = trm.run(plain.fork(Given(3, 2, 4)))  # the 3 that the solution has
    assert (filled.labels == before).all()
    contradictory = trm.run(plain.fork(Given(3, 2, 2)))  # a second 1 in the row
    assert (contradictory.labels == before).all()
    blank = trm.run(plain.fork(Given(3, 0, 1)))
    assert (blank.labels == before).all() and (blank.inputs[-1] != plain.puzzle.inputs).sum() == 1


def test_a_fork_of_a_fork_follows_its_parent_up_to_its_own_edit(trm: Session):
    plain, latent = trm.plain(0), trm.model.latent
    early = plain.fork(Noise(4, (latent,), 1.0, 1), "early")
    late = early.fork(Noise(9, (latent,), 1.0, 2), "late")
    before = late.fork(Noise(2, (latent,), 1.0, 3), "before both")
    runs = {node.name: trm.run(node) for node in (plain, early, late, before)}
    same(runs["late"], runs["early"], slice(0, 9))
    same(runs["before both"], runs["plain run"], slice(0, 2))
    direct = trm.run(plain.fork(Noise(2, (latent,), 1.0, 3)))
    same(runs["before both"], direct)
    assert (runs["late"].answer.loss[9:] != runs["early"].answer.loss[9:]).any()
    both = early.fork(Noise(4, (latent,), 1.0, 2), "the same moment")
    start = getattr(trm.states_at(early, 4), latent)
    expected = noise_on(start, trm.model.state_names.index(latent), 1.0, 2, 4)
    assert torch.equal(getattr(trm.states_at(both, 4), latent), expected)
    assert [node.name for node in late.lineage()] == ["plain run", "early", "late"]


def test_an_edit_of_one_state_leaves_what_the_other_one_shows(trm: Session):
    """Until it is written again: also how far its last evaluation has moved it."""
    plain, answer, latent = trm.plain(0), trm.model.answer, trm.model.latent
    fork = trm.run(plain.fork(Noise(7, (latent,), 1.0, 1)))
    own = trm.run(plain)
    for field in ("tokens", "change", "speed", "place"):
        mine, before = (getattr(run.readings[answer], field)[7] for run in (fork, own))
        np.testing.assert_array_equal(mine, before)
    assert own.readings[answer].speed[7] > 0


# memory


def test_runs_that_were_dropped_are_computed_again(trm: Session):
    nodes = [trm.plain(0)]
    for at in (3, 6, 9):
        nodes.append(nodes[-1].fork(Noise(at, (trm.model.answer,), 1.0, at)))
    ample = [trm.run(node) for node in nodes]
    tight = session_of("trm", most_bytes=int(1.5 * ample[0].nbytes))
    for node, expected in [*zip(nodes, ample, strict=True), (nodes[1], ample[1])]:
        same(tight.run(node), expected)
        assert tight.nbytes <= tight.most_bytes or len(tight._runs) == 1
    assert len(trm._runs) == 4 and trm.nbytes == sum(run.nbytes for run in ample)


def test_a_run_is_computed_once(trm: Session, monkeypatch: pytest.MonkeyPatch):
    node = trm.plain(0)
    first = trm.run(node)
    monkeypatch.setattr(trm, "_computed", None)
    renamed = trm.run(replace(node, name="another name"))
    assert renamed.answer is first.answer and renamed.node.name == "another name"


# errors


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Noise(-1, ("z_H",), 1.0), "moments 0 to 17, not at -1"),
        (Noise(18, ("z_H",), 1.0), "moments 0 to 17, not at 18"),
        (Noise(0, ("slow",), 1.0), "no state slow: give z_"),
        (Noise(0, (), 1.0), "no state is named"),
        (Noise(0, ("z_H",), float("nan")), "above 0, at most 1000, not nan"),
        (Noise(0, ("z_H",), 1.0, -1), "seed"),
        (Noise(0, ("z_H",), 1.0, 0, ()), "no cell is chosen"),
        (Noise(0, ("z_H",), 1.0, 0, (16,)), "cells are 1 to 16"),
        (Noise(0, ("z_H",), 1.0, 0, (-1,)), "cells are 1 to 16"),
        (Given(0, 16, 2), "no token 2 for cell 17"),
        (Given(0, 0, 6), "no token 6 for cell 1"),
        (Given(0, 0, 0), "no token 0 for cell 1"),
    ],
)
def test_edits_that_cannot_be_made(trm: Session, edit: Any, message: str):
    with pytest.raises(UserError, match=message):
        trm.run(trm.plain(0).fork(edit))


def test_a_moment_that_is_not_there(trm: Session):
    plain = trm.plain(0)
    with pytest.raises(UserError, match="moments are 0 to 18, not 19"):
        trm.run(plain.fork(Copied(0, ("z_H",), plain, 19)))
    with pytest.raises(UserError, match="moments are 0 to 18, not -1"):
        trm.states_at(plain, -1)


def test_states_that_are_not_finite(trm: Session):
    with torch.no_grad():
        for weight in trm.model.networks()[0].parameters():
            weight.mul_(float("inf"))
    with pytest.raises(UserError, match=r"z_. is not finite at moment \d: "):
        trm.run(Node(trm.puzzle(0)))


# puzzles


def test_a_typed_puzzle(trm: Session):
    typed = trm.read(" 1 2 | . 4\n . . | . 2\n . . | . .\n 4 . | . 1 \n")
    assert typed == trm.puzzle(0) and typed.index is None and not typed.several
    assert trm.plain("1" + "." * 15).puzzle.several


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "that is no 4x4 Sudoku: digits, blanks as"),
        ("<img src=x onerror=alert(1)>", "that is no 4x4 Sudoku: digits"),
        ("11" + "." * 14, "contradictory givens"),
        ("123....4" + "." * 8, "no solution"),
        ("." * 36, "6x6 Sudoku puzzles, but tiny reads 16 cells"),
        ("1...\n....\n....\n....\n\n2...\n....\n....\n....\n", "these are 2 puzzles"),
        ("1" * 15, "15"),
    ],
)
def test_texts_that_are_no_puzzle(trm: Session, text: str, message: str):
    with pytest.raises(UserError, match=message):
        trm.read(text)


def test_editing_a_given(trm: Session):
    puzzle = trm.puzzle(0)
    filled = trm.edited(puzzle, 2, 4)
    assert trm.task.text(filled.inputs) == "1234...2....4..1" and not filled.several
    assert filled.solution == puzzle.solution and filled.index == 0
    blank = trm.edited(trm.edited(puzzle, 3, 1), 0, 1)  # 1 and 4 are gone from the first row
    assert blank.several and blank.solution == puzzle.solution
    with pytest.raises(UserError, match="contradictory givens"):
        trm.edited(puzzle, 2, 2)
    with pytest.raises(UserError, match="no token 0"):
        trm.edited(puzzle, 1, 0)
    with pytest.raises(UserError, match="puzzle 4: the file has puzzles 1 to 3"):
        trm.puzzle(3)


def test_editing_squares_and_mazes():
    for session in (toy_session(), maze_session()):
        puzzle, task = session.puzzle(2), session.task
        again = session.read(task.text(puzzle.inputs))
        assert again.inputs.tolist() == puzzle.inputs.tolist()
        cell = int(np.flatnonzero(~task.asked(puzzle.inputs))[0])
        for token in range(1, task.vocab):
            try:
                edited = session.edited(puzzle, cell, token)
            except UserError:
                continue
            verdict = task.verify(edited.inputs[None], edited.labels[None])
            assert verdict.proved[0] or not task.can_prove
            several = task.has_several_solutions(edited.inputs[None])[0]
            assert edited.several == several
