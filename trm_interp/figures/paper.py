"""The same figure as it goes into a paper: small, without a title, with its caption apart."""

import textwrap
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

from trm_interp.figures.latex import escaped
from trm_interp.figures.look import INCHES, Width

INCH = 96  # pixels
POINT = INCH / 72
FONT = 8 * POINT
LINE = 0.75 * POINT  # least width of a line
PNG_SCALE = 400 / INCH  # dots an inch over pixels
CHARACTER = 0.52 * FONT  # mean width
ROW = 1.35 * FONT  # height of a line of text
FAINT = 0.45  # least opacity of a line
SHRINK, LEAST_MARK = 0.65, 3.0  # of markers, which are sized for the screen
DASHES = {"dash": "5px,2.5px", "dot": "1.5px,2px", "dashdot": "5px,2px,1.5px,2px"}
DASHES |= {"longdash": "9px,2.5px", "longdashdot": "9px,2px,1.5px,2px"}  # shorter than the screen's
DARK, GRID = "#222", "#e4e4e4"
KEY = 30  # width of a legend's sign
AROUND = 18  # signs' margins in a legend


def choices(figure: go.Figure) -> list[str]:
    """What the menus and sliders of a figure show at first, such as "after step 1".

    Menus of type "buttons" are taken for play and pause, which show nothing.
    """
    return [
        (slider.currentvalue.prefix or "") + slider.steps[slider.active or 0].label
        for slider in figure.layout.sliders
    ] + [
        menu.buttons[menu.active or 0].label
        for menu in figure.layout.updatemenus
        if menu.type != "buttons"
    ]


def caption_of(figure: go.Figure) -> str:
    """What the figure shows, in sentences; of menus and sliders what they show at first."""
    meta = figure.layout.meta or {}
    parts = [meta.get("caption") or meta.get("title", "")]
    if shown := choices(figure):
        parts.append(f"Shown: {'; '.join(shown)}.")
    return " ".join(part for part in parts if part)


def latex_caption(figure: go.Figure) -> str:
    r"""The caption as a command of LaTeX, to \input inside a figure; its first line is a comment
    that says by its title on the screen which figure it is."""
    title = " ".join(str((figure.layout.meta or {}).get("title", "")).split())
    return f"% {title}\n\\caption{{{escaped(caption_of(figure))}}}\n"


def for_paper(figure: go.Figure, width: Width) -> go.Figure:
    """A copy in print size: its layout's width and height are pixels, of which INCH are an inch.

    All text has 8 pt, no line is thinner than 0.75 pt, the legend is below. Titles, menus and
    sliders are gone: `caption_of` says what they said.
    """
    page = go.Figure(figure.data, figure.layout)
    page.layout.sliders, page.layout.updatemenus, page.layout.title = (), (), None
    page.layout.meta = None
    _set_type(page)
    for trace in page.data:
        _thicken(trace)
    for shape in page.layout.shapes:
        shape.line.width = max(shape.line.width or 0, LINE)
        shape.line.dash = DASHES.get(shape.line.dash, shape.line.dash)
    _lay_out(page, INCHES[width] * INCH)
    return page


def _set_type(page: go.Figure) -> None:
    """8 pt wherever plotly would take a size of its own."""
    layout = page.layout
    layout.font = {"size": FONT, "color": DARK}
    for note in layout.annotations:
        note.font.size = FONT
    for axis in _axes(page, "x", "y"):
        axis.update(title_font_size=FONT, tickfont_size=FONT, title_standoff=4)
        axis.update(showline=True, linecolor=DARK, linewidth=LINE, gridcolor=GRID, gridwidth=LINE)
        if axis.showticklabels is not False:
            axis.update(ticks="outside", ticklen=3, tickcolor=DARK, tickwidth=LINE)
        axis.update(zerolinecolor=GRID, zerolinewidth=LINE)
    for scene in page.select_scenes() if _is_solid(page) else ():
        for axis in (scene.xaxis, scene.yaxis, scene.zaxis):
            axis.update(title_font_size=FONT, tickfont_size=FONT, nticks=4)
    for bar in _bars(page):
        bar.update(title_font_size=FONT, tickfont_size=FONT, thickness=9, ticklen=2, xpad=4)
        bar.update(outlinewidth=0)


