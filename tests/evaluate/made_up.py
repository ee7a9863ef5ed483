"""Predictions of made-up models on made-up patients, as arrays and as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

CLASSES = ("ACK", "BCC", "MEL", "NEV")


def simulated(seed: int, n: int = 300, n_groups: int = 120, n_classes: int = 4, skill: float = 1.5) -> Any:
    """Return labels (N,), probabilities (N, C) and groups (N,); classes are unbalanced, groups shift their scores."""
    random = np.random.default_rng(seed)
    group = random.integers(0, n_groups, n)
    prior = np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum()
    label = random.choice(n_classes, n, p=prior)
    scores = random.normal(size=(n, n_classes)) + random.normal(size=(n_groups, n_classes))[group]
    scores[np.arange(n), label] += skill
    powers = np.exp(scores)
    return label, powers / powers.sum(axis=1, keepdims=True), group


def as_table(label: np.ndarray, probabilities: np.ndarray, group: np.ndarray, classes: Any = CLASSES) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "image_id": [f"im{row}" for row in range(len(label))],
            "group": [f"P{code}" for code in group],
            "label": [classes[code] for code in label],
        }
    )
    frame[[f"p:{name}" for name in classes]] = probabilities
    return frame


def folded(seed: int = 0, n: int = 600, n_folds: int = 2, n_groups: int = 200, **options: Any) -> pd.DataFrame:
    """A table of folds, each with its own val and test; no group is in both of one fold."""
    parts = []
    for fold in range(n_folds):
        label, probabilities, group = simulated(seed + fold, n=n, n_groups=n_groups, **options)
        frame = as_table(label, probabilities, group)
        frame["image_id"] = [f"f{fold}im{row}" for row in range(n)]
        frame["group"] = [f"f{fold}P{code}" for code in group]
        frame["split"] = np.where(group % 2, "val", "test")
        frame["fold"] = fold
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def with_test_labels_permuted(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with the labels of its test rows in another order."""
    changed = frame.copy()
    test = (frame["split"] == "test").to_numpy()
    changed.loc[test, "label"] = np.random.default_rng(9).permutation(frame.loc[test, "label"].to_numpy())
    return changed
