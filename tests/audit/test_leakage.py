"""What crosses the parts of a split is found, whoever made the split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dermlab.audit.leakage import assignments, overlap_findings, shared_lesion_findings, straddling
from dermlab.core.randomness import generator


def split_of(*folds: list[str]) -> pd.DataFrame:
    n = len(folds[0])
    frames = [
        pd.DataFrame({"image_id": [f"i{i}" for i in range(n)], "split": parts, "fold": fold, "repeat": 0})
        for fold, parts in enumerate(folds)
    ]
    return pd.concat(frames, ignore_index=True)


def test_assignments_come_one_by_one_in_the_order_of_the_manifest() -> None:
    split = split_of(["train", "val", "test"], ["test", "train", "val"])
    assert [(repeat, fold, parts.tolist()) for repeat, fold, parts in assignments(split)] == [
        (0, 0, ["train", "val", "test"]),
        (0, 1, ["test", "train", "val"]),
    ]


def test_a_patient_in_two_parts_is_found_in_every_fold_where_it_is() -> None:
    split = split_of(["train", "train", "test", "val"], ["train", "test", "test", "val"])
    table = straddling(np.array(["p", "p", "q", "r"]), split)
    assert table.to_dict(orient="records") == [{"id": "p", "repeat": 0, "fold": 1, "parts": "train + test"}]


def test_straddling_is_what_pandas_counts_by_hand() -> None:
    rng = generator(0, "split")
    ids = rng.integers(0, 80, 400).astype(str)
    split = split_of(*[rng.choice(["train", "val", "test"], 400, p=[0.8, 0.1, 0.1]).tolist() for _ in range(4)])
    by_hand = split.assign(id=np.tile(ids, 4)).groupby(["fold", "id"])["split"].nunique()
    expected = set(by_hand[by_hand > 1].index)
    table = straddling(ids, split)
    assert set(zip(table["fold"], table["id"], strict=True)) == expected


def test_a_divided_patient_is_an_error_with_the_command_that_mends_it() -> None:
    split = split_of(["train", "test", "test", "val"])
    ids = np.array(["p", "p", "q", "r"])
    (finding,) = overlap_findings("clinic, split 'main'", "main", "patient_id", ids, split, is_grouping=True)
    assert (finding.code, finding.severity) == ("group-overlap", "error")
    assert "1 of 3 patients (2 photos)" in finding.message
    assert "dermlab data split FOLDER --by patient_id --name main" in finding.remedy


def test_patients_divided_on_purpose_are_a_warning_and_undivided_ones_nothing() -> None:
    split = split_of(["train", "test"])
    ids = np.array(["p", "p"])
    (finding,) = overlap_findings("clinic", "main", "patient_id", ids, split, is_grouping=False)
    assert finding.severity == "warning"
    assert overlap_findings("clinic", "main", "patient_id", np.array(["p", "q"]), split, is_grouping=True) == []


def test_a_lesion_id_of_two_patients_is_told() -> None:
    manifest = pd.DataFrame({"patient_id": ["p", "p", "q", None], "lesion_id": ["1", "2", "1", "1"]})
    (finding,) = shared_lesion_findings("clinic", manifest)
    assert finding.severity == "warning"
    assert finding.table is not None
    assert finding.table.to_dict(orient="records") == [{"lesion_id": "1", "patients": "p, q"}]
    assert shared_lesion_findings("clinic", manifest[["patient_id"]]) == []


@pytest.mark.parametrize("column", ["patient_id", "lesion_id", "site"])
def test_the_message_calls_groups_by_their_name(column: str) -> None:
    split = split_of(["train", "test"])
    (finding,) = overlap_findings("clinic", "main", column, np.array(["a", "a"]), split, is_grouping=True)
    assert {"patient_id": "patients", "lesion_id": "lesions", "site": "site"}[column] in finding.message
