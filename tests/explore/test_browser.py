"""The page in a real browser, headless. Skipped only where no Chromium is installed.

One server and one browser serve all tests; BROWSER_PATH names another browser.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from explore_pages import BROWSER, Page, in_browser
from explore_worlds import PUZZLES as LINES
from explore_worlds import STEPS, drawn, identity_for

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.counter import normal
from trm_interp.core.infer import run_batch
from trm_interp.explore.edits import Feature
from trm_interp.explore.session import Session, open_session
from trm_interp.explore.settings import ExploreConfig

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
STRANGE = "<img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def on_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    pytest.importorskip("playwright.sync_api")
    folder = tmp_path_factory.mktemp("explored")
    save_checkpoint(folder / "tiny", drawn("trm"), {"task": "sudoku4"})
    puzzles = folder / "p.txt"
    puzzles.write_text("\n".join(LINES[:2]) + "\n")
    sae = identity_for(load_checkpoint(folder / "tiny"), folder / "sae")
    session = open_session(folder / "tiny", puzzles, STEPS, "cpu", tell=lambda line: None, sae=sae)
    config = ExploreConfig(ckpt=str(folder / "tiny"), puzzles=puzzles, steps=STEPS)
    with in_browser(session, config) as page:
        yield page


@pytest.fixture
def opened(request: pytest.FixtureRequest, on_page: Page) -> Iterator[Page]:
    """The page, at the first puzzle or an address (the parameter).

    Whatever a test did left no error on the console, and asked no other host.
    """
    on_page.problems.clear()
    on_page.open(getattr(request, "param", ""))
    yield on_page
    assert not on_page.problems


def noise(session: Session, at: int, seed: int, size: float) -> Any:
    """Noise before the second supervision step on the answer state, as it is documented."""
    answer = session.model.answer
    which = session.model.state_names.index(answer)

    def before_step(step: int, state: Any) -> Any:
        if step != 1:
            return state
        z = getattr(state, answer)
        drawn = size * normal(z[0].numel(), seed, at, which).view_as(z)
        return state._replace(**{answer: z + drawn})

    return before_step


def test_the_first_board_comes_with_the_document(opened: Page):
    """It stands before the layout is there, and gives way to the boards."""
    page, held = opened.page, list[Any]()
    page.route("**/_dash-layout", lambda route: held.append(route))
    page.goto(opened.url)
    run = opened.session.run(opened.session.plain(0))
    cells = page.query_selector_all("#first-board .cell")
    assert [c.inner_text() for c in cells] == opened.glyphs(run.answer.tokens[0])
    before = cells[0].bounding_box()
    held[0].continue_()
    page.unroute("**/_dash-layout")
    page.wait_for_selector("#boards .cell")
    assert page.query_selector("#first-board") is None
    after = page.query_selector("#boards .cell").bounding_box()
    assert all(abs(before[side] - after[side]) < 40 for side in ("x", "y", "width"))


def test_time_goes_by_without_the_server(opened: Page):
    """Scrub, jump with buttons and keys, play: every board is the package's own."""
    session, page = opened.session, opened.page
    run = session.run(session.plain(0))
    opened.asked.clear()
    for moment in (0, 7, session.last):
        opened.go(moment)
        assert opened.board() == opened.glyphs(run.answer.tokens[moment])
    right = int(run.right(session.model.answer)[-1])
    assert page.inner_text(".board .facts").startswith(
        f"{right} of 16 right" if right < 16 else "so"
    )
    opened.go(0)
    page.click("#step-on")
    opened.at(6)
    page.click("#cycle-on")
    opened.at(9)
    page.click("h1")
    for key, moment in (
        ("ArrowLeft", 8),
        ("Shift+ArrowRight", 9),
        ("PageUp", 6),
        ("PageDown", 12),
        ("Home", 0),
        ("ArrowRight", 1),
    ):
        page.keyboard.press(key)
        opened.at(moment)
    page.keyboard.press("Space")
    page.wait_for_function(f"parseInt({WHEN}) >= 4")  # a busy browser shows not every moment
    if "pause" in page.inner_text("#play"):  # not at the end yet
        page.keyboard.press("Space")
    page.wait_for_function("!document.getElementById('play').innerText.includes('pause')")
    assert "/_dash-update-component" not in opened.asked
    page.mouse.click(*page.evaluate(ON_PATH, 12))
    opened.at(12)
    moved = "document.querySelector('#curves .js-plotly-plot').layout.shapes[0].x0 > 3"
    page.wait_for_function(moved)


