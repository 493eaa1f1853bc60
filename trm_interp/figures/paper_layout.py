"""Where all parts of a figure in print go: panels, headings, scales of colours, the legend.

Panels keep the proportions of their columns and rows; what is between them is as wide as labels,
titles and headings need. Everything is in pixels, of which INCH are an inch.
"""

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from trm_interp.figures.paper_text import (
    FONT,
    INCH,
    ROW,
    categories,
    extent,
    label_width,
    n_lines,
    text_width,
    ticks_that_fit,
    ticks_upright,
    traces,
    wrapped,
)

KEY = 30  # width of a legend's sign, the least that plotly takes
AROUND = 15  # what plotly leaves about signs and texts of a legend
EDGE = 8.0  # around all panels, and right of each
TALLEST = 3.2 * INCH  # of a picture in three dimensions
LAST = 14.0  # right of the last one, under which half a label may stand
LEGEND_ROW = 19.2
TICK = 7  # a tick and the space to its label
STANDOFF = 6  # between labels and a title
NARROW = 85  # panels are not narrower than this, but one below another
BAR, BAR_ROOM = 9, ROW + 30  # thickness of a scale of colours; height with its labels
BAR_SHARE = 0.5  # of the width, without titles
SHAPE = {1: (0.6, 2.6, 1.5)}  # height over width, most and least inches; by rows of panels
SHAPE_OF_MANY = (0.42, 2.0, 1.15)
OBLONG = (0.5, 1.6)  # of panels on equal axes: least and largest height over width
NAMES = 0.3  # share of the width that names along an axis may take


@dataclass
class Panel:
    """Its axes, its place (rows from the top) and its heading, if it has one."""

    x: Any
    y: Any
    row: int
    column: int
    heading: Any = None


@dataclass(frozen=True)
class Tracks:
    """Sizes of the columns or rows of panels, and of what comes before each of them."""

    sizes: list[float]
    before: list[float]

    @property
    def inner(self) -> float:
        """From the first panel's begin to the last one's end."""
        return sum(self.sizes) + sum(self.before[1:])

    def span(self, at: int) -> tuple[float, float]:
        """Begin and end of a track as shares of `inner`."""
        begin = sum(self.sizes[:at]) + sum(self.before[1 : at + 1])
        return begin / self.inner, min(1.0, (begin + self.sizes[at]) / self.inner)


def lay_out(page: go.Figure, width: float) -> None:
    """Set sizes and places of everything in a page that is `width` pixels wide."""
    if is_solid(page):
        plot, margin = min(0.8 * width, TALLEST), dict.fromkeys("lrtb", 0.0)
    else:
        plot, margin = _lay_out_panels(page, width)
    legend = _legend_rows(page, width - margin["l"] - margin["r"]) * LEGEND_ROW
    bars = scales(page)
    margin["b"] += legend + (BAR_ROOM if bars else 0)
    height = round(plot + margin["t"] + margin["b"])
    page.update_layout(width=int(width), height=height, margin=margin)
    for at, bar in enumerate(bars):
        bar.update(orientation="h", thickness=BAR, lenmode="pixels")
        bar.update(len=BAR_SHARE * width / len(bars), xref="container", xanchor="center", xpad=0)
        bar.update(x=(at + 0.5) / len(bars), yref="container", y=legend / height)
        bar.update(yanchor="bottom", ypad=4)
        bar.title.update(side="right", text=(bar.title.text or "").replace("<br>", " "))
    _lay_out_legend(page)


def is_solid(page: go.Figure) -> bool:
    """Whether it has three dimensions."""
    return any(trace.type == "scatter3d" for trace in traces(page))


def axes(page: go.Figure) -> list[Any]:
    """Horizontal and vertical ones."""
    return [*page.select_xaxes(), *page.select_yaxes()]


