"""The Dash app: what the page asks of the session. Moves of the slider never come here."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import dash
import flask
from dash import Input, Output, State, no_update, set_props

from trm_interp.explore import figures
from trm_interp.explore.around import Jobs
from trm_interp.explore.around_panel import add_around
from trm_interp.explore.bases import bases_of, on_basis
from trm_interp.explore.boards import boards_figure, layer_of
from trm_interp.explore.browser import KEPT, SHORT, VIEW, add_browser_callbacks
from trm_interp.explore.changes import PAGE, add_changes, chosen_node, tree_outputs
from trm_interp.explore.feature_panel import add_features
from trm_interp.explore.layers import Layer, facts_shown
from trm_interp.explore.page import SIDES, layout, run_list
from trm_interp.explore.page_trees import PageTrees
from trm_interp.explore.payload import COMPUTED, LAYERS, heat_payload, payload
from trm_interp.explore.runs import Run
from trm_interp.explore.saving import saved_page
from trm_interp.explore.script import Look, Near, script
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.explore.trees import Tree, data_of, query_of, tree_of
from trm_interp.explore.web import FIRST, GIVENS, STANDS, bare_app
from trm_interp.runtime.errors import UserError, is_out_of_memory, one_line

# what figures show
LOOK = ("moment", "reading", "layer", "fact", "feature", "dimensions", "cell", "active", "dark")
LOOK += ("basis",)
OUT_OF_MEMORY = "out of memory: close runs, or start with fewer --steps"


def make_app(session: Session, config: ExploreConfig, bare: dash.Dash | None = None) -> dash.Dash:
    """The page of a session; everything it loads comes from this machine. `bare`: the app that it
    is put into."""
    app = bare_app(config) if bare is None else bare
    app._on_error = _in_place
    trees = PageTrees(session)
    app.layout = lambda: layout(session, config, SHORT)
    _opening(app, session, trees)
    add_changes(app, session, trees)
    _shown(app, session)
    _drawn(app, session)
    _told(app, session)
    _heated(app, session)
    add_features(app, session, trees)
    jobs = add_around(app, session)
    _taking_away(app, session, config, jobs)
    add_browser_callbacks(app)
    if not app.server.config[GIVENS].done():
        app.server.config[GIVENS].set_result("")
    app.server.config[FIRST].set_result(lambda: _first(session))
    return app


def _first(session: Session) -> str:
    """A script that draws the first board; nothing where it cannot be had, which the page says."""
    plain = session.plain(0)
    try:
        data = payload(session, [session.run(plain)])
    except Exception as error:
        if not (isinstance(error, UserError) or is_out_of_memory(error)):
            raise
        return ""
    given = json.dumps([data, session.model.answer]).replace("<", "\\u003c")
    return f"<script>window.explorer.first(...{given})</script>"


def _in_place(error: Exception) -> None:
    """Errors that users can do something about stand on the page; others are raised."""
    if not (isinstance(error, UserError) or is_out_of_memory(error)):
        raise error
    is_ours = isinstance(error, UserError)
    set_props("message", {"children": one_line(error) if is_ours else OUT_OF_MEMORY})


def _opening(app: dash.Dash, session: Session, trees: PageTrees) -> None:
    """The page as its address has it, or the first puzzle."""

    @app.callback(
        *tree_outputs(),
        *(Output(name, KEPT.get(name, "value")) for name in VIEW if name != "active"),
        Input("address", "search"),
        PAGE,
    )
    def open_address(search: str | None, page: str) -> list[Any]:
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
        data_now, active, problem = trees.change(page, None, lambda _: (tree, view["active"]))
        if data_now is no_update:
            plain = Tree(tree.nodes[:1])
            data_now, active, _ = trees.change(page, None, lambda _: (plain, 0))
        rest = [view[name] for name in VIEW if name != "active"]
        runs, query = _computed(session, tree_of(session, data_now)), _query(session, data_now)
        set_props("runs", {"data": payload(session, runs, query)})  # here: a question less
        set_props("query", {"data": query})
        return [data_now, active, note or problem, *rest]


def _view(session: Session, tree: Tree, data: dict[str, Any]) -> dict[str, Any]:
    """What is chosen, each within its bounds."""

    def bounded(name: str, most: int, default: int | None) -> int | None:
        try:
            return min(max(int(data[SHORT[name]][:9]), 0), most)
        except (KeyError, ValueError):
            return default

    def one_of(name: str, names: Iterable[str], default: str) -> str:
        own = str(data.get(SHORT[name]))
        return own if own in names else default

    facts = facts_shown(session)
    features = 0 if session.features is None else session.features.d_sae
    return {
        "moment": bounded("moment", session.last, 0),
        "reading": one_of("reading", session.states, session.model.answer),
        "layer": one_of("layer", LAYERS, "none"),
        "active": bounded("active", len(tree.nodes) - 1, 0),
        "cell": bounded("cell", session.task.cells - 1, None),
        "more": _cells(session, str(data.get(SHORT["more"], ""))),
        "dimensions": one_of("dimensions", ("2", "3"), "2"),
        "basis": one_of("basis", bases_of(session), "run"),
        "fact": one_of("fact", facts, facts[0]),
        "feature": bounded("feature", features - 1, None) if features else None,
        "side": one_of("side", SIDES, next(iter(SIDES))),
    }


def _cells(session: Session, text: str) -> list[int]:
    """Further cells that are chosen, as an address has them."""
    numbers = {int(part[:9]) for part in text.split(",") if part.isdecimal()}
    return sorted(number for number in numbers if number < session.task.cells)


def _shown(app: dash.Dash, session: Session) -> None:
    """The runs of the tree: their data for the browser, and the list of their names."""

    @app.callback(
        Output("runs", "data"),
        Output("source", "data"),
        Output("index", "value"),
        Output("text", "value"),
        Output("query", "data"),
        Input("tree", "data"),
        State("index", "value"),
        State("text", "value"),
        State("query", "data"),
        prevent_initial_call=True,
    )
    def show(data: dict[str, Any], index: Any, typed: str | None, before: Any) -> tuple[Any, ...]:
        tree, query = tree_of(session, data), _query(session, data)
        sources = [{"value": str(i), "label": n.name} for i, n in enumerate(tree.nodes)]
        runs = no_update if query == before else payload(session, _computed(session, tree), query)
        number = int(data["puzzle"]) if "puzzle" in data else ""
        is_replaced = replaces(type(session.task).typed, typed or "", data_of(before or ""), data)
        text = data["text"] if is_replaced else no_update
        return (
            runs,
            sources,
            no_update if number == index else number,
            text,
            query,
        )

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


def _computed(session: Session, tree: Tree) -> list[Run]:
    return [session.run(node) for node in tree.nodes]


def _query(session: Session, data: dict[str, Any]) -> str:
    """Of the address of a tree."""
    return query_of({"sha": session.checkpoint.sha256[:8], **data})


def replaces(
    read: Callable[[str], str | None], typed: str, before: dict[str, Any], now: dict[str, Any]
) -> bool:
    """Whether the text of a tree that comes takes the place of what stands in the field.

    `read`: a puzzle as it is typed, in the form of trees; `before`: the tree until now. Not where
    the field has it already or the puzzle is the same, nor over what is typed next.
    """
    if now["text"] in (before.get("text"), read(typed)):
        return False
    is_chosen = bool(before) and "puzzle" in now  # from the file
    return is_chosen or not typed.strip() or read(typed) == before.get("text")


def _drawn(app: dash.Dash, session: Session) -> None:
    """Figures of the runs, and whether they and the page are dark."""

    @app.callback(Output("theme", "forceColorScheme"), Input("dark", "checked"))
    def theme(dark: bool) -> str:
        return "dark" if dark else "light"

    @app.callback(
        Output("curves", "figure"),
        Output("path", "figure"),
        Input("query", "data"),  # comes with the data of the runs, so boards are there first
        Input("reading", "value"),
        Input("dimensions", "value"),
        Input("basis", "value"),
        Input("dark", "checked"),
        State("tree", "data"),
        State("moment", "value"),
        prevent_initial_call=True,
    )
    def draw(query: Any, reading: str, dimensions: str, basis: str, dark: bool, *given: Any) -> Any:
        data, moment = given
        if not data:
            return no_update, no_update
        setattr(flask.g, STANDS, True)
        runs = _computed(session, tree_of(session, data))
        placed = on_basis(session, runs, reading, basis)
        path = figures.paths(placed, reading, moment, int(dimensions), dark, session.task)
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
        Input("dark", "checked"),
        State("moment", "value"),
        prevent_initial_call=True,
    )
    def cell_course(
        cell: int | None, active: int, data: Any, reading: str, dark: bool, moment: int
    ) -> tuple[Any, ...]:
        if cell is None or not data:
            return no_update, no_update, True, True
        run = session.run(chosen_node(session, data, active))
        figure = figures.candidates(run, reading, cell, moment, dark, session.task)
        return figure, figures.course(run, reading, cell, session.task), False, False


def _told(app: dash.Dash, session: Session) -> None:
    """What opened probes say of the chosen cell."""
    if (probes := session.probes) is None:
        return

    @app.callback(
        Output("probe-words", "children"),
        Input("settled", "data"),
        Input("cell", "data"),
        Input("active", "data"),
        Input("tree", "data"),
        Input("reading", "value"),
        State("moment", "value"),
        prevent_initial_call=True,
    )
    def read_out(
        settled: Any, cell: int | None, active: int, data: Any, reading: str, moment: int
    ) -> str:
        if cell is None or not data:
            return ""
        run = session.run(chosen_node(session, data, active))
        said = probes.said(session, run, reading, cell, moment)
        return f"probes of {reading}: {said or 'none in this folder'}"


def _heated(app: dash.Dash, session: Session) -> None:
    """Heat layers that are computed when they are looked at, and what a probe is for."""

    @app.callback(Output("fact-field", "hidden"), Input("layer", "value"))
    def without_facts(layer: str) -> bool:
        return layer != "probe"

    @app.callback(
        Output("heat", "data"),
        Output("heat-words", "children"),
        Input("tree", "data"),
        Input("layer", "value"),
        Input("reading", "value"),
        Input("fact", "value"),
        Input("feature", "data"),
        prevent_initial_call=True,
        running=[(Output("heat-busy", "hidden"), False, True)],
    )
    def heat(data: Any, layer: str, reading: str, fact: str, feature: Any) -> tuple[Any, Any]:
        if not data or layer not in COMPUTED:
            return None, ""
        runs = _computed(session, tree_of(session, data))
        try:
            made = layer_of(session, runs, layer, reading, fact, feature)
        except UserError as error:
            return None, one_line(error)
        assert made is not None
        return heat_payload(layer, made, _query(session, data), reading), made.words


def _heat_of(session: Session, runs: list[Run], look: Look) -> Layer | None:
    """The heat on screen; None also where it cannot be shown, for which the page says why."""
    try:
        return layer_of(session, runs, look.layer, look.reading, look.fact, look.feature)
    except UserError:
        return None


def _taking_away(app: dash.Dash, session: Session, config: ExploreConfig, jobs: Jobs) -> None:
    """*Copy as Python* and *save as HTML*."""
    ckpt, source = str(session.checkpoint.path), str(session.puzzles.source)
    puzzles = source if config.puzzles is None else str(config.puzzles)

    @app.callback(
        Output("script", "children"),
        Output("script-window", "opened"),
        Input("python", "n_clicks"),
        PAGE,
        *(State(name, KEPT.get(name, "value")) for name in LOOK),
        State("tree", "data"),
        prevent_initial_call=True,
        running=[(Output("python", "loading"), True, False)],
    )
    def as_python(clicks: int, page: str, *given: Any) -> tuple[str, bool]:
        *look, data = given
        tree, look, job = tree_of(session, data), Look(*look), jobs.of(page)
        if _heat_of(session, _computed(session, tree), look) is None:
            look = look._replace(layer="none")
        near = None if job is None else Near(job.asked, job.done)
        return script(session, tree, ckpt, puzzles, look, config.skip_bad, near), True

    @app.callback(
        Output("boards-figure", "figure"),
        Output("export-window", "opened"),
        Input("export", "n_clicks"),
        *(State(name, KEPT.get(name, "value")) for name in LOOK),
        State("tree", "data"),
        prevent_initial_call=True,
        running=[(Output("export", "loading"), True, False)],
    )
    def export(clicks: int, *given: Any) -> tuple[Any, bool]:
        *values, data = given
        look = Look(*values)
        runs = _computed(session, tree_of(session, data))
        heat = _heat_of(session, runs, look)
        return boards_figure(session, runs, look.moment, look.reading, heat), True

    @app.callback(
        Output("download", "data"),
        Input("save", "n_clicks"),
        State("tree", "data"),
        State("active", "data"),
        prevent_initial_call=True,
        running=[(Output("save", "loading"), True, False)],
    )
    def save(clicks: int, data: Any, active: int) -> dict[str, Any]:
        run = session.run(chosen_node(session, data, active))
        page = saved_page(session, run)
        return {"content": page, "filename": "run.html", "type": "text/html"}
