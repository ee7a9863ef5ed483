"""Pictures of curves with bands, as PNG and SVG: score over labels, score over severity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermlab.core import words
from dermlab.core.files import atomic_path

# Okabe & Ito 2008, "Color universal design": told apart with any kind of colour vision; shapes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DPI = 150


@dataclass(frozen=True)
class Line:
    """A curve with its band: one name, and for each x a value, a low and a high (None where there is none)."""

    name: str
    x: Sequence[float]
    points: Sequence[dict[str, float | None]]


@dataclass(frozen=True)
class Panel:
    """One set of axes: its title and its lines."""

    title: str
    lines: Sequence[Line]


def draw_curves(
    path: Path,
    panels: Sequence[Panel],
    *,
    x_label: str,
    y_label: str,
    caption: str,
    log_x: bool = False,
    x_ticks: Sequence[float] | None = None,
    n_columns: int = 2,
) -> list[Path]:
    """Draw panels that share their axes and write ``path`` as ``.png`` and ``.svg``; returns both paths.

    Args:
        path: without suffix.
        panels: at least one, each with at least one line; a name has the same colour and mark in all panels.
        x_label: under the lowest panels.
        y_label: beside the left panels.
        caption: under the figure: what the bands are and of how many.
        log_x: logarithmic x.
        x_ticks: where x is marked; None leaves it to the values.
        n_columns: at most so many panels side by side.
    """
    import math
    import textwrap

    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "dermlab", "font.size": 10, "svg.fonttype": "none"}):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, NullFormatter

        n_columns = min(n_columns, len(panels))
        n_rows = math.ceil(len(panels) / n_columns)
        wrapped = textwrap.wrap(caption, int(52 * n_columns) if n_columns > 1 else 74)
        names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
        figure = Figure(figsize=(4.6 * n_columns + 0.4, 3.1 * n_rows + 0.7 + 0.17 * len(wrapped)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for place, axis in enumerate(axes.flat):
            if place >= len(panels):
                axis.set_visible(False)
                continue
            panel = panels[place]
            for line in panel.lines:
                style = names.index(line.name)
                colour, mark = COLOURS[style % len(COLOURS)], MARKS[style % len(MARKS)]
                known = [(x, point) for x, point in zip(line.x, line.points, strict=True) if point["value"] is not None]
                x = [item for item, _ in known]
                axis.plot(x, [p["value"] for _, p in known], color=colour, marker=mark, markersize=5, label=line.name)
                banded = [(item, p["low"], p["high"]) for item, p in known if p["low"] is not None]
                if banded:
                    at, low, high = zip(*banded, strict=True)
                    axis.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
            axis.set_title(panel.title, fontsize=10, loc="left")
            axis.grid(True, color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
            if log_x:
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.count(round(value))))
                axis.xaxis.set_minor_formatter(NullFormatter())
            if x_ticks is not None:
                axis.set_xticks(list(x_ticks))
            if place + n_columns >= len(panels):
                axis.set_xlabel(x_label)
                axis.tick_params(labelbottom=True)
            if place % n_columns == 0:
                axis.set_ylabel(y_label)
        handles, labels = _legend(axes)
        if len(names) > 1:
            figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(names)), frameon=False)
        figure.supxlabel("\n".join(wrapped), fontsize=8, color="#444444")
        written = []
        metadata: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None}}
        for suffix, said in metadata.items():
            target = path.with_name(path.name + suffix)
            with atomic_path(target) as temporary:
                figure.savefig(temporary, format=suffix[1:], dpi=DPI, metadata=said)
            written.append(target)
    return written


def _legend(axes: Any) -> tuple[list[Any], list[str]]:
    """Return one handle for each name over all panels."""
    found: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def draw_sheet(
    path: Path, rows: Sequence[tuple[str, Sequence[Any], Sequence[str]]], titles: Sequence[str], *, tile_px: int = 150
) -> Path:
    """Draw photos as a table and write it as PNG.

    Args:
        path: of the picture.
        rows: for each its name, its photos (H, W, 3) uint8 and what is written under each.
        titles: of the columns.
        tile_px: longest side of a photo in the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = tile_px / 100
    figure = Figure(figsize=(size * len(titles) + 1.7, (size + 0.22) * len(rows) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for place, (name, photos, below) in enumerate(rows):
        for column, (photo, text) in enumerate(zip(photos, below, strict=True)):
            axis = axes[place, column]
            axis.imshow(photo)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
            axis.set_xlabel(text, fontsize=8, labelpad=2)
            if place == 0:
                axis.set_title(titles[column], fontsize=9)
        axes[place, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})
    return path
