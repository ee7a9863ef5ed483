"""Blanks that betray the label are found, honest ones are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from dermlab.core.randomness import generator
from dermlab.data.missingness import group_folds, group_weights, missingness_auroc, ruled_out_mass

CLASSES = np.array(["ACK", "BCC", "MEL", "NEV", "SCC", "SEK"])
THIRTEEN = {"smoke", "drink", "background_father", "background_mother", "pesticide", "gender", "skin_cancer_history"}
THIRTEEN |= {"cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick", "diameter_1", "diameter_2"}


def made_up_labels(n: int, name: str = "labels") -> np.ndarray:
    return CLASSES[generator(0, name).choice(6, n, p=[0.2, 0.3, 0.05, 0.25, 0.05, 0.15])]


def test_pads_thirteen_leaking_blanks_are_found_and_its_honest_ones_are_not(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "pad-ufes-20" / "metadata.csv").replace("UNK", None)
    questions = table.drop(columns=["patient_id", "lesion_id", "img_id", "diagnostic"])
    found = missingness_auroc(questions.isna(), table["diagnostic"], table["patient_id"].to_numpy())
    assert set(found.loc[found["leaks"], "column"]) == THIRTEEN
    smoke = found.set_index("column").loc["smoke"]
    assert smoke["classes_ruled_out"] == ("BCC", "MEL", "SCC")
    assert smoke["n_missing"] == 331


def test_blanks_at_random_leak_in_one_column_of_a_hundred_at_most() -> None:
    y = made_up_labels(300)
    rng = generator(1, "blanks")
    blank = rng.random((300, 1000)) < rng.uniform(0.02, 0.6, 1000)
    found = missingness_auroc(blank, y, np.arange(300) // 2)
    assert found["leaks"].mean() <= 0.01


def test_blanks_at_random_by_patient_do_not_leak_though_whole_patients_share_class_and_blank() -> None:
    patient = np.arange(600) // 20  # 30 patients of 20 photos each, one class each
    y = made_up_labels(30)[patient]
    blank = (generator(2, "blanks").random((30, 200)) < 0.4)[patient]
    assert missingness_auroc(blank, y, patient)["leaks"].mean() <= 0.01
    # Counted by photos, the same blanks look like evidence: that is why groups are asked for.
    assert missingness_auroc(blank, y)["leaks"].mean() > 0.3


def test_auroc_is_the_rank_statistic_of_the_blank_where_the_direction_is_certain() -> None:
    y = made_up_labels(2000)
    blank = np.where(y == "NEV", generator(3, "a").random(2000) < 0.8, generator(3, "b").random(2000) < 0.2)
    row = missingness_auroc(blank[:, None], y).iloc[0]
    positive = y == "NEV"
    ranks = rankdata(blank)
    expected = (ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / (
        positive.sum() * (~positive).sum()
    )
    assert row["class"] == "NEV"
    assert row["auroc"] == pytest.approx(expected, abs=2e-3)  # folds weigh by their number of positives only


def test_a_blank_that_rules_out_rare_classes_only_together_is_found() -> None:
    rare = np.array([f"rare {i}" for i in range(15)])
    y = np.concatenate([np.repeat(["common"], 300), np.repeat(rare, 4)])
    blank = (y == "common") & (generator(4, "blanks").random(len(y)) < 0.6)
    row = missingness_auroc(blank[:, None], y).iloc[0]
    assert row["leaks"]
    assert len(row["classes_ruled_out"]) == 15


def test_one_mistyped_record_in_a_hundred_does_not_hide_a_leak() -> None:
    y = np.repeat(["benign", "malignant"], [400, 400])
    blank = (y == "benign") & (generator(5, "blanks").random(800) < 0.5)
    blank[-1] = True
    assert missingness_auroc(blank[:, None], y).iloc[0]["ruled_out"] > 0.1


def test_ruled_out_mass_does_not_change_when_classes_excluded_together_are_merged() -> None:
    y = made_up_labels(2000)
    malignant = np.isin(y, ["BCC", "MEL", "SCC"])
    biopsed = malignant | (generator(6, "biopsy").random(2000) < 0.3)
    weights, folds = np.ones(2000), group_folds(np.arange(2000))
    fine, _ = ruled_out_mass(biopsed.astype(int), np.unique(y, return_inverse=True)[1], weights, folds)
    coarse, pairs = ruled_out_mass(biopsed.astype(int), malignant.astype(int), weights, folds)
    assert fine == pytest.approx(coarse)
    assert fine == pytest.approx((~biopsed).mean() * malignant.mean())
    assert pairs == [(0, 1)]


def test_labels_of_a_multilabel_target_are_tested_one_by_one() -> None:
    rng = generator(7, "labels")
    y = (rng.random((500, 3)) < 0.4).astype(float)
    y[:5] = np.nan
    blank = np.stack([rng.random(500) < 0.3, (y[:, 1] == 1) & (rng.random(500) < 0.9)], axis=1)
    found = missingness_auroc(pd.DataFrame(blank, columns=["honest", "leaking"]), y)
    assert found["leaks"].tolist() == [False, True]
    assert found["class"].iloc[1].endswith("label 1")


def test_rows_without_a_label_say_nothing() -> None:
    y = made_up_labels(400).astype(object)
    blank = generator(8, "blanks").random(400) < 0.5
    alone = missingness_auroc(blank[:300, None], y[:300], np.arange(300))
    y[300:] = None
    assert missingness_auroc(blank[:, None], y, np.arange(400)).loc[0, "auroc"] == alone.loc[0, "auroc"]


@pytest.mark.parametrize("blank", [np.zeros((50, 2), bool), np.ones((50, 2), bool)])
def test_columns_never_or_always_blank_are_no_leak(blank: np.ndarray) -> None:
    assert not missingness_auroc(blank, made_up_labels(50))["leaks"].any()


def test_no_column_and_one_class_are_answered_too() -> None:
    assert missingness_auroc(np.zeros((10, 0), bool), made_up_labels(10)).empty
    assert not missingness_auroc(np.eye(10, dtype=bool), np.repeat("NEV", 10))["leaks"].any()


def test_folds_deal_out_groups_whole_and_evenly_and_weights_count_them() -> None:
    groups = np.repeat([f"p{i}" for i in range(40)], np.arange(40) % 5 + 1)
    folds = group_folds(groups)
    assert pd.Series(folds).groupby(groups).nunique().eq(1).all()
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 5
    assert group_weights(groups).sum() == pytest.approx(40)
