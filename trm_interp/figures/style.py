"""One look for all figures, and the one way to write them."""

import functools
import shutil
import sys
import warnings
from pathlib import Path

import plotly.graph_objects as go

SOLVED, FAILED = "#1f77b4", "#d62728"
COLOUR = {"solved": SOLVED, "failed": FAILED}
FONT = "Helvetica, Arial, sans-serif"


def styled(figure: go.Figure, title: str) -> go.Figure:
    figure.update_layout(
        title={"text": title, "x": 0.02, "font": {"size": 17}},
        template="plotly_white",
        font={"family": FONT, "size": 13},
        legend={"groupclick": "togglegroup", "itemsizing": "constant"},
        margin={"l": 60, "r": 20, "t": 90, "b": 60},
        height=640,
    )
    return figure


def write_html(figure: go.Figure, path: Path, static: bool = False) -> Path:
    """An interactive page; plotly.js is written once beside it, so that it opens offline.

    static: also PNG and PDF beside it, where kaleido and a browser are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs="directory", config={"displaylogo": False})
    if static:
        try:
            _draw(figure, path)
        except Exception as error:  # a browser fails in many ways, and the page is there
            print(f"{path}: no PNG and PDF: {error}", file=sys.stderr)
    return path


def _draw(figure: go.Figure, path: Path) -> None:
    if not can_draw():
        return
    still = without_controls(figure)
    with warnings.catch_warnings():  # plotly tells that a running browser takes no options
        warnings.simplefilter("ignore", UserWarning)
        for kind in ("png", "pdf"):
            height = figure.layout.height or 640
            still.write_image(path.with_suffix(f".{kind}"), width=1100, height=height, scale=1.5)


def without_controls(figure: go.Figure) -> go.Figure:
    """The same picture without menus and sliders; its title says what they show.

    Menus of type "buttons" are taken for play and pause, which show nothing.
    """
    shown = [
        (slider.currentvalue.prefix or "") + slider.steps[slider.active or 0].label
        for slider in figure.layout.sliders
    ] + [
        menu.buttons[menu.active or 0].label
        for menu in figure.layout.updatemenus
        if menu.type != "buttons"
    ]
    still = go.Figure(figure.data, figure.layout)
    still.layout.sliders, still.layout.updatemenus = (), ()
    if shown:
        still.update_layout(title={"text": f"{figure.layout.title.text} ({', '.join(shown)})"})
    return still


@functools.cache
def can_draw() -> bool:
    """Is there what static pictures need? Starts the one browser that draws all of them."""
    try:
        import kaleido
    except ImportError:
        return False
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        return False
    kaleido.start_sync_server(silence_warnings=True)
    return True
