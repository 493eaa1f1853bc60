"""Text of a figure in print: its size, lines that fit, and the numbers that an axis can hold."""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

INCH = 96.0  # pixels
POINT = INCH / 72
FONT = 8 * POINT
ROW = 1.35 * FONT  # height of a line of text
MOST_TICKS, LEAST_TICKS = 8, 3
NICE = (2, 5, 10)  # what plotly rounds the distance of ticks up to
APART = 8  # pixels between labels of an axis
PLAIN = (1e-4, 1e4)  # plotly writes smaller and larger distances of ticks with powers of ten
Span = tuple[float, float]
# widths of Helvetica's letters in thousandths of its size; 556 for all others
WIDTHS = {
    letter: width
    for width, letters in {
        222: "ijl|'",
        278: " !,./:;I[]ft",
        333: "()-r",
        500: "cksvxyzJ",
        584: "+<=>~\u2212\u00b1\u00d7",
        611: "FTZ",
        667: "ABEKPSVXY&",
        722: "CDHNRUw",
        778: "GOQ",
        833: "mM",
        889: "%",
        944: "W",
    }.items()
    for letter in letters
}


def traces(figure: go.Figure) -> tuple[Any, ...]:
    """The traces of a figure, whose types plotly does not declare."""
    return figure.data  # pyright: ignore[reportReturnType]


def text_width(text: str) -> float:
    """Pixels of the longest line in print.

    >>> round(text_width("a<br>in %") / FONT, 3)  # i, n, space and %
    1.945
    """
    lines = text.split("<br>")
    return FONT * max(sum(WIDTHS.get(letter, 556) for letter in line) for line in lines) / 1000


def wrapped(text: str, room: float) -> str:
    """Text in lines that fit `room` pixels, as far as single words do; where it has lines already,
    each of them.

    >>> wrapped("a distance in RMS", 60.0)
    'a distance in<br>RMS'
    """
    lines: list[str] = []
    for part in text.split("<br>"):
        line, *words = part.split(" ")
        for word in words:
            longer = f"{line} {word}"
            if text_width(longer) > room:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "<br>".join(lines)


def n_lines(text: str | None) -> int:
    """Of how many lines a text is.

    >>> n_lines(None), n_lines("a distance<br>in RMS")
    (0, 2)
    """
    return text.count("<br>") + 1 if text else 0


def reference(axis: Any) -> str:
    """How traces and other axes name an axis, such as x or y2."""
    return axis.plotly_name.replace("axis", "")


def values_along(page: go.Figure, axis: Any) -> list[Any]:
    """What visible traces have on an axis, ends of error bars as well."""
    name = reference(axis)
    letter = name[0]
    along = [
        trace
        for trace in traces(page)
        if trace.visible in (None, True) and f"{letter}axis" in trace
        if (trace[f"{letter}axis"] or letter) == name and trace[letter] is not None
    ]
    values = [value for trace in along for value in np.ravel(np.asarray(trace[letter], object))]
    for trace in along:
        bars = getattr(trace, f"error_{letter}", None)
        if bars is not None and bars.array is not None:
            at = np.asarray(trace[letter], float)
            less = bars.array if bars.arrayminus is None else bars.arrayminus
            values += [*(at + np.asarray(bars.array, float)), *(at - np.asarray(less, float))]
    return values


def extent(page: go.Figure, axis: Any) -> Span | None:
    """The range of an axis in its own units (log10 of a logarithmic one) as far as it is set or
    follows from traces; None without numbers."""
    if axis.range is not None and None not in axis.range:
        return float(axis.range[0]), float(axis.range[1])
    group = axis.matches or reference(axis)
    letter = group[0]
    every = page.select_xaxes() if letter == "x" else page.select_yaxes()
    values = [
        float(value)
        for other in every
        if reference(other) == reference(axis) or group in (other.matches, reference(other))
        for value in values_along(page, other)
        if isinstance(value, int | float | np.number)
    ]
    values = [value for value in values if math.isfinite(value)]
    if axis.type == "log":
        values = [math.log10(value) for value in values if value > 0]
    if not values:
        return None
    low = min(0.0, *values) if axis.rangemode in ("tozero", "nonnegative") else min(values)
    set_low, set_high = axis.range or (None, None)
    return (
        low if set_low is None else float(set_low),
        max(values) if set_high is None else float(set_high),
    )


def tick_labels(low: float, high: float, n: int, form: str | None = None) -> list[str]:
    """The labels that plotly gives an axis of at most `n` ticks.

    >>> tick_labels(0.0, 16.0, 4), tick_labels(0.0, 1.0, 2, ".0%")
    (['0', '5', '10', '15'], ['0%', '50%', '100%'])
    """
    rough = (high - low) / n
    if rough <= 0:
        return [f"{low:.3g}"]
    base = 10 ** math.floor(math.log10(rough))
    distance = base * next(step for step in (1, *NICE) if step * base >= rough * (1 - 1e-9))
    decimals = max(0, -math.floor(math.log10(distance) + 1e-9))
    if not PLAIN[0] <= distance <= PLAIN[1]:
        return ["\u22120.5\u00d710-5", "0"]  # as wide as such labels
    first, last = math.ceil(low / distance - 1e-9), math.floor(high / distance + 1e-9)
    ticks = [distance * at for at in range(first, last + 1)]
    if form:
        return [format(tick, form) for tick in ticks]
    texts = [f"{tick:.{decimals}f}" if abs(tick) > distance / 2 else "0" for tick in ticks]
    return [text.replace("-", "\u2212") for text in texts]


def ticks_that_fit(page: go.Figure, axis: Any, room: float) -> int | None:
    """The largest number of ticks of a horizontal axis whose labels do not touch; None where the
    labels are no plain numbers."""
    span = extent(page, axis)
    if span is None or axis.type in ("log", "category") or axis.tickvals is not None:
        return None
    for n in range(MOST_TICKS, LEAST_TICKS, -1):
        labels = tick_labels(*span, n, axis.tickformat)
        if len(labels) * (max(map(text_width, labels), default=0.0) + APART) <= room:
            return n
    return LEAST_TICKS


def label_width(page: go.Figure, axis: Any, length: float) -> float:
    """Pixels of the widest label of a vertical axis of that length."""
    if axis.ticktext is not None:
        return max((text_width(str(text)) for text in axis.ticktext), default=0.0)
    if axis.type == "log":
        return 1.25 * text_width("10-5")  # plotly enlarges powers of ten by a quarter
    if names := categories(page, axis):
        return max(map(text_width, names))
    span = extent(page, axis)
    labels = tick_labels(*span, ticks_upright(length), axis.tickformat) if span else ["0.0"]
    return max(map(text_width, labels), default=0.0)


def ticks_upright(length: float) -> int:
    """The largest number of ticks of a vertical axis of that length."""
    return min(MOST_TICKS, max(LEAST_TICKS, int(length / (2 * FONT))))


def categories(page: go.Figure, axis: Any) -> list[str]:
    """Names along an axis of words, in the order in which they come."""
    values = values_along(page, axis)
    return list(dict.fromkeys(value for value in values if isinstance(value, str)))
