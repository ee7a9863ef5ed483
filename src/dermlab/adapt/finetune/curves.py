"""The training curves as a picture: loss, accuracy and rate by epoch, the epoch that was kept marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermlab.core.files import atomic_path
from dermlab.core.words import metric_words


def draw_curves(history: Sequence[dict[str, Any]], best_epoch: int, stem: str | Path) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.svg`` and return their paths.

    Args:
        history: a dictionary an epoch: ``epoch``, ``phase``, ``train_loss``, ``val_loss``, ``learning_rate``,
            ``val_top1`` and ``val_balanced_accuracy`` (of labels ``val_auroc`` and ``val_macro_f1``); None or NaN
            leaves a gap.
        best_epoch: the epoch whose weights were kept.
        stem: path without suffix.
    """
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in history]

    def values(name: str) -> list[float]:
        return [math.nan if row[name] is None else row[name] for row in history]

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    loss.plot(epochs, values("train_loss"), marker="o", ms=3, label="train (as trained)")
    loss.plot(epochs, values("val_loss"), marker="s", ms=3, label="val")
    loss.set_title("Loss")
    shown = ["top1", "balanced_accuracy"] if "val_top1" in history[0] else ["auroc", "macro_f1"]
    for name, marker in zip(shown, "os", strict=True):
        accuracy.plot(epochs, values(f"val_{name}"), marker=marker, ms=3, label=f"{metric_words(name)[0]} on val")
    accuracy.set_title("Accuracy" if "top1" in shown else "Of all labels")
    rate.plot(epochs, values("learning_rate"), marker="o", ms=3, label="at the epoch's start")
    rate.set_title("Learning rate")
    rate.set_yscale("log")
    frozen = [row["epoch"] for row in history if row["phase"] == "frozen"]
    for axes in (loss, accuracy, rate):
        axes.axvline(best_epoch, color="0.4", ls="--", lw=1, label=f"kept: epoch {best_epoch}")
        if frozen and frozen[-1] != epochs[-1]:
            axes.axvspan(frozen[0] - 0.5, frozen[-1] + 0.5, color="0.93", zorder=0)
        axes.set_xlabel("epoch (grey: backbone frozen)" if frozen else "epoch")
        axes.legend(fontsize=7)
    written = []
    for suffix in (".png", ".svg"):
        path = Path(stem).with_suffix(suffix)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=suffix[1:], dpi=120)
        written.append(path)
    return written
