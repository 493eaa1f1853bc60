"""One look for all figures, and the one way to write them."""

import html
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from trm_interp.figures.look import Look
from trm_interp.figures.paper import PNG_SCALE, caption_of, choices, for_paper, latex_caption
from trm_interp.figures.pictures import NoPictures, draw
from trm_interp.runtime.files import replacing, write_text

# Okabe and Ito's colours, which colour-blind readers tell apart (less yellow and black)
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#7f7f7f"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
SOLVED, FAILED = BLUE, VERMILLION
COLOUR = {"solved": SOLVED, "failed": FAILED}
# so that outcomes are told apart without colours, too
DASH = {"solved": "solid", "failed": "dash"}
SYMBOL = {"solved": "circle", "failed": "x"}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross", "star")
FONT = "Helvetica, Arial, sans-serif"
PLOTLY = "plotly.min.js"
CAPTIONS = (".caption.txt", ".caption.tex")  # endings of the captions of a paper's figures
SCREEN = Look()
HEIGHT, LEAST_HEIGHT = 640, 480  # pixels: of most figures in pictures, and at least on the screen


def literal(text: object) -> str:
    """A text that plotly shows as it stands: no markup, and no value of a template.

    Titles, legends and hover labels show `<b>`, `<a href=...>` and `&amp;` as markup.

    >>> literal("<b> & %{x}")
    '&lt;b&gt; &amp; %&#123;x}'
    """
    return html.escape(str(text), quote=False).replace("%{", "%&#123;")


def styled(figure: go.Figure, title: str, subtitle: str = "", caption: str = "") -> go.Figure:
    """The figure in our style. Names of files and models may stand in its title as they are.

    `caption`: sentences that say without such names what is shown, of how many, and what bands and
    signs mean; a paper has them in place of the title. By default title and subtitle.
    """
    shown = literal(title) + (f"<br><sup>{literal(subtitle)}</sup>" if subtitle else "")
    said = caption or ". ".join(part for part in (title, subtitle) if part) + "."
    figure.update_layout(
        title={"text": shown, "x": 0.02, "font": {"size": 17}},
        meta={"title": title, "caption": said},
        template="plotly_white",
        font={"family": FONT, "size": 13},
        legend={"groupclick": "togglegroup", "itemsizing": "trace", "itemwidth": 50},
        margin={"l": 60, "r": 20, "t": 90, "b": 60},
        height=HEIGHT,
    )
    return figure


def write_html(figure: go.Figure, path: Path, look: Look = SCREEN) -> Path:
    """An interactive page that fills the window and opens offline: plotly.js is written once into
    its folder, or into the page itself where the `look` is self-contained.

    With a `look` that is static or a paper's also PNG and PDF, where kaleido and a browser are
    installed, and for a paper NAME.caption.txt and NAME.caption.tex. The same figure gives the same
    bytes, in every kind of file.
    """
    library, text = path.with_name(PLOTLY), get_plotlyjs()
    if not (look.self_contained or _holds(library, text)):
        write_text(library, text)
    write_text(path, page(figure, True if look.self_contained else PLOTLY))
    if look.style == "paper":
        plain, tex = (path.with_suffix(ending) for ending in CAPTIONS)
        write_text(plain, caption_of(figure) + "\n")
        write_text(tex, latex_caption(figure))
        printed = for_paper(figure, look.width)
        size = {"width": printed.layout.width, "height": printed.layout.height}
        _write_pictures(printed, path, {"png": size | {"scale": PNG_SCALE}, "pdf": size})
    elif look.static:
        size = {"width": 1100, "height": figure.layout.height or 640, "scale": 1.5}
        _write_pictures(without_controls(figure), path, {"png": size, "pdf": size})
    return path


def page(figure: go.Figure, library: str | bool = True) -> str:
    """The HTML of a figure whose width and height follow the window; a figure that is higher than
    most is as high as it needs, and scrolls. `library`: where plotly.js is, True: in the page."""
    layout: Any = figure.layout
    height = layout.height or HEIGHT
    least = height if height > HEIGHT else LEAST_HEIGHT
    layout.height = None
    try:
        return figure.to_html(
            include_plotlyjs=library,
            config={"displaylogo": False, "responsive": True},
            div_id="figure",
            full_html=True,
            auto_play=False,
            default_height=f"max(97vh, {least:g}px)",
        )
    finally:
        layout.height = height


def _holds(path: Path, text: str) -> bool:
    """Does a file hold this text? One that a full disk cut short does not."""
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _write_pictures(
    figure: go.Figure, path: Path, sizes: dict[str, dict[str, int | float]]
) -> None:
    """A picture of each kind, with its size; where they cannot be drawn, the reason on standard
    error."""
    drawing = str(figure.to_json())
    try:
        for kind, size in sizes.items():
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
    """The same picture without menus and sliders; its title says what they show."""
    shown = choices(figure)
    still = go.Figure(figure.data, figure.layout)
    still.layout.sliders, still.layout.updatemenus = (), ()
    if shown:
        title, subtitle, below = figure.layout.title.text.partition("<br>")
        text = f"{title} ({', '.join(shown)}){subtitle}{below}"
        still.update_layout(title={"text": text})
    return still
