"""Windows over the page: the script, and figures as files."""

from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

GRAPH: Any = {"displaylogo": False, "responsive": True, "toImageButtonOptions": {"format": "svg"}}
FIGURES = {  # by their ids
    "boards-figure": "boards",
    "curves": "curves",
    "path": "path of the state",
    "candidates": "candidates of the cell",
    "feature-course": "course of the feature",
    "around": "neighbourhood",
}


def script_window() -> Any:
    """*Copy as Python*."""
    return dmc.Modal(
        [
            html.Div(
                [
                    html.Span("These package calls make the runs on the page again."),
                    dcc.Clipboard(target_id="script", title="copy", className="clipboard"),
                ],
                className="row",
            ),
            html.Pre(id="script", className="mono"),
        ],
        id="script-window",
        title="As Python",
        size="xl",
    )


def export_window() -> Any:
    """All figures as files; the boards are drawn here."""
    rows = [
        html.Tr(
            [
                html.Td(words),
                *(
                    html.Td(
                        html.Button(
                            kind.upper(),
                            id={"type": "export", "figure": name, "format": kind},
                            className="token",
                            **named(f"{words} as {kind.upper()}"),
                        )
                    )
                    for kind in ("svg", "png")
                ),
            ]
        )
        for name, words in FIGURES.items()
    ]
    return dmc.Modal(
        [html.Table(rows), html.Div(dcc.Graph(id="boards-figure", config=GRAPH), className="wide")],
        id="export-window",
        title="Export figures",
        size="xl",
    )


def named(name: str, **more: str) -> Any:
    """A name for screen readers, for what has no label, and other attributes of that kind."""
    return {"aria-label": name, **{f"aria-{key}": value for key, value in more.items()}}
