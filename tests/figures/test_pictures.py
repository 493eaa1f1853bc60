"""Static pictures: drawn where a browser is, given up on in time where one only seems to be."""

import shutil
import time
from pathlib import Path

import plotly.graph_objects as go
import pytest

from trm_interp.figures import pictures
from trm_interp.figures.look import Look
from trm_interp.figures.pictures import Painter
from trm_interp.figures.style import styled, write_html

pytest.importorskip("kaleido")
STATIC = Look(static=True)


@pytest.fixture
def figure() -> go.Figure:
    return styled(go.Figure(go.Scatter(x=[0, 1], y=[0, 1])), "a title")


@pytest.fixture(autouse=True)
def painter(monkeypatch: pytest.MonkeyPatch):
    """A painter of this test alone."""
    own = Painter()
    monkeypatch.setattr(pictures, "_painter", own)
    yield own
    own.stop()


SLEEPS = "echo $$ > {pid}\nexec sleep 1000"


@pytest.mark.parametrize(
    ("browser", "why"),
    [
        ("exit 1", "going on without PNG and PDF: The browser seemed to close immediately"),
        (SLEEPS, "going on without PNG and PDF: the browser did not answer within"),
        (None, "going on without PNG and PDF: No browser found at BROWSER_PATH='/nonexistent'"),
    ],
)
def test_a_browser_that_does_not_start_is_given_up_on_once(
    figure: go.Figure,
    painter: Painter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    browser: str | None,
    why: str,
):
    shim, pid = tmp_path / "chromium", tmp_path / "pid"
    if browser is not None:
        shim.write_text(f"#!/bin/sh\n{browser.format(pid=pid)}\n")
        shim.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent" if browser is None else str(shim))
    monkeypatch.setattr(pictures, "LIMIT", 4.0 if browser == SLEEPS else 60.0)
    first = write_html(figure, tmp_path / "out" / "first.html", STATIC)
    began = time.monotonic()
    second = write_html(figure, tmp_path / "out" / "second.html", STATIC)
    assert time.monotonic() - began < 2  # no second attempt
    assert first.exists() and second.exists() and painter.child is None
    assert {file.suffix for file in first.parent.iterdir()} == {".html", ".js"}
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and why in printed and len(printed) < 300
    assert (pictures.GET_BROWSER in printed) == (browser != SLEEPS)  # one that sleeps is installed
    if pid.exists():
        assert not is_alive(int(pid.read_text()))


def test_without_kaleido_the_message_says_how_to_get_it(
    figure: go.Figure,
    painter: Painter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    find = pictures.importlib.util.find_spec
    without = lambda name, *more: None if name == "kaleido" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(pictures.importlib.util, "find_spec", without)
    write_html(figure, tmp_path / "figure.html", STATIC)
    message = capsys.readouterr().err
    assert "kaleido is not installed" in message and pictures.GET_KALEIDO in message


def is_alive(pid: int) -> bool:
    """Not killed, though perhaps not yet buried by the process that adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def test_a_browser_on_the_path_draws_all_pictures(
    figure: go.Figure,
    painter: Painter,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no browser on this machine")
    page = write_html(figure, tmp_path / "page.html", STATIC)
    assert capsys.readouterr().err == ""
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert page.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    child = painter.child
    write_html(figure, tmp_path / "page.html", STATIC)
    assert painter.child is child and child is not None  # one browser for all
    painter.stop()
    assert child.poll() is not None


def test_the_same_figure_gives_the_same_bytes(figure: go.Figure, tmp_path: Path):
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no browser on this machine")
    pages = []
    for name in ("first.html", "second.html"):
        pages.append(write_html(figure, tmp_path / name, STATIC))
        time.sleep(1.1)  # dates are to the second
    for kind in (".html", ".png", ".pdf"):
        first, second = (page.with_suffix(kind).read_bytes() for page in pages)
        assert first == second, kind
    assert b"/CreationDate (D:20000101000000" in first


def test_a_browser_that_dies_between_pictures_is_not_waited_for(
    figure: go.Figure, painter: Painter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no browser on this machine")
    write_html(figure, tmp_path / "page.html", STATIC)
    assert painter.child is not None
    painter.child.kill()
    painter.child.wait()
    write_html(figure, tmp_path / "later.html", STATIC)
    assert (tmp_path / "later.html").exists() and not (tmp_path / "later.png").exists()
    assert "going on without PNG and PDF: the browser ended" in capsys.readouterr().err
