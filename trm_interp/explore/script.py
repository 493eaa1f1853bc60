"""*Copy as Python*: a script of package calls that makes the runs on the page again."""

from collections.abc import Sequence
from typing import NamedTuple

from trm_interp.explore.around import Around
from trm_interp.explore.bases import MOST_SEEN
from trm_interp.explore.edits import Copied, Edit, Feature, Given, Node, Noise
from trm_interp.explore.session import Session
from trm_interp.explore.trees import Tree

KINDS = (Copied, Feature, Given, Noise)


class Look(NamedTuple):
    """What is on screen: the moment, the state that is read, the heat layer and what it is of; the
    chosen run and cell; whether the page is dark."""

    moment: int
    reading: str
    layer: str = "none"
    fact: str = "wrong"
    feature: int | None = None
    dimensions: int | str = 2  # of the path
    cell: int | None = None
    active: int | None = 0
    dark: bool | None = False
    basis: str = "run"  # of the path


class Near(NamedTuple):
    """The neighbourhood on screen: what was asked for, and how many of its runs have ended."""

    asked: Around
    done: int


def script(
    session: Session,
    tree: Tree,
    ckpt: str,
    puzzles: str,
    look: Look,
    skip_bad: bool = False,
    near: Near | None = None,
) -> str:
    """The runs of a tree, with names of variables `runs[0]`, `runs[1]`, ...; prints their boards,
    and makes the figures on screen.

    `ckpt` and `puzzles`: where they were opened from; `skip_bad`: whether bad puzzles were left
    out, which shifts the numbers of others.
    """
    if near is not None and not (near.done and near.asked.node in tree.nodes):
        near = None  # nothing to show, or of a run that is closed
    imports, figures = _figures(session, tree, look, near)
    skip = ", skip_bad=True" if skip_bad else ""
    lines = [
        '"""Runs that were seen in `trm-interp explore`, made again with package calls."""',
        "",
        *imports,
        "",
        f"session = open_session({ckpt!r}, {puzzles!r}, steps={session.steps}{skip}"
        f"{_folders(session)})",
        f"# checkpoint sha256 {session.checkpoint.sha256}",
        f"nodes = [session.plain({_puzzle(session, tree.root)})]",
    ]
    for parent, node in zip(tree.parents()[1:], tree.nodes[1:], strict=True):
        assert node.edit is not None
        edit = _written(node.edit, tree.nodes)
        lines.append(f"nodes.append(nodes[{parent}].fork({edit}, {node.name!r}))")
    lines += [
        "runs = [session.run(node) for node in nodes]",
        "",
        f"moment, state = {look.moment}, {look.reading!r}  # what was on screen",
        "for run in runs:",
        "    reading, right = run.readings[state], run.right(state)",
        "    when = run.moments[moment].label",
        '    print(f"{run.node.name}: {right[moment]} cells right at {when}, "',
        '          f"{right[-1]} at the end")',
        '    print(*session.task.lines(reading.tokens[moment]), sep="\\n")',
        "",
        "# the figures on screen: show() them, or write_html, or write_image to SVG, PNG or PDF",
        *figures,
        "",
    ]
    return "\n".join(lines)


def _folders(session: Session) -> str:
    """Further arguments of `open_session`."""
    sae = "" if session.features is None else f", sae={str(session.features.path)!r}"
    probes = "" if session.probes is None else f", probes={str(session.probes.path)!r}"
    store = "" if session.stored is None else f", store={str(session.stored.path)!r}"
    return sae + probes + store


def _figures(
    session: Session, tree: Tree, look: Look, near: Near | None
) -> tuple[list[str], list[str]]:
    """Lines that import what the script needs, and those that make the figures on screen."""
    axes, placed = _axes(session, look)
    pooling = ["along", "pooled_axes"] if look.basis == "seen" else ["along"]
    dark, active = bool(look.dark), min(look.active or 0, len(tree.nodes) - 1)
    more = {"probe": f", fact={look.fact!r}", "feature": f", feature={look.feature}"}
    drawn = ["curves", "paths"]
    lines = [
        f"heat = layer_of(session, runs, {look.layer!r}, state{more.get(look.layer, '')})",
        f"task, dark = session.task, {dark}",
        *axes,
        "figures = {",
        '    "boards": boards_figure(session, runs, moment, state, heat),',
        '    "curves": curves(runs, state, moment, dark),',
        f'    "path": paths({placed}, state, moment, {int(look.dimensions)}, dark, task),',
        "}",
    ]
    if look.cell is not None:
        drawn.append("candidates")
        given = f"runs[{active}], state, {look.cell}, moment, dark, task"
        lines.append(f'figures["candidates"] = candidates({given})')
    if look.feature is not None and session.features is not None:
        drawn.append("feature_course")
        course = f"session.features.course(session, run, {look.feature})"
        lines += [
            f"courses = [{course} for run in runs]",
            f"drawn = feature_course(runs, courses, {look.cell}, moment, dark, task)",
            'figures["feature"] = drawn',
        ]
    imports = []
    if near is not None:
        drawn.append("around")
        imports.append("from trm_interp.explore.around import Around, ends_near")
        at, of = tree.nodes.index(near.asked.node), near.asked
        own = f"{of.at}, {of.states!r}, {of.radius!r}, {of.starts}, {of.side}, {of.seed}"
        lines += [
            f"asked = Around(nodes[{at}], {own})",
            f"ends = ends_near(session, asked, {near.done})  # as many runs as had ended",
            f'figures["neighbourhood"] = around(runs[{at}], asked, ends, dark, task)',
        ]
    if axes:
        imports.append(f"from trm_interp.explore.bases import {', '.join(pooling)}")
    imports.append("from trm_interp.explore.boards import boards_figure, layer_of")
    kinds = [kind.__name__ for kind in KINDS if any(isinstance(n.edit, kind) for n in tree.nodes)]
    if kinds:
        imports.append(f"from trm_interp.explore.edits import {', '.join(kinds)}")
    imports += [
        f"from trm_interp.explore.figures import {', '.join(sorted(drawn))}",
        "from trm_interp.explore.session import open_session",
    ]
    return imports, lines


def _axes(session: Session, look: Look) -> tuple[list[str], str]:
    """Lines that make the axes of the path where they are not the run's own, and the runs' name."""
    if look.basis == "store" and session.stored is not None:
        return ["placed = along(session, runs, state, session.stored.of(state))"], "placed"
    if look.basis != "seen":
        return [], "runs"
    seen = [_puzzle(session, run.node) for run in session.seen(MOST_SEEN)]
    return [
        f"seen = [session.run(session.plain(puzzle)) for puzzle in ({', '.join(seen)},)]",
        "placed = along(session, runs, state, pooled_axes(session, seen, state))",
    ], "placed"


def _puzzle(session: Session, root: Node) -> str:
    """The argument of `plain`."""
    puzzle, text = root.puzzle, session.task.text(root.puzzle.inputs)
    if puzzle.index is None:
        return repr(text)
    if session.puzzle(puzzle.index) == puzzle:
        return f"{puzzle.index}"
    return f"session.reread({text!r}, {puzzle.index})"


def _written(edit: Edit, nodes: Sequence[Node]) -> str:
    if not isinstance(edit, Copied):
        return repr(edit)
    source = next(at for at, node in enumerate(nodes) if node is edit.source)
    own = f"{edit.at}, {edit.states!r}, nodes[{source}], {edit.moment}"
    return f"Copied({own}{'' if edit.cells is None else f', {edit.cells!r}'})"
