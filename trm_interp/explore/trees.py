"""A puzzle's runs as they stand on the page, and as the page's address has them.

A fork is written as one text: its parent, its kind, its moment, what the kind needs, and its name.

    0,noise,21,z_H,1.0,7,*,louder       noise of size 1, seed 7, on all positions
    0,copy,21,z_L+z_H,1,40,3.4,a name   states of run 1 at moment 40, at the cells 3 and 4
    2,given,21,12,5,a name              token 5 in cell 12 from moment 21 on
    0,feature,21,40,clamp,2.5,on,*,n    feature 40 at 2.5 from moment 21 on; `once` at 21 only
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from trm_interp.explore.edits import FEATURE_MODES, Copied, Edit, Feature, Given, Node, Noise
from trm_interp.explore.session import Session
from trm_interp.runtime.errors import UserError

MOST_RUNS = 8  # on the page
LONGEST_NAME = 60
FIELDS = {"noise": 8, "copy": 8, "given": 6, "feature": 9}  # of the text of a fork
LISTED = ("fork",)  # of the address, what may come several times


@dataclass(frozen=True)
class Tree:
    """Runs in the order in which they were made, the plain one first; parents before forks."""

    nodes: tuple[Node, ...]

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def with_fork(self, parent: int, edit: Edit, name: str = "") -> "Tree":
        """One more. UserError where there are as many as the page shows."""
        if len(self.nodes) >= MOST_RUNS:
            raise UserError(f"{MOST_RUNS} runs are as many as the page shows: close one first")
        return Tree((*self.nodes, self.nodes[parent].fork(edit, name[:LONGEST_NAME])))

    def renamed(self, number: int, name: str) -> "Tree":
        """The same with another name of a run, also where others are forks or copies of it."""
        old = self.nodes[number]
        new = replace(old, name=name.strip()[:LONGEST_NAME] or old.name)
        nodes: list[Node] = []
        for at, node in enumerate(self.nodes):
            own = new if at == number else node
            nodes.append(_rebuilt(own, self.nodes, nodes))
        return Tree(tuple(nodes))

    def without(self, number: int) -> "Tree":
        """Without a run, its forks, and those that copy from any of them. The plain run stays."""
        gone = {number} if number else set()
        for at, node in enumerate(self.nodes):
            if gone & {self._number(of) for of in _needs(node)}:
                gone.add(at)
        return Tree(tuple(node for at, node in enumerate(self.nodes) if at not in gone))

    def _number(self, node: Node) -> int:
        return next(at for at, own in enumerate(self.nodes) if own is node)

    def parents(self) -> list[int | None]:
        """The number of each run's parent; None for the plain run."""
        return [None if n.parent is None else self._number(n.parent) for n in self.nodes]

    def to_json(self, session: Session) -> dict[str, Any]:
        """As the page keeps it; `tree_of` reads it again."""
        puzzle = self.root.puzzle
        index = {} if puzzle.index is None else {"puzzle": str(puzzle.index + 1)}
        text = session.task.text(puzzle.inputs)
        return index | {"text": text, "fork": [self._text(node) for node in self.nodes[1:]]}

    def _text(self, node: Node) -> str:
        edit = node.edit
        assert node.parent is not None
        parent = str(self._number(node.parent))
        if isinstance(edit, Given):
            return ",".join(
                [parent, "given", *map(str, (edit.at, edit.cell, edit.token)), node.name]
            )
        assert edit is not None
        cells = "*" if edit.cells is None else ".".join(map(str, edit.cells))
        if isinstance(edit, Feature):
            own = (str(edit.feature), edit.mode, repr(edit.value), "on" if edit.lasts else "once")
            return ",".join([parent, "feature", str(edit.at), *own, cells, node.name])
        kind, own = "noise", ("", "")
        if isinstance(edit, Noise):
            own = (repr(edit.size), str(edit.seed))
        else:
            kind, own = "copy", (str(self._number(edit.source)), str(edit.moment))
        return ",".join([parent, kind, str(edit.at), "+".join(edit.states), *own, cells, node.name])


def _needs(node: Node) -> list[Node]:
    own = [] if node.parent is None else [node.parent]
    return [*own, node.edit.source] if isinstance(node.edit, Copied) else own