WHEN = "document.getElementById('when').innerText"
ON_PATH = """(moment) => {
  const graph = document.querySelector("#path .js-plotly-plot"), run = graph._fullData[0];
  const { xaxis, yaxis } = graph._fullLayout, box = graph.getBoundingClientRect();
  const i = run.customdata.indexOf(moment);
  const x = xaxis.d2p(run.x[i]) + xaxis._offset, y = yaxis.d2p(run.y[i]) + yaxis._offset;
  return [box.x + x, box.y + y];
}"""
AT, SEED, SIZE = 6, 5, 2.0
LOOK = "?puzzle=2&m=5&read=z_L&layer=entropy&dims=3&run=0&cell=1&sha=12345678"
FORKED = f"?puzzle=2&m={AT}&fork=0,noise,{AT},z_H,{SIZE},{SEED},*,louder"


def noisy_end(session: Session) -> np.ndarray:
    """[cell], what inference answers at the end of that fork."""
    puzzle = session.puzzle(1)
    inputs, labels = (torch.from_numpy(of.copy())[None] for of in (puzzle.inputs, puzzle.labels))
    before_step = noise(session, AT, SEED, SIZE)
    read = run_batch(session.model, inputs, labels, STEPS, before_step=before_step)
    return read.tokens[0, -1].numpy()


def test_type_a_puzzle_and_fork_its_run(opened: Page):
    session, page = opened.session, opened.page
    page.fill("#text", "1234|....|....|....".replace("|", ""))
    page.click("#run")
    page.wait_for_function("document.getElementById('message').innerText.includes('several')")
    page.wait_for_function("location.search.includes('text=1234.')")  # its run is on the page
    page.fill("#text", "".join(LINES[1]))
    page.click("#run")
    page.wait_for_function("document.getElementById('message').innerText === ''")
    page.wait_for_function("!location.search.includes('text=1234.')")
    page.fill("#text", STRANGE)
    page.click("#run")
    page.wait_for_function("document.getElementById('message').innerText.includes('no 4x4')")
    assert page.query_selector_all("#message img") == []
    opened.go(AT)
    page.fill("#size", str(SIZE))
    page.fill("#seed", str(SEED))
    page.click("#fork")
    opened.runs(2)
    expected = noisy_end(session)
    opened.go(session.last)
    assert opened.board(1) == opened.glyphs(expected)
    assert opened.board(0) != opened.board(1)
    differing = page.query_selector_all("#boards .board:nth-child(2) .cell.differs")
    plain = session.run(session.plain(1)).answer.tokens[-1]
    assert len(differing) == int((plain != expected).sum())


