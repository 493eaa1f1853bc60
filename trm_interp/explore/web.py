"""The app before any session is open: pages, scripts and styles, for which torch is not needed."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from typing import Any

import dash
import dash_mantine_components  # noqa: F401 (its scripts are those of the page)
import flask
from dash import html

from trm_interp.explore.settings import ExploreConfig

ASSETS = Path(__file__).parent / "assets"
PLOTLY = "/_dash-component-suites/plotly/package_data/plotly.min.js"
LONGEST = 10.0  # s that plotly waits for the first board; a page gives up after 30
STANDS = "stands"  # set in flask.g by a callback that a browser asks when it draws boards
# in the server's settings: promises of a board of the givens, and of what makes the script that
# draws the first board of the run
GIVENS, FIRST = "GIVENS", "FIRST_BOARD"
# of paths that are answered before a session is open
STATIC = ("/_dash-component-suites/", "/assets/", "/_favicon.ico")


def bare_app(config: ExploreConfig) -> dash.Dash:
    """An app with an empty page, which answers to its own names of the machine only."""
    app = dash.Dash(
        "trm_interp.explore",
        assets_folder=str(ASSETS),
        serve_locally=True,
        title="trm-interp explore",
        update_title="",
        suppress_callback_exceptions=True,
    )
    app.layout = html.Div
    _plotly_later(app)
    _board_first(app)
    if is_loopback(config.host):  # a page of another site must not reach it by a name of its own
        app.server.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost", "[::1]", config.host]
    if (pages := config.features) is not None:

        @app.server.route("/features/dashboard.html")
        def dashboard() -> Any:
            return (pages / "dashboard.html").read_text("utf-8")

    return app


def _plotly_later(app: dash.Dash) -> None:
    """Let plotly wait until the first board stands.

    A browser takes a second and more to read it, in which it draws nothing else.
    """
    stands = Event()

    @app.server.before_request
    def wait() -> None:
        if flask.request.path == PLOTLY:
            stands.wait(LONGEST)

    @app.server.after_request
    def look(response: flask.Response) -> flask.Response:
        if flask.g.pop(STANDS, False):
            stands.set()
        return response


def _board_first(app: dash.Dash) -> None:
    """Let a page without a view in its address begin with the givens and end with the first board.

    The browser draws the givens while torch is still imported, reads the page's scripts while the
    session opens, and draws the board of the run as soon as there is one: the layout and what Dash
    then asks take it another second. `boards.js` draws it into the place of the givens, which gives
    way to the boards of the layout.
    """
    puzzle: Future[str] = Future()
    promise: Future[Callable[[], str]] = Future()
    app.server.config[GIVENS], app.server.config[FIRST] = puzzle, promise

    def parts(page: str) -> Iterator[str]:
        head, rest = page.split("<body>", 1)
        yield f"{head}<body>\n"
        body, end = rest.rsplit("</body>", 1)
        yield f'<div id="first-board" inert>{puzzle.result()}</div>\n{body}'
        yield f"{promise.result()()}</body>{end}"

    @app.server.after_request
    def stream(response: flask.Response) -> flask.Response:
        if flask.request.path == "/" and not flask.request.args and response.status_code == 200:
            return flask.Response(parts(response.get_data(as_text=True)), mimetype="text/html")
        return response


def hold(app: dash.Dash, is_open: Event) -> None:
    """Let what needs the session wait for it."""

    @app.server.before_request
    def wait() -> None:
        path = flask.request.path
        if path != "/" and not path.startswith(STATIC):
            is_open.wait()

    # what Dash does at its first page goes through the callbacks, which are added while a browser
    # may ask already
    app.server.test_client().get("/")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound there.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    return host in ("localhost", "::1") or host.startswith("127.")
