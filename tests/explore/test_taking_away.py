"""What the page sends and gives away: data of boards, figures, a script, a page for later."""

import base64
import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explore_worlds import PUZZLES, drawn, identity_for, maze_session, session_of, toy_session
from toy_copier import save_squares, save_toy

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.explore import figures
from trm_interp.explore.around import Around, ends_near
from trm_interp.explore.bases import along, on_basis, pooled_axes
from trm_interp.explore.boards import boards_figure, layer_of
from trm_interp.explore.edits import Copied, Given, Noise
from trm_interp.explore.payload import blank, keys, payload
from trm_interp.explore.runs import CONFLICT, GIVEN, WRONG
from trm_interp.explore.saving import saved_page
from trm_interp.explore.script import Look, Near, script
from trm_interp.explore.session import Session, open_session
from trm_interp.explore.trees import Tree


@pytest.fixture
def trm() -> Session:
    return session_of("trm")


def decoded(text: str, session: Session) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, session.task.cells)


def forked(session: Session) -> Tree:
    answer = session.model.answer
    tree = Tree((session.plain(0),)).with_fork(0, Noise(2, (answer,), 1.5, 3), "<b>loud</b>")
    tree = tree.with_fork(0, Copied(3, (answer,), tree.nodes[1], 5, (0, 1)), 'it\'s "copied"')
    return tree.with_fork(1, Given(4, 0, 2))


