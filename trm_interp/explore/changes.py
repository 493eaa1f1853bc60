"""What changes the tree of runs: another puzzle, a given, a fork, a name."""

from collections.abc import Callable
from typing import Any

import dash
from dash import ALL, Input, Output, State, ctx, no_update

from trm_interp.explore.edits import Copied, Edit, Given, Noise
from trm_interp.explore.session import Session
from trm_interp.explore.trees import Tree, tree_of
from trm_interp.runtime.errors import UserError, one_line

SEVERAL = "This puzzle has several solutions; the run is compared with one of them."
Changed = tuple[Any, Any, Any]  # the tree, the chosen run, a message


def add_changes(app: dash.Dash, session: Session) -> None:
    """All callbacks that change the tree."""
    _puzzles(app, session)
    _forks(app, session)
    _named_and_closed(app, session)


def tree_outputs(**how: Any) -> list[Output]:
    """What a change of the tree gives."""
    return [
        Output("tree", "data", **how),
        Output("active", "data", **how),
        Output("message", "children", **how),
    ]


def changed(session: Session, make: Callable[[], tuple[Tree, int]]) -> Changed:
    """A new tree and the chosen run; what is wrong, and no change, where it cannot be computed."""
    try:
        tree, active = make()
        for node in tree.nodes:
            session.run(node)
    except UserError as error:
        return no_update, no_update, one_line(error)
    note = SEVERAL if tree.root.puzzle.several else ""
    return tree.to_json(session), active, note


def _puzzles(app: dash.Dash, session: Session) -> None:
    """Another puzzle, or a given of it."""
    again = {"allow_duplicate": True}

    @app.callback(
        *tree_outputs(**again),
        Input("index", "value"),
        State("tree", "data"),
        prevent_initial_call=True,
    )
    def choose(number: Any, data: dict[str, Any]) -> Changed:
        if not isinstance(number, int) or str(number) == (data or {}).get("puzzle"):
            return no_update, no_update, no_update
        return changed(session, lambda: (tree_of(session, {"puzzle": number}), 0))

    @app.callback(
        *tree_outputs(**again),
        Input("run", "n_clicks"),
        State("text", "value"),
        prevent_initial_call=True,
        running=[(Output("run", "loading"), True, False)],
    )
    def type_in(clicks: int, text: str | None) -> Changed:
        return changed(session, lambda: (tree_of(session, {"text": _typed(text)}), 0))

    @app.callback(
        *tree_outputs(**again),
        Input({"type": "token", "token": ALL}, "n_clicks"),
        Input("typed", "data"),
        State("mode", "value"),
        State("cell", "data"),
        State("tree", "data"),
        State("active", "data"),
        State("moment", "data"),
        prevent_initial_call=True,
    )
    def set_cell(
        clicks: list[int], typed: Any, mode: str, cell: Any, data: Any, active: int, moment: int
    ) -> Changed:
        trigger: Any = ctx.triggered_id
        if trigger == "typed":
            cell, token, mode = typed["cell"], typed["token"], "new"
        else:
            token = trigger["token"]
        if not any(one["value"] for one in ctx.triggered) or cell is None:
            return no_update, no_update, no_update

        def make() -> tuple[Tree, int]:
            tree = tree_of(session, data)
            if mode == "now":
                forked = tree.with_fork(active, Given(moment, cell, token))
                return forked, len(tree.nodes)
            edited = session.edited(tree.root.puzzle, cell, token)
            return Tree((session.plain(edited),)), 0

        return changed(session, make)


def _typed(text: str | None) -> str:
    """What was typed; a blank field is no puzzle, not the first of the file."""
    if not (text or "").strip():
        raise UserError("type or paste a puzzle first")
    return text or ""


def _forks(app: dash.Dash, session: Session) -> None:
    """A fork is made."""
    again = {"allow_duplicate": True}

    @app.callback(
        *tree_outputs(**again),
        Input("fork", "n_clicks"),
        *(State(name, "value") for name in ("kind", "states", "size", "seed", "source", "from")),
        State("where", "value"),
        State("cell", "data"),
        State("tree", "data"),
        State("active", "data"),
        State("moment", "data"),
        prevent_initial_call=True,
        running=[(Output("fork", "loading"), True, False)],
    )
    def fork(clicks: int, *given: Any) -> Changed:
        kind, states, size, seed, source, from_, where, cell, data, active, moment = given

        def make() -> tuple[Tree, int]:
            tree = tree_of(session, data)
            if where == "cell" and cell is None:
                raise UserError("click a cell first, or fork all cells")
            cells = (cell,) if where == "cell" else None
            chosen = tuple(name for name in session.model.state_names if name in (states or ()))
            edit: Edit
            if kind == "copy":
                edit = Copied(moment, chosen, tree.nodes[int(source)], filled(from_), cells)
            else:
                at = 0 if kind == "start" else moment
                edit = Noise(at, chosen, float(filled(size)), filled(seed), cells)
            session.check(edit)
            return tree.with_fork(active, edit), len(tree.nodes)

        return changed(session, make)


def _named_and_closed(app: dash.Dash, session: Session) -> None:
    """Runs are named, closed and chosen."""
    again = {"allow_duplicate": True}

    @app.callback(
        *tree_outputs(**again),
        Input({"type": "close", "run": ALL}, "n_clicks"),
        State("tree", "data"),
        prevent_initial_call=True,
    )
    def close(clicks: list[Any], data: Any) -> Changed:
        if not any(one["value"] for one in ctx.triggered) or ctx.triggered_id is None:
            return no_update, no_update, no_update
        number = ctx.triggered_id["run"]
        return changed(session, lambda: (tree_of(session, data).without(number), 0))

    @app.callback(
        *tree_outputs(**again),
        Input({"type": "name", "run": ALL}, "value"),
        State("tree", "data"),
        State("active", "data"),
        prevent_initial_call=True,
    )
    def rename(names: list[str], data: Any, active: int) -> Changed:
        if not ctx.triggered_id or len(ctx.triggered) != 1:  # the list was made anew
            return no_update, no_update, no_update
        number, name = ctx.triggered_id["run"], ctx.triggered[0]["value"]
        tree = tree_of(session, data)
        if number >= len(tree.nodes) or not name or tree.nodes[number].name == name:
            return no_update, no_update, no_update
        return changed(session, lambda: (tree.renamed(number, name), active))

    @app.callback(
        Output("active", "data", allow_duplicate=True),
        Input({"type": "pick", "run": ALL}, "n_clicks"),
        Input("picked", "data"),
        State("active", "data"),
        prevent_initial_call=True,
    )
    def pick(clicks: list[Any], picked: Any, active: int) -> Any:
        trigger: Any = ctx.triggered_id
        if not any(one["value"] is not None for one in ctx.triggered):
            return no_update
        chosen = picked["run"] if trigger == "picked" else trigger["run"]
        return no_update if chosen == active else chosen


def filled(value: Any) -> Any:
    """A number that was typed. UserError for an empty field."""
    if not isinstance(value, int | float):
        raise UserError("size, seed and moment must be numbers")
    return value