@pytest.mark.parametrize("opened", [FORKED], indirect=True, ids=["forked"])
def test_take_it_away(opened: Page):
    """As Python, whose end is that of inference; as a page that works without a network."""
    page = opened.page
    opened.runs(2)
    name = page.locator("#list .run:nth-child(2) input")
    name.fill(STRANGE)
    name.press("Tab")
    page.wait_for_function(
        "(n) => document.querySelector('.board:nth-child(2) .title').textContent === n", arg=STRANGE
    )
    assert page.evaluate("window.hacked") is None

    page.click("#python")
    page.wait_for_function("document.getElementById('script')?.innerText.includes('nodes')")
    scope: dict[str, Any] = {}
    exec(compile(page.inner_text("#script"), "script", "exec"), scope)
    assert (scope["runs"][1].answer.tokens[-1] == noisy_end(opened.session)).all()
    assert scope["runs"][1].node.name == STRANGE
    page.keyboard.press("Escape")
    page.wait_for_selector("[role=dialog]", state="detached")

    with page.expect_download() as download:
        page.click("#save")
    saved = Path(download.value.path())
    other = page.context.new_page()
    fetched: list[str] = []
    other.on("request", lambda request: fetched.append(request.url))
    target = saved.with_name("saved.html")
    shutil.copy(saved, target)
    other.goto(target.as_uri())
    other.wait_for_selector(".js-plotly-plot .heatmaplayer")
    other.close()
    assert [url for url in fetched if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("opened", [FORKED], indirect=True, ids=["forked"])
def test_the_address_reopens_the_view(opened: Page):
    session, page = opened.session, opened.page
    opened.runs(2)
    opened.go(session.last)
    page.wait_for_function(f"location.search.includes('m={session.last}')")
    boards = opened.board(0), opened.board(1)
    opened.open("?" + urlsplit(page.url).query)
    opened.runs(2)
    opened.at(session.last)
    assert (opened.board(0), opened.board(1)) == boards
    assert boards[1] == opened.glyphs(noisy_end(session))
    page.click("#list .run:nth-child(2) .close")
    opened.runs(1)


def test_cells_and_givens(opened: Page):
    session, page = opened.session, opened.page
    opened.go(4)
    page.click("#boards .cell[data-cell='2']")
    page.wait_for_function(
        "document.getElementById('course').innerText.startsWith('row 1, column 3')"
    )
    page.wait_for_selector("#candidates .js-plotly-plot .heatmaplayer")
    page.click("#boards .cell[data-cell='7']", modifiers=["Shift"])
    page.wait_for_function("document.querySelectorAll('#boards .cell.chosen').length === 2")
    page.wait_for_function("location.search.includes('cell=2&more=7')")
    page.click("#boards .cell[data-cell='2']")
    page.wait_for_function("document.querySelectorAll('#boards .cell.chosen').length === 1")
    page.keyboard.press("ArrowRight")  # to the next cell, not in time
    assert page.evaluate("document.activeElement.dataset.cell") == "3"
    opened.at(4)
    page.click("#setting >> text=change from this moment on")
    page.click("#setting .token >> text=3")
    opened.runs(2)
    fork = session.run(session.plain(0)).node
    title = page.inner_text(".board:nth-child(2) .title")
    assert title == "cell 3 changed" and fork.parent is None
    # typed into a cell: contradictory first, and the runs stay; then the token of the solution
    page.focus("#boards .cell[data-cell='2']")
    page.keyboard.press("1")
    page.wait_for_function("document.getElementById('message').innerText.includes('contradictory')")
    opened.runs(2)
    page.focus("#boards .cell[data-cell='2']")
    page.keyboard.press("3")
    opened.runs(1)
    page.wait_for_function("document.getElementById('text').value === '1234...2....4..1'")
    assert page.query_selector("#boards .cell[data-cell='2'].given")


@pytest.mark.parametrize("opened", [LOOK], indirect=True, ids=["another look"])
def test_looks(opened: Page):
    """Heat layers, the other state, three dimensions, dark; an address that is nonsense."""
    session, page = opened.session, opened.page
    opened.at(5)
    assert "another checkpoint (12345678)" in page.inner_text("#message")
    run = session.run(session.plain(1))
    assert opened.board() == opened.glyphs(run.readings["z_L"].tokens[5])
    cell = page.query_selector("#boards .cell[data-cell='1']")
    value = float(re.search(r"entropy ([\d.]+)", cell.get_attribute("title"))[1])
    assert value == pytest.approx(run.readings["z_L"].entropy[5, 1], abs=0.01)
    page.click("label[for=dark]")
    page.wait_for_selector("html[data-mantine-color-scheme=dark]")
    page.click("label[for=dark]")
    page.wait_for_selector("html[data-mantine-color-scheme=light]")
    opened.open("?puzzle=99&fork=%3Cimg%20src%3Dx%20onerror%3Dwindow.hacked%3D1%3E&m=zzz")
    opened.at(0)
    message = page.inner_text("#message")
    assert message.startswith("The address cannot be shown: puzzle 99: the file has puzzles 1 to 2")
    assert page.evaluate("window.hacked") is None


FEATURES = "?puzzle=1&m=8&cell=2&side=features"


@pytest.mark.parametrize("opened", [FEATURES], indirect=True, ids=["features"])
def test_a_feature_its_fork_and_the_neighbourhood(opened: Page):
    """Choose a feature, see its heat, fork by it; runs near the fork's state; boards as files."""
    session, page = opened.session, opened.page
    run = session.run(session.plain(0))
    active = session.features.active(session, run, 8, 2, "activation")
    page.click("#features button")
    page.wait_for_function("document.getElementById('heat-words').innerText.includes('activation')")
    page.wait_for_function("document.querySelector('.cell.heated')")
    feature = active[0].feature
    value = page.get_attribute("#boards .cell[data-cell='2']", "title").split()[-1]
    course = session.features.course(session, run, feature)
    assert float(value) == pytest.approx(course[8, 2], abs=float(course.max()) / 200)
    page.wait_for_function(
        f"document.querySelector('#feature-page h2')?.innerText.endsWith(' {feature}')"
    )
    page.click("#feature-fork")
    opened.runs(2)
    expected = session.run(run.node.fork(Feature(8, feature, "ablate", lasts=True)))
    opened.go(session.last)
    assert opened.board(1) == opened.glyphs(expected.answer.tokens[-1])

    page.click("#side >> text=neighbourhood")
    opened.go(10)
    page.fill("#starts", "4")
    page.fill("#image-side", "2")
    page.click("#around-start")
    page.wait_for_function(
        "document.getElementById('around-words').innerText.startsWith('done: 8')"
    )
    page.wait_for_selector("#around .js-plotly-plot .heatmaplayer")

    page.click("#export")
    page.wait_for_selector("#boards-figure .js-plotly-plot .heatmaplayer")
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as download:
            page.click(f"[aria-label='boards as {kind.upper()}']")
        assert Path(download.value.path()).read_bytes().startswith(start)
