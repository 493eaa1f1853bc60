"""The app before any session is open: pages, scripts and styles, for which torch is not needed."""

from pathlib import Path
from threading import Event, Timer
from typing import Any

import dash
import dash_mantine_components  # noqa: F401 (its scripts are those of the page)
import flask
from dash import html

from trm_interp.explore.settings import ExploreConfig

ASSETS = Path(__file__).parent / "assets"
PLOTLY = "/_dash-component-suites/plotly/package_data/plotly.min.js"
LONGEST = 10.0  # s that plotly waits for the first board; a page gives up after 30
DRAWN = 0.3  # s in which a browser draws boards that it has got
BOARD = "board"  # set in flask.g by a callback whose answer has boards
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
        if flask.g.pop(BOARD, False):
            Timer(DRAWN, stands.set).start()
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
