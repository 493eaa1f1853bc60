"""The app before any session is open: pages, scripts and styles, for which torch is not needed."""

from pathlib import Path
from threading import Event
from typing import Any

import dash
import dash_mantine_components  # noqa: F401 (its scripts are those of the page)
import flask
from dash import html

from trm_interp.explore.settings import ExploreConfig

ASSETS = Path(__file__).parent / "assets"
PLOTLY = "_dash-component-suites/plotly/package_data/plotly.min.js"
# of paths that are answered before a session is open
STATIC = ("/_dash-component-suites/", "/assets/", "/_favicon.ico")


class _App(dash.Dash):
    """Loads plotly with the other scripts, which a browser does while the session opens."""

    def interpolate_index(self, **parts: Any) -> str:
        prefix = self.config.requests_pathname_prefix or "/"
        parts["scripts"] += f'\n<script src="{prefix}{PLOTLY}"></script>'
        return super().interpolate_index(**parts)


def bare_app(config: ExploreConfig) -> dash.Dash:
    """An app with an empty page, which answers to its own names of the machine only."""
    app = _App(
        "trm_interp.explore",
        assets_folder=str(ASSETS),
        serve_locally=True,
        title="trm-interp explore",
        update_title="",
        suppress_callback_exceptions=True,
    )
    app.layout = html.Div
    if is_loopback(config.host):  # a page of another site must not reach it by a name of its own
        app.server.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost", "[::1]", config.host]
    if (pages := config.features) is not None:

        @app.server.route("/features/dashboard.html")
        def dashboard() -> Any:
            return (pages / "dashboard.html").read_text("utf-8")

    return app


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
