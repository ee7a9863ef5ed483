"""Doubtful labels are listed with what the list is worth; a model's opinion is never an error."""

from __future__ import annotations

import numpy as np
import pytest

from dermlab.audit import mislabelled
from dermlab.audit.mislabelled import exchanged, label_findings, out_of_fold, suspects
from dermlab.core.randomness import generator

CLASSES = ("a", "b", "c")
N = 300


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that tell three classes apart nearly always, their codes, and pairs of photos of one patient."""
    rng = generator(3, "world")
    codes = np.arange(N) % 3
    centres = 3 * rng.standard_normal((3, 20))
    features = (centres[codes] + rng.standard_normal((N, 20))).astype(np.float32)
    return features, codes, np.array([f"p{i // 2}" for i in range(N)])


def findings_of(features: np.ndarray, codes: np.ndarray, groups: np.ndarray) -> list[mislabelled.Finding]:
    ids = np.array([f"i{i}" for i in range(N)])
    labels = np.array(CLASSES, dtype=object)[codes]
    return label_findings("clinic", ids, labels, groups, CLASSES, features, np.ones(N, dtype=bool), source="an encoder")


def test_planted_wrong_labels_come_first(world: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    features, codes, groups = world
    changed, rows = exchanged(codes, groups, 1)
    (finding,) = findings_of(features, changed, groups)
    assert finding.severity == "warning"
    assert finding.table is not None
    listed = finding.table["image_id"].tolist()[: len(rows)]
    assert len({f"i{row}" for row in rows} & set(listed)) >= 0.8 * len(rows)
    first = finding.table.iloc[0]
    assert CLASSES[codes[int(first["image_id"][1:])]] == first["suggested"]


def test_a_list_from_features_that_say_nothing_says_so(world: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, codes, groups = world
    noise = generator(4, "noise").standard_normal((N, 20)).astype(np.float32)
    (finding,) = findings_of(noise, codes, groups)
    assert finding.severity == "info"
    assert "cannot be told" in finding.message
    assert finding.evidence["exchanged"]["lift"] < mislabelled.WORTH_A_LOOK


def test_no_patient_is_judged_by_a_model_that_saw_them(
    world: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, codes, groups = world
    fitted: list[np.ndarray] = []

    class Recorder(mislabelled.LinearHead):
        def fit(self, X, y, *, validation=None, groups=None):  # type: ignore[no-untyped-def]
            fitted.append(np.asarray(groups))
            return super().fit(X, y, validation=validation, groups=groups)

    monkeypatch.setattr(mislabelled, "LinearHead", Recorder)
    probabilities = out_of_fold(features, codes, groups, 3)
    assert len(fitted) == mislabelled.N_FOLDS
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    for seen in fitted:  # whole patients are left out, a fifth of them each time
        assert all((groups == name).sum() == (seen == name).sum() for name in np.unique(seen))
        assert len(np.unique(seen)) == pytest.approx(0.8 * N / 2, abs=3)


def test_suspects_are_cleanlabs_own_by_hand() -> None:
    # Confident learning: 'a' is confidently predicted where its mean self-confidence is reached.
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10)
    codes = np.array([0] * 10 + [1] * 10)
    codes[3] = 1
    assert suspects(codes, probabilities).tolist() == [3]


def test_classes_too_small_to_learn_are_not_judged(world: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    features, codes, groups = world
    few = np.where((codes == 2) & (np.arange(N) > 20), 0, codes)
    for finding in findings_of(features, few, groups):
        assert finding.evidence["classes_judged"] == ["a", "b"]
        assert finding.evidence["n_judged"] < N
