"""What a report says of the data behind a bake-off: counts, balance, blanks, a few photos of each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab.core.files import json_ready
from dermlab.core.randomness import generator

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.data.dataset import Dataset

SAMPLES_PER_CLASS = 6
MANY_CLASSES = 12  # with more of them fewer photos of each are shown
PARTS = ("train", "val", "test")


def describe_data(
    dataset: Dataset, target: str, split_name: str, split: pd.DataFrame, dropped: Mapping[str, str], *, seed: int
) -> dict[str, Any]:
    """Return the ``data`` part of ``bakeoff.json`` (docs/reference/report.md).

    Args:
        dataset: the data set.
        target: name of the target.
        split_name: name of the split.
        split: its rows, in blocks of manifest order as :meth:`Dataset.read_split` gives them.
        dropped: questionnaire columns left out of the models, with the reason.
        seed: draws the sample photos.
    """
    from dermlab.adapt.probe import split_fingerprint
    from dermlab.data.splits import balance

    card, wanted = dataset.card, dataset.card.target(target)
    labels, groups = dataset.labels(target), dataset.groups()
    member = _members(labels, wanted.classes)
    first = split.iloc[: len(dataset)]["split"].to_numpy(dtype=str)
    blanks = dataset.questionnaire(exclude_proxies=False).isna().mean()
    return {
        "name": card.name,
        "version": card.version,
        "licence": card.licence,
        "licence_card": card.licence_card,
        "citation": card.citation,
        "description": card.description,
        "folder": str(dataset.folder.resolve()),
        "fingerprint": dataset.fingerprint,
        "n_images": len(dataset),
        "n_labelled": int(member.any(axis=1).sum()) if labels.ndim == 1 else int((~np.isnan(labels).any(axis=1)).sum()),
        "n_units": len(np.unique(dataset.units())),
        "n_groups": len(np.unique(groups)),
        "group_by": dataset.group_column(),
        "unit": card.unit,
        "pooling": card.pooling,
        "target": target,
        "kind": wanted.kind,
        "classes": list(wanted.classes),
        "class_names": dict(wanted.names),
        "parts": [
            {"name": part, "n": int((first == part).sum()), "n_groups": len(np.unique(groups[first == part]))}
            for part in PARTS
        ],
        "class_counts": {
            name: {part: int((member[:, code] & (first == part)).sum()) for part in PARTS}
            for code, name in enumerate(wanted.classes)
        },
        "split": {
            "name": split_name,
            "n_folds": int(split["fold"].nunique()),
            "n_repeats": int(split["repeat"].nunique()),
            "fingerprint": split_fingerprint(split),
        },
        "balance": json_ready(balance(split, labels, groups, classes=wanted.classes).to_dict(orient="records")),
        "missing": [{"column": str(column), "share": float(share)} for column, share in blanks.items()],
        "dropped": [{"column": column, "reason": reason} for column, reason in sorted(dropped.items())],
        "quarantine": json_ready(dataset.quarantine.to_dict(orient="records")),
        "samples": _samples(dataset.image_ids, member, wanted.classes, seed),
    }


def _members(labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Return which image is of which class, bool (N, C)."""
    if labels.ndim == 2:
        return labels == 1
    return labels[:, None] == np.array(classes, dtype=object)


def _samples(image_ids: np.ndarray, member: np.ndarray, classes: tuple[str, ...], seed: int) -> dict[str, list[str]]:
    wanted = SAMPLES_PER_CLASS if len(classes) <= MANY_CLASSES else SAMPLES_PER_CLASS // 2
    result = {}
    for code, name in enumerate(classes):
        own = np.flatnonzero(member[:, code])
        drawn = generator(seed, "samples", name).permutation(own)[:wanted]
        result[name] = [str(image_id) for image_id in image_ids[np.sort(drawn)]]
    return result
