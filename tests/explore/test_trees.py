"""Trees of runs as the page and its address have them."""

from typing import Any

import pytest
from arc_puzzles import arc_puzzles
from explore_worlds import checkpoint_of, drawn, maze_session, session_of, toy_session

from trm_interp.explore.edits import Copied, Given, Noise
from trm_interp.explore.page import layout
from trm_interp.explore.payload import payload
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.explore.trees import LONGEST_NAME, MOST_RUNS, Tree, data_of, query_of, tree_of
from trm_interp.runtime.errors import UserError

STRANGE = '<img src=x onerror=alert(1)>, "a" & b=1;#%'


@pytest.fixture
def trm() -> Session:
    return session_of("trm")


def grown(session: Session) -> Tree:
    """Every kind of edit, one with a strange name, and a fork of a fork."""
    answer, latent = session.model.answer, session.model.latent
    tree = Tree((session.plain(1),))
    tree = tree.with_fork(0, Noise(3, (answer, latent), 0.25, 7, (1, 4)), STRANGE)
    tree = tree.with_fork(1, Copied(5, (latent,), tree.nodes[0], 9), "copied")
    return tree.with_fork(2, Given(6, 2, 3))


@pytest.mark.parametrize("world", [session_of, toy_session, maze_session])
def test_an_address_says_all_of_a_tree(world: Any):
    session = world()
    tree = grown(session)
    again = tree_of(session, data_of("?" + query_of(tree.to_json(session))))
    assert again.nodes == tree.nodes
    assert [node.name for node in again.nodes] == [node.name for node in tree.nodes]
    assert again.parents() == [None, 0, 1, 2]
    assert again.nodes[1].name == STRANGE


def test_a_puzzle_that_was_typed_or_edited(trm: Session):
    typed = Tree((trm.plain("1234" + "." * 12),))
    data = typed.to_json(trm)
    assert data == {"text": "1234" + "." * 12, "fork": []}
    assert tree_of(trm, data).root.puzzle.several
    edited = trm.edited(trm.puzzle(0), 3, 1)
    data = Tree((trm.plain(edited),)).to_json(trm)
    assert data["puzzle"] == "1" and data["text"] == "12.....2....4..1"
    again = tree_of(trm, data).root.puzzle
    assert again == edited and again.index == 0
    assert tree_of(trm, {}).root.puzzle == trm.puzzle(0)
    assert tree_of(trm, {"puzzle": "2"}).root.puzzle == trm.puzzle(1)


def test_names(trm: Session):
    tree = grown(trm)
    renamed = tree.renamed(1, " louder ")
    assert [node.name for node in renamed.nodes][:3] == ["plain run", "louder", "copied"]
    assert renamed.nodes[2].parent is renamed.nodes[1] and renamed.nodes == tree.nodes
    assert renamed.renamed(1, "  ").nodes[1].name == "louder"
    long = tree.renamed(2, "x" * 500)
    assert len(long.nodes[2].name) == LONGEST_NAME
    assert tree.nodes[3].name == "cell 3 changed"


def test_closing_a_run_closes_what_needs_it(trm: Session):
    tree = grown(trm)
    tree = tree.with_fork(0, Copied(2, ("z_H",), tree.nodes[1], 4), "a copy of 1")
    tree = tree.with_fork(0, Noise(2, ("z_H",), 1.0), "apart")
    assert [node.name for node in tree.without(1).nodes] == ["plain run", "apart"]
    assert len(tree.without(3).nodes) == 5
    assert tree.without(0).nodes == tree.nodes
    assert tree.without(1).parents() == [None, 0]


def test_more_runs_than_the_page_shows(trm: Session):
    tree = Tree((trm.plain(0),))
    for seed in range(1, MOST_RUNS):
        tree = tree.with_fork(0, Noise(0, ("z_H",), 1.0, seed))
    with pytest.raises(UserError, match="8 runs are as many as the page shows: close one first"):
        tree.with_fork(0, Noise(0, ("z_H",), 1.0, 99))


@pytest.mark.parametrize(
    ("fork", "message"),
    [
        ("", "no fork is written ''"),
        ("0,explode,1", "no fork is written '0,explode,1'"),
        ("0,noise,1,z_H", "no fork is written"),
        ("1,noise,1,z_H,1.0,7,*,n", "there is no run 1"),
        ("-1,noise,1,z_H,1.0,7,*,n", "there is no run -1"),
        ("0,noise,x,z_H,1.0,7,*,n", "moment must be a whole number, got 'x'"),
        ("0,noise,1e99,z_H,1.0,7,*,n", "moment must be a whole number"),
        ("0,noise,99999,z_H,1.0,7,*,n", "forks at moments 0 to 17"),
        ("0,noise,1,slow,1.0,7,*,n", "no state slow"),
        ("0,noise,1,z_H,loud,7,*,n", "a size must be a number"),
        ("0,noise,1,z_H,nan,7,*,n", "above 0, at most 1000"),
        ("0,noise,1,z_H,inf,7,*,n", "above 0, at most 1000"),
        ("0,noise,1,z_H,1.0,-7,*,n", "seed"),
        ("0,noise,1,z_H,1.0,7,3.99,n", "cells are 1 to 16"),
        ("0,noise,1,z_H,1.0,7,,n", "cell must be a whole number"),
        ("0,copy,1,z_H,5,1,*,n", "there is no run 5"),
        ("0,copy,1,z_H,0,77,*,n", "moments are 0 to 18, not 77"),
        ("0,given,1,99,2,n", "no token 2 for cell 100"),
        ("0,given,1,0,99,n", "no token 99 for cell 1"),
        ("<img src=x>", "no fork is written '<img src=x>'"),
    ],
)
def test_addresses_that_were_tampered_with(trm: Session, fork: str, message: str):
    with pytest.raises(UserError, match=message):
        tree_of(trm, {"fork": [fork]})


@pytest.mark.parametrize("number", ["0", "4", "-3", "x", "", "9" * 400])
def test_puzzles_that_an_address_cannot_have(trm: Session, number: str):
    with pytest.raises(UserError, match="puzzle"):
        tree_of(trm, {"puzzle": number})


def test_a_task_that_reads_no_text():
    """Puzzles of a file of ARC go into an address and out of it."""
    puzzles = arc_puzzles(2, 10)
    task = puzzles.task
    model = drawn("trm", cells=task.cells, vocab=task.vocab)
    session = Session(checkpoint_of(model), puzzles, 2)
    tree = Tree((session.plain(1),)).with_fork(0, Noise(5, ("z_H",), 1.0, 1))
    assert tree_of(session, data_of(query_of(tree.to_json(session)))).nodes == tree.nodes
    assert (
        payload(session, [session.run(node) for node in tree.nodes])["markup"].count("gridcell")
        == 200
    )
    with pytest.raises(
        UserError, match="10x10 ARC puzzles cannot be typed: choose one of the file"
    ):
        session.read("00|11")
    with pytest.raises(UserError, match="or change the cell from this moment on"):
        session.edited(session.puzzle(0), 0, 3)
    half_way = session.run(session.plain(0).fork(Given(4, 0, 3)))
    assert half_way.inputs[4:, 0].tolist() == [3] * (session.last - 3)
    assert "10x10 ARC puzzles are chosen from the file" in str(layout(session, ExploreConfig(), {}))
