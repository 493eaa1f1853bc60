"""Figures as they go into a paper: print sizes, no title, captions, legends that explain signs."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from trm_interp.analysis.divergence import bands
from trm_interp.figures.features import activity_figure
from trm_interp.figures.latex import latex_table
from trm_interp.figures.look import INCHES, Look, Width
from trm_interp.figures.outcomes import divergence_figure, losses_figure
from trm_interp.figures.paper import FONT, INCH, LINE, for_paper
from trm_interp.figures.style import styled, write_html

TICKS, SOLVED = 12, np.array([True, True, True, False, False])


@pytest.fixture
def divergence() -> go.Figure:
    """Of three solved and two failed runs, with a step at every fourth update."""
    values = np.random.default_rng(0).random((5, TICKS))
    auc = pd.DataFrame({"update": range(TICKS), "auc": 0.6, "low": 0.4, "high": 0.8})
    table = bands(values, SOLVED, seed=0)
    return divergence_figure(table, auc, range(0, TICKS, 4), "model-x: distances", "update")


@pytest.fixture
def losses() -> go.Figure:
    """The same runs in two conventions, of which a menu shows one."""
    values = np.random.default_rng(1).random((5, TICKS))
    parts = [
        bands(values, SOLVED, seed=0).assign(convention=name, unit="nats")
        for name in ("stablemax, cells", "softmax, cells")
    ]
    table = pd.concat(parts, ignore_index=True)
    table["h_cycles_done"] = table.pop("update") + 1
    both = dict.fromkeys(table["convention"].unique(), values)
    return losses_figure(both, table, SOLVED, "model-x: losses", [4.5, 8.5])


def legend(figure: go.Figure) -> dict[str, go.Scatter]:
    """What it shows, by name."""
    return {trace.name: trace for trace in figure.data if trace.showlegend is not False}


@pytest.mark.parametrize("width", ["single", "double"])
def test_print_size_8_points_and_no_title(divergence: go.Figure, losses: go.Figure, width: Width):
    for figure in (divergence, losses):
        page = for_paper(figure, width)
        assert page.layout.width == int(INCH * INCHES[width])
        assert page.layout.title.text is None and not page.layout.updatemenus
        assert "model-x" not in page.to_json()
        sizes = [page.layout.font.size, page.layout.legend.font.size]
        for axis in (*page.select_xaxes(), *page.select_yaxes()):
            sizes += [axis.title.font.size, axis.tickfont.size]
        assert set(sizes) == {FONT} and pytest.approx(8) == FONT * 72 / INCH
        lines = [t.line for t in page.data if t.mode == "lines" and t.fill is None]
        lines += [shape.line for shape in page.layout.shapes]
        assert min(line.width for line in lines) >= LINE and LINE * 72 / INCH == 0.75
    assert losses.layout.title.text == "model-x: losses"  # the page for the screen is as it was
    assert losses.layout.updatemenus


def test_fonts_of_headings_and_scales_too():
    figure = go.Figure().set_subplots(1, 2, subplot_titles=["a heading", "another one"])
    marker = {"color": [1, 2], "coloraxis": "coloraxis"}
    figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], marker=marker), row=1, col=1)
    figure.update_layout(coloraxis={"colorbar": {"title": "steps"}})
    page = for_paper(styled(figure, "a title"), "double")
    assert {note.font.size for note in page.layout.annotations} == {FONT}
    assert page.layout.coloraxis.colorbar.title.font.size == FONT
    bar, without = page.layout.coloraxis.colorbar, for_paper(styled(go.Figure(), ""), "double")
    assert bar.orientation == "h" and page.layout.margin.b > without.layout.margin.b  # below


def test_long_titles_of_axes_are_in_lines_that_fit():
    figure = styled(go.Figure(go.Scatter(x=[0], y=[0])), "a title")
    long = "log10 of the mean RMS change of the answer state over the last steps of a run"
    figure.update_xaxes(title=long)
    page, wide = for_paper(figure, "single"), for_paper(figure, "double")
    assert page.layout.xaxis.title.text.replace("<br>", " ") == long
    assert page.layout.xaxis.title.text.count("<br>") == 1
    assert wide.layout.xaxis.title.text == long
    assert page.layout.margin.b > wide.layout.margin.b


def test_the_legend_explains_every_band_dash_and_line(divergence: go.Figure, losses: go.Figure):
    names = legend(divergence)
    spread, interval = (
        names["mean \u00b1 1 standard deviation of runs"],
        names["95 % interval of the mean or AUC"],
    )
    drawn = {trace.opacity for trace in divergence.data if trace.fill is not None}
    assert drawn == {spread.marker.opacity, interval.marker.opacity}
    dashes = {trace.line.dash for trace in names.values() if trace.mode == "lines"}
    assert {shape.line.dash for shape in divergence.layout.shapes} <= dashes
    assert {"solved (n = 3)", "failed (n = 2)", "a supervision step begins"} <= names.keys()
    assert {"single puzzle", "a supervision step begins"} <= legend(losses).keys()
    assert [shape.x0 for shape in losses.layout.shapes] == [4.5, 8.5]
    for button in losses.layout.updatemenus[0].buttons:  # the signs stay whatever is shown
        visible = button.args[0]["visible"]
        assert len(visible) == len(losses.data) and list(visible[-3:]) == [True] * 3


def test_bands_are_a_standard_deviation_and_an_interval_about_the_mean():
    values = np.random.default_rng(0).random((5, TICKS))
    table = bands(values, SOLVED, seed=0)
    solved = table[table["outcome"] == "solved"]
    np.testing.assert_allclose(solved["sd"], values[:3].std(0, ddof=1))
    auc = pd.DataFrame({"update": range(TICKS), "auc": 0.6, "low": 0.4, "high": 0.8})
    wide, narrow, line = divergence_figure(table, auc, [], "a title", "update").data[:3]
    mean, sd = solved["mean"].to_numpy(), solved["sd"].to_numpy()
    np.testing.assert_allclose(wide.y, [*(mean + sd), *(mean - sd)[::-1]])
    np.testing.assert_allclose(narrow.y, [*solved["high"], *solved["low"][::-1]])
    np.testing.assert_allclose(line.y, mean)
    assert wide.opacity < narrow.opacity


def test_captions_say_n_intervals_and_what_a_menu_shows(
    losses: go.Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("trm_interp.figures.style.draw", lambda *args, **size: None)
    write_html(losses, tmp_path / "losses.html", Look(style="paper"))
    text = (tmp_path / "losses.caption.txt").read_text()
    for part in ("3 solved and 2 failed puzzles", "95 % bootstrap", "Shown: stablemax, cells."):
        assert part in text
    assert "model-x" not in text
    tex = (tmp_path / "losses.caption.tex").read_text()
    assert tex.startswith("% model-x: losses\n\\caption{Loss") and "95 \\%" in tex
    write_html(losses, tmp_path / "screen.html", Look(static=True))
    assert not list(tmp_path.glob("screen.caption.*"))


def test_the_pdf_has_its_size_and_its_text_as_text(divergence: go.Figure, tmp_path: Path):
    pytest.importorskip("kaleido")
    pages = [
        write_html(divergence, tmp_path / f"{name}.html", Look(style="paper")) for name in "ab"
    ]
    pdfs = [page.with_suffix(".pdf") for page in pages]
    if not pdfs[0].exists():
        pytest.skip("no browser draws pictures here")
    assert pdfs[0].read_bytes() == pdfs[1].read_bytes()
    if not shutil.which("pdftotext"):
        pytest.skip("poppler is not installed")

    def poppler(tool: str, *words: str) -> str:
        return subprocess.run([tool, *words], capture_output=True, text=True, check=True).stdout

    text = poppler("pdftotext", str(pdfs[0]), "-")
    for part in ("RMS distance", "a supervision step begins", "95 % interval of the mean or AUC"):
        assert part in text
    fonts = poppler("pdffonts", str(pdfs[0])).splitlines()[2:]
    assert fonts and all("yes" in font and "Type 3" not in font for font in fonts)
    size = poppler("pdfinfo", str(pdfs[0])).partition("Page size:")[2].split()[0]
    assert float(size) / 72 == pytest.approx(INCHES["single"], abs=0.02)


def test_a_table_in_latex_escapes_and_leaves_no_cell_empty():
    table = pd.DataFrame({"a_b": ["50 %", ""], "share": [0.12345, np.nan], "n": [12345, 6]})
    text = latex_table(table, note="x & y")
    assert "a\\_b & share & n \\\\" in text and "50 \\% & 0.123 & 12345 \\\\" in text
    assert "-- & -- & 6 \\\\" in text and "\\footnotesize x \\& y" in text
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    assert "{l r r}" in text


def test_a_paper_asks_for_pictures_by_itself(divergence: go.Figure, tmp_path: Path):
    """Whether or not --static was given."""
    asked: list[str] = []

    def draw(figure: str, kind: str, **size: float) -> bytes:
        asked.append(kind)
        return b"picture"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trm_interp.figures.style.draw", draw)
        write_html(divergence, tmp_path / "a.html", Look(style="paper", width="double"))
    assert asked == ["png", "pdf"]


def test_the_sum_over_features_is_below_on_an_axis_of_its_own():
    band = {"tick": [0, 1], "mean": [1.0, 2.0], "low": 0.5, "high": 3.0, "n": 4}
    kinds = ("solved", "failed")
    top = [pd.DataFrame(band).assign(outcome=kind, feature=f) for kind in kinds for f in (7, 9)]
    whole = pd.DataFrame(band).assign(mean=[50.0, 60.0])
    total = pd.concat([whole.assign(outcome=kind) for kind in kinds])
    numbers = pd.concat(top, ignore_index=True)
    figure = activity_figure(numbers, [0], "a title", total)
    below = [trace for trace in figure.data if trace.xaxis == "x3" and trace.fill is None]
    assert [list(trace.y) for trace in below] == [[50, 60]] * 2
    assert below[0].line.dash != below[1].line.dash
    axes = figure.layout
    assert axes.yaxis2.matches == "y" and axes.yaxis3.matches is None
    names = legend(figure)
    assert {"feature 7", "feature 9", "all features together, solved"} <= names.keys()
    assert {"95 % interval over puzzles", "a supervision step begins"} <= names.keys()
    assert "4 solved and 4 failed puzzles" in figure.layout.meta["caption"]
    assert len(activity_figure(numbers, [0], "a title").layout.annotations) == 2


def test_rows_of_panels_leave_room_for_what_is_between_them():
    def height(shared: bool = False, **more: object) -> float:
        figure = go.Figure().set_subplots(2, 1, vertical_spacing=0.1, shared_xaxes=shared, **more)
        for row in (1, 2):
            figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], showlegend=False), row=row, col=1)
        figure.update_xaxes(title="x", row=2 if shared else None, col=1)
        return for_paper(styled(figure, "a title"), "single").layout.height

    headings = {"subplot_titles": ["above", "below"]}
    assert height(**headings) > height() > height(shared=True)
    assert 0.1 * height(**headings) > 3 * FONT  # labels, a title and a heading


def test_columns_of_panels_leave_room_for_the_titles_between_them():
    figure = go.Figure().set_subplots(
        1, 2, horizontal_spacing=0.02, subplot_titles=["left", "right"]
    )
    for column in (1, 2):
        figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1]), row=1, col=column)
    wide = for_paper(styled(go.Figure(figure), "a title"), "double")
    figure.update_yaxes(title="distance")
    page = for_paper(styled(figure, "a title"), "single")
    gaps = [one.layout.xaxis2.domain[0] - one.layout.xaxis.domain[1] for one in (page, wide)]
    margin = page.layout.margin
    assert gaps[0] * (page.layout.width - margin.l - margin.r) > 3.5 * FONT  # labels and a title
    assert gaps[0] > gaps[1] > 0.02
    assert page.layout.xaxis2.domain[1] == pytest.approx(1)
    for note, axis in zip(page.layout.annotations, page.select_xaxes(), strict=True):
        assert note.x == pytest.approx(sum(axis.domain) / 2)  # headings stay in the middle
