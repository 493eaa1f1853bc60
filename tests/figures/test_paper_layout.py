"""Places in print: nothing lies on anything else, and no panel is too narrow to read."""

from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from trm_interp.figures.basins import slice_figure
from trm_interp.figures.dynamics import fate_figure
from trm_interp.figures.lens import lens_figure
from trm_interp.figures.origins import origins_figure
from trm_interp.figures.outcomes import divergence_figure
from trm_interp.figures.paper import for_paper
from trm_interp.figures.paper_layout import NARROW
from trm_interp.figures.paper_text import (
    FONT,
    ROW,
    extent,
    label_width,
    n_lines,
    text_width,
    tick_labels,
)
from trm_interp.figures.stitch import stitch_figure
from trm_interp.figures.style import styled

WAYS = ["own start", "own start, 40 steps", "best of 8 starts", "any of 8 copies"]


def origins() -> go.Figure:
    share = {"low": 0.1, "high": 0.9}
    shares = pd.DataFrame({"origin": ["puzzle", "copy and start"], "value": 0.5} | share)
    ways = pd.DataFrame({"way": WAYS, "share": 0.5} | share)
    return origins_figure(shares, ways, "a title")


def lens() -> go.Figure:
    """Four panels with headings of three lines in a column of print."""
    curves = {f"curve{i}": "blank cells whose answer does not change any more" for i in range(4)}
    band = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 4}
    rows = [
        {"site": "z_H", "curve": name, "outcome": kind, "tick": tick} | band
        for name in curves
        for kind in ("solved", "failed")
        for tick in (0, 300)
    ]
    return lens_figure(pd.DataFrame(rows), curves, [0, 21], "a title")


def plane() -> go.Figure:
    numbers = pd.DataFrame({"x": [0, 1, 0, 1], "y": [0, 0, 1, 1], "solved_from": [0, 1, -1, -1]})
    tables = [numbers.assign(puzzle=puzzle, answer=0) for puzzle in range(4)]
    names = ["own start", "solved end of start 2", "failed end of start 3"]
    places = {"x": [0.1, 1, 0.5], "y": [0.1, 0, 1]}
    corners = [pd.DataFrame({"puzzle": p, "corner": names} | places) for p in range(4)]
    headings = {puzzle: f"puzzle {puzzle}: own start solves at step 2" for puzzle in range(4)}
    return slice_figure(pd.concat(tables), pd.concat(corners), headings, 16, "a title")


def inner(page: go.Figure) -> tuple[float, float]:
    """Width and height of all panels together, in pixels."""
    margin = page.layout.margin
    return (
        page.layout.width - margin.l - margin.r,
        page.layout.height - margin.t - margin.b,
    )


@pytest.mark.parametrize("make", [origins, lens, plane])
def test_headings_and_labels_fit_between_panels(make):
    """A heading lies above its panel and under the labels and titles of the panel above it."""
    page = for_paper(make(), "single")
    _, height = inner(page)
    notes = page.layout.annotations
    for one, axis in zip(notes, page.select_yaxes(), strict=True):
        assert one.y == pytest.approx(axis.domain[1])
    rows = sorted({tuple(axis.domain) for axis in page.select_yaxes()})
    assert len(rows) > 1
    for lower, upper in pairwise(rows):
        gap = (upper[0] - lower[1]) * height
        above = [axis for axis in page.select_xaxes() if page.layout[of(axis)].domain == upper]
        labels = max((axis.showticklabels is not False) * ROW for axis in above)
        titles = max(n_lines(axis.title.text) for axis in above) * ROW
        headings = [n_lines(note.text) for note in notes if note.y == pytest.approx(lower[1])]
        assert gap > labels + titles + max(headings) * ROW


def of(axis: go.layout.XAxis) -> str:
    """The vertical axis beside a horizontal one."""
    return str(axis.anchor or "y").replace("y", "yaxis")


@pytest.mark.parametrize("width", ["single", "double"])
def test_labels_of_inner_panels_fit_between_columns(width):
    page = for_paper(plane(), width)
    wide, height = inner(page)
    second = page.layout.yaxis2
    gap = (page.layout.xaxis2.domain[0] - page.layout.xaxis.domain[1]) * wide
    length = (second.domain[1] - second.domain[0]) * height
    assert gap > label_width(page, second, length)
    labels = tick_labels(*(extent(page, second) or (0.0, 0.0)), second.nticks)
    assert gap > max(map(text_width, labels))


def test_panels_too_narrow_beside_one_another_are_stacked():
    """With names of ways along their axes, two panels do not fit beside each other in a column."""
    page, wide = for_paper(origins(), "single"), for_paper(origins(), "double")
    assert page.layout.xaxis.domain == page.layout.xaxis2.domain == (0, 1)
    assert page.layout.yaxis.domain[0] > page.layout.yaxis2.domain[1]
    assert wide.layout.xaxis.domain[1] < wide.layout.xaxis2.domain[0]
    assert inner(page)[0] > NARROW
    assert page.layout.margin.l > text_width(WAYS[1])  # the longest name


