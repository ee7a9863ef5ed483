"""What goes wrong in a training, told from its curves: by name, with the likely cause and the line to change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

DIVERGED_FACTOR = 2.0
"""A val loss this many times the best before it, and above that of guessing, is a divergence: the seeds' ConvNeXt went
from 0.09 to 10.6 in an epoch."""

OVERFIT_EPOCHS = 2
"""Epochs in a row with rising val loss and falling train loss that make an overfitting."""


@dataclass(frozen=True)
class Alarm:
    """One finding.

    Attributes:
        name: ``non-finite``, ``diverged``, ``one-class``, ``no-better-than-majority`` or ``overfitting``.
        epoch: where it began, counted from 1 over all phases; 0: the whole run.
        says: what was seen, the likely cause, what to change.
        disqualifies: whether the run must not be ranked.
    """

    name: str
    epoch: int
    says: str
    disqualifies: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        return asdict(self)


def examine(
    history: Sequence[dict[str, Any]],
    *,
    n_classes: int,
    majority_share: float,
    optimiser: str,
    learning_rate: float,
    n_classes_true: int | None = None,
) -> list[Alarm]:
    """Return the alarms of a run's epochs so far.

    Args:
        history: a dictionary an epoch: ``epoch``, ``phase``, ``train_loss``, ``val_loss``, ``val_top1`` (if any),
            ``n_predicted`` (classes predicted on val), ``n_skipped``, ``n_steps``.
        n_classes: of the target.
        majority_share: share of val that the training part's most frequent class has.
        optimiser: its name in the config.
        learning_rate: of the backbone.
        n_classes_true: classes that occur on val; None: all.

    What is told of a run under way may be taken back by later epochs, except a divergence and what was not finite.
    """
    alarms: list[Alarm] = []
    if not history:
        return alarms
    rate = f"learning_rate: {learning_rate:g} under {optimiser}"
    lower = f"try learning_rate: {learning_rate / 10:g}" + ("" if optimiser == "adamw" else ", optimiser: adamw")
    all_broken = [row for row in history if row["n_skipped"] or not _finite(row["val_loss"])]
    if all_broken:
        broken = next((row for row in all_broken if _is_lost(row)), all_broken[0])
        alarms.append(
            Alarm(
                "non-finite",
                broken["epoch"],
                f"epoch {broken['epoch']}: {broken['n_skipped']} of {broken['n_steps']} steps had a loss or gradient "
                f"that is not finite and were left out; likely {rate} is too much; {lower}, or precision: fp32",
                _is_lost(broken),
            )
        )
    guess = math.log(max(2, n_classes))
    best = math.inf
    for row in history:
        loss = row["val_loss"]
        if _finite(loss) and loss > DIVERGED_FACTOR * best and loss > guess:
            alarms.append(
                Alarm(
                    "diverged",
                    row["epoch"],
                    f"epoch {row['epoch']} ({row['phase']}): val loss {loss:.3g} after {best:.3g}, worse than guessing "
                    f"({guess:.3g}); likely {rate} is too high for this backbone; {lower} and warmup_steps: 200",
                    True,
                )
            )
            break
        best = min(best, loss) if _finite(loss) else best
    last = history[-1]
    if last["n_predicted"] == 1 and (n_classes_true or n_classes) > 1:
        alarms.append(
            Alarm(
                "one-class",
                last["epoch"],
                f"epoch {last['epoch']}: the network predicts one class for all of val; likely {rate}, or a class "
                f"outweighs all others; {lower}, or class_weight: balanced",
                True,
            )
        )
    if "val_top1" in last and max(row["val_top1"] for row in history) <= majority_share:
        alarms.append(
            Alarm(
                "no-better-than-majority",
                0,
                f"no epoch's val top-1 ({max(row['val_top1'] for row in history):.3f}) beats the most frequent class "
                f"({majority_share:.3f}); too few epochs or steps, or {rate} does not learn; more finetune_epochs",
                False,
            )
        )
    start = _overfits_from(history)
    if start is not None:
        alarms.append(
            Alarm(
                "overfitting",
                start,
                f"from epoch {start} val loss rises while train loss falls; finetune_epochs: {start} or patience: 2 "
                "would do; augmentation: strong, drop_path or weight_decay hold it back",
                False,
            )
        )
    return alarms


def _is_lost(row: dict[str, Any]) -> bool:
    """Tell whether more than a tenth of an epoch's steps, or its val, was not finite."""
    return row["n_skipped"] * 10 > row["n_steps"] or not _finite(row["val_loss"])


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _overfits_from(history: Sequence[dict[str, Any]]) -> int | None:
    """Return the first epoch after the best val loss, where from there on val only rose and train only fell."""
    rows = [row for row in history if _finite(row["val_loss"]) and _finite(row["train_loss"])]
    if len(rows) <= OVERFIT_EPOCHS:
        return None
    best = min(range(len(rows)), key=lambda place: rows[place]["val_loss"])
    after = rows[best:]
    if len(after) <= OVERFIT_EPOCHS:
        return None
    falls = after[-1]["train_loss"] < after[0]["train_loss"]
    rises = all(row["val_loss"] > after[0]["val_loss"] for row in after[1:])
    return int(after[1]["epoch"]) if falls and rises else None