def _axes(page: go.Figure, *letters: str) -> list[Any]:
    every = {"x": page.select_xaxes, "y": page.select_yaxes}
    return [axis for letter in letters for axis in every[letter]()]


def _thicken(trace: Any) -> None:
    """Lines that print, and marks in proportion to the smaller figure."""
    line = getattr(trace, "line", None)
    drawn = "lines" in (getattr(trace, "mode", None) or "")
    if drawn and line is not None and line.width != 0 and getattr(trace, "fill", None) is None:
        line.width = max(line.width or LINE, LINE)
        line.dash = DASHES.get(line.dash, line.dash)
        if trace.opacity is not None:
            trace.opacity = max(trace.opacity, FAINT)
    if trace.type in ("scatter", "scatter3d", "box"):
        size = trace.marker.size
        if size is not None:
            trace.marker.size = np.maximum(SHRINK * np.asarray(size), LEAST_MARK).tolist()
        edge = trace.marker.line.width
        if edge:
            trace.marker.line.width = max(edge, LINE)
        for bars in (getattr(trace, "error_x", None), getattr(trace, "error_y", None)):
            if bars is not None and bars.array is not None:
                bars.update(thickness=LINE, width=1.5)


def _lay_out(page: go.Figure, width: float) -> None:
    """Sizes of the page, its panels and legend, and lines of text that fit them."""
    columns, rows = (_tracks(_axes(page, letter)) for letter in "xy")
    right = 50 if _bars(page) else 6
    inner = width - 42 - right  # less the labels of the left axis
    panel = inner / columns - (36 if columns > 1 else 0)
    squares = any(axis.scaleanchor for axis in _axes(page, "y"))
    share, most, least = (0.6, 2.6, 1.5) if rows == 1 else (0.42, 2.0, 1.15)
    height = panel if squares else min(max(share * panel, least * INCH), most * INCH)
    if _is_solid(page):
        columns = rows = 1
        panel, height = inner, 0.75 * inner
    if not _is_solid(page):
        _spread(page, inner)
    for axis in _axes(page, "x"):  # level labels that do not touch
        if axis.type not in ("log", "category") and axis.nticks is None:
            axis.update(nticks=max(3, int(panel / 40)), tickangle=0)
    heading = _wrap_notes(page, panel)
    below = _wrap_titles(page, panel, 0.95 * height)
    legend = _legend_rows(page, inner) * 1.5 * ROW
    plot = max(rows * height + (rows - 1) * 2 * ROW, _least_height(page))
    margin = {"l": 42, "r": right, "t": heading * ROW + 8, "b": below}
    page.update_layout(
        width=int(width),
        height=round(plot + margin["t"] + below + legend),
        margin=margin,
        legend={
            "orientation": "h",
            "itemsizing": "trace",
            "font": {"size": FONT},
            "title": {"font": {"size": FONT}, "side": "top"},
            "itemwidth": KEY,
            "tracegroupgap": 0,
            "xref": "container",
            "yref": "container",
            "x": 0.5,
            "y": 0,
            "xanchor": "center",
            "yanchor": "bottom",
        },
    )
    for trace in page.data:  # groups fill a row of the legend one after another
        if trace.showlegend is not False and "legendgroup" in trace and not trace.legendgroup:
            trace.legendgroup = trace.name


def _bars(page: go.Figure) -> list[Any]:
    """All scales of colours."""
    shared = any(
        (trace.type == "heatmap" and trace.coloraxis)
        or (trace.type == "scatter" and trace.marker.coloraxis)
        for trace in page.data
    )
    bars = [axis.colorbar for axis in page.select_coloraxes()] if shared else []
    return bars + [
        trace.colorbar
        for trace in page.data
        if trace.type == "heatmap" and not trace.coloraxis and trace.showscale is not False
    ]


def _is_solid(page: go.Figure) -> bool:
    """Whether it has three dimensions."""
    return any(trace.type == "scatter3d" for trace in page.data)


