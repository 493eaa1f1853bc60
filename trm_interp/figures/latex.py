"""Tables as LaTeX prints them, in the style of booktabs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SIGNS |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
SIGNS |= {"<": r"\textless{}", ">": r"\textgreater{}"}
NONE = "--"


def escaped(text: str) -> str:
    """Text as LaTeX prints it.

    >>> escaped("50 % of z_H & more")
    '50 \\\\% of z\\\\_H \\\\& more'
    """
    return "".join(SIGNS.get(sign, sign) for sign in text)


def booktabs(head: Sequence[str], rows: Sequence[Sequence[str]], align: str, note: str = "") -> str:
    """A tabular of these cells, which are escaped; `align`: its column types. `note`: a sentence
    below it, over the whole width."""
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        _row(head),
        "\\midrule",
        *map(_row, rows),
        "\\bottomrule",
    ]
    if note:
        wide = f"\\multicolumn{{{len(head)}}}{{p{{0.95\\linewidth}}}}"
        lines.append(f"{wide}{{\\footnotesize {escaped(note)}}}")
    return "\n".join([*lines, "\\end{tabular}", ""])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def latex_table(
    table: "pd.DataFrame",
    names: Mapping[str, str] | None = None,
    wide: Mapping[str, float] | None = None,
    note: str = "",
) -> str:
    """A data frame as `booktabs`: numbers at the right, with three significant digits.

    `names`: the columns that are printed, in this order, with their headings; all of them by their
    own names where it is left out. `wide`: columns of running text, with their share of the line.

    >>> import pandas as pd
    >>> print(latex_table(pd.DataFrame({"n": [3], "share": [0.5]}), {"share": "share (%)"}))
    % needs \\usepackage{booktabs}
    \\begin{tabular}{r}
    \\toprule
    share (\\%) \\\\
    \\midrule
    0.5 \\\\
    \\bottomrule
    \\end{tabular}
    <BLANKLINE>
    """
    from pandas.api.types import is_numeric_dtype  # pandas takes a third of a second

    heads = dict(names) if names else {str(name): str(name) for name in table.columns}
    columns = [table[name] for name in heads]
    kinds = [
        f"p{{{wide[name]:g}\\linewidth}}"
        if wide and name in wide
        else ("r" if is_numeric_dtype(table[name]) else "l")
        for name in heads
    ]
    rows = [[_cell(value) for value in row] for row in zip(*columns, strict=True)]
    return booktabs(list(heads.values()), rows, " ".join(kinds), note)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return NONE if value != value else f"{value:.3g}"
    return NONE if value is None or value == "" else str(value)
