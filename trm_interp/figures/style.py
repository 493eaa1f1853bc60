"""One look for all figures, and the one way to write them."""

import html
import sys
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from trm_interp.figures.pictures import NoPictures, draw
from trm_interp.runtime.files import replacing, write_text

SOLVED, FAILED = "#1f77b4", "#d62728"
COLOUR = {"solved": SOLVED, "failed": FAILED}
# so that outcomes are told apart without colours, too
DASH = {"solved": "solid", "failed": "dash"}
SYMBOL = {"solved": "circle", "failed": "x"}
FONT = "Helvetica, Arial, sans-serif"
PLOTLY = "plotly.min.js"


def literal(text: object) -> str:
    """A text that plotly shows as it stands: no markup, and no value of a template.

    Titles, legends and hover labels show `<b>`, `<a href=...>` and `&amp;` as markup.

    >>> literal("<b> & %{x}")
    '&lt;b&gt; &amp; %&#123;x}'
    """
    return html.escape(str(text), quote=False).replace("%{", "%&#123;")


def styled(figure: go.Figure, title: str, subtitle: str = "") -> go.Figure:
    """The figure in our style. Names of files and models may stand in its title as they are."""
    shown = literal(title) + (f"<br><sup>{literal(subtitle)}</sup>" if subtitle else "")
    figure.update_layout(
        title={"text": shown, "x": 0.02, "font": {"size": 17}},
        template="plotly_white",
        font={"family": FONT, "size": 13},
        legend={"groupclick": "togglegroup", "itemsizing": "constant", "itemwidth": 50},
        margin={"l": 60, "r": 20, "t": 90, "b": 60},
        height=640,
    )
    return figure


def write_html(figure: go.Figure, path: Path, static: bool = False) -> Path:
    """An interactive page; plotly.js is written once into its folder, so that it opens offline.

    static: also PNG and PDF, where kaleido and a browser are installed. The same figure gives the
    same bytes, in every kind of file.
    """
    library, text = path.with_name(PLOTLY), get_plotlyjs()
    if not _holds(library, text):
        write_text(library, text)
    page = figure.to_html(
        include_plotlyjs=PLOTLY, config={"displaylogo": False}, div_id="figure", full_html=True
    )
    write_text(path, page)
    if static:
        _write_pictures(figure, path)
    return path


def _holds(path: Path, text: str) -> bool:
    """Does a file hold this text? One that a full disk cut short does not."""
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _write_pictures(figure: go.Figure, path: Path) -> None:
    """PNG and PDF of a page; where they cannot be drawn, the reason on standard error."""
    still = without_controls(figure)
    drawing = str(still.to_json())
    size = {"width": 1100, "height": figure.layout.height or 640, "scale": 1.5}
    try:
        for kind in ("png", "pdf"):
            picture = draw(drawing, kind, **size)
            if picture is None:
                return
            with replacing(path.with_suffix(f".{kind}")) as to:
                to.write_bytes(picture)
    except NoPictures as error:
        print(f"{path}: going on without PNG and PDF: {error}", file=sys.stderr)
    except ValueError as error:
        print(f"{path}: no PNG and PDF: {error}", file=sys.stderr)


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
        title, subtitle, below = figure.layout.title.text.partition("<br>")
        text = f"{title} ({', '.join(shown)}){subtitle}{below}"
        still.update_layout(title={"text": text})
    return still