def _spread(page: go.Figure, inner: float) -> None:
    """Narrower panels where labels and titles would not fit between columns of them."""
    spans = sorted({tuple(axis.domain) for axis in _axes(page, "x") if axis.domain})
    gaps = [low - high for (_, high), (low, _) in pairwise(spans)]
    if not gaps or min(gaps) <= 0:
        return
    left = {
        axis.plotly_name.replace("axis", "")
        for axis in _axes(page, "x")
        if not axis.domain or axis.domain[0] == spans[0][0]
    }
    others = [axis for axis in _axes(page, "y") if axis.anchor not in left]
    has_labels = any(axis.showticklabels is not False for axis in others)
    has_titles = any(axis.title.text for axis in others)
    need = (8 + 28 * has_labels + 16 * has_titles) / inner
    if min(gaps) >= need:
        return
    scale = (1 - need * len(gaps)) / sum(high - low for low, high in spans)
    moved, at = {}, 0.0
    for low, high in spans:
        moved[low, high] = (at, at + scale * (high - low))
        at += scale * (high - low) + need
    for axis in _axes(page, "x"):
        if axis.domain:
            axis.domain = moved[tuple(axis.domain)]
    for note in page.layout.annotations:
        for old, new in moved.items():
            if note.xref == "paper" and abs(note.x - sum(old) / 2) < 1e-6:
                note.x = sum(new) / 2
                break


def _least_height(page: go.Figure) -> float:
    """Of all panels together, so that headings and titles fit between rows of them."""
    spans = sorted({tuple(axis.domain) for axis in _axes(page, "y") if axis.domain})
    between = [low - high for (_, high), (low, _) in pairwise(spans)]
    gaps = [gap for gap in between if gap > 0]
    if not gaps:
        return 0.0
    lowest = {
        axis.plotly_name.replace("axis", "")
        for axis in _axes(page, "y")
        if not axis.domain or axis.domain[0] == spans[0][0]
    }
    upper = [axis for axis in _axes(page, "x") if axis.anchor not in lowest]
    has_labels = any(axis.showticklabels is not False for axis in upper)
    has_titles = any(axis.title.text for axis in upper)
    lines = 0.8 + 1.2 * has_labels + 1.2 * has_titles + bool(page.layout.annotations)
    return lines * ROW / min(gaps)


def _tracks(axes: list[Any]) -> int:
    """Rows or columns of panels."""
    return max(1, len({round(axis.domain[0], 3) for axis in axes if axis.domain}))


def _wrapped(text: str, room: float) -> str:
    """Text in lines that fit `room` pixels."""
    lines = [textwrap.wrap(part, max(8, int(room / CHARACTER))) for part in text.split("<br>")]
    return "<br>".join(line for part in lines for line in part)


def _wrap_notes(page: go.Figure, panel: float) -> int:
    """Headings in lines; the largest number of them."""
    most = 0
    for note in page.layout.annotations:
        note.text = _wrapped(note.text, panel)
        most = max(most, note.text.count("<br>") + 1)
    return most


def _wrap_titles(page: go.Figure, panel: float, height: float) -> float:
    """Titles of axes in lines; the height of what is below the panels."""
    most = 0
    for letter, room in (("x", panel), ("y", height)):
        for axis in _axes(page, letter):
            if axis.title.text:
                axis.title.text = _wrapped(axis.title.text, room)
                if letter == "x":
                    most = max(most, axis.title.text.count("<br>") + 1)
    return (most + 1) * ROW + 12


def _legend_rows(page: go.Figure, room: float) -> int:
    """How many rows the entries fill, from left to right."""
    if page.layout.showlegend is False:
        return 0
    names = [
        trace.name
        for trace in page.data
        if trace.visible in (None, True) and trace.showlegend is not False and trace.name
    ]
    rows, left = 0, 0.0
    for name in names:
        longest = max(len(part) for part in name.split("<br>"))
        need = longest * CHARACTER + KEY + AROUND
        if need > left:
            rows, left = rows + 1, room
        left -= need
    return rows + bool(names and page.layout.legend.title.text)
