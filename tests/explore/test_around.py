"""Neighbourhoods: where runs end that go on near a state, and what ends a computation."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from explore_worlds import maze_session, session_of, toy_session

from trm_interp.analysis.basins import displacements
from trm_interp.explore import figures
from trm_interp.explore.around import MOST_JOBS, Around, Job, Jobs, nearby
from trm_interp.explore.around_panel import words_of
from trm_interp.explore.edits import Noise
from trm_interp.explore.session import Session
from trm_interp.runtime.errors import UserError

WAIT = 60.0


@pytest.fixture
def trm() -> Session:
    return session_of("trm")


def around(session: Session, **more: Any) -> Around:
    states = tuple(session.model.state_names)
    return Around(session.plain(0), **{"at": 4, "states": states, "radius": 0.5} | more)


def finished(session: Session, asked: Around) -> Job:
    job = Job(session, asked)
    job.start()
    job.join(WAIT)
    assert not job.is_running and not job.problem
    return job


@pytest.mark.parametrize("world", [session_of, toy_session, maze_session])
def test_every_place_is_computed(world: Any):
    session = world()
    asked = around(session, starts=3, side=3)
    ends = finished(session, asked).ends()
    assert ends is not None and ends.answer.shape == (3 + 9, session.task.cells)
    assert np.isnan(ends.where[:3]).all() and np.isfinite(ends.where[3:]).all()
    assert sorted({*ends.where[3:].ravel().tolist()}) == [-1.0, 0.0, 1.0]  # two radii
    figure = figures.around(session.run(asked.node), asked, ends, False, session.task)
    assert not np.isnan(figure.data[-2].z.astype(float)).any()


def test_runs_go_on_from_noisy_states(trm: Session):
    """The first random start, continued by a fork that copies the same states."""
    asked = around(trm, states=("z_L",), starts=2, side=0)
    ends = finished(trm, asked).ends()
    assert ends is not None
    z = trm.states_at(asked.node, 4).z_L
    moved = displacements(torch.arange(4), torch.full((4,), 0.5), *z.shape[1:], False, 0, 4)
    rms = moved[0].square().mean().sqrt().item()
    assert rms == pytest.approx(0.5, rel=1e-4)
    read = trm.ends_of(asked.node, 4, {"z_L": z + moved[:1]}, lambda: False)
    assert read is not None and (read[0][0] == ends.answer[0]).all()
    np.testing.assert_allclose(read[1][0], ends.place[0], rtol=1e-4, atol=1e-4)


def test_the_state_itself_ends_as_its_run_does(trm: Session):
    fork = trm.plain(0).fork(Noise(2, ("z_H",), 1.0, 3))
    state = trm.states_at(fork, 7)
    read = trm.ends_of(fork, 7, {"z_H": state.z_H}, lambda: False)
    run = trm.run(fork)
    assert read is not None and (read[0][0] == run.answer.tokens[-1]).all()
    np.testing.assert_allclose(read[1][0], run.answer.place[-1], rtol=1e-4, atol=1e-4)


def test_the_plane_lies_through_the_state_and_toward_the_end(trm: Session):
    asked = around(trm, states=("z_H",), starts=1, side=3)
    states, where = nearby(trm, asked)
    here, end = (trm.states_at(asked.node, m).z_H[0] for m in (4, trm.last))
    centre = int(np.flatnonzero((where == 0).all(1))[0])
    torch.testing.assert_close(states[centre, 0], here)
    right = int(np.flatnonzero((where == [1, 0]).all(1))[0])
    moved = states[right, 0] - here
    assert moved.square().mean().sqrt().item() == pytest.approx(1.0, rel=1e-4)
    cosine = torch.cosine_similarity(moved.flatten(), (end - here).flatten(), dim=0)
    assert cosine.item() == pytest.approx(1.0, abs=1e-4)


def test_it_ends_when_it_is_told_to(trm: Session):
    job = Job(trm, around(trm, starts=200, side=40))
    job.start()
    job.stop()
    job.join(WAIT)
    assert not job.is_running and job.done < job.total
    assert words_of(job, False).startswith("stopped: ")


def test_it_ends_when_nobody_asks(trm: Session):
    """As when a page is closed or loaded again; the clock is the test's."""
    now = [0.0]
    job = Job(trm, around(trm, starts=200, side=40), patience=5.0, clock=lambda: now[0])
    job.start()
    while not job.done:
        time.sleep(0.01)
    now[0] = 4.0
    assert job.ends() is not None and job.is_running  # who asks keeps it going
    now[0] = 8.0
    assert job.is_running or job.done == job.total
    now[0] = 9.5
    job.join(WAIT)
    assert not job.is_running and job.done < job.total


def test_one_computation_a_page(trm: Session):
    jobs = Jobs(trm)
    long = around(trm, starts=200, side=40)
    first = jobs.start("a", long)
    second = jobs.start("a", long)
    first.join(WAIT)
    assert not first.is_running and jobs.of("a") is second
    others = [jobs.start(f"page {i}", long) for i in range(MOST_JOBS)]
    second.join(WAIT)
    assert not second.is_running and jobs.of("a") is None and jobs.of("b") is None
    for i, job in enumerate(others):
        jobs.stop(f"page {i}")
        job.join(WAIT)
        assert not job.is_running


def test_the_page_that_began_last_goes_on(trm: Session):
    """Not the page that came last: this one was the first."""
    jobs, small = Jobs(trm), around(trm, starts=1, side=0)
    pages = [str(page) for page in range(MOST_JOBS)]
    for page in [*pages, pages[0], "one more"]:
        jobs.start(page, small)
    assert jobs.of(pages[0]) is not None and jobs.of(pages[1]) is None
    for page in ("one more", *pages):
        if (job := jobs.of(page)) is not None:
            job.join(WAIT)


def test_a_full_memory_is_told(trm: Session, monkeypatch: pytest.MonkeyPatch):
    def full(*given: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(trm, "ends_of", full)
    job = Job(trm, around(trm))
    job.start()
    job.join(WAIT)
    assert words_of(job, False).startswith("out of memory: ask for fewer places")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"at": 18}, "moments 0 to 17, not from 18"),
        ({"states": ()}, "choose one or several of z_"),
        ({"states": ("slow",)}, "choose one or several of z_"),
        ({"radius": 0.0}, "a radius is above 0, at most 100, not 0.0"),
        ({"radius": float("nan")}, "a radius is above 0"),
        ({"starts": 0}, "starts are 1 to 256, not 0"),
        ({"side": 1}, "2 to 40 places a side, or 0, not 1"),
        ({"side": 41}, "2 to 40 places"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_computed(trm: Session, more: Any, message: str):
    with pytest.raises(UserError, match=message):
        Jobs(trm).start("a", around(trm, **more))
