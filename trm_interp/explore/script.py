"""*Copy as Python*: a script of package calls that makes the runs on the page again."""

from collections.abc import Sequence

from trm_interp.explore.edits import Copied, Edit, Given, Node, Noise
from trm_interp.explore.session import Session
from trm_interp.explore.trees import Tree

KINDS = (Copied, Given, Noise)


def script(session: Session, tree: Tree, ckpt: str, puzzles: str, moment: int, reading: str) -> str:
    """The runs of a tree, with names of variables `runs[0]`, `runs[1]`, ...; prints their boards.

    `ckpt` and `puzzles`: where they were opened from; `moment` and `reading`: what is on screen.
    """
    kinds = [kind.__name__ for kind in KINDS if any(isinstance(n.edit, kind) for n in tree.nodes)]
    lines = [
        '"""Runs that were seen in `trm-interp explore`, made again with package calls."""',
        "",
        *([f"from trm_interp.explore.edits import {', '.join(kinds)}"] if kinds else []),
        "from trm_interp.explore.session import open_session",
        "",
        f"session = open_session({ckpt!r}, {puzzles!r}, steps={session.steps})",
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
