"""What stands where on the page. Ids are those of `app` and of assets/explore.js."""

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from trm_interp.explore.payload import LAYERS, blank
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig

GRAPH: Any = {"displaylogo": False, "responsive": True, "toImageButtonOptions": {"format": "svg"}}
JUMPS = {  # id: (what is shown, title, key)
    "first": ("|◀", "to the start", "Home"),
    "step-back": ("◀◀", "a supervision step back", "Page Up"),
    "cycle-back": ("◀", "an H-cycle back", "Shift and left"),
    "back": ("<", "an evaluation back", "left"),
    "play": ("▶ play", "play or pause", "space"),
    "on": (">", "an evaluation on", "right"),
    "cycle-on": ("▶", "an H-cycle on", "Shift and right"),
    "step-on": ("▶▶", "a supervision step on", "Page Down"),
    "last": ("▶|", "to the end", "End"),
}
SIGNS = {  # classes of a cell in the legend
    "given": "given",
    "changed": "just changed",
    "wrong": "wrong",
    "conflict": "breaks a rule",
    "differs": "differs from the plain run",
}


def layout(session: Session, config: ExploreConfig) -> Any:
    """The whole page."""
    return dmc.MantineProvider(
        [
            dcc.Location(id="address", refresh=False),
            *_stores(),
            html.Div(
                [
                    _header(session),
                    html.Main([_left(session), _middle(session), _right()], className="columns"),
                    _time(),
                ],
                className="page",
            ),
            _script_window(),
        ],
        id="theme",
        forceColorScheme="light",
    )


def _stores() -> list[Any]:
    """What the page knows: the tree, the runs' data, what is chosen; and what keys have typed."""
    names = ("tree", "runs", "active", "cell", "typed", "picked", "query", "quiet")
    return [
        *(dcc.Store(id=name) for name in names),
        dcc.Store(id="moment", data=0),
        dcc.Store(id="dark", storage_type="local", data=False),
        dcc.Interval(id="clock", interval=150, disabled=True),
        dcc.Download(id="download"),
    ]


def _header(session: Session) -> Any:
    model = session.model
    facts = f"{session.checkpoint.path} · {session.task.title} · {session.steps} supervision steps"
    return html.Header(
        [
            html.H1("trm-interp explore"),
            html.Span(f"{facts} · {model.architecture}", className="facts"),
            dmc.Button("Copy as Python", id="python", variant="default", size="xs"),
            dmc.Button("Save as HTML", id="save", variant="default", size="xs"),
            dmc.Button("Dark", id="toggle", variant="default", size="xs"),
        ]
    )


def _left(session: Session) -> Any:
    n, source = len(session.puzzles), session.puzzles.source
    typed = session.task.typed_as or "as in a file"
    puzzle = [
        html.H2("Puzzle"),
        html.Div(
            [
                dmc.NumberInput(
                    id="index", min=1, max=n, debounce=300, size="xs", w=90, **_named("puzzle")
                ),
                html.Span(f"of {n} in {source}", className="facts", title=source),
            ],
            className="row",
        ),
        dmc.Textarea(
            id="text",
            placeholder=f"type or paste a puzzle: {typed}",
            size="xs",
            minRows=2,
            maxRows=4,
            autosize=True,
            className="mono",
            **_named("puzzle as text"),
        ),
        dmc.Button("Run this puzzle", id="run", size="xs", fullWidth=True, mt=4),
        html.Div(id="message", role="alert"),
    ]
    reach = [html.H2("Reach in"), *_reach_in(session)]
    runs = [html.H2("Runs"), html.Div(id="list")]
    return html.Section([*puzzle, *reach, *runs], className="left")


def _reach_in(session: Session) -> list[Any]:
    """What makes a fork of the chosen run."""
    states = list(session.model.state_names)
    kinds = [
        {"value": "noise", "label": "noise now"},
        {"value": "start", "label": "another start"},
        {"value": "copy", "label": "copy"},
    ]
    return [
        dmc.SegmentedControl(id="kind", data=kinds, value="noise", size="xs", fullWidth=True),
        dmc.ChipGroup(
            [dmc.Chip(name, value=name, size="xs") for name in states],
            id="states",
            multiple=True,
            value=[session.model.answer],
        ),
        html.Div(
            [
                dmc.NumberInput(
                    id="size", value=1, min=0, max=1000, step=0.1, size="xs", label="size (RMS)"
                ),
                dmc.NumberInput(id="seed", value=1, min=0, step=1, size="xs", label="seed"),
            ],
            id="for-noise",
            className="row",
        ),
        html.Div(
            [
                dmc.Select(id="source", data=[], value="0", size="xs", label="of run"),
                dmc.NumberInput(
                    id="from",
                    value=session.last,
                    min=0,
                    max=session.last,
                    size="xs",
                    label="moment",
                ),
            ],
            id="for-copy",
            className="row",
            hidden=True,
        ),
        dmc.SegmentedControl(
            id="where",
            data=[
                {"value": "all", "label": "all cells"},
                {"value": "cell", "label": "the chosen cell"},
            ],
            value="all",
            size="xs",
            fullWidth=True,
        ),
        dmc.Button("Fork the chosen run", id="fork", size="xs", fullWidth=True, mt=4),
    ]


