"""Changes of one page follow one another, and what comes late overwrites nothing that is newer."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
from dash import no_update
from explore_worlds import session_of

from trm_interp.explore.app import make_app, replaces
from trm_interp.explore.edits import Noise
from trm_interp.explore.page_trees import MOST_PAGES, PageTrees
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.explore.trees import Tree, tree_of
from trm_interp.runtime.errors import UserError

WAIT = 60.0


@pytest.fixture
def session() -> Session:
    return session_of()


@pytest.fixture
def trees(session: Session) -> PageTrees:
    return PageTrees(session)


def chosen(session: Session, number: int) -> Callable[[Any], tuple[Tree, int]]:
    return lambda _: (tree_of(session, {"puzzle": number}), 0)


def forked(session: Session, seed: int = 1) -> Callable[[Any], tuple[Tree, int]]:
    def make(last: Any) -> tuple[Tree, int]:
        tree = tree_of(session, last)
        return tree.with_fork(0, Noise(2, ("z_H",), 1.0, seed)), len(tree.nodes)

    return make


def named(session: Session, number: int, name: str) -> Callable[[Any], tuple[Tree, Any]]:
    return lambda last: (tree_of(session, last).renamed(number, name), no_update)


def names(session: Session, data: Any) -> list[str]:
    return [node.name for node in tree_of(session, data).nodes]


def in_the_background(change: Callable[[], Any]) -> tuple[Thread, list[Any]]:
    results: list[Any] = []
    thread = Thread(target=lambda: results.append(change()))
    thread.start()
    return thread, results


def test_a_change_is_made_of_what_the_one_before_came_to(session: Session, trees: PageTrees):
    """A fork that takes long, and a name and a puzzle that are given meanwhile."""
    shown, _, _ = trees.change("a", None, chosen(session, 1))
    shown, _, _ = trees.change("a", shown, forked(session))
    begun, free = Event(), Event()

    def slow(last: Any) -> tuple[Tree, int]:
        begun.set()
        assert free.wait(WAIT)
        return forked(session, 2)(last)

    first, of_fork = in_the_background(lambda: trees.change("a", shown, slow, numbered=True))
    assert begun.wait(WAIT)
    call = lambda: trees.change("a", shown, named(session, 1, "mine"), numbered=True)  # noqa: E731
    second, of_name = in_the_background(call)
    other, _, _ = trees.change("b", None, chosen(session, 2))  # another tab waits for nobody
    assert names(session, other) == ["plain run"]
    free.set()
    first.join(WAIT)
    second.join(WAIT)
    assert len(of_fork[0][0]["fork"]) == 2 and of_fork[0][1] == 2
    assert names(session, of_name[0][0])[1:] == ["mine", "noise 1 on z_H, seed 2"]
    # the browser dropped the name's answer: a later fork has the same numbers and brings it
    late, _, note = trees.change("a", of_fork[0][0], forked(session, 3), numbered=True)
    assert note == "" and names(session, late)[1] == "mine"


def test_runs_that_were_closed_meanwhile(session: Session, trees: PageTrees):
    plain, _, _ = trees.change("a", None, chosen(session, 1))
    shown, _, _ = trees.change("a", plain, forked(session))
    trees.change("a", shown, lambda last: (tree_of(session, last).without(1), 0), numbered=True)
    tree, active, note = trees.change("a", shown, named(session, 1, "mine"), numbered=True)
    assert tree == plain and active == 0 and "try again" in note
    again, _, note = trees.change("a", tree, forked(session), numbered=True)
    assert note == "" and len(again["fork"]) == 1


def test_a_change_that_fails_leaves_the_tree(session: Session, trees: PageTrees):
    def failing(last: Any) -> tuple[Tree, int]:
        raise UserError("no")

    shown, _, _ = trees.change("a", None, chosen(session, 1))
    assert trees.change("a", shown, failing) == (no_update, no_update, "no")
    assert trees.unheard("a", shown) == (no_update,) * 3
    # back to the puzzle on the page before the next one has come
    heard, _, _ = trees.change("a", shown, chosen(session, 2))
    assert trees.unheard("a", shown)[0] == heard
    trees.stay("a", shown)
    tree, _, _ = trees.change("a", shown, forked(session), numbered=True)
    assert tree["puzzle"] == "1"


def test_pages_that_were_closed_are_forgotten(session: Session, trees: PageTrees):
    for page in range(MOST_PAGES + 3):
        trees.change(str(page), None, chosen(session, 1))
    assert len(trees._pages) == MOST_PAGES


@pytest.mark.parametrize(
    ("typed", "before", "now", "is_replaced"),
    [
        ("", {}, {"text": "A", "puzzle": "1"}, True),  # the page opens
        ("b", {}, {"text": "A", "puzzle": "1"}, False),  # and somebody types already
        ("a", {"text": "A", "puzzle": "1"}, {"text": "B", "puzzle": "2"}, True),
        ("c", {"text": "A", "puzzle": "1"}, {"text": "B", "puzzle": "2"}, True),  # was chosen
        ("b", {"text": "A"}, {"text": "B"}, False),  # it is what was typed
        ("c", {"text": "A"}, {"text": "B"}, False),  # the next one is being typed
        ("a", {"text": "A"}, {"text": "B"}, True),  # a cell was set
        ("c", {"text": "A"}, {"text": "A"}, False),  # a fork
    ],
)
def test_what_is_being_typed_stays(typed: str, before: Any, now: Any, is_replaced: bool):
    assert replaces(str.upper, typed, before, now) is is_replaced


# callbacks, as the browser asks for them


def answer(app: Any, trigger: str, values: dict[str, Any]) -> dict[str, Any]:
    """What the first callback of a component gives for these values of its inputs and states."""
    key, callback = next(
        (key, one)
        for key, one in app.callback_map.items()
        if one["inputs"] and one["inputs"][0]["id"] == trigger
    )
    outputs = [one.rpartition(".") for one in key.strip(".").split("...")]
    parts = ("inputs", "state")
    asked = {
        "output": key,
        "outputs": [{"id": name, "property": prop} for name, _, prop in outputs],
        "changedPropIds": [f"{trigger}.{callback['inputs'][0]['property']}"],
        **{
            part: [one | {"value": values.get(one["id"])} for one in callback[part]]
            for part in parts
        },
    }
    done = app.server.test_client().post("/_dash-update-component", json=asked)
    assert done.status_code == 200, done.text
    return done.json or {}


@pytest.mark.parametrize(("layer", "drawn"), [("effect", "none"), ("change", "change")])
def test_a_script_without_the_heat_that_cannot_be_shown(session: Session, layer: str, drawn: str):
    """There are patch effects of forks only."""
    shown = {"page": "p", "python": 1, "moment": 2, "reading": session.model.answer}
    shown |= {"layer": layer, "fact": "wrong", "dimensions": "2", "tree": {"puzzle": "1"}}
    given = answer(make_app(session, ExploreConfig()), "python", shown)["response"]
    assert f"layer_of(session, runs, '{drawn}', state)" in given["script"]["children"]


FORM = {"page": "p", "fork": 1, "kind": "copy", "states": ["z_H"], "where": "all", "moment": 4}
FORM |= {"active": 0, "size": 1, "seed": 1, "source": "0", "from": 2}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"source": "3"}, "choose the run to copy from"),  # it was closed
        ({"source": None}, "choose the run to copy from"),
        ({"from": 1.5}, "whole numbers are needed here, not 1.5"),
        ({"kind": "noise", "seed": 1.5}, "whole numbers are needed here, not 1.5"),
        ({"kind": "noise", "size": ""}, "must be numbers"),
    ],
)
def test_forks_that_cannot_be_made(session: Session, more: Any, message: str):
    app = make_app(session, ExploreConfig())
    tree = Tree((session.plain(0),)).to_json(session)
    given = answer(app, "fork", FORM | {"tree": tree} | more)["response"]
    assert message in given["message"]["children"] and "tree" not in given
    given = answer(app, "fork", FORM | {"tree": tree})["response"]
    assert len(given["tree"]["data"]["fork"]) == 1
    several = {"tree": tree, "kind": "noise", "where": "cell", "cell": 3, "more": [5, 1]}
    given = answer(app, "fork", FORM | several)["response"]
    expected = "0,noise,4,z_H,1.0,1,1.3.5,noise 1 on z_H in 3 cells, seed 1"
    assert given["tree"]["data"]["fork"][-1] == expected


def test_errors_elsewhere_stand_on_the_page(session: Session, monkeypatch: pytest.MonkeyPatch):
    app = make_app(session, ExploreConfig())

    def full(node: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(session, "run", full)
    tree = Tree((session.plain(0),)).to_json(session)
    values = {"tree": tree, "reading": "z_H", "dimensions": "2", "dark": False, "moment": 0}
    given = answer(app, "tree", values)
    assert "out of memory" in given["sideUpdate"]["message"]["children"]
