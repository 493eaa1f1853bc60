"""What changes the tree of runs: another puzzle, a given, a fork, a name."""

from typing import Any

import dash
from dash import ALL, Input, Output, State, ctx, no_update

from trm_interp.explore.edits import Copied, Edit, Given, Node, Noise
from trm_interp.explore.page_trees import Changed, PageTrees
from trm_interp.explore.session import Session
from trm_interp.explore.trees import Tree, tree_of
from trm_interp.runtime.errors import UserError

UNCHANGED: Changed = (no_update, no_update, no_update)
PAGE = State("page", "data")
SETTING = ("mode", "cell", "tree", "active", "moment")  # what a token is set by


def add_changes(app: dash.Dash, session: Session, trees: PageTrees) -> None:
    """All callbacks that change the tree, but those of features."""
    _puzzles(app, session, trees)
    _forks(app, session, trees)
    _named_and_closed(app, session, trees)


def tree_outputs(**how: Any) -> list[Output]:
    """What a change of the tree gives."""
    return [
        Output("tree", "data", **how),
        Output("active", "data", **how),
        Output("message", "children", **how),
    ]


def _puzzles(app: dash.Dash, session: Session, trees: PageTrees) -> None:
    """Another puzzle, or a given of it."""
    again = {"allow_duplicate": True}

    @app.callback(
        *tree_outputs(**again),
        Input("index", "value"),
        PAGE,
        State("tree", "data"),
        prevent_initial_call=True,
    )
    def choose(number: Any, page: str, data: dict[str, Any]) -> Changed:
        if not isinstance(number, int):
            return UNCHANGED
        if str(number) == (data or {}).get("puzzle"):
            trees.stay(page, data)
            return UNCHANGED
        return trees.change(page, data, lambda _: (tree_of(session, {"puzzle": number}), 0))

    @app.callback(
        *tree_outputs(**again),
        Input("run", "n_clicks"),
        PAGE,
        State("text", "value"),
        State("tree", "data"),
        prevent_initial_call=True,
        running=[(Output("run", "loading"), True, False)],
    )
    def type_in(clicks: int, page: str, text: str | None, data: Any) -> Changed:
        return trees.change(page, data, lambda _: (tree_of(session, {"text": _typed(text)}), 0))

    @app.callback(
        *tree_outputs(**again),
        Input({"type": "token", "token": ALL}, "n_clicks"),
        Input("typed", "data"),
        PAGE,
        *(State(name, "value" if name in ("mode", "moment") else "data") for name in SETTING),
        prevent_initial_call=True,
    )
    def set_cell(clicks: list[int], typed: Any, page: str, *given: Any) -> Changed:
        mode, cell, data, active, moment = given
        trigger: Any = ctx.triggered_id
        if trigger == "typed":
            cell, token, mode = typed["cell"], typed["token"], "new"
        else:
            token = trigger["token"]
        if not any(one["value"] for one in ctx.triggered) or cell is None:
            return UNCHANGED

        def make(last: dict[str, Any]) -> tuple[Tree, int]:
            tree = tree_of(session, last)
            if mode == "now":
                forked = tree.with_fork(active, Given(moment, cell, token))
                return forked, len(tree.nodes)
            edited = session.edited(tree.root.puzzle, cell, token)
            return Tree((session.plain(edited),)), 0

        return trees.change(page, data, make, numbered=mode == "now")


def _typed(text: str | None) -> str:
    """What was typed; a blank field is no puzzle, not the first of the file."""
    if not (text or "").strip():
        raise UserError("type or paste a puzzle first")
    return text or ""


def _forks(app: dash.Dash, session: Session, trees: PageTrees) -> None:
    """A fork is made."""
    again = {"allow_duplicate": True}

    @app.callback(
        *tree_outputs(**again),
        Input("fork", "n_clicks"),
        PAGE,
        *(State(name, "value") for name in ("kind", "states", "size", "seed", "source", "from")),
        State("where", "value"),
        State("cell", "data"),
        State("more", "data"),
        State("tree", "data"),
        State("active", "data"),
        State("moment", "value"),
        prevent_initial_call=True,
        running=[(Output("fork", "loading"), True, False)],
    )
    def fork(clicks: int, page: str, *given: Any) -> Changed:
        kind, states, size, seed, source, from_, *places, data, active, moment = given

        def make(last: dict[str, Any]) -> tuple[Tree, int]:
            tree = tree_of(session, last)
            cells = cells_of(*places)
            chosen = tuple(name for name in session.model.state_names if name in (states or ()))
            edit: Edit
            if kind == "copy":
                edit = Copied(moment, chosen, _source(tree, source), whole(from_), cells)
            else:
                at = 0 if kind == "start" else moment
                edit = Noise(at, chosen, float(filled(size)), whole(seed), cells)
            session.check(edit)
            return tree.with_fork(active, edit), len(tree.nodes)

        return trees.change(page, data, make, numbered=True)


def cells_of(where: str, cell: int | None, more: list[int] | None = None) -> tuple[int, ...] | None:
    """The cells that a change is of; None for all positions. UserError where none is chosen."""
    if where != "cell":
        return None
    if cell is None:
        raise UserError("click a cell first, or fork all cells")
    return tuple(sorted({cell, *(more or ())}))


def _source(tree: Tree, number: Any) -> Node:
    """The run that is copied from, which may have been closed since it was chosen."""
    if not str(number).isdecimal() or int(number) >= len(tree.nodes):
        raise UserError("choose the run to copy from")
    return tree.nodes[int(number)]


def _named_and_closed(app: dash.Dash, session: Session, trees: PageTrees) -> None:
    """Runs are named, closed and chosen."""
    again = {"allow_duplicate": True}

    @app.callback(
        *tree_outputs(**again),
        Input({"type": "close", "run": ALL}, "n_clicks"),
        PAGE,
        State("tree", "data"),
        prevent_initial_call=True,
    )
    def close(clicks: list[Any], page: str, data: Any) -> Changed:
        if not any(one["value"] for one in ctx.triggered) or ctx.triggered_id is None:
            return UNCHANGED
        number = ctx.triggered_id["run"]

        def make(last: dict[str, Any]) -> tuple[Tree, int]:
            return tree_of(session, last).without(number), 0

        return trees.change(page, data, make, numbered=True)

    @app.callback(
        *tree_outputs(**again),
        Input({"type": "name", "run": ALL}, "value"),
        PAGE,
        State("tree", "data"),
        prevent_initial_call=True,
    )
    def rename(names: list[str], page: str, data: Any) -> Changed:
        if not ctx.triggered_id or len(ctx.triggered) != 1:
            # the list was made anew: the browser drops the answer to a name that it waits for
            return trees.unheard(page, data)
        number, name = ctx.triggered_id["run"], ctx.triggered[0]["value"]
        tree = tree_of(session, data)
        if number >= len(tree.nodes) or not name or tree.nodes[number].name == name:
            return UNCHANGED

        def make(last: dict[str, Any]) -> tuple[Tree, Any]:
            return tree_of(session, last).renamed(number, name), no_update

        return trees.change(page, data, make, numbered=True)

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


def whole(value: Any) -> int:
    """A whole number that was typed. UserError for anything else."""
    if filled(value) != int(value):
        raise UserError(f"whole numbers are needed here, not {value}")
    return int(value)


def chosen_node(session: Session, data: Any, active: Any) -> Node:
    """The run that is chosen on the page."""
    nodes = tree_of(session, data).nodes
    return nodes[min(active or 0, len(nodes) - 1)]
