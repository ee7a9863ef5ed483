"""What a split lets through: patients and lesions in two parts; lesion ids that two patients share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from dermlab.audit.findings import FOLDER, Finding, Severity, examples
from dermlab.core.words import groups_word, plural
from dermlab.data.dataset import PARTS


def assignments(split: pd.DataFrame) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (repeat, fold, part of each image) of a split as :meth:`dermlab.data.dataset.Dataset.read_split` reads it.

    The split comes ordered by repeat, fold and manifest, so that each block lines up with the data set's arrays.
    """
    keys, start = np.unique(split[["repeat", "fold"]].to_numpy(), axis=0, return_index=True)
    parts = split["split"].to_numpy(dtype=str)
    for (repeat, fold), block in zip(keys.tolist(), np.split(parts, np.sort(start)[1:]), strict=True):
        yield repeat, fold, block


def straddling(ids: np.ndarray, split: pd.DataFrame) -> pd.DataFrame:
    """Find the ids of which rows lie in more than one part of one assignment.

    Args:
        ids: id of each image (a patient's, a lesion's, a photo's number), (N,).
        split: every (repeat, fold) a complete assignment of the N images, in manifest order.

    Returns:
        One row per id and assignment: ``id, repeat, fold, parts`` (text like ``train + test``).
    """
    unique, codes = np.unique(np.asarray(ids).astype(str), return_inverse=True)
    found = []
    for repeat, fold, part in assignments(split):
        present = np.zeros((len(unique), len(PARTS)), dtype=bool)
        for place, name in enumerate(PARTS):
            present[codes[part == name], place] = True
        for code in np.flatnonzero(present.sum(axis=1) > 1):
            parts = " + ".join(name for place, name in enumerate(PARTS) if present[code, place])
            found.append((unique[code], repeat, fold, parts))
    return pd.DataFrame(found, columns=["id", "repeat", "fold", "parts"])


def overlap_findings(
    where: str, split_name: str, column: str, ids: np.ndarray, split: pd.DataFrame, *, is_grouping: bool
) -> list[Finding]:
    """Say which patients or lesions a split divides.

    Args:
        where: opens the sentence: data set and split.
        split_name: for the command that mends it.
        column: ``patient_id`` or another column of ids.
        ids: id of each image, (N,); an image without one has an id of its own.
        split: the split.
        is_grouping: False where the card groups by something else on purpose; then it is a warning.
    """
    table = straddling(ids, split)
    if table.empty:
        return []
    n_divided, n_ids = table["id"].nunique(), len(np.unique(ids))
    photos = int(np.isin(ids.astype(str), table["id"].unique()).sum())
    whose = groups_word(column)
    fold = "" if len(split[["repeat", "fold"]].drop_duplicates()) == 1 else " of some fold"
    message = (
        f"{where}: {n_divided:,} of {n_ids:,} {whose} ({plural(photos, 'photo')}) are in more than one part{fold}; "
        f"a model would be tested on {whose} it has seen."
    )
    remedy = f"'dermlab data split {FOLDER} --by {column} --name {split_name}' keeps each in one part; "
    remedy += "or 'waive: [group-overlap]'." if is_grouping else "the card's 'group_by' divides them on purpose."
    severity: Severity = "error" if is_grouping else "warning"
    evidence = {"n": n_divided, "n_groups": n_ids, "column": column, "examples": examples(table)}
    return [Finding("group-overlap", severity, message, evidence, remedy, table)]


def shared_lesion_findings(name: str, manifest: pd.DataFrame) -> list[Finding]:
    """Say which lesion ids belong to two patients: numbered anew for each patient, or filed wrongly.

    Args:
        name: opens the sentence.
        manifest: with ``patient_id`` and ``lesion_id``, where it has them.
    """
    if not {"patient_id", "lesion_id"} <= set(manifest.columns):
        return []
    pairs = manifest[["lesion_id", "patient_id"]].dropna().drop_duplicates()
    shared = pairs[pairs["lesion_id"].duplicated(keep=False)]
    if shared.empty:
        return []
    table = shared.groupby("lesion_id")["patient_id"].agg(", ".join).rename("patients").reset_index()
    message = (
        f"{name}: {plural(len(table), 'lesion id')} {'belongs' if len(table) == 1 else 'belong'} to several patients."
    )
    remedy = (
        "If lesions are numbered anew for each patient, import with ids like PATIENT/LESION; if a photo was filed "
        "under the wrong patient, mend the manifest. Splits keep such patients together until then."
    )
    return [
        Finding("shared-lesion-ids", "warning", message, {"n": len(table), "examples": examples(table)}, remedy, table)
    ]
