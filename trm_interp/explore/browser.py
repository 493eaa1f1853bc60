"""What needs no server: callbacks that are functions of the files in assets, and what they know."""

from collections.abc import Callable
from typing import Any

import dash
from dash import ALL, ClientsideFunction, Input, Output, State

from trm_interp.explore.page import JUMPS

SHORT = {  # what the address holds of the view, and how it is called there
    "moment": "m",
    "reading": "read",
    "layer": "layer",
    "active": "run",
    "cell": "cell",
    "more": "more",
    "dimensions": "dims",
    "basis": "axes",
    "fact": "fact",
    "feature": "feature",
    "side": "side",
}
VIEW = tuple(SHORT)
KEPT = dict.fromkeys(("active", "cell", "more", "feature"), "data") | {"dark": "checked"}


Add = Callable[..., None]  # a function's name, its outputs, inputs and states
LATER: dict[str, Any] = {"prevent_initial_call": True}


def add_browser_callbacks(app: dash.Dash) -> None:
    """What needs no server: functions of the files in assets."""

    def add(name: str, *of: Any, **how: Any) -> None:
        app.clientside_callback(ClientsideFunction("explore", name), *of, **how)

    _drawing(add)
    _time(add)
    _view(add)


def _drawing(add: Add) -> None:
    """Boards and lines at the moment: of what the browser has, and whenever more comes."""
    names = [("when", "children"), ("scale", "children")]
    words = [Output(*name) for name in names]
    again = [Output(*name, allow_duplicate=True) for name in names]
    chosen = [Input(name, KEPT.get(name, "value")) for name in ("moment", "reading", "layer")]
    add("draw", *words, *chosen, Input("cell", "data"), Input("more", "data"))
    add("show", *again, Input("runs", "data"), Input("active", "data"), **LATER)
    add("heat", *again, Input("heat", "data"), **LATER)
    figures = [Input(name, "figure") for name in ("curves", "path", "candidates")]
    add("follow", Output("quiet", "data", allow_duplicate=True), *figures, **LATER)


def _time(add: Add) -> None:
    """Buttons, play, a click on a curve."""
    at = Output("moment", "value", allow_duplicate=True)
    jumps = [Input(name, "n_clicks") for name in JUMPS if name != "play"]
    add("jump", at, *jumps, **LATER)
    add("play", Output("clock", "disabled"), Input("play", "n_clicks"), **LATER)
    add("tick", at, Input("clock", "n_intervals"), **LATER)
    add(
        "clicked",
        at,
        *(Input(name, "clickData") for name in ("curves", "path", "candidates")),
        **LATER,
    )
    add(
        "settle",
        Output("quiet", "data"),
        Input("moment", "value"),
        State("side", "value"),
        **LATER,
    )


def _view(add: Add) -> None:
    """The address, and figures as files."""
    add(
        "remember",
        Output("quiet", "data", allow_duplicate=True),
        Input("query", "data"),
        Input("names", "data"),
        *(Input(name, KEPT.get(name, "value")) for name in VIEW),
        **LATER,
    )
    add(
        "exported",
        Output("quiet", "data", allow_duplicate=True),
        Input({"type": "export", "figure": ALL, "format": ALL}, "n_clicks"),
        **LATER,
    )
