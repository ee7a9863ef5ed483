"""The critical-difference diagram: mean ranks of models over data sets, a bar over those that cannot be told apart.

Demšar 2006, JMLR 7:1, fig. 1. Read from the result of :func:`dermlab.evaluate.across.across` or its JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermlab.core.errors import InputError
from dermlab.core.files import atomic_path

INK, BAR = "#222222", "#0072B2"  # dark text, and Okabe & Ito's blue: told apart by place and width, not by colour
DPI = 160


def draw_critical_difference(result: Mapping[str, Any], path: Path) -> Path:
    """Draw the diagram.

    Args:
        result: what :func:`dermlab.evaluate.across.across` returned, for three models or more.
        path: ``.svg`` or ``.png``.

    Returns:
        The path written.

    Raises:
        InputError: there are only two models, so no critical difference, or another kind of file is asked for.
    """
    critical = result["critical_difference"]
    if critical is None:
        raise InputError("critical difference: two models have none; Wilcoxon's test compares them")
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"{path}: a diagram is written as .svg or .png")
    import matplotlib

    models, n = result["models"], len(result["models"])
    on_left = (n + 1) // 2  # the better half is labelled on the left
    n_bars, step = len(result["alike"]), 0.3
    with matplotlib.rc_context({"svg.hashsalt": "dermlab", "font.size": 10, "svg.fonttype": "none"}):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        deepest = 0.35 + step * n_bars + 0.42 * on_left
        figure = Figure(figsize=(8.0, 0.8 * (deepest + 1.6)), layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        axis.axis("off")
        margin = 0.34 * (n - 1)
        axis.set_xlim(1 - margin, n + margin)
        axis.set_ylim(-deepest - 0.55, 1.25)
        axis.plot([1, n], [0, 0], color=INK, linewidth=1.2)
        for rank in range(1, n + 1):
            axis.plot([rank, rank], [0, 0.12], color=INK, linewidth=1.2)
            axis.text(rank, 0.2, str(rank), ha="center", va="bottom", color=INK)
        axis.plot([1, 1 + critical], [0.85, 0.85], color=INK, linewidth=1.2, marker="|", markersize=8)
        axis.text(1, 1.0, f"critical difference {critical:.2f}", ha="left", va="bottom", fontsize=9, color=INK)
        for place, model in enumerate(models):
            left = place < on_left
            row = place if left else n - 1 - place
            y = -(0.35 + step * n_bars + 0.42 * (row + 0.6))
            end = 1 - 0.04 * (n - 1) if left else n + 0.04 * (n - 1)
            rank = model["mean_rank"]
            axis.plot([rank, rank, end], [0, y, y], color=INK, linewidth=0.9)
            text = f"{model['name']}  {rank:.2f}" if left else f"{rank:.2f}  {model['name']}"
            axis.text(
                end, y, f"{text} " if left else f" {text}", ha="right" if left else "left", va="center", color=INK
            )
        ranks = {model["name"]: model["mean_rank"] for model in models}
        for place, alike in enumerate(result["alike"]):
            y = -(0.3 + step * place)
            reach = 0.012 * (n - 1)
            ends = [ranks[alike[0]] - reach, ranks[alike[-1]] + reach]
            axis.plot(ends, [y, y], color=BAR, linewidth=5, solid_capstyle="butt", gid=f"alike-{place}")
        axis.text(
            (1 + n) / 2,
            -deepest - 0.5,
            f"mean rank over {result['n_datasets']} data sets, 1 is best; models under one bar cannot be told apart "
            f"(Nemenyi, {1 - result['level']:.0%} level; Wilcoxon with Holm may judge a pair otherwise)",
            ha="center",
            va="bottom",
            fontsize=8,
            color="#444444",
        )
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=DPI, metadata=metadata)
    return path
