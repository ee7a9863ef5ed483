"""What every head promises: scikit-learn's contract, defined answers to awkward data, the same bits, a way to disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from dermlab.adapt.base import Head, hold_out
from dermlab.adapt.config import HeadConfig
from dermlab.adapt.ensemble import EnsembleHead
from dermlab.adapt.floors import MajorityHead
from dermlab.adapt.fusion import FusionHead
from dermlab.adapt.heads import make_head
from dermlab.adapt.knn import KNNHead
from dermlab.adapt.linear import LinearHead
from dermlab.adapt.mlp import MLPHead
from dermlab.adapt.saving import load_head, save_head
from dermlab.core.errors import InputError

SMALL: dict[str, Any] = {"hidden": 16, "epochs": 12, "learning_rate": 1e-2, "n_members": 1}
HEADS: list[Head] = [
    KNNHead(),
    LinearHead(),
    MLPHead(**SMALL),
    FusionHead(n_embedding=1, **SMALL),
    MajorityHead(),
    EnsembleHead(),
]
NAMES = [type(head).__name__ for head in HEADS]


@parametrize_with_checks(HEADS)
def test_scikit_learns_contract(estimator: Head, check: Any) -> None:
    check(estimator)


def photos(n: int = 240, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a problem that all heads can learn, features of unequal spread: (n, 6) and names of classes."""
    random = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    centres = np.random.default_rng(99).normal(size=(n_classes, 6)) * 2
    X = (centres[codes] + random.normal(size=(n, 6))) * np.array([1, 10, 0.1, 1, 1, 5])
    return X.astype(np.float32), np.array(["ACK", "BCC", "MEL", "NEV"], dtype=object)[codes].astype(str)


@pytest.mark.parametrize("head", HEADS, ids=NAMES)
class TestEveryHead:
    def test_probabilities_cover_all_classes_of_the_target(self, head: Head) -> None:
        X, y = photos()
        train, classes = y != "MEL", ("NEV", "MEL", "SCC", "BCC", "ACK")
        fitted = clone(head).set_params(classes=classes).fit(X[train], y[train], validation=(X[:60], y[:60]))
        probabilities = fitted.predict_proba(X)
        assert list(fitted.classes_) == list(classes)
        assert probabilities.shape == (len(X), 5)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
        assert (probabilities[:, [1, 2]] == 0).all()
        assert any("MEL" in text for text in fitted.head_report_["warnings"])

    def test_one_class_alone_is_predicted_with_certainty(self, head: Head) -> None:
        X, y = photos()
        fitted = clone(head).set_params(classes=("ACK", "NEV")).fit(X[y == "NEV"], y[y == "NEV"])
        assert (fitted.predict(X) == "NEV").all()
        assert fitted.head_report_["warnings"]

    def test_a_handful_of_photos_and_constant_features_are_enough(self, head: Head) -> None:
        X, y = photos(8)
        X[:, 2] = 7.0
        probabilities = clone(head).fit(X, y, validation=(X[:3], y[:3])).predict_proba(X)
        assert np.isfinite(probabilities).all()

    def test_values_that_are_not_finite_are_refused(self, head: Head) -> None:
        X, y = photos()
        X[3, 1] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            clone(head).fit(X, y)

    def test_the_same_seed_gives_the_same_bits(self, head: Head) -> None:
        X, y = photos()
        first, second = (clone(head).fit(X, y, validation=photos(60, seed=1)).predict_proba(X) for _ in range(2))
        assert np.array_equal(first, second)

    def test_a_saved_head_predicts_the_same_bits(self, head: Head, tmp_path: Path) -> None:
        X, y = photos()
        fitted = clone(head).set_params(classes=("NEV", "MEL", "SCC", "BCC", "ACK")).fit(X, y)
        save_head(fitted, tmp_path)
        loaded = load_head(tmp_path)
        assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
        assert list(loaded.predict(X)) == list(fitted.predict(X))
        assert {path.name for path in tmp_path.iterdir()} == {"head.json", "head.safetensors"}
        json.loads((tmp_path / "head.json").read_text())

    def test_validation_labels_alone_choose(self, head: Head) -> None:
        """Two fits that differ in val only may differ; the training part never sees val's features."""
        X, y = photos()
        X_val, y_val = photos(60, seed=1)
        chosen = clone(head).fit(X, y, validation=(X_val, y_val)).head_report_
        assert chosen["validation"] == "given"
        assert chosen["n_val"] == 60
        assert chosen["n_train"] == 240


@pytest.mark.parametrize("kind", ["knn", "linear", "mlp", "fusion", "questionnaire", "majority"])
def test_a_word_makes_a_head(kind: str) -> None:
    X, y = photos(80)
    assert make_head(kind, seed=3).set_params(**({"epochs": 2} if kind in ("mlp", "fusion") else {})).fit(X, y)


def test_settings_reach_the_head() -> None:
    head = make_head(HeadConfig(kind="knn", k=(3, 7), weights="uniform"), classes=("a", "b"))
    assert head.get_params() | {"k": (3, 7), "weights": "uniform", "classes": ("a", "b")} == head.get_params()


def test_a_broken_head_on_disk_is_one_line(tmp_path: Path) -> None:
    X, y = photos(80)
    save_head(LinearHead(C=1.0).fit(X, y), tmp_path)
    with pytest.raises(InputError, match=r"head\.json"):
        load_head(tmp_path / "elsewhere")
    data = (tmp_path / "head.safetensors").read_bytes()
    (tmp_path / "head.safetensors").write_bytes(data[:-40])
    with pytest.raises(InputError, match=r"head\.safetensors"):
        load_head(tmp_path)
    (tmp_path / "head.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format"):
        load_head(tmp_path)


def test_the_hold_out_keeps_groups_whole_and_every_class_in_training() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 120, size=300)
    codes = np.where(groups < 3, 2, groups % 2)
    held = hold_out(codes, groups, seed=4)
    assert not set(groups[held]) & set(groups[~held])
    assert set(codes[~held]) == {0, 1, 2}
    assert 0.12 < held.mean() < 0.28
    assert np.array_equal(held, hold_out(codes, groups, seed=4))
    assert not np.array_equal(held, hold_out(codes, groups, seed=5))


def test_a_fit_that_does_not_converge_is_not_ranked() -> None:
    X, y = photos()
    report = LinearHead(C=100.0, max_iter=1, tol=1e-12).fit(X, y, validation=(X, y)).head_report_
    assert not report["converged"]
    assert not report["ranked"]
    assert any("not converge" in text for text in report["warnings"])


def test_class_weights_help_the_rare_class() -> None:
    random = np.random.default_rng(2)
    y = np.repeat(["NEV", "MEL"], [380, 20])
    X = random.normal(size=(400, 3)) + (y == "MEL")[:, None] * 0.8
    for head in (LinearHead(), MLPHead(**SMALL)):
        plain = clone(head).fit(X, y, validation=(X, y)).predict(X)
        balanced = clone(head).set_params(class_weight="balanced").fit(X, y, validation=(X, y)).predict(X)
        recall = [(found[y == "MEL"] == "MEL").mean() for found in (plain, balanced)]
        assert recall[1] > recall[0] + 0.2
