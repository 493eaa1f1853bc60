"""The Dash app: what the page asks of the session. Moves of the slider never come here."""

from pathlib import Path
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State, no_update

from trm_interp.explore import figures
from trm_interp.explore.changes import add_changes, changed, tree_outputs
from trm_interp.explore.page import JUMPS, layout, run_list
from trm_interp.explore.payload import LAYERS, payload
from trm_interp.explore.saving import saved_page
from trm_interp.explore.script import script
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.explore.trees import Tree, data_of, query_of, tree_of
from trm_interp.runtime.errors import UserError, one_line

ASSETS = Path(__file__).parent / "assets"
VIEW = ("moment", "reading", "layer", "active", "cell", "dimensions")  # that the address holds
KEPT: dict[str, str] = dict.fromkeys(("moment", "active", "cell"), "data")  # in stores
SHORT = {"moment": "m", "reading": "read", "layer": "layer", "active": "run", "cell": "cell"}
SHORT |= {"dimensions": "dims"}


def make_app(session: Session, config: ExploreConfig) -> dash.Dash:
    """The page of a session; everything it loads comes from this machine."""
    app = dash.Dash(
        "trm_interp.explore",
        assets_folder=str(ASSETS),
        serve_locally=True,
        title="trm-interp explore",
        update_title="",
        suppress_callback_exceptions=True,
    )
    app.layout = lambda: layout(session, config)
    _opening(app, session)
    add_changes(app, session)
    _shown(app, session)
    _drawn(app, session)
    _taking_away(app, session, config)
    _in_the_browser(app)
    return app


def _opening(app: dash.Dash, session: Session) -> None:
    """The page as its address has it, or the first puzzle."""

    @app.callback(
        *tree_outputs(),
        *(Output(name, KEPT.get(name, "value")) for name in VIEW if name != "active"),
        Input("address", "search"),
    )
    def open_address(search: str | None) -> list[Any]:
        try:
            data = data_of(search or "")
            tree = tree_of(session, data)
            own = data.get("sha", session.checkpoint.sha256[:8])
            view, note = _view(session, tree, data), ""
            if own != session.checkpoint.sha256[:8]:
                note = f"This address was made with another checkpoint ({own[:8]})."
        except (UserError, ValueError) as error:
            message = error if isinstance(error, UserError) else ValueError("too long")
            tree, note = tree_of(session, {}), f"The address cannot be shown: {one_line(message)}"
            view = _view(session, tree, {})
        data_now, active, problem = changed(session, lambda: (tree, view["active"]))
        if data_now is no_update:
            plain = Tree(tree.nodes[:1])
            data_now, active, _ = changed(session, lambda: (plain, 0))
        rest = [view[name] for name in VIEW if name != "active"]
        return [data_now, active, note or problem, *rest]


def _view(session: Session, tree: Tree, data: dict[str, Any]) -> dict[str, Any]:
    """What is chosen, each within its bounds."""

    def bounded(name: str, most: int, default: int | None) -> int | None:
        try:
            return min(max(int(data[SHORT[name]][:9]), 0), most)
        except (KeyError, ValueError):
            return default

    reading, layer, dims = (data.get(SHORT[n]) for n in ("reading", "layer", "dimensions"))
    return {
        "moment": bounded("moment", session.last, 0),
        "reading": reading if reading in session.states else session.model.answer,
        "layer": layer if layer in LAYERS else "none",
        "active": bounded("active", len(tree.nodes) - 1, 0),
        "cell": bounded("cell", session.task.cells - 1, None),
        "dimensions": dims if dims in ("2", "3") else "2",
    }


def _shown(app: dash.Dash, session: Session) -> None:
    """The runs of the tree: their data for the browser, and the list of their names."""

    @app.callback(
        Output("runs", "data"),
        Output("source", "data"),
        Output("index", "value"),
        Output("text", "value"),
        Output("query", "data"),
        Input("tree", "data"),
        State("text", "value"),
        prevent_initial_call=True,
    )
    def show(data: dict[str, Any], typed: str | None) -> tuple[Any, ...]:
        tree = tree_of(session, data)
        sources = [{"value": str(i), "label": n.name} for i, n in enumerate(tree.nodes)]
        number = int(data["puzzle"]) if "puzzle" in data else ""
        query = query_of({"sha": session.checkpoint.sha256[:8], **data})
        runs = [session.run(node) for node in tree.nodes]
        # what was typed stays as it is: a write could come late, over what is typed next
        is_typed = type(session.task).typed(typed or "") == data["text"]
        text = no_update if is_typed else data["text"]
        return payload(session, runs), sources, number, text, query

    @app.callback(
        Output("list", "children"),
        Input("tree", "data"),
        Input("active", "data"),
        prevent_initial_call=True,
    )
    def list_runs(data: Any, active: int) -> list[Any]:
        tree = tree_of(session, data)
        names = [node.name for node in tree.nodes]
        return run_list(names, figures.COLOURS, tree.parents(), active)