def _lay_out_panels(page: go.Figure, width: float) -> tuple[float, dict[str, float]]:
    """Places of axes and headings; the height of all panels, and the margins."""
    panels = _panels(page)
    columns, rows = _sizes(page, panels, width, INCH)
    if len(columns.sizes) > 1 and min(columns.sizes) < NARROW:
        _stack(panels)
        columns, rows = _sizes(page, panels, width, INCH)
    for panel in panels:  # titles of one line have shown how large the panels are, about
        _wrap(panel, columns.sizes[panel.column], rows.sizes[panel.row])
    columns, rows = _sizes(page, panels, width, max(rows.sizes))
    for panel in panels:
        panel.x.domain = columns.span(panel.column)
        begin, end = rows.span(panel.row)  # from the top
        panel.y.domain = (1 - end, 1 - begin)
        if panel.heading is not None:
            panel.heading.update(x=sum(panel.x.domain) / 2, y=1 - begin)
        if panel.x.nticks is None and (n := ticks_that_fit(page, panel.x, columns.sizes[0])):
            panel.x.update(nticks=n, tickangle=0)
        if panel.y.nticks is None and extent(page, panel.y) and panel.y.type != "log":
            panel.y.nticks = ticks_upright(rows.sizes[panel.row])
    last = max(panel.row for panel in panels)
    bottom = max(_under(panel) for panel in panels if panel.row == last)
    margin = {"l": columns.before[0], "r": LAST, "t": rows.before[0], "b": bottom + EDGE}
    return rows.inner, margin


def _panels(page: go.Figure) -> list[Panel]:
    """All of them, from left to right and from above."""
    ys = {axis.plotly_name.replace("axis", ""): axis for axis in page.select_yaxes()}
    pairs = [(axis, ys[axis.anchor or "y"]) for axis in page.select_xaxes()]
    lefts, tops = (
        sorted({round(end, 3) for end in ends})
        for ends in ([_domain(x)[0] for x, _ in pairs], [-_domain(y)[1] for _, y in pairs])
    )
    found = [
        Panel(x, y, tops.index(round(-_domain(y)[1], 3)), lefts.index(round(_domain(x)[0], 3)))
        for x, y in pairs
    ]
    for panel in found:
        middle, top = sum(_domain(panel.x)) / 2, _domain(panel.y)[1]
        for note in page.layout.annotations:
            at = (note.xref, note.yref) == ("paper", "paper")
            if at and abs(note.x - middle) < 1e-3 and abs(note.y - top) < 1e-3:
                panel.heading = note
    return sorted(found, key=lambda panel: (panel.row, panel.column))


def _domain(axis: Any) -> tuple[float, float]:
    low, high = axis.domain or (0.0, 1.0)
    return float(low), float(high)


def _stack(panels: list[Panel]) -> None:
    """All panels in one column: each with the labels and titles that panels in a row share."""
    for panel in panels:
        row = [other.y.title.text for other in panels if other.row == panel.row]
        column = [other.x.title.text for other in panels if other.column == panel.column]
        for axis, texts in ((panel.x, column), (panel.y, row)):
            if axis.showticklabels is False:
                axis.update(showticklabels=True, ticks="outside")
                axis.title.text = axis.title.text or next(filter(None, texts), None)
    for at, panel in enumerate(panels):
        panel.row, panel.column = at, 0
        panel.x.domain, panel.y.domain = (0, 1), (0, 1)


def _sizes(
    page: go.Figure, panels: list[Panel], width: float, length: float
) -> tuple[Tracks, Tracks]:
    """Columns and rows; `length` is a panel's height, about, on which labels depend."""
    for panel in panels:
        _name_lines(page, panel.y, NAMES * width)
    n_columns, n_rows = (1 + max(at) for at in zip(*_places(panels), strict=True))
    before = [
        max(_left(page, panel.y, length) for panel in panels if panel.column == at)
        for at in range(n_columns)
    ]
    # half a label under the end of a panel, and half of one under the begin of the next
    gaps = [max(gap + EDGE, 2 * LAST) for gap in before[1:]]
    free = width - before[0] - sum(gaps) - LAST
    shares = _shares([(panel.column, panel.x) for panel in panels], n_columns)
    columns = Tracks([free * share for share in shares], [before[0], *gaps])
    mean = sum(columns.sizes) / n_columns
    form, most, least = SHAPE.get(n_rows, SHAPE_OF_MANY)
    height = min(max(form * mean, least * INCH), most * INCH)
    shares = _shares([(panel.row, panel.y) for panel in panels], n_rows)
    heights = [n_rows * height * share for share in shares]
    above, under = [0.0] * n_rows, [0.0] * n_rows
    for panel in panels:
        at = panel.row
        if panel.y.scaleanchor:
            heights[at] = _oblong(page, panel) * columns.sizes[panel.column]
        if panel.y.type == "category" or categories(page, panel.y):
            heights[at] = max(heights[at], _height_of_names(page, panel.y))
        title = panel.heading.text if panel.heading is not None else None
        above[at] = max(above[at], n_lines(title) * ROW + 2)
        under[at] = max(under[at], _under(panel))
    tops = [EDGE + above[at] + (under[at - 1] if at else 0) for at in range(n_rows)]
    tops = [tops[0], *(max(top, ROW) for top in tops[1:])]  # for labels at the ends of axes
    return columns, Tracks(heights, tops)


