"""*Copy as Python*: a script of package calls that makes the runs on the page again."""

from collections.abc import Sequence
from typing import NamedTuple

from trm_interp.explore.edits import Copied, Edit, Feature, Given, Node, Noise
from trm_interp.explore.session import Session
from trm_interp.explore.trees import Tree

KINDS = (Copied, Feature, Given, Noise)


class Look(NamedTuple):
    """What is on screen: the moment, the state that is read, the heat layer and what it is of."""

    moment: int
    reading: str
    layer: str = "none"
    fact: str = "wrong"
    feature: int | None = None
    dimensions: int | str = 2  # of the path


def script(
    session: Session, tree: Tree, ckpt: str, puzzles: str, look: Look, skip_bad: bool = False
) -> str:
    """The runs of a tree, with names of variables `runs[0]`, `runs[1]`, ...; prints their boards,
    and makes the figures on screen.

    `ckpt` and `puzzles`: where they were opened from; `skip_bad`: whether bad puzzles were left
    out, which shifts the numbers of others.
    """
    moment, reading = look.moment, look.reading
    sae = "" if session.features is None else f", sae={str(session.features.path)!r}"
    skip = ", skip_bad=True" if skip_bad else ""
    more = {"probe": f", fact={look.fact!r}", "feature": f", feature={look.feature}"}
    kinds = [kind.__name__ for kind in KINDS if any(isinstance(n.edit, kind) for n in tree.nodes)]
    lines = [
        '"""Runs that were seen in `trm-interp explore`, made again with package calls."""',
        "",
        *([f"from trm_interp.explore.edits import {', '.join(kinds)}"] if kinds else []),
        "from trm_interp.explore.boards import boards_figure, layer_of",
        "from trm_interp.explore.figures import curves, paths",
        "from trm_interp.explore.session import open_session",
        "",
        f"session = open_session({ckpt!r}, {puzzles!r}, steps={session.steps}{skip}{sae})",
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
        f"moment, state = {moment}, {reading!r}  # what was on screen",
        "for run in runs:",
        "    reading, right = run.readings[state], run.right(state)",
        "    when = run.moments[moment].label",
        '    print(f"{run.node.name}: {right[moment]} cells right at {when}, "',
        '          f"{right[-1]} at the end")',
        '    print(*session.task.lines(reading.tokens[moment]), sep="\\n")',
        "",
        "# the figures on screen: show() them, or write_html, or write_image to SVG, PNG or PDF",
        f"heat = layer_of(session, runs, {look.layer!r}, state{more.get(look.layer, '')})",
        "figures = {",
        '    "boards": boards_figure(session, runs, moment, state, heat),',
        '    "curves": curves(runs, state, moment, dark=False),',
        f'    "path": paths(runs, state, moment, {int(look.dimensions)}, False, session.task),',
        "}",
        "",
    ]
    return "\n".join(lines)


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
