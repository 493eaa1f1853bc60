"""The same figure as it goes into a paper: small, without a title, with its caption apart."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from trm_interp.figures.latex import escaped
from trm_interp.figures.look import INCHES, Width
from trm_interp.figures.paper_layout import axes, is_solid, lay_out, scales
from trm_interp.figures.paper_text import FONT, INCH, POINT

LINE = 0.75 * POINT  # least width of a line
PNG_SCALE = 400 / INCH  # dots an inch over pixels
FAINT = 0.45  # least opacity of a line
SHRINK, LEAST_MARK = 0.65, 3.0  # of markers, which are sized for the screen
DASHES = {"dash": "5px,2.5px", "dot": "1.5px,2px", "dashdot": "5px,2px,1.5px,2px"}
DASHES |= {"longdash": "9px,2.5px", "longdashdot": "9px,2px,1.5px,2px"}  # shorter than the screen's
FARTHER = 1.3
DARK, GRID = "#222", "#e4e4e4"


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
    lay_out(page, INCHES[width] * INCH)
    return page


def _set_type(page: go.Figure) -> None:
    """8 pt wherever plotly would take a size of its own."""
    layout = page.layout
    layout.font = {"size": FONT, "color": DARK}
    for note in layout.annotations:
        note.font.size = FONT
    for axis in axes(page):
        axis.update(title_font_size=FONT, tickfont_size=FONT, title_standoff=4)
        axis.update(showline=True, linecolor=DARK, linewidth=LINE, gridcolor=GRID, gridwidth=LINE)
        if axis.showticklabels is not False:
            axis.update(ticks="outside", ticklen=3, tickcolor=DARK, tickwidth=LINE)
        axis.update(zerolinecolor=GRID, zerolinewidth=LINE)
        axis.exponentformat = axis.exponentformat or "power"
    for scene in page.select_scenes() if is_solid(page) else ():
        eye = scene.camera.eye
        if eye.x is not None:  # from farther away, for titles that are larger than on the screen
            eye.update({name: FARTHER * eye[name] for name in "xyz"})
        for axis in (scene.xaxis, scene.yaxis, scene.zaxis):
            axis.update(title_font_size=FONT, tickfont_size=FONT, nticks=4)
    for bar in scales(page):
        bar.update(title_font_size=FONT, tickfont_size=FONT, ticklen=2)
        bar.update(outlinewidth=0)


def _thicken(trace: Any) -> None:
    """Lines that print, and marks in proportion to the smaller figure."""
    line = getattr(trace, "line", None)
    drawn = "lines" in (getattr(trace, "mode", None) or "")
    if drawn and line is not None and line.width != 0 and getattr(trace, "fill", None) is None:
        line.width = max(line.width or LINE, LINE)
        line.dash = DASHES.get(line.dash, line.dash)
        if trace.opacity is not None:
            trace.opacity = max(trace.opacity, FAINT)
    if trace.type == "scatter" and "text" in (trace.mode or ""):
        trace.mode = trace.mode.replace("+text", "")  # there is no room, and the legend says it
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
