"""How figures are written: for the screen, or as they go into a paper. Needs no plotly."""

from dataclasses import dataclass
from typing import Any, Literal

Style = Literal["screen", "paper"]
Width = Literal["single", "double"]
INCHES: dict[str, float] = {
    "single": 3.35,
    "double": 6.9,
}  # 85 and 175 mm: fit most two-column pages
STYLE_HELP = (
    "look of PNG and PDF; paper: 8 pt fonts, no title, thick enough lines, a caption file beside "
    "each, drawn without --static as well"
)
WIDTH_HELP = f"width in print: one column ({INCHES['single']} in) or both ({INCHES['double']} in)"
SELF_CONTAINED_HELP = "every figure opens alone (5 MB each), without plotly.min.js beside it"
ON_PAPER = {"style": ("paper",)}  # what a width needs


@dataclass(frozen=True)
class Look:
    """`static`: also PNG and PDF; `style` of these, which a paper has in any case; `width` of a
    paper's figures, in columns; `self_contained`: pages hold the library that draws them."""

    static: bool = False
    style: Style = "screen"
    width: Width = "single"
    self_contained: bool = False

    @classmethod
    def of(cls, config: Any) -> "Look":
        """From settings that have these fields."""
        return cls(config.static, config.style, config.width, config.self_contained)

    @property
    def words(self) -> tuple[str, ...]:
        """The options that ask for it on a command line.

        >>> Look(static=True).words, Look(style="paper").words
        (('--static',), ('--style', 'paper', '--width', 'single'))
        """
        alone = ("--self-contained",) if self.self_contained else ()
        if self.style == "paper":
            return ("--style", self.style, "--width", self.width, *alone)
        return (*(("--static",) if self.static else ()), *alone)
