"""What stands where on the page. Ids are those of `app` and of the files in assets."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import dash_mantine_components as dmc
from dash import dcc, html

from trm_interp.explore.around_panel import around_panel
from trm_interp.explore.bases import bases_of
from trm_interp.explore.feature_panel import feature_panel
from trm_interp.explore.layers import facts_shown
from trm_interp.explore.payload import LAYERS, blank
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.explore.windows import GRAPH, export_window, named, script_window

JUMPS = {  # id: (what is shown, title, key in words, as the browser names it)
    "first": ("|◀", "to the start", "Home", "Home"),
    "step-back": ("◀◀", "a supervision step back", "Page Up", "PageUp"),
    "cycle-back": ("◀", "an H-cycle back", "Shift and left", "Shift+ArrowLeft"),
    "back": ("<", "an evaluation back", "left", "ArrowLeft"),
    "play": ("▶ play", "play or pause", "space", "Space"),
    "on": (">", "an evaluation on", "right", "ArrowRight"),
    "cycle-on": ("▶", "an H-cycle on", "Shift and right", "Shift+ArrowRight"),
    "step-on": ("▶▶", "a supervision step on", "Page Down", "PageDown"),
    "last": ("▶|", "to the end", "End", "End"),
}
SIGNS = {  # classes of a cell in the legend
    "given": "given",
    "changed": "just changed",
    "wrong": "wrong",
    "conflict": "breaks a rule",
    "differs": "differs from the plain run",
}

MOST_MARKS = 18  # on the slider
SIDES = {"run": "run", "features": "features", "around": "neighbourhood"}  # of the right column


def layout(session: Session, config: ExploreConfig, names: dict[str, str]) -> Any:
    """The whole page. `names`: what the address holds of the view, by its ids."""
    return dmc.MantineProvider(
        [
            dcc.Location(id="address", refresh=False),
            *_stores(names),
            html.Div(
                [
                    _header(session),
                    html.Main(
                        [_left(session), _middle(session), _right(session)], className="columns"
                    ),
                    _time(session),
                ],
                className="page",
            ),
            script_window(),
            export_window(),
        ],
        id="theme",
        forceColorScheme="light",
    )


def _stores(view: dict[str, str]) -> list[Any]:
    """What the page knows: the tree, the runs' data, what is chosen; and what keys have typed."""
    names = ("tree", "runs", "active", "cell", "typed", "picked", "query", "quiet")
    names += ("heat", "feature", "settled", "more")
    return [
        *(dcc.Store(id=name) for name in names),
        dcc.Store(id="page", data=uuid4().hex),  # one a visit
        dcc.Store(id="names", data=list(view.values())),
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
            dmc.Button("Export figures", id="export", variant="default", size="xs"),
            dmc.Button("Save as HTML", id="save", variant="default", size="xs"),
            dmc.Switch(id="dark", label="dark", checked=False, persistence=True, size="xs"),
        ]
    )


