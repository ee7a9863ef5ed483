"""Which photos are pretrained on, and which never: test photos and their patients stay out, under any file name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.pretrain.monitor import LabelledPhotos

if TYPE_CHECKING:
    from dermlab.data.dataset import Dataset
    from dermlab.pretrain.config import PretrainSettings


@dataclass(frozen=True)
class Photos:
    """The photos of all folders, one after the other.

    Attributes:
        paths: of all N.
        rows: int64, those that are pretrained on.
        withheld: int64, test photos and what belongs to their groups.
        labelled: what the monitor looks at.
        told: sentences on what was left out, for log, card and reader.
        warnings: what the reader must know.
    """

    paths: list[Path]
    rows: np.ndarray
    withheld: np.ndarray
    labelled: list[LabelledPhotos]
    told: list[str]
    warnings: list[str]

    def without_copies(self, contents: Sequence[str]) -> np.ndarray:
        """Return ``rows`` without photos whose file is byte for byte a withheld one, in whichever folder."""
        held = {contents[row] for row in self.withheld.tolist()}
        return np.array([row for row in self.rows.tolist() if contents[row] not in held], np.int64)


def gather_photos(datasets: Sequence[Dataset], settings: PretrainSettings) -> Photos:
    """Choose the photos of a run.

    Raises:
        InputError: a folder has splits but not the one named, the split has no such fold, or nothing is left.
    """
    paths: list[Path] = []
    rows, withheld = [], []
    labelled: list[LabelledPhotos] = []
    told: list[str] = []
    warnings: list[str] = []
    for dataset in datasets:
        first = len(paths)
        paths += dataset.paths
        part = _part(dataset, settings)
        out = np.zeros(len(dataset), bool)
        if part is None:
            warnings.append(
                f"{dataset.card.name} has no split: all of its {len(dataset):,} photos are pretrained on, and a split "
                "made later would test on photos that the encoder knows; 'dermlab data split' first"
            )
        else:
            test, groups = part == "test", dataset.groups()
            out = np.isin(groups, groups[test])
            others = [name for name in dataset.split_names() if name != settings.split]
            if settings.include_test:
                warnings.append(
                    f"{dataset.card.name}: {int(test.sum()):,} test photos of {settings.split!r} are pretrained on"
                )
                out[:] = False
            else:
                n_groups = len(np.unique(groups[test]))
                told.append(
                    f"{dataset.card.name}: {int(out.sum()):,} of {len(dataset):,} photos left out, the test part of "
                    f"split {settings.split!r}{f', fold {settings.fold}' if settings.fold else ''} and all of its "
                    f"{n_groups:,} groups ({dataset.group_column()})"
                )
                n_folds = dataset.read_split(settings.split)[["repeat", "fold"]].drop_duplicates().shape[0]
                if n_folds > 1:
                    warnings.append(
                        f"{dataset.card.name}: split {settings.split!r} has {n_folds} folds, and the test photos of "
                        f"the others are pretrained on; only fold {settings.fold} may test this encoder"
                    )
                if others:
                    warnings.append(
                        f"{dataset.card.name}: test photos of its other splits ({', '.join(others)}) may be pretrained "
                        f"on; only {settings.split!r} may test this encoder"
                    )
            found = _labelled(dataset, part, settings, first)
            if found is not None:
                labelled.append(found)
        rows.append(first + np.flatnonzero(~out))
        withheld.append(first + np.flatnonzero(out))
    chosen = np.concatenate(rows)
    if not len(chosen):
        raise InputError("no photo is left to pretrain on: all are test photos or of their groups")
    return Photos(paths, chosen, np.concatenate(withheld), labelled, told, warnings)


def _part(dataset: Dataset, settings: PretrainSettings) -> np.ndarray | None:
    """Return each photo's part of the split, str (N,), or None where the folder has no split at all."""
    names = dataset.split_names()
    if not names:
        return None
    if settings.split not in names:
        raise InputError(
            f"{dataset.folder}: has no split {settings.split!r} whose test photos could be left out; --split one of "
            f"{', '.join(names)}"
        )
    split = dataset.read_split(settings.split)
    mine = (split["repeat"] == 0) & (split["fold"] == settings.fold)
    if not mine.any():
        raise InputError(f"fold: split {settings.split!r} of {dataset.folder} has no fold {settings.fold}")
    return split.loc[mine, "split"].to_numpy(str)


def _labelled(dataset: Dataset, part: np.ndarray, settings: PretrainSettings, first: int) -> LabelledPhotos | None:
    """Return labelled photos of train and val, at most so many of each; None where there are too few or no classes."""
    names = [target.column for target in dataset.card.targets]
    if not names or (settings.monitor_target is not None and settings.monitor_target not in names):
        return None
    target = dataset.card.target(settings.monitor_target)
    if target.kind == "multilabel":
        return None
    codes = pd.Index(target.classes).get_indexer(pd.Index(dataset.labels(target.column))).astype(np.int64)
    chosen = []
    for name in ("train", "val"):
        rows = np.flatnonzero((part == name) & (codes >= 0))
        if len(rows) > settings.monitor_photos:
            draw = generator(settings.seed, "monitor", dataset.card.name, name)
            rows = np.sort(draw.choice(rows, settings.monitor_photos, replace=False))
        chosen.append(rows)
    bank, queries = chosen
    if len(bank) < 2 or not len(queries):
        return None
    return LabelledPhotos(
        dataset.card.name, first + bank, codes[bank], first + queries, codes[queries], len(target.classes)
    )
