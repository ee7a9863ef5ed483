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