def test_labels_at_the_ends_of_axes_do_not_touch_where_panels_share_an_axis():
    figure = go.Figure().set_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.01)
    for column in (1, 2):
        figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1]), row=1, col=column)
    figure.update_xaxes(tickformat=".0%")
    page = for_paper(styled(figure, "a title"), "double")
    gap = (page.layout.xaxis2.domain[0] - page.layout.xaxis.domain[1]) * inner(page)[0]
    assert gap > (text_width("100%") + text_width("0%")) / 2
    assert page.layout.margin.r > text_width("100%") / 2


def test_panels_that_share_names_show_them_again_where_they_are_stacked():
    values = {f"{name}{end}": 0.5 for name in ("exact", "cells", "loss") for end in ("", "_low")}
    values |= {f"{name}_high": 0.75 for name in ("exact", "cells", "loss")}
    arms = [{"arm": f"a model alone, {i} steps", "is_link": i == 0} | values for i in range(4)]
    page = for_paper(stitch_figure(pd.DataFrame(arms), "a title"), "single")
    axes = list(page.select_yaxes())
    assert len({axis.domain for axis in axes}) == 3
    assert all(axis.showticklabels is not False for axis in axes)
    _, height = inner(page)
    assert min(end - begin for begin, end in (axis.domain for axis in axes)) * height > 4 * FONT


def test_a_title_stands_only_at_the_panel_that_it_is_of():
    """Stacked panels take over titles that they shared, not those of another quantity."""
    figure = go.Figure().set_subplots(1, 5)
    for column in range(1, 6):
        figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1]), row=1, col=column)
    figure.update_yaxes(title="distance", col=2)
    page = for_paper(styled(figure, "a title"), "single")
    assert [axis.title.text for axis in page.select_yaxes()] == [None, "distance", *[None] * 3]


def test_a_long_name_is_in_lines_and_has_their_height():
    names = ["the whole model from its own start and with twice as many steps", "short"]
    figure = go.Figure(go.Scatter(x=[0, 1], y=names, mode="markers"))
    page = for_paper(styled(figure, "a title"), "single")
    texts = page.layout.yaxis.ticktext
    assert [text.replace("<br>", " ") for text in texts] == names
    assert n_lines(texts[0]) > 2 and max(map(text_width, texts)) < page.layout.margin.l


def test_the_signs_of_states_that_span_a_plane_are_in_the_legend():
    page = for_paper(plane(), "single")
    points = [t for t in page.data if t.type == "scatter"]
    legend = {t.name: t.marker.symbol for t in points if t.showlegend is not False}
    assert len({legend[name] for name in ("own start", "solved end", "failed end")}) == 3
    marks = [t for t in points if t.showlegend is False and t.x[0] is not None]
    assert [list(mark.marker.symbol) for mark in marks] == [[*legend.values()][1:]] * 4
    assert not any("text" in t.mode for t in points)


def test_an_outcome_without_auc_has_no_empty_panel():
    band = {"update": [0, 1], "mean": 0.5, "low": 0.4, "high": 0.6, "sd": 0.1, "n": 3}
    table = pd.concat([pd.DataFrame(band).assign(outcome=kind) for kind in ("solved", "failed")])
    auc = pd.DataFrame({"update": [0, 1], "auc": np.nan, "low": np.nan, "high": np.nan})
    figure = divergence_figure(table, auc, [1], "a title", "update")
    assert len(list(figure.select_yaxes())) == 1
    assert not any("AUC" in (trace.name or "") for trace in figure.data)
    assert "AUC" not in figure.layout.meta["caption"]
    both = divergence_figure(table, auc.fillna(0.5), [1], "a title", "update")
    assert len(list(both.select_yaxes())) == 2 and "AUC" in both.layout.meta["caption"]


def test_lines_of_the_legend_are_counted_by_the_width_of_their_text():
    """Narrow letters leave room for a second entry in a row."""

    def height(name: str) -> float:
        figure = go.Figure([go.Scatter(x=[0], y=[0], name=name + i) for i in "ab"])
        return for_paper(styled(figure, "a title"), "single").layout.height

    assert height("i" * 22) < height("m" * 22)


def test_equal_axes_have_the_shape_of_what_they_hold():
    page = for_paper(plane(), "single")
    wide, height = inner(page)
    x, y = page.layout.xaxis.domain, page.layout.yaxis.domain
    assert (y[1] - y[0]) * height == pytest.approx((x[1] - x[0]) * wide, rel=0.01)


def test_error_bars_count_for_the_range_of_an_axis():
    bars = {"type": "data", "array": [0.25, 0.5], "arrayminus": [0.25, 0.75]}
    figure = go.Figure(go.Scatter(x=[0.0, 1.0], y=["a", "b"], error_x=bars))
    assert extent(figure, next(figure.select_xaxes())) == (-0.25, 1.5)
    assert extent(figure, next(figure.select_yaxes())) is None


def test_bars_of_words_are_no_numbers():
    rows = {"steps": [16, 64], "became": "settled", "share": 1.0, "low": 0.9, "high": 1.0, "n": 4}
    page = for_paper(fate_figure(pd.DataFrame(rows), "a title"), "single")
    assert page.layout.xaxis.nticks is None