def _left(session: Session) -> Any:
    n, source = len(session.puzzles), session.puzzles.source
    typed = f"type or paste a puzzle: {session.task.typed_as or 'as in a file'}"
    if not session.reads_text:
        typed = f"{session.task.title} puzzles are chosen from the file"
    puzzle = [
        html.H2("Puzzle"),
        html.Div(
            [
                dmc.NumberInput(
                    id="index", min=1, max=n, debounce=300, size="xs", w=90, **named("puzzle")
                ),
                html.Span(f"of {n} in {source}", className="facts", title=source),
            ],
            className="row",
        ),
        dmc.Textarea(
            id="text",
            placeholder=typed,
            size="xs",
            minRows=2,
            maxRows=4,
            autosize=True,
            className="mono",
            **named("puzzle as text"),
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
        html.Div(
            dmc.ChipGroup(
                [dmc.Chip(name, value=name, size="xs") for name in states],
                id="states",
                multiple=True,
                value=[session.model.answer],
            ),
            className="row chips",
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
        ),
        dmc.SegmentedControl(
            id="where",
            data=[
                {"value": "all", "label": "all cells"},
                {"value": "cell", "label": "the chosen cells"},
            ],
            value="all",
            size="xs",
            fullWidth=True,
        ),
        dmc.Button("Fork the chosen run", id="fork", size="xs", fullWidth=True, mt=4),
    ]


def _middle(session: Session) -> Any:
    return html.Section(
        [
            html.Div([*_choices(session), _legend()], className="row"),
            _heat_line(),
            html.Div(id="boards"),
            html.Div(_cell_panel(session), className="panel", id="cell-panel"),
        ],
        className="middle",
    )


def _choices(session: Session) -> list[Any]:
    """What the guess is read from, and the heat layer."""
    model = session.model
    roles = {model.answer: "answer state", model.latent: "latent state"}
    readings = [{"value": name, "label": f"{name} ({roles[name]})"} for name in session.states]
    layers = [{"value": name, "label": label} for name, label in LAYERS.items()]
    facts = facts_shown(session)
    how: Any = {"size": "xs", "allowDeselect": False}
    return [
        dmc.Select(
            id="reading", data=readings, value=model.answer, w=160, label="guess read from", **how
        ),
        dmc.Select(id="layer", data=layers, value="none", w=170, label="heat layer", **how),
        html.Div(
            dmc.Select(id="fact", data=facts, value=facts[0], w=150, label="probe for", **how),
            id="fact-field",
            hidden=True,
        ),
    ]


def _legend() -> Any:
    """Signs of cells."""
    signs = [
        html.Span([html.I(className=f"cell {one}"), words], className="sign")
        for one, words in SIGNS.items()
    ]
    return html.Div(signs, className="legend")


def _heat_line() -> Any:
    """What the heat is, while it is computed and then."""
    busy = html.Span("computing … ", id="heat-busy", hidden=True)
    return html.Div([busy, html.Span(id="scale"), " ", html.Span(id="heat-words")], id="heat-line")


def _cell_panel(session: Session) -> list[Any]:
    task, empty = session.task, blank(session)
    return [
        html.Div(
            [
                html.H2("Cell"),
                html.Span(
                    "click a cell to see its candidates over time; Shift chooses several",
                    id="course",
                ),
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
                        "blank" if token == empty and not name.isalpha() else name,
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
        *(() if session.probes is None else (html.P(id="probe-words", className="facts whole"),)),
        html.Div(
            dcc.Graph(id="candidates", config=GRAPH, style={"height": "120px"}),
            id="course-figure",
            hidden=True,
        ),
    ]


def _right(session: Session) -> Any:
    bases = [{"value": name, "label": label} for name, label in bases_of(session).items()]
    dimensions = [{"value": "2", "label": "2-D"}, {"value": "3", "label": "3-D"}]
    run = [
        html.H2("Curves"),
        dcc.Graph(id="curves", config=GRAPH, className="curves"),
        html.Div(
            [
                html.H2("Path, axes of"),
                dmc.SegmentedControl(id="basis", data=bases, value="run", size="xs"),
                dmc.SegmentedControl(id="dimensions", data=dimensions, value="2", size="xs"),
            ],
            className="row",
        ),
        dcc.Graph(id="path", config=GRAPH, className="path"),
    ]
    panels = [run, feature_panel(session, GRAPH), around_panel(GRAPH)]
    shown = zip(SIDES, panels, strict=True)
    tabs = [dmc.TabsTab(label, value=name) for name, label in SIDES.items()]
    return html.Section(
        dmc.Tabs(
            [
                dmc.TabsList(tabs, grow=True),
                *(dmc.TabsPanel(panel, value=name, className="side") for name, panel in shown),
            ],
            id="side",
            value="run",
        ),
        className="right",
    )


def _time(session: Session) -> Any:
    """Buttons and the slider, whose value is the moment; marks at the ends of supervision steps."""
    buttons = [
        html.Button(shown, id=name, title=f"{title} ({key})", **named(title, keyshortcuts=shortcut))
        for name, (shown, title, key, shortcut) in JUMPS.items()
    ]
    return html.Footer(
        [
            html.Div([*buttons, html.Output(id="when", className="when")], className="row"),
            dmc.Slider(
                id="moment",
                value=0,
                min=0,
                max=session.last,
                marks=[{"value": at, "label": label} for at, label in _marks(session.ends)],
                updatemode="drag",
                label=None,
                size="sm",
                thumbLabel="moment",
            ),
        ]
    )


def _marks(ends: list[int]) -> Iterator[tuple[int, str]]:
    """Moments at which so many supervision steps are done, as many as there is room for."""
    every = -(-len(ends) // MOST_MARKS)
    for step, at in enumerate([0, *ends]):
        if not step % every:
            yield at, str(step) if step else "step 0"


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
                        **named(f"choose {name}", pressed=str(chosen).lower()),
                    ),
                    dmc.TextInput(
                        id={"type": "name", "run": at},
                        value=name,
                        size="xs",
                        debounce=True,
                        readOnly=at == 0,
                        **named("name of the run"),
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
