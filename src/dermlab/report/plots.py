"""Geometry of the report's figures: numbers in, positions in percent or pixels out; the templates draw them.

The figures are HTML and inline SVG rather than pictures, so that they follow the reader's text size, a phone's width,
dark mode and the printer, and so that every word in them is escaped by the template engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TICK_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)


@dataclass(frozen=True)
class Axis:
    """A horizontal scale.

    Attributes:
        low: value at the left edge.
        high: value at the right edge.
        ticks: the values that are labelled, all within ``[low, high]``.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def position(self, value: float) -> float:
        """Return where ``value`` stands, in percent of the width; values beyond an edge stand on it."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)


def axis(values: Iterable[float | None], *, bounds: tuple[float, float] = (0.0, 1.0), n_ticks: int = 5) -> Axis:
    """Return a scale with round ticks that holds all finite ``values`` and does not leave ``bounds``.

    Args:
        values: what will be drawn; None and NaN are passed over. Without any the scale is ``bounds``.
        bounds: the possible range, ``(0, 1)`` for a share.
        n_ticks: at most about so many steps between the edges.
    """
    finite = [float(value) for value in values if value is not None and math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else bounds
    low, high = max(low, bounds[0]), min(high, bounds[1])
    if high - low < 0.01:  # one value, or values that a person would call equal
        low, high = max(bounds[0], low - 0.05), min(bounds[1], high + 0.05)
    step = next((size for size in TICK_STEPS if (high - low) / size <= n_ticks), TICK_STEPS[-1])
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 6) for index in range(first, last + 1))
    ticks = tuple(tick for tick in ticks if bounds[0] - 1e-9 <= tick <= bounds[1] + 1e-9)
    return Axis(min(ticks[0], low), max(ticks[-1], high), ticks)


@dataclass(frozen=True)
class ReliabilityPoint:
    """One bin of a reliability diagram: where it stands (SVG pixels) and how large its mark is."""

    x: float
    y: float
    radius: float
    confidence: float
    accuracy: float
    n: int


def reliability_points(
    bins: Sequence[Mapping[str, Any]], *, size: float = 240.0, largest: float = 11.0
) -> list[ReliabilityPoint]:
    """Place the bins of a reliability diagram in a square of ``size`` pixels whose origin is its upper left corner.

    Args:
        bins: ``{"confidence", "accuracy", "n"}`` each: mean confidence, share correct, number of predictions.
        size: side of the square.
        largest: radius of the fullest bin; the area of a mark grows with its n.

    Returns:
        A point for each bin that holds a prediction.
    """
    filled = [item for item in bins if item["n"] and item["accuracy"] is not None]
    most = max((item["n"] for item in filled), default=1)
    return [
        ReliabilityPoint(
            x=round(float(item["confidence"]) * size, 2),
            y=round((1 - float(item["accuracy"])) * size, 2),
            radius=round(max(2.5, largest * math.sqrt(item["n"] / most)), 2),
            confidence=float(item["confidence"]),
            accuracy=float(item["accuracy"]),
            n=int(item["n"]),
        )
        for item in filled
    ]


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix: how many, and which share of its row (of the true class)."""

    n: int
    share: float


def confusion_cells(matrix: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """Return the cells of a confusion matrix (rows: true class, columns: predicted), each with its share of the row."""
    return [[Cell(int(n), n / total if (total := sum(row)) else 0.0) for n in row] for row in matrix]


def stacked(parts: Mapping[str, int], total: int) -> list[tuple[str, int, float]]:
    """Return ``(name, count, width in percent of total)`` for a stacked bar; empty parts are left out."""
    return [(name, count, round(100 * count / total, 3)) for name, count in parts.items() if count and total]


@dataclass(frozen=True)
class Line:
    """A line of a chart: ``y`` at each ``x``, with the ends of its interval where there is one."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


DASHES = ("", "7 4", "2 4", "10 4 2 4", "1 3", "12 5")
MARKS = ("circle", "square", "diamond", "triangle")


def chart(
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    x_kind: str = "number",
    y_kind: str = "share",
    log: bool = False,
    width: float = 560.0,
    height: float = 260.0,
) -> dict[str, Any]:
    """Place lines with their bands in a rectangle whose origin is its upper left corner, in SVG pixels.

    Lines differ by dash and mark as well as by colour.

    Args:
        lines: at least one; a point whose ``y`` is None is passed over.
        x: what the horizontal axis says.
        y: what the vertical axis says.
        x_kind: how its labels are written, a kind of :func:`dermlab.core.words.tick`, or ``count``.
        y_kind: the same of the vertical axis; ``share`` and ``number`` start at 0.
        log: whether the horizontal axis is logarithmic.
        width: of the rectangle.
        height: of the rectangle.
    """
    across = [value for line in lines for value in line.x]
    up = [v for line in lines for v in (*line.y, *line.low, *line.high) if v is not None and math.isfinite(v)]
    scale = axis([0.0, *up], bounds=(0.0, math.inf), n_ticks=6) if up else axis([])
    if log:
        ends = (math.log10(max(min(across), 1e-9)), math.log10(max(*across, 1e-9)))
        ticks = [10.0**power for power in range(math.ceil(ends[0] - 1e-9), math.floor(ends[1] + 1e-9) + 1)]
        ticks = sorted({*ticks, min(across), max(across)}) if len(ticks) < 3 else ticks
        bottom = Axis(ends[0], max(ends[1], ends[0] + 1e-6), tuple(ticks))
    else:
        bottom = axis(across, bounds=(-math.inf, math.inf), n_ticks=6)

    def at(value: float, up_value: float) -> tuple[float, float]:
        place = math.log10(max(value, 1e-9)) if log else value
        return (
            round(bottom.position(place) / 100 * width, 1),
            round(height - scale.position(up_value) / 100 * height, 1),
        )

    series = []
    for place, line in enumerate(lines):
        kept = [index for index, value in enumerate(line.y) if value is not None]
        dots = [at(line.x[index], line.y[index] or 0.0) for index in kept]
        banded = [i for i in kept if line.low and line.low[i] is not None and line.high[i] is not None]
        band = [at(line.x[i], line.high[i] or 0.0) for i in banded]
        band += [at(line.x[i], line.low[i] or 0.0) for i in reversed(banded)]
        series.append(
            {
                "name": line.name,
                "place": place % 6,
                "dash": DASHES[place % len(DASHES)],
                "mark": MARKS[place % len(MARKS)],
                "points": " ".join(f"{a},{b}" for a, b in dots),
                "band": " ".join(f"{a},{b}" for a, b in band),
                "dots": dots if len(dots) <= 16 else [],
            }
        )
    return {
        "width": width,
        "height": height,
        "x": x,
        "y": y,
        "x_kind": x_kind,
        "y_kind": y_kind,
        "x_ticks": [(at(tick, 0.0)[0], tick) for tick in bottom.ticks],
        "y_ticks": [(at(across[0], tick)[1], tick) for tick in scale.ticks],
        "series": series,
    }
