"""How classes are spread is told where it matters, and a stratified split is left in peace."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency

from dermlab.audit.balance import _homogeneity_p, class_findings, group_findings, part_findings, site_findings
from dermlab.core.randomness import generator

CLASSES = ("a", "b", "c")


def split_of(*folds: list[str]) -> pd.DataFrame:
    frames = [pd.DataFrame({"split": parts, "fold": fold, "repeat": 0}) for fold, parts in enumerate(folds)]
    return pd.concat(frames, ignore_index=True)


def codes(findings: list) -> list[str]:
    return [finding.code for finding in findings]


def test_a_stratified_split_of_enough_groups_gets_no_finding() -> None:
    labels = np.array(list("aaabbc") * 60, dtype=object)
    parts = np.repeat(["train", "val", "test"], 120)
    assert part_findings("x", labels, np.arange(360), split_of(parts.tolist()), CLASSES) == []


def test_val_and_test_of_unlike_make_up_are_told_with_the_class_that_differs_most() -> None:
    labels = np.array(list("aab") * 40 + list("abb") * 40 + list("aab") * 40, dtype=object)
    parts = np.repeat(["train", "val", "test"], 120)
    (finding,) = part_findings("x", labels, np.arange(360), split_of(parts.tolist()), CLASSES)
    assert finding.code == "prior-shift"
    assert "val and test differ" in finding.message
    assert "33% of val and 67% of test" in finding.message


def test_unlike_photos_of_few_patients_are_no_evidence_of_unlike_make_up() -> None:
    labels = np.array(["a"] * 60 + ["b"] * 60, dtype=object)
    parts = np.array(["val"] * 30 + ["test"] * 30 + ["val"] * 40 + ["test"] * 20, dtype=object)
    patients = np.arange(120) // 10
    assert "prior-shift" not in codes(part_findings("x", labels, patients, split_of(parts.tolist()), ("a", "b")))


def test_an_absent_class_names_part_and_folds() -> None:
    labels = np.array(list("aabbcc"), dtype=object)
    split = split_of(["train", "test"] * 3, ["train", "test", "train", "test", "train", "train"])
    found = part_findings("x", labels, np.arange(6), split, CLASSES)
    (finding,) = [finding for finding in found if finding.code == "absent-class"]
    assert "test has no c (in 1 of 2 folds)" in finding.message


def test_few_groups_are_counted_over_the_folds_that_tile_the_data() -> None:
    labels = np.array(["a"] * 20 + ["b"] * 6, dtype=object)
    patients = np.array([*range(20), 20, 20, 21, 21, 22, 23])
    half = patients % 2 == 0
    split = split_of(np.where(half, "test", "train").tolist(), np.where(half, "train", "test").tolist())
    found = part_findings("x", labels, patients, split, ("a", "b"))
    (finding,) = [finding for finding in found if finding.code == "few-groups"]
    assert finding.evidence["examples"] == [{"class": "b", "groups_in_test": 4}]


def test_unlabelled_photos_and_empty_classes_are_counted() -> None:
    labels = np.array(["a", "a", "a", "b", None], dtype=object)
    found = {f.code: f for f in class_findings("x", "dx", labels, np.arange(5), CLASSES)}
    assert "1 photo of 5 has no 'dx'" in found["unlabelled"].message
    assert found["empty-class"].evidence == {"classes": ["c"]}
    assert "a is 75% of the photos" in found["class-imbalance"].message


def test_few_groups_and_one_that_outweighs_the_rest_are_told() -> None:
    groups = np.array([*["unknown"] * 50, *map(str, range(60))])
    several, finding = group_findings("x", "patient_id", groups)
    assert several.severity == "info"
    assert several.evidence["n"] == 1
    assert finding.code == "large-groups"
    assert "'unknown' has 50 of 110" in finding.message
    assert codes(group_findings("x", "patient_id", np.arange(12))) == ["few-groups"]
    (repeated,) = group_findings("x", "lesion_id", np.arange(40).repeat(2))
    assert "40 of 40 lesions have several photos (80, up to 2 each)" in repeated.message
    assert group_findings("x", "image_id", np.arange(40)) == []


def test_a_test_part_that_rests_on_one_patient_is_told() -> None:
    groups = np.array([*["much"] * 10, *map(str, range(50))])
    parts = ["test"] * 30 + ["train"] * 30
    labels = np.array(list("abc") * 20, dtype=object)
    found = [f for f in part_findings("x", labels, groups, split_of(parts), CLASSES) if f.code == "large-groups"]
    assert "'much' alone has 10 of the 30 photos of test" in found[0].message
    assert "large-groups" not in codes(part_findings("x", labels, groups, split_of(parts[::-1]), CLASSES))


def test_a_class_of_one_site_is_confounded_with_it_where_others_were_expected() -> None:
    labels = np.array(["a"] * 40 + ["b"] * 40, dtype=object)
    groups = np.arange(80)
    mixed = np.array(["north", "south"] * 40, dtype=object)
    assert site_findings("x", "site", mixed, labels, groups, CLASSES) == []
    apart = mixed.copy()
    apart[40:] = "south"
    (finding,) = site_findings("x", "site", apart, labels, groups, CLASSES)
    assert finding.severity == "warning"
    assert "b only in 'south'" in finding.message
    few = np.where(np.arange(80) < 76, "a", "b").astype(object)  # four photos from one site: chance
    assert site_findings("x", "site", apart, few, groups, CLASSES) == []
    assert site_findings("x", "site", np.full(80, "north", dtype=object), labels, groups, CLASSES) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_test_of_homogeneity_is_scipys(seed: int) -> None:
    counts = generator(seed, "counts").integers(1, 40, (2, 5)).astype(float)
    assert _homogeneity_p(counts) == pytest.approx(chi2_contingency(counts, correction=False).pvalue)