def _middle(session: Session) -> Any:
    model = session.model
    roles = {model.answer: "answer state", model.latent: "latent state"}
    readings = [{"value": name, "label": f"{name} ({roles[name]})"} for name in session.states]
    layers = [{"value": name, "label": label} for name, label in LAYERS.items()]
    return html.Section(
        [
            html.Div(
                [
                    dmc.Select(
                        id="reading",
                        data=readings,
                        value=model.answer,
                        size="xs",
                        w=170,
                        allowDeselect=False,
                        label="guess read from",
                    ),
                    dmc.Select(
                        id="layer",
                        data=layers,
                        value="none",
                        size="xs",
                        w=180,
                        allowDeselect=False,
                        label="heat layer",
                    ),
                    html.Div(
                        [
                            *(
                                html.Span(
                                    [html.I(className=f"cell {one}"), words], className="sign"
                                )
                                for one, words in SIGNS.items()
                            ),
                            html.Span(id="scale"),
                        ],
                        className="legend",
                    ),
                ],
                className="row",
            ),
            html.Div(id="boards"),
            html.Div(_cell_panel(session), className="panel", id="cell-panel"),
        ],
        className="middle",
    )


def _cell_panel(session: Session) -> list[Any]:
    task, empty = session.task, blank(session)
    return [
        html.Div(
            [
                html.H2("Cell"),
                html.Span("click a cell to see its candidates over time", id="course"),
            ],
            className="row",
        ),
        html.Div(
            [
                dmc.SegmentedControl(
                    id="mode",
                    data=[
                        {"value": "new", "label": "set in a new run"},
                        {"value": "now", "label": "change from this moment on"},
                    ],
                    value="new",
                    size="xs",
                ),
                *(
                    html.Button(
                        "blank" if token == empty else name,
                        id={"type": "token", "token": token},
                        className="token",
                        title=f"put {name} into the chosen cell",
                    )
                    for token, name in enumerate(task.tokens)
                    if token
                ),
            ],
            id="setting",
            className="row",
            hidden=True,
        ),
        html.Div(
            dcc.Graph(id="candidates", config=GRAPH, style={"height": "150px"}),
            id="course-figure",
            hidden=True,
        ),
    ]


def _right() -> Any:
    dimensions = [{"value": "2", "label": "2-D"}, {"value": "3", "label": "3-D"}]
    return html.Section(
        [
            html.H2("Curves"),
            dcc.Graph(id="curves", config=GRAPH, className="curves"),
            html.Div(
                [
                    html.H2("Path of the state"),
                    dmc.SegmentedControl(id="dimensions", data=dimensions, value="2", size="xs"),
                ],
                className="row",
            ),
            dcc.Graph(id="path", config=GRAPH, className="path"),
        ],
        className="right",
    )


def _time() -> Any:
    """Buttons, and the slider, which the browser makes."""
    buttons = [
        html.Button(shown, id=name, title=f"{title} ({key})", **_named(title))
        for name, (shown, title, key) in JUMPS.items()
    ]
    return html.Footer(
        [
            html.Div([*buttons, html.Output(id="when", className="when")], className="row"),
            html.Div(id="slider"),
        ]
    )


def _script_window() -> Any:
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


def run_list(
    names: list[str], colours: Sequence[str], parents: list[int | None], active: int
) -> list[Any]:
    """The tree of runs: chosen, named and closed here."""
    depths: list[int] = []
    for parent in parents:
        depths.append(0 if parent is None else depths[parent] + 1)
    rows = []
    for at, name in enumerate(names):
        chosen = at == active
        rows.append(
            html.Div(
                [
                    html.Button(
                        "●" if chosen else "○",
                        id={"type": "pick", "run": at},
                        className="pick",
                        style={"color": colours[at]},
                        title="choose this run",
                        **_named(f"choose {name}", pressed=str(chosen).lower()),
                    ),
                    dmc.TextInput(
                        id={"type": "name", "run": at},
                        value=name,
                        size="xs",
                        debounce=True,
                        readOnly=at == 0,
                        **_named("name of the run"),
                    ),
                    html.Button(
                        "✕",
                        id={"type": "close", "run": at},
                        className="close",
                        hidden=at == 0,
                        title="close this run and its forks",
                    ),
                ],
                className="row run",
                style={"marginLeft": f"{12 * depths[at]}px"},
            )
        )
    return rows


def _named(name: str, **more: str) -> Any:
    """A name for screen readers, for what has no label, and other attributes of that kind."""
    return {"aria-label": name, **{f"aria-{key}": value for key, value in more.items()}}
