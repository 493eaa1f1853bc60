"""Figures hold the data they were given, and open without a network."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from trm_interp.figures.outcomes import losses_figure
from trm_interp.figures.style import FAILED, SOLVED, styled, without_controls, write_html
from trm_interp.figures.trajectories import path_figure, trajectory_figure, umap_figure

N, STEPS, PER_STEP = 3, 2, 3


@pytest.fixture
def data() -> dict:
    rng = np.random.default_rng(0)
    return {
        "paths": rng.standard_normal((N, STEPS * PER_STEP, 2)).astype(np.float32),
        "explained": np.array([0.6, 0.25], np.float32),
        "loss": rng.random((N, STEPS)).astype(np.float32),
        "solved": np.array([[False, True], [True, False], [True, True]]),
        "names": ["a", "b", "c"],
        "steps": np.arange(STEPS),
        "title": "a title",
    }


def by_kind(figure: go.Figure) -> dict[str, list]:
    """Traces of the figure: paths and step ends on the left, losses on the right."""
    left = [trace for trace in figure.data if trace.xaxis == "x"]
    return {
        "path": [trace for trace in left if trace.mode == "lines" and trace.x[0] is not None],
        "end": [trace for trace in left if trace.mode == "markers" and trace.x[0] is not None],
        "loss": [trace for trace in figure.data if trace.xaxis == "x2"],
    }


def test_every_puzzle_has_a_path_step_ends_and_a_loss(data):
    figure = trajectory_figure(**data)
    traces = by_kind(figure)
    assert {kind: len(of_kind) for kind, of_kind in traces.items()} == {
        "path": N,
        "end": N,
        "loss": N,
    }
    assert len(figure.data) == 3 * N + 3  # and three signs in the legend
    for i in range(N):
        path, end, loss = (traces[kind][i] for kind in ("path", "end", "loss"))
        np.testing.assert_array_equal(np.column_stack([path.x, path.y]), data["paths"][i])
        # the last of the three updates of each step: 2 and 5
        np.testing.assert_array_equal(np.column_stack([end.x, end.y]), data["paths"][i, [2, 5]])
        assert list(loss.x) == [1, 2]
        np.testing.assert_array_equal(loss.y, data["loss"][i])
        assert end.hovertemplate.startswith(data["names"][i])
    assert figure.layout.title.text == "a title"
    assert "60%" in figure.layout.xaxis.title.text and "25%" in figure.layout.yaxis.title.text


def test_colour_and_legend_follow_the_last_step(data):
    traces = by_kind(trajectory_figure(**data))
    kinds = ["solved", "failed", "solved"]  # by solved[:, -1]
    for of_kind in traces.values():
        assert [trace.legendgroup for trace in of_kind] == kinds
    assert [t.line.color for t in traces["path"]] == [SOLVED, FAILED, SOLVED]
    assert [t.name for t in traces["end"] if t.showlegend] == ["solved", "failed"]


def test_one_kind_alone_has_one_legend_entry(data):
    figure = trajectory_figure(**data | {"solved": np.zeros((N, STEPS), bool)})
    shown = [trace for trace in figure.data if trace.showlegend and trace.x[0] is not None]
    assert [trace.name for trace in shown] == ["failed"]


def test_a_page_needs_no_network(data, tmp_path: Path):
    page = write_html(trajectory_figure(**data), tmp_path / "new" / "page.html")
    assert {file.name for file in page.parent.iterdir()} == {"page.html", "plotly.min.js"}
    html = page.read_text()
    assert re.findall(r'(?:src|href)="([^"]+)"', html) == ["plotly.min.js"]
    assert "https://cdn" not in html


def test_styled_returns_the_figure_it_was_given():
    figure = go.Figure()
    assert styled(figure, "words") is figure and figure.layout.title.text == "words"


def test_a_static_picture_names_what_a_menu_shows_and_has_no_menu():
    row = {"outcome": "solved", "h_cycles_done": 1, "mean": 1.0, "low": 0.5, "high": 2.0, "n": 1}
    units = {"answer": "nat per cell", "paper": "nat"}
    bands = pd.DataFrame([row | {"convention": name, "unit": unit} for name, unit in units.items()])
    bands.loc[bands["convention"] == "paper", "mean"] = 36.0
    losses = dict.fromkeys(units, np.ones((1, 1)))
    figure = losses_figure(losses, bands, np.array([True]), "Losses")
    still = without_controls(figure)
    assert still.layout.title.text == "Losses (answer)"
    assert not still.layout.updatemenus
    assert any(trace.visible for trace in still.data)
    of_paper = [trace for trace in still.data if 36.0 in list(trace.y)]
    assert of_paper and not any(trace.visible for trace in of_paper)
    assert still.layout.yaxis.title.text == f"loss, {units['answer']}"
    assert figure.layout.title.text == "Losses"  # the page keeps its menu
    assert len(figure.layout.updatemenus) == 1


def test_a_static_picture_says_where_its_slider_stands():
    figure = styled(go.Figure(go.Scatter(x=[0], y=[0])), "Moments")
    steps = [{"label": "1"}, {"label": "2"}]
    figure.update_layout(
        sliders=[{"currentvalue": {"prefix": "H-cycle "}, "active": 1, "steps": steps}],
        updatemenus=[{"type": "buttons", "buttons": [{"label": "play"}]}],
    )
    still = without_controls(figure)
    assert still.layout.title.text == "Moments (H-cycle 2)"
    assert not still.layout.sliders and not still.layout.updatemenus


def test_a_library_that_a_full_disk_cut_short_is_written_again(data, tmp_path: Path):
    page = write_html(trajectory_figure(**data), tmp_path / "page.html")
    library = tmp_path / "plotly.min.js"
    whole, written = library.read_bytes(), library.stat().st_mtime_ns
    write_html(trajectory_figure(**data), page)
    assert library.stat().st_mtime_ns == written  # a whole one is left alone
    for damaged in (whole[:-1], whole[:-1] + b"?", b""):
        library.write_bytes(damaged)
        write_html(trajectory_figure(**data), page)
        assert library.read_bytes() == whole


def test_the_same_figure_is_the_same_page(data, tmp_path: Path):
    pages = [write_html(trajectory_figure(**data), tmp_path / f"{name}.html") for name in "ab"]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_point_shows_its_board_row_by_row(data):
    points = pd.DataFrame(
        {"puzzle": [0, 0], "line": 7, "step": [0, 1], "pc1": 0.0, "pc2": 0.0, "pc3": 0.0}
        | {"solved": [False, True], "solved_at_end": True, "loss": 0.25, "wrong": [2, 0]}
        | {"board": ["1.<2..", "123456"], "umap1": 0.0, "umap2": 0.0}
    )
    paths, explained = np.zeros((1, 4, 3), np.float32), np.ones(3, np.float32)
    for figure in (
        path_figure(paths, points, explained, "a title", 2, columns=3),
        umap_figure(points, "a title", columns=3),
    ):
        first, last = boards(figure)
        assert first == ("puzzle of line 7, step 1: 2 cells wrong, loss 0.250<br>1 . &lt;<br>2 . .")
        assert last.endswith("step 2: solved, loss 0.250<br>1 2 3<br>4 5 6")
    without = boards(path_figure(paths, points, explained, "a title", 2))
    assert without[1].endswith("<br>123456")


def test_a_figure_names_the_state_that_it_shows(data):
    figure = trajectory_figure(**data, state="z_slow")
    titles = [note.text for note in figure.layout.annotations]
    assert titles[0] == "displacement of z_slow from its first update"


def boards(figure: go.Figure) -> list[str]:
    """What its points show."""
    return next(list(trace.text) for trace in figure.data if trace.text)


@pytest.fixture
def points() -> pd.DataFrame:
    """Ends of the two steps of three puzzles, of which the second one fails."""
    rows = [
        {"puzzle": puzzle, "line": puzzle + 1, "step": step, "pc1": puzzle, "pc2": step}
        | {"solved": puzzle != 1, "solved_at_end": puzzle != 1, "board": "12"}
        | {"loss": 0.5, "wrong": int(puzzle == 1)}
        for puzzle in range(3)
        for step in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_solved_puzzles_are_left_and_failed_ones_right_on_equal_axes(points: pd.DataFrame):
    paths = np.random.default_rng(0).random((3, 4, 3)).astype(np.float32)
    explained = np.array([0.6, 0.3, 0.1])
    figure = path_figure(paths, points, explained, "a title", 2)
    panels = [note.text for note in figure.layout.annotations]
    assert panels == ["solved (n = 2)", "failed (n = 1)"]
    left, right = (
        [trace for trace in figure.data if trace.xaxis == axis and trace.mode == "lines"][:1]
        for axis in ("x", "x2")
    )
    np.testing.assert_array_equal(left[0].x[:4], paths[0, :, 0])
    np.testing.assert_array_equal(right[0].y[:4], paths[1, :, 1])
    assert (left[0].line.color, right[0].line.color) == (SOLVED, FAILED)
    assert figure.layout.xaxis2.matches == "x" and figure.layout.yaxis2.matches == "y"
    keys = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert keys == [
        *("solved (n = 2)", "failed (n = 1)", "every update"),
        *("a supervision step ends (small)", "the run ends (large)", "the first state"),
    ]
    pooled = path_figure(paths, points, explained, "a title", 2, relative=False)
    assert "the first state" not in [trace.name for trace in pooled.data]
    assert "first state" in figure.layout.meta["caption"] != pooled.layout.meta["caption"]
    alone = points[points["solved_at_end"]]
    assert len(path_figure(paths[[0, 2]], alone, explained, "t", 2).layout.annotations) == 1
