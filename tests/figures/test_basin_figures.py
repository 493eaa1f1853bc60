"""Basin, lens and probe figures hold the numbers that they were given."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from trm_interp.figures.basins import UNSOLVED, basin_figure, slice_figure, slice_movie
from trm_interp.figures.lens import lens_figure, probe_figure
from trm_interp.figures.start_paths import colour_of, start_path_figure

HEADINGS = {4: "puzzle 4", 9: "puzzle 9"}
CORNERS = pd.DataFrame(
    {"puzzle": [4, 4, 9], "corner": ["own start", "solved end of start 2", "own start"]}
    | {"x": [0.0, 1.5, 0.0], "y": [0.0, 0.0, 0.0]}
)


def is_line(trace: go.Scatter) -> bool:
    """Whether it is a line with data: neither a band nor an entry of the legend."""
    return trace.mode == "lines" and trace.fill is None and trace.x[0] is not None


@pytest.fixture
def plane() -> pd.DataFrame:
    """2 x 2 places of two puzzles, in no order; puzzle 4 fails in its upper right corner."""
    places = pd.DataFrame({"x": [1.0, 0.0, 1.0, 0.0], "y": [1.0, 0.0, 0.0, 1.0]})
    four = places.assign(puzzle=4, solved_from=[-1, 0, 2, 1], answer=[1, 0, 0, 0])
    nine = places.assign(puzzle=9, solved_from=-1, answer=[0, 1, 2, 3])
    both = pd.concat([four, nine], ignore_index=True)
    return both.assign(wrong_0=[5, 0, 6, 7] * 2, wrong_1=[5, 0, 2, 0] * 2, wrong_2=[5, 0, 0, 0] * 2)


def test_points_are_coloured_by_steps_and_black_where_unsolved():
    numbers = pd.DataFrame(
        {"puzzle": [4, 4, 4, 9], "start": [0, 1, 2, 0], "radius": [0, 1, 2, 0]}
        | {"solved_from": [3, -1, 0, -1], "answer": [0, 1, 0, 0], "state": 0}
        | {"x": [0.0, 1, 2, 3], "y": [4.0, 5, 6, 7]}
    )
    explained = {4: np.array([0.5, 0.25]), 9: np.array([0.3, 0.2])}
    figure = basin_figure(numbers, explained, HEADINGS, 16, "start", "a title")
    failed, solved, own, other, none, _, *keys = figure.data
    names = ["solved (colour: from which step)", "not solved", "the model's own start"]
    assert [key.name for key in keys] == names
    assert list(failed.x) == [1] and failed.marker.color == UNSOLVED
    assert list(solved.x) == [0, 2] and list(solved.marker.color) == [4, 1]
    assert (list(own.x), list(own.text)) == ([0], ["own start"])
    assert list(other.y) == [7] and not len(none.x)
    assert own.marker.symbol == keys[2].marker.symbol == "diamond-open"  # points in it are seen
    assert "50.0%" in figure.layout.xaxis.title.text and "20.0%" in figure.layout.yaxis2.title.text


def test_the_own_end_is_named_as_one_and_counts_those_that_share_it():
    ends = {"state": [7, 3, 7, 7], "solved_from": [0, -1, 0, 1], "x": [0.0, 5, 0, 0], "y": 0.0}
    numbers = pd.DataFrame({"puzzle": 4, "start": range(4), "radius": 1.0, "answer": 0, **ends})
    explained = {4: np.array([0.5, 0.25])}
    figure = basin_figure(numbers, explained, {4: "puzzle 4"}, 16, "end", "a title")
    own = figure.data[2]
    assert list(own.text) == ["own end and 2 of 3 others"]
    assert (list(own.x), own.marker.symbol) == ([0], "square-open")
    assert [len(trace.x) for trace in figure.data[:2]] == [1, 3]


def test_an_image_is_in_the_order_of_its_places(plane: pd.DataFrame):
    figure = slice_figure(plane, CORNERS, HEADINGS, 16, "a title")
    black, steps, corners = figure.data[:3]
    # rows from below: (0, 0) and (1, 0), then (0, 1) and (1, 1)
    np.testing.assert_array_equal(steps.z, [[1, 3], [2, np.nan]])
    np.testing.assert_array_equal(black.z, [[np.nan, np.nan], [np.nan, 0]])
    assert list(corners.x) == [0, 1.5] and list(corners.text) == ["own start", "solved end"]
    assert np.isnan(figure.data[4].z).all()  # puzzle 9 is never solved


def test_a_movie_has_a_frame_a_step_and_says_where_each_start_ends(plane: pd.DataFrame):
    four = plane[plane["puzzle"] == 4]
    figure = slice_movie(four, CORNERS, 3, "a title")
    images = [frame.data[0].z.tolist() for frame in figure.frames]
    assert images == [[[0, 6], [7, 5]], [[0, 2], [0, 5]], [[0, 0], [0, 5]]]
    assert [step.label for step in figure.layout.sliders[0].steps] == ["step 1", "step 2", "step 3"]
    now, ends = figure.data[:2]
    assert now.z.tolist() == images[0] and now.zmax == 7
    assert ends.z.tolist() == [[-1, -1], [-1, 1]]
    assert ends.customdata.tolist() == [["solved", "solved"], ["solved", "1"]]


def test_lens_curves_go_to_their_panels():
    rows = [
        {"site": site, "curve": name, "outcome": "failed", "tick": tick, "n": 3}
        | {"mean": tick / 10, "low": 0.0, "high": 1.0}
        for site in ("z_H", "z_L")
        for name in ("right", "exact")
        for tick in (2, 5)
    ]
    curves = {"right": "cells", "exact": "puzzles"}
    figure = lens_figure(pd.DataFrame(rows), curves, [0, 3], "a title")
    lines = [trace for trace in figure.data if is_line(trace)]
    assert [(line.name, line.xaxis, line.line.dash) for line in lines] == [
        ("z_H, failed (n = 3)", "x", "dash"),
        ("z_H, failed (n = 3)", "x2", "dash"),
        ("z_L, failed (n = 3)", "x", "dashdot"),
        ("z_L, failed (n = 3)", "x2", "dashdot"),
    ]
    assert all(list(line.y) == [0.2, 0.5] for line in lines)


def test_probes_leave_out_what_has_no_number():
    rows = [
        {"label": label, "site": "z_H", "kind": "state", "tick": tick, "auc": auc}
        | {"low": 0.4, "high": 1.0, "n": 4}
        for label in ("candidates", "violations", "candidate 1")
        for tick, auc in ((2, 0.75), (5, np.nan))
    ]
    figure = probe_figure(pd.DataFrame(rows), {"state": "the state"}, "a title")
    lines = [trace for trace in figure.data if is_line(trace)]
    assert [(list(line.x), list(line.y), line.xaxis) for line in lines] == [
        ([3], [0.75], "x"),
        ([3], [0.75], "x2"),
    ]


def test_a_curve_of_one_panel_alone_is_in_the_legend():
    row = {"site": "z_H", "kind": "state", "tick": 2, "low": 0.4, "high": 1.0, "n": 4}
    rows = [row | {"label": "candidates", "auc": np.nan}, row | {"label": "violations", "auc": 0.7}]
    figure = probe_figure(pd.DataFrame(rows), {"state": "the state"}, "a title")
    in_legend = [trace.name for trace in figure.data if trace.showlegend]
    assert in_legend == ["z_H: the state", "chance", "95 % interval over puzzles"]


def test_sites_of_any_names_have_dashes_of_their_own():
    row = {"label": "candidates", "kind": "state", "tick": 2, "low": 0.4, "high": 1.0, "auc": 0.7}
    rows = [row | {"site": site} for site in ("", "slow", "fast", "slow")]
    figure = probe_figure(pd.DataFrame(rows), {"state": "the state"}, "a title")
    lines = [trace for trace in figure.data if is_line(trace)]
    assert [line.line.dash for line in lines] == ["dash", "solid", "dot"]


def test_paths_are_coloured_by_steps_and_black_where_unsolved():
    rows = [
        {"puzzle": puzzle, "start": start, "steps_done": step, "x": start + step, "y": 10.0 * step}
        | {"solved_from": since}
        for puzzle, outcomes in ((4, (-1, 0, 2, 0)), (9, (1,)))
        for start, since in enumerate(outcomes)
        for step in range(3)
    ]
    explained = {4: np.array([0.5, 0.25]), 9: np.array([0.3, 0.2])}
    figure = start_path_figure(pd.DataFrame(rows), explained, HEADINGS, "a title", "z_H")
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.x[0] is not None]
    colours = [UNSOLVED, colour_of(1, 3), colour_of(3, 3), colour_of(2, 3)]
    assert [line.line.color for line in lines] == colours
    # starts 1 and 3, with a gap after each
    np.testing.assert_array_equal(lines[1].x, [1, 2, 3, np.nan, 3, 4, 5, np.nan])
    assert lines[3].xaxis == "x2"
    own = {trace.name: trace for trace in figure.data if trace.hoverinfo == "name"}
    start, end = own["the model's own start"], own["the model's own end"]
    assert start.marker.symbol != end.marker.symbol
    assert (list(start.x), list(end.x)) == ([0], [2])
    keys = {trace.name: trace for trace in figure.data if trace.showlegend}
    assert keys["the model's own end"].marker.symbol == end.marker.symbol
    assert keys["not solved, with its end"].line.color == UNSOLVED
    assert figure.layout.coloraxis.cmax == 3 and "50%" in figure.layout.xaxis.title.text
    caption = figure.layout.meta["caption"]
    assert "3 random starts" in caption and "z_H" in caption