def _rebuilt(node: Node, old: Sequence[Node], new: Sequence[Node]) -> Node:
    """The node with the new ones in place of the old ones that it refers to."""

    def now(of: Node) -> Node:
        return next(new[at] for at, one in enumerate(old) if one is of)

    if node.parent is None:
        return node
    edit = node.edit
    if isinstance(edit, Copied):
        edit = replace(edit, source=now(edit.source))
    return replace(node, parent=now(node.parent), edit=edit)


def tree_of(session: Session, data: Mapping[str, Any]) -> Tree:
    """What `to_json` or an address says. UserError for what this session cannot show.

    `puzzle`: number in the file, from 1; `text`: the puzzle, where it is not as in the file.
    """
    text, number = str(data.get("text") or ""), data.get("puzzle")
    if number is not None:
        index = _whole(number, "puzzle") - 1
        puzzle = session.reread(text, index) if text else session.puzzle(index)
    else:
        puzzle = session.read(text) if text else session.puzzle(0)
    tree = Tree((Node(puzzle),))
    for fork in data.get("fork", ()):
        tree = _with(tree, session, str(fork))
    return tree


def _with(tree: Tree, session: Session, text: str) -> Tree:
    kind = text.split(",")[1:2]
    parts = text.split(",", FIELDS.get("".join(kind), 1) - 1)
    if "".join(kind) not in FIELDS or len(parts) != FIELDS[kind[0]]:
        raise UserError(f"no fork is written {text[:LONGEST_NAME]!r}")
    parent, at = _run(tree, parts[0]), _whole(parts[2], "moment")
    if kind == ["given"]:
        edit: Edit = Given(at, _whole(parts[3], "cell"), _whole(parts[4], "token"))
    elif kind == ["feature"]:
        mode, lasts, value = parts[4], parts[6] == "on", _number(parts[5])
        if mode not in FEATURE_MODES:
            raise UserError(
                f"a feature is changed by {', '.join(FEATURE_MODES)}, not {mode[:20]!r}"
            )
        edit = Feature(at, _whole(parts[3], "feature"), mode, value, lasts, _cells(parts[7]))
    else:
        states, cells = tuple(parts[3].split("+")), _cells(parts[6])
        if kind == ["noise"]:
            edit = Noise(at, states, _number(parts[4]), _whole(parts[5], "seed"), cells)
        else:
            source = tree.nodes[_run(tree, parts[4])]
            edit = Copied(at, states, source, _whole(parts[5], "moment"), cells)
    session.check(edit)
    return tree.with_fork(parent, edit, parts[-1])


def unnamed(text: str) -> list[str]:
    """The text of a fork in its parts, without its name.

    >>> unnamed("0,given,2,1,3,a, b")
    ['0', 'given', '2', '1', '3']
    """
    return text.split(",", FIELDS.get("".join(text.split(",")[1:2]), 1) - 1)[:-1]


def _run(tree: Tree, text: str) -> int:
    number = _whole(text, "run")
    if not 0 <= number < len(tree.nodes):
        raise UserError(f"there is no run {number}")
    return number


def _cells(text: str) -> tuple[int, ...] | None:
    return None if text == "*" else tuple(_whole(cell, "cell") for cell in text.split("."))


def _whole(text: object, name: str) -> int:
    try:
        return int(str(text)[:20])
    except ValueError:
        raise UserError(f"{name} must be a whole number, got {str(text)[:20]!r}") from None


def _number(text: str) -> float:
    try:
        return float(text[:30])
    except ValueError:
        raise UserError(f"a size must be a number, got {text[:20]!r}") from None


# The address


def query_of(data: Mapping[str, Any]) -> str:
    """Data of a tree and a view as the query of an address.

    >>> query_of({"text": "1..4", "fork": ["0,given,2,1,3,a & b"], "m": 7})
    'text=1..4&fork=0%2Cgiven%2C2%2C1%2C3%2Ca+%26+b&m=7'
    """
    return urlencode({name: of for name, of in data.items() if of is not None}, doseq=True)


def data_of(query: str) -> dict[str, Any]:
    """The other way round.

    >>> data_of("?text=1..4&fork=a&fork=b&m=7")
    {'text': '1..4', 'fork': ['a', 'b'], 'm': '7'}
    """
    read = parse_qs(query.removeprefix("?"), keep_blank_values=True, max_num_fields=100)
    return {name: of if name in LISTED else of[-1] for name, of in read.items()}