def _places(panels: list[Panel]) -> list[tuple[int, int]]:
    return [(panel.column, panel.row) for panel in panels]


def _shares(tracks: list[tuple[int, Any]], n: int) -> list[float]:
    """Of the space that columns or rows have together: by track, from the domains of axes."""
    sizes = [0.0] * n
    for at, axis in tracks:
        low, high = _domain(axis)
        sizes[at] = max(sizes[at], high - low)
    return [size / sum(sizes) for size in sizes]


def _left(page: go.Figure, axis: Any, length: float) -> float:
    """Width of labels and title of a vertical axis."""
    labels = 0.0 if axis.showticklabels is False else label_width(page, axis, length) + TICK
    lines = n_lines(axis.title.text)
    return labels + (lines * ROW + STANDOFF if lines else 0.0)


def _under(panel: Panel) -> float:
    """Height of labels and title of a horizontal axis."""
    labels = 0.0 if panel.x.showticklabels is False else ROW + TICK
    lines = n_lines(panel.x.title.text)
    return labels + (lines * ROW + STANDOFF if lines else 0.0)


def _wrap(panel: Panel, width: float, height: float) -> None:
    """Heading and titles in lines that fit the panel."""
    texts = [(panel.x.title, width), (panel.y.title, height)]
    if panel.heading is not None:
        texts.append((panel.heading, width))
    for holder, room in texts:
        if holder.text:
            holder.text = wrapped(holder.text, 0.97 * room)


def _name_lines(page: go.Figure, axis: Any, room: float) -> None:
    """Names along an axis in lines."""
    names = categories(page, axis)
    if names and axis.ticktext is None and max(map(text_width, names)) > room:
        axis.update(tickvals=names, ticktext=[wrapped(name, room) for name in names])


def _height_of_names(page: go.Figure, axis: Any) -> float:
    texts = axis.ticktext or categories(page, axis)
    return 1.15 * ROW * len(texts) * max((n_lines(str(text)) for text in texts), default=1)


def _oblong(page: go.Figure, panel: Panel) -> float:
    """Height over width of a panel on equal axes."""
    x, y = extent(page, panel.x), extent(page, panel.y)
    if x is None or y is None or x[0] == x[1]:
        return 1.0
    least, most = OBLONG
    return min(max((y[1] - y[0]) / (x[1] - x[0]), least), most)


def scales(page: go.Figure) -> list[Any]:
    """All scales of colours."""
    shared = any(
        (trace.type == "heatmap" and trace.coloraxis)
        or (trace.type == "scatter" and trace.marker.coloraxis)
        for trace in traces(page)
    )
    bars = [axis.colorbar for axis in page.select_coloraxes()] if shared else []
    return bars + [
        trace.colorbar
        for trace in traces(page)
        if trace.type == "heatmap" and not trace.coloraxis and trace.showscale is not False
    ]


def _lay_out_legend(page: go.Figure) -> None:
    page.layout.legend = {
        "orientation": "h",
        "itemsizing": "trace",
        "font": {"size": FONT},
        "title": {"text": page.layout.legend.title.text, "font": {"size": FONT}, "side": "top"},
        "itemwidth": KEY,
        "tracegroupgap": 0,
        "xref": "container",
        "yref": "container",
        "x": 0.5,
        "y": 0,
        "xanchor": "center",
        "yanchor": "bottom",
    }
    for trace in traces(page):  # groups fill a row of the legend one after another
        if trace.showlegend is not False and "legendgroup" in trace and not trace.legendgroup:
            trace.legendgroup = trace.name


def _legend_rows(page: go.Figure, room: float) -> int:
    """How many rows the entries fill, from left to right."""
    if page.layout.showlegend is False:
        return 0
    names = [
        trace.name
        for trace in traces(page)
        if trace.visible in (None, True) and trace.showlegend is not False and trace.name
    ]
    rows, left = 0, 0.0
    for name in names:
        need = text_width(name) + KEY + AROUND
        if need > left:
            rows, left = rows + 1, room
        left -= need
    return rows + bool(names and page.layout.legend.title.text)