def _drawn(app: dash.Dash, session: Session) -> None:
    """Figures of the runs."""

    @app.callback(
        Output("curves", "figure"),
        Output("path", "figure"),
        Input("tree", "data"),
        Input("reading", "value"),
        Input("dimensions", "value"),
        Input("dark", "data"),
        State("moment", "data"),
        prevent_initial_call=True,
    )
    def draw(data: Any, reading: str, dimensions: str, dark: bool, moment: int) -> tuple[Any, Any]:
        if not data:
            return no_update, no_update
        runs = [session.run(node) for node in tree_of(session, data).nodes]
        path = figures.paths(runs, reading, moment, int(dimensions), dark, session.task)
        return figures.curves(runs, reading, moment, dark), path

    @app.callback(
        Output("candidates", "figure"),
        Output("course", "children"),
        Output("course-figure", "hidden"),
        Output("setting", "hidden"),
        Input("cell", "data"),
        Input("active", "data"),
        Input("tree", "data"),
        Input("reading", "value"),
        Input("dark", "data"),
        State("moment", "data"),
        prevent_initial_call=True,
    )
    def cell_course(
        cell: int | None, active: int, data: Any, reading: str, dark: bool, moment: int
    ) -> tuple[Any, ...]:
        if cell is None or not data:
            return no_update, no_update, True, True
        tree = tree_of(session, data)
        run = session.run(tree.nodes[min(active or 0, len(tree.nodes) - 1)])
        figure = figures.candidates(run, reading, cell, moment, dark, session.task)
        return figure, figures.course(run, reading, cell, session.task), False, False


def _taking_away(app: dash.Dash, session: Session, config: ExploreConfig) -> None:
    """*Copy as Python* and *save as HTML*."""
    ckpt, source = str(session.checkpoint.path), str(session.puzzles.source)
    puzzles = source if config.puzzles is None else str(config.puzzles)

    @app.callback(
        Output("script", "children"),
        Output("script-window", "opened"),
        Input("python", "n_clicks"),
        State("tree", "data"),
        State("moment", "data"),
        State("reading", "value"),
        prevent_initial_call=True,
    )
    def as_python(clicks: int, data: Any, moment: int, reading: str) -> tuple[str, bool]:
        return script(session, tree_of(session, data), ckpt, puzzles, moment, reading), True

    @app.callback(
        Output("download", "data"),
        Input("save", "n_clicks"),
        State("tree", "data"),
        State("active", "data"),
        prevent_initial_call=True,
        running=[(Output("save", "loading"), True, False)],
    )
    def save(clicks: int, data: Any, active: int) -> dict[str, Any]:
        run = session.run(tree_of(session, data).nodes[active])
        page = saved_page(session, run)
        return {"content": page, "filename": "run.html", "type": "text/html"}


def _in_the_browser(app: dash.Dash) -> None:
    """What needs no server: functions of assets/explore.js."""

    def add(name: str, *of: Any, **how: Any) -> None:
        app.clientside_callback(ClientsideFunction("explore", name), *of, **how)

    later: dict[str, Any] = {"prevent_initial_call": True}
    add(
        "draw",
        Output("when", "children"),
        Input("moment", "data"),
        Input("runs", "data"),
        Input("reading", "value"),
        Input("layer", "value"),
        Input("active", "data"),
        Input("cell", "data"),
        Input("curves", "figure"),
        Input("path", "figure"),
        Input("candidates", "figure"),
    )
    jumps = [Input(name, "n_clicks") for name in JUMPS if name != "play"]
    add("jump", Output("moment", "data", allow_duplicate=True), *jumps, **later)
    add("play", Output("clock", "disabled"), Input("play", "n_clicks"), **later)
    add("tick", Output("quiet", "data"), Input("clock", "n_intervals"), **later)
    add(
        "follow",
        Output("moment", "data", allow_duplicate=True),
        *(Input(name, "clickData") for name in ("curves", "path", "candidates")),
        **later,
    )
    add(
        "remember",
        Output("quiet", "data", allow_duplicate=True),
        Input("query", "data"),
        *(Input(name, KEPT.get(name, "value")) for name in VIEW),
        **later,
    )
    add(
        "toggle",
        Output("dark", "data"),
        Input("toggle", "n_clicks"),
        State("dark", "data"),
        **later,
    )
    add(
        "theme",
        Output("theme", "forceColorScheme"),
        Output("toggle", "children"),
        Input("dark", "data"),
    )
    add(
        "kind",
        Output("for-noise", "hidden"),
        Output("for-copy", "hidden"),
        Input("kind", "value"),
    )
