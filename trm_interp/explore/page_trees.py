"""The trees of the pages that are open, so that changes of one page follow one another."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from dash import no_update

from trm_interp.explore.session import Session
from trm_interp.explore.trees import Tree, unnamed
from trm_interp.runtime.errors import UserError, one_line

SEVERAL = "This puzzle has several solutions; the run is compared with one of them."
STALE = "the runs have changed meanwhile: try again"
MOST_PAGES = 32  # whose trees are kept

Data = Any  # a tree as the page keeps it (`Tree.to_json`); None before there is one
Changed = tuple[Data, Any, Any]  # the tree, the chosen run, a message


@dataclass
class _Page:
    lock: Any = field(default_factory=Lock)
    tree: Data = None


class PageTrees:
    """The last tree of every page.

    A change waits for the one before it and is made of what that came to. So a fork that takes
    seconds neither comes back over what was done meanwhile, nor is lost by it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._pages: OrderedDict[str, _Page] = OrderedDict()
        self._lock = Lock()

    def change(
        self,
        page: str,
        shown: Data,
        make: Callable[[dict[str, Any]], tuple[Tree, Any]],
        numbered: bool = False,
    ) -> Changed:
        """The tree and the chosen run that `make` gives for the last tree of a page; no change, and
        what is wrong, where they cannot be computed.

        shown: the tree that the page has. numbered: `make` names runs by their numbers there, which
        have to be the same in the last tree.
        """
        own = self._page(page)
        with own.lock:
            last = shown if own.tree is None else own.tree
            try:
                if numbered and not _goes_on(last, shown):
                    raise UserError(STALE)
                made, active = make(last or {})
                for node in made.nodes:
                    self.session.run(node)
            except UserError as error:
                # the page may not have heard of the last tree: the browser drops late answers
                unheard = last != shown
                own.tree = last
                tree, active = (last, 0) if unheard else (no_update, no_update)
                return tree, active, one_line(error)
            own.tree = made.to_json(self.session)
            return own.tree, active, SEVERAL if made.root.puzzle.several else ""

    def stay(self, page: str, shown: Data) -> None:
        """The page goes back to the puzzle that it shows, from one that it was waiting for."""
        own = self._page(page)
        with own.lock:
            if own.tree is not None and _puzzle(own.tree) != _puzzle(shown):
                own.tree = shown

    def unheard(self, page: str, shown: Data) -> Changed:
        """The last tree of a page where it is not the one that it shows."""
        own = self._page(page)
        with own.lock:
            changed = own.tree is not None and own.tree != shown
            return own.tree if changed else no_update, no_update, no_update

    def _page(self, page: str) -> _Page:
        with self._lock:
            own = self._pages.setdefault(page, _Page())
            self._pages.move_to_end(page)
            while len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
            return own


def _puzzle(tree: Data) -> tuple[Any, Any]:
    return (tree or {}).get("puzzle"), (tree or {}).get("text")


def _goes_on(last: Data, shown: Data) -> bool:
    """Whether runs have the same numbers: forks were added or named at most."""
    now, before = ([unnamed(text) for text in (of or {}).get("fork", [])] for of in (last, shown))
    return _puzzle(last) == _puzzle(shown) and now[: len(before)] == before