def test_what_the_browser_gets_is_the_run(trm: Session):
    runs = [trm.run(node) for node in forked(trm).nodes]
    data = payload(trm, runs)
    assert data["markup"].count("&lt;b&gt;loud&lt;/b&gt;</button>") == 1
    assert "<b>" not in data["markup"] and data["markup"].count('role="gridcell"') == 4 * 16
    right = int(runs[1].right("z_H")[7])
    fact = f"{right} of 16 right" if right < 16 else "solved"
    assert data["runs"][1]["facts"]["z_H"][7].startswith(f"{fact} · loss ")
    for run, sent in zip(runs, data["runs"], strict=True):
        for state, reading in run.readings.items():
            own = {name: decoded(of, trm) for name, of in sent["readings"][state].items()}
            assert (own["guess"] == reading.tokens).all()
            assert (own["flags"] & 15 == run.flags(state, trm.task)).all()
            differs = reading.tokens != runs[0].readings[state].tokens
            assert (own["flags"] // 16 == differs).all() and data["signs"][4] == "differs"
            certainty = own["certainty"] / 255
            np.testing.assert_allclose(certainty, reading.certainty, atol=0.003)
            largest = data["layers"]["change"]["largest"]
            change, atol = own["change"] / 255 * largest, largest / 200
            np.testing.assert_allclose(change, reading.change, atol=atol)
    per_step = trm.model.config.schedule.evaluations
    stops = {name: (of["stops"], of["onward"]) for name, of in data["jumps"].items()}
    assert stops["step-on"] == ([0, per_step, 2 * per_step, 3 * per_step], True)
    assert stops["cycle-back"] == ([*range(0, trm.last, 3), trm.last], False)
    assert stops["last"] == ([18], True) and stops["first"] == ([0], False)
    assert len(data["moments"]) == 19


def test_keys_that_type_tokens():
    assert keys(session_of()) == {"1": 2, "2": 3, "3": 4, "4": 5, ".": 1}
    assert keys(toy_session()) == {"a": 1, "b": 2, "c": 3, ".": 4}
    assert keys(maze_session()) == {"#": 1, "s": 3, "g": 4, "o": 5}
    assert [blank(of()) for of in (session_of, toy_session, maze_session)] == [1, 4, 2]


@pytest.mark.parametrize("world", [session_of, toy_session, maze_session])
def test_the_script_makes_the_same_runs(world, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Executed with the session of the test in the place of the one that it opens."""
    session = world()
    tree = forked(session)
    text = script(session, tree, "CKPT", "PUZZLES", Look(6, session.model.answer))
    code = re.sub(r"^session = open_session\(.*\)$", "", text, flags=re.M)
    scope = {"session": session}
    exec(compile(code, "script", "exec"), scope)
    assert [run.node.name for run in scope["runs"]] == [node.name for node in tree.nodes]
    for node, run in zip(tree.nodes, scope["runs"], strict=True):
        assert run.node == node
    out = capsys.readouterr().out
    board = session.task.lines(session.run(tree.nodes[1]).answer.tokens[6])
    assert "\n".join(board) in out and "<b>loud</b>: " in out
    shown = scope["figures"]
    assert shown.keys() == {"boards", "curves", "path"}
    assert (
        on_board(shown["boards"], 1)
        == session.task.glyphs(session.run(tree.nodes[1]).answer.tokens[6]).tolist()
    )
    assert len(shown["curves"].data) == 4 * len(tree.nodes)


def test_the_script_has_the_path_on_screen_and_leaves_the_same_puzzles_out(trm: Session):
    tree, look = forked(trm), Look(6, trm.model.answer, dimensions="3")
    text = script(trm, tree, "CKPT", "PUZZLES", look, skip_bad=True)
    assert "steps=3, skip_bad=True)" in text
    scope = {"session": trm}
    exec(compile(re.sub(r"^session = .*$", "", text, flags=re.M), "script", "exec"), scope)
    assert {trace.type for trace in scope["figures"]["path"].data} == {"scatter3d"}


def on_board(figure: Any, run: int) -> list[str]:
    """What stands in the cells of a board of a figure, formatting taken off."""
    texts = [trace for trace in figure.data if trace.type == "scatter" and trace.mode == "text"][
        run
    ].text
    return [html.unescape(text).removeprefix("<b>").removesuffix("</b>") for text in texts]


@pytest.mark.parametrize("world", [session_of, toy_session, maze_session])
def test_boards_as_a_figure(world):
    """Marks say what flags say; heat is that of the moment, as a share of the largest one."""
    session, state, moment = world(), world().model.answer, 5
    tree = forked(session)
    runs = [session.run(node) for node in tree.nodes]
    heat = layer_of(session, runs, "change", state)
    figure = boards_figure(session, runs, moment, state, heat)
    for at, run in enumerate(runs):
        reading = run.readings[state]
        assert on_board(figure, at) == session.task.glyphs(reading.tokens[moment]).tolist()
        flags = run.flags(state, session.task)[moment]
        traces = {trace.name: trace for trace in figure.data[6 * at : 6 * at + 6] if trace.name}
        assert len(traces["wrong"].x) == (flags & WRONG > 0).sum()
        assert len(traces["breaks a rule"].x) == (flags & CONFLICT > 0).sum()
        differs = reading.tokens[moment] != runs[0].readings[state].tokens[moment]
        assert len(traces["differs from the plain run"].x) == differs.sum()
        largest = max(run.readings[state].change.max() for run in runs)
        z = figure.data[6 * at].z.ravel()
        np.testing.assert_allclose(z, reading.change[moment] / largest, rtol=1e-5)
    plain = boards_figure(session, runs[:1], moment, state)
    given = runs[0].flags(state, session.task)[moment] & GIVEN > 0
    assert (plain.data[0].z.ravel() == given).all()


def test_the_script_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ckpt, puzzles = save_toy(tmp_path / "a 'toy'"), save_squares(tmp_path / "squares.txt")
    session = open_session(ckpt, puzzles, 2, tell=lambda line: None)
    tree = forked(session)
    text = script(session, tree, str(ckpt), str(puzzles), Look(4, "fast"))
    scope: dict = {}
    exec(compile(text, "script", "exec"), scope)
    for node, run in zip(tree.nodes, scope["runs"], strict=True):
        expected = session.run(node)
        assert (run.answer.tokens == expected.answer.tokens).all()
        assert (run.answer.loss == expected.answer.loss).all()
    typed = Tree((session.plain("AB.|...|..."),))
    assert "session.plain('AB.|...|...')" in script(session, typed, "c", "p", Look(0, "slow"))
    edited = Tree((session.plain(session.edited(session.puzzle(8), 0, 4)),))
    text = script(session, edited, str(ckpt), str(puzzles), Look(0, "slow"))
    scope = {}
    exec(compile(text, "script", "exec"), scope)
    assert scope["nodes"][0] == edited.root


def test_the_script_makes_the_figures_on_screen(tmp_path: Path):
    """Those of the chosen cell, of a feature and of a neighbourhood that was stopped, too."""
    save_checkpoint(tmp_path / "tiny", drawn("trm"), {"task": "sudoku4"})
    lines = tmp_path / "p.txt"
    lines.write_text("\n".join(PUZZLES[:2]) + "\n")
    sae = identity_for(load_checkpoint(tmp_path / "tiny"), tmp_path / "sae")
    session = open_session(tmp_path / "tiny", lines, 2, "cpu", tell=lambda line: None, sae=sae)
    tree, state = forked(session), session.model.answer
    runs = [session.run(node) for node in tree.nodes]
    asked = Around(tree.nodes[1], 5, ("z_H",), 0.5, 9, 2, 1)
    session.run(session.plain(1))  # seen as well
    look = Look(4, state, "feature", "wrong", 3, "3", cell=2, active=1, dark=True, basis="seen")
    near = Near(asked, 8)  # of 13
    scope: dict[str, Any] = {}
    text = script(session, tree, str(tmp_path / "tiny"), str(lines), look, near=near)
    exec(compile(text, "script", "exec"), scope)
    courses = [session.features.course(session, run, 3) for run in runs]
    ends = ends_near(session, asked, 8)
    placed = on_basis(session, runs, state, "seen")
    assert (placed[1].readings[state].place != runs[1].readings[state].place).any()
    expected = {
        "curves": figures.curves(runs, state, 4, True),
        "path": figures.paths(placed, state, 4, 3, True, session.task),
        "candidates": figures.candidates(runs[1], state, 2, 4, True, session.task),
        "feature": figures.feature_course(runs, courses, 2, 4, True, session.task),
        "neighbourhood": figures.around(runs[1], asked, ends, True, session.task),
    }
    assert scope["figures"].keys() == {"boards", *expected}
    for name, figure in expected.items():
        assert scope["figures"][name].to_json() == figure.to_json(), name
    assert "activation of feature 3" in scope["figures"]["boards"].layout.title.text
    closed = script(session, Tree(tree.nodes[:1]), "c", "p", Look(0, state), near=near)
    assert "neighbourhood" not in closed and "candidates" not in closed


def test_the_saved_page_needs_nothing_else(trm: Session):
    run = trm.run(forked(trm).nodes[1])
    page = saved_page(trm, run)
    assert not re.search(r"<script[^>]+src=|<link[^>]+href=|@import", page)
    assert "Plotly.newPlot" in page and len(page) > 1_000_000  # the library is inside
    assert "<b>loud</b>" not in page.replace("\\u003cb\\u003e", "")  # in the title as text
    ends = [m.at for m in run.moments if m.tick and m.tick.ends_cycle]
    assert page.count('"name":"') >= len(ends)


def test_axes_of_one_run_are_its_own_and_pooled_ones_are_the_largest(trm: Session):
    run, other = (trm.run(trm.plain(i)) for i in (0, 1))
    state = trm.model.answer
    ends = [0, *(m.at for m in trm.moments if m.tick and m.tick.ends_cycle)]
    written = trm.written(run.node, state)
    values = written.values.flatten(1).float().numpy()[written.index(trm.last)]
    alone = along(trm, [run], state, pooled_axes(trm, [run], state))[0].readings[state].place
    centred = values[ends] - values[ends].mean(0)
    sizes = np.linalg.svd(centred, compute_uv=False)[:3]  # by another way
    np.testing.assert_allclose(
        np.linalg.norm(alone[ends] - alone[ends].mean(0), axis=0), sizes, 1e-3
    )
    assert not alone[0].any()  # relative to the start
    both = pooled_axes(trm, [run, other], state)
    places = [along(trm, [of], state, both)[0].readings[state].place[ends] for of in (run, other)]
    spread = np.concatenate(places).var(0)  # along both runs' axes, the largest first
    np.testing.assert_allclose(spread[1:] / spread[0], both.explained[1:] / both.explained[0], 1e-3)


# figures


def test_curves_and_paths_say_what_the_runs_are(trm: Session):
    tree, answer = forked(trm), trm.model.answer
    runs = [trm.run(node) for node in tree.nodes]
    curves = figures.curves(runs, answer, 5, dark=False)
    assert len(curves.data) == 4 * len(runs)
    np.testing.assert_allclose(curves.data[0].y, runs[0].answer.loss, atol=1e-5)
    np.testing.assert_allclose(curves.data[5].y, runs[1].right(answer))
    assert [shape.x0 for shape in curves.layout.shapes][:5] == [5, 5, 5, 5, 2]
    assert curves.data[4].name == "&lt;b&gt;loud&lt;/b&gt;"
    for dimensions in (2, 3):
        path = figures.paths(runs, answer, 5, dimensions, True, trm.task)
        assert len(path.data) == 2 * len(runs)
        dot = path.data[3]
        np.testing.assert_allclose([dot.x[0], dot.y[0]], runs[1].answer.place[5, :2])
        moments = path.data[2].customdata
        np.testing.assert_allclose(path.data[2].x, runs[1].answer.place[moments, 0])
        first = trm.task.lines(runs[1].answer.tokens[moments[0]])[0].replace(" ", "&nbsp;")
        assert first in path.data[2].text[0]
        assert "<b>" not in path.data[2].text[0]


def test_the_course_of_a_cell(trm: Session):
    run = trm.run(trm.plain(0))
    tokens = run.answer.tokens
    tokens.setflags(write=True)
    tokens[:, 5] = 1
    tokens[3:, 5] = 2
    tokens[6:, 5] = 4
    text = figures.course(run, trm.model.answer, 5, trm.task)
    expected = "row 2, column 2: 3 since step 1, H-cycle 2, evaluation 3 (z_H); revised twice: "
    assert text == expected.replace("twice", "2 times") + ". → 1 at 3, 1 → 3 at 6"
    tokens[:, 6] = 3
    text = figures.course(run, trm.model.answer, 6, trm.task)
    assert text == "row 2, column 3: 2 from the start on, never revised"


def test_the_candidates_of_a_cell(trm: Session):
    run, answer = trm.run(trm.plain(0)), trm.model.answer
    figure = figures.candidates(run, answer, 3, 4, False, trm.task)
    seen = [trm.task.tokens.index(name) for name in figure.data[0].y]
    probability = run.answer.probability[:, 3].astype(float)
    np.testing.assert_allclose(figure.data[0].z, probability[:, seen].T, atol=1e-3)
    assert probability[:, [t for t in range(6) if t not in seen]].max(initial=0) <= 0.01
    assert figure.layout.shapes[0].x0 == 4
