"""The page in a real browser: mazes and ARC, and the slider while the machine computes."""

from pathlib import Path
from threading import Event
from typing import Any

import pytest
from explore_pages import BROWSER, in_browser
from explore_worlds import STEPS, checkpoint_of, drawn, maze_session, session_of

from trm_interp.explore import app
from trm_interp.explore.edits import Noise
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.tasks.registry import load_puzzles

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed"),
    pytest.mark.usefixtures("browser_package"),
]
ARC = Path(__file__).resolve().parents[2] / "artifacts/data/arc-small/test"
FORK = "?puzzle=2&m=5&cell=1&layer=change&run=1&fork=0,noise,5,z_H,2.0,7,*,loud"


@pytest.fixture(scope="session")
def browser_package() -> None:
    pytest.importorskip("playwright.sync_api")


def arc_session() -> Session:
    model = drawn("trm", cells=100, vocab=12)
    return Session(checkpoint_of(model), load_puzzles(ARC, limit=2), STEPS)


@pytest.mark.parametrize("make", [maze_session, arc_session])
def test_boards_of_every_task(make: Any):
    """A run, its fork and a changed cell, as the package has them; colours are the task's."""
    session = make()
    with in_browser(session, ExploreConfig(steps=STEPS)) as shown:
        shown.open(FORK)
        shown.runs(2)
        plain = session.run(session.plain(1))
        fork = session.run(plain.node.fork(Noise(5, ("z_H",), 2.0, 7)))
        for moment in (0, 5, session.last):
            shown.go(moment)
            for number, run in enumerate((plain, fork)):
                assert shown.board(number) == shown.glyphs(run.answer.tokens[moment])
        shown.page.click("#list .run:nth-child(2) .close")
        shown.runs(1)
        shown.page.evaluate("dash_clientside.set_props('layer', {value: 'none'})")
        colours = session.task.colours()
        token = plain.answer.tokens[-1, 1]
        shown.page.wait_for_function(
            """(colour) => {
              const cell = document.querySelector("#boards .cell[data-cell='1']");
              const probe = document.createElement("i");
              probe.style.backgroundColor = colour;
              return cell.style.backgroundColor === probe.style.backgroundColor;
            }""",
            arg=colours[token] or "",
        )
        assert not shown.problems


def test_the_slider_waits_for_nothing(monkeypatch: pytest.MonkeyPatch):
    """Boards follow while a heat layer and a fork are computed, which are held here."""
    session, asked, release = session_of(), Event(), Event()
    compute, layer_of = session._computed, app.layer_of

    def held(of: Any) -> Any:
        def holding(*given: Any) -> Any:
            asked.set()
            assert release.wait(120)
            return of(*given)

        return holding

    with in_browser(session, ExploreConfig(steps=STEPS)) as shown:
        shown.open()
        run = session.run(session.plain(0))
        monkeypatch.setattr(app, "layer_of", held(layer_of))
        shown.page.evaluate("dash_clientside.set_props('layer', {value: 'probe'})")
        shown.page.wait_for_selector("#heat-busy", state="visible")
        assert asked.wait(60)
        shown.go(7)
        assert shown.board() == shown.glyphs(run.answer.tokens[7])
        release.set()
        shown.page.wait_for_selector("#heat-busy", state="hidden")

        asked.clear()
        release.clear()
        monkeypatch.setattr(session, "_computed", held(compute))
        shown.page.click("#fork")
        assert asked.wait(60)
        shown.go(4)
        assert shown.board() == shown.glyphs(run.answer.tokens[4])
        release.set()
        shown.runs(2)
        assert not shown.problems
