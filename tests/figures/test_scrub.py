"""The board of a puzzle, cycle by cycle, shows the cells, losses and places that it was given."""

import numpy as np
import plotly.graph_objects as go
import pytest

from trm_interp.figures.scrub import CLASH, GIVEN, RIGHT, SHADES, WRONG, cell_kinds, scrub_figure
from trm_interp.figures.scrub import KINDS as NAMES
from trm_interp.figures.style import FAILED, SOLVED

KINDS = np.array([[GIVEN, WRONG, RIGHT, CLASH, GIVEN, WRONG], [0, 1, 1, 1, 0, 1]])
GLYPHS = np.array([["a", "b", "c", "d", "e", ""], list("abcdef")])
LOSS, PATH = np.array([2.0, 0.5]), np.arange(12.0).reshape(6, 2)  # 3 updates a cycle


@pytest.fixture
def figure() -> go.Figure:
    rulings = ([1], [1, 2])
    return scrub_figure(GLYPHS, KINDS, (2, 3), rulings, LOSS, PATH, np.array([0.5, 0.25]), "it")


def test_the_board_has_its_shape_glyphs_and_shades(figure: go.Figure):
    first, second = (frame.data[0] for frame in figure.frames)
    assert first.z.tolist() == [[GIVEN, WRONG, RIGHT], [CLASH, GIVEN, WRONG]]
    assert np.asarray(second.text).tolist() == [["a", "b", "c"], ["d", "e", "f"]]
    assert figure.data[0].z.tolist() == first.z.tolist()  # the page opens on the first cycle
    lines = [(shape.x0, shape.x1, shape.y0, shape.y1) for shape in figure.layout.shapes]
    # before row 1 from edge to edge of the board, before columns 1 and 2 from top to bottom
    assert lines == [(-0.5, 2.5, 0.5, 0.5), (0.5, 0.5, -0.5, 1.5), (1.5, 1.5, -0.5, 1.5)]


def test_a_frame_shows_the_end_of_its_cycle(figure: go.Figure):
    for frame, end, colour in zip(figure.frames, (3, 6), (FAILED, SOLVED), strict=True):
        _, dot, so_far, here = frame.data
        at = int(frame.name) - 1
        assert (list(dot.x), list(dot.y)) == ([at + 1], [LOSS[at]])
        np.testing.assert_array_equal(np.column_stack([so_far.x, so_far.y]), PATH[:end])
        assert (here.x[0], here.y[0]) == tuple(PATH[end - 1])
        assert dot.marker.color == here.marker.color == colour
    assert [step.label for step in figure.layout.sliders[0].steps] == ["1", "2"]


def test_frames_replace_what_changes_and_keep_the_rest(figure: go.Figure):
    for frame in figure.frames:
        replaced = [figure.data[at].type for at in frame.traces]
        assert replaced == [trace.type for trace in frame.data]
    lines = [trace for trace in figure.data if trace.type == "scatter"]
    named = [trace for trace in lines if trace.showlegend is None]  # what colours mean
    assert [trace.name for trace in named] == [*NAMES, "not solved yet", "solved"]
    assert [trace.marker.color for trace in named] == [*SHADES, FAILED, SOLVED]
    changing = figure.frames[0].traces
    kept = [t for at, t in enumerate(figure.data) if at not in changing and t not in named]
    assert [list(trace.y) for trace in kept] == [LOSS.tolist(), PATH[:, 1].tolist()]


def test_only_wrong_cells_clash_and_only_right_ones_are_given():
    right, given = np.array([[True, False, False], [True, True, False]]), np.array([1, 1, 0]) > 0
    kinds = cell_kinds(right, given, broken=np.ones((2, 3), bool))
    assert kinds.tolist() == [[GIVEN, CLASH, CLASH], [GIVEN, GIVEN, CLASH]]
    assert cell_kinds(right, given, np.zeros((2, 3), bool))[0].tolist() == [GIVEN, WRONG, WRONG]


def test_updates_are_whole_cycles():
    with pytest.raises(ValueError, match="5 updates are not whole cycles of 2"):
        scrub_figure(GLYPHS, KINDS, (2, 3), ([], []), LOSS, PATH[:5], np.ones(2), "")
