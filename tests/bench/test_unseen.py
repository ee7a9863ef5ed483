"""Classes held out of training: the scores are the papers', and a photo from elsewhere is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from dermlab.adapt.heads import make_head
from dermlab.bench.unseen import NEIGHBOUR, SCORES, Gaussian, UnseenSettings, novelty_scores, run_unseen
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.features.extract import Features

FAST = {"encoder": "made-up", "split": "main", "n_boot": 100}


def made_up_features(dataset: Dataset, seed: int = 0, distance: float = 6.0) -> Features:
    """Return features in which every class is a cloud of its own."""
    random = np.random.default_rng(seed)
    target = dataset.card.target()
    codes = np.array([target.classes.index(label) for label in dataset.labels()])
    centres = distance * random.normal(size=(len(target.classes), 12)) / np.sqrt(12)
    values = (centres[codes] + random.normal(size=(len(codes), 12)) * 0.5).astype(np.float32)
    return Features(values, np.ones(len(codes), bool), {}, {"name": "made-up", "fingerprint": "0"}, 0.0, 0, 0.0)


@pytest.mark.parametrize(("n", "dimension"), [(200, 12), (30, 60)])
def test_mahalanobis_is_scikit_learns_with_shrunken_covariance(n: int, dimension: int) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(n, dimension)) @ random.normal(size=(dimension, dimension))
    centred = X - X.mean(axis=0)
    theirs = LedoitWolf(assume_centered=True).fit(centred)
    queries = random.normal(size=(7, dimension)) * 5
    np.testing.assert_allclose(Gaussian.fit(centred).squared_distance(queries), theirs.mahalanobis(queries), rtol=1e-6)


def test_scores_are_those_of_the_papers() -> None:
    random = np.random.default_rng(1)
    X = random.normal(size=(120, 8)).astype(np.float32) + np.repeat(np.eye(3, 8) * 4, 40, axis=0).astype(np.float32)
    y = np.repeat(["a", "b", "c"], 40)
    head = make_head("linear").fit(X, y)
    queries = random.normal(size=(9, 8)).astype(np.float32) * 3
    found = novelty_scores(head, X, np.repeat([0, 1, 2], 40), {"test": queries})
    assert set(found) == set(SCORES)
    probabilities = head.predict_proba(queries)
    np.testing.assert_allclose(found["max_softmax"]["test"], 1 - probabilities.max(axis=1))
    np.testing.assert_allclose(found["entropy"]["test"], -(probabilities * np.log(probabilities)).sum(axis=1))
    # The energy is the logarithm of what the softmax divides by: logits − log p are the same for every class.
    logits = ((queries - head.mean_) / head.scale_) @ head.coef_.T + head.intercept_
    np.testing.assert_allclose(-found["energy"]["test"], (logits - np.log(probabilities))[:, 0], rtol=1e-4)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (X, queries)]
    euclidean = NearestNeighbors(n_neighbors=NEIGHBOUR).fit(unit[0]).kneighbors(unit[1])[0][:, -1]
    np.testing.assert_allclose(found["knn"]["test"], euclidean**2 / 2, atol=1e-5)
    means = np.stack([X[y == name].mean(axis=0) for name in "abc"]).astype(float)
    centred = X - np.repeat(means, 40, axis=0)
    within = LedoitWolf(assume_centered=True).fit(centred)
    expected = np.min([within.mahalanobis(queries - mean) for mean in means], axis=0)
    np.testing.assert_allclose(found["mahalanobis"]["test"], expected, rtol=1e-4)


def test_a_class_far_from_the_others_is_flagged(clinic: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(clinic)
    settings = UnseenSettings(**FAST, classes=("NEV", "BCC"))
    found = run_unseen(dataset, settings, tmp_path / "run", features=made_up_features(dataset))
    assert json.loads((tmp_path / "run" / "unseen.json").read_text()) == json.loads(json.dumps(found))
    assert list(found["classes"]) == ["NEV", "BCC"]
    split = dataset.read_split("main")
    n = int(((split["split"] == "test").to_numpy() & (dataset.labels() == "NEV")).sum())
    one = found["classes"]["NEV"]
    assert one["n_unseen"] == n
    assert one["n_seen"] == found["n"] - n
    assert "NEV" not in one["called"]
    assert sum(one["called"].values()) == pytest.approx(1)
    assert one["scores"]["mahalanobis"]["auroc"]["value"] > 0.95
    assert one["scores"]["mahalanobis"]["flagged_unseen"]["value"] > 0.8
    assert one["scores"]["mahalanobis"]["flagged_seen"]["value"] < 0.3
    assert one["scores"]["mahalanobis"]["fpr95"]["value"] < 0.2
    mean = np.mean([part["scores"]["knn"]["auroc"]["value"] for part in found["classes"].values()])
    assert found["mean_auroc"]["knn"]["value"] == pytest.approx(mean)
    assert run_unseen(dataset, settings, tmp_path / "run") == json.loads(json.dumps(found))  # read, not repeated


def test_a_class_like_another_is_not(clinic: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(clinic)
    features = made_up_features(dataset, distance=0.0)
    found = run_unseen(dataset, UnseenSettings(**FAST, classes=("NEV",)), tmp_path / "run", features=features)
    for score in found["classes"]["NEV"]["scores"].values():
        assert score["auroc"]["low"] < 0.5 < score["auroc"]["high"]


def test_the_area_is_scikit_learns(clinic: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(clinic)
    features, split = made_up_features(dataset, distance=2.0), dataset.read_split("main")["split"].to_numpy()
    found = run_unseen(dataset, UnseenSettings(**FAST, classes=("BCC",)), tmp_path / "run", features=features)
    labels = dataset.labels().astype(str)
    train, test = np.flatnonzero((split == "train") & (labels != "BCC")), np.flatnonzero(split == "test")
    unit = features.values / np.linalg.norm(features.values, axis=1, keepdims=True)
    similarity = np.sort(unit[test] @ unit[train].T, axis=1)[:, -NEIGHBOUR]
    expected = roc_auc_score(labels[test] == "BCC", -similarity)
    assert found["classes"]["BCC"]["scores"]["knn"]["auroc"]["value"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"classes": ("XYZ",)}, "'XYZ' is not one of"),
        ({"head": "fusion"}, "one of knn, linear, mlp"),
        ({"target": "malignant"}, "one of two classes held out"),
    ],
)
def test_what_cannot_be_held_out_is_said(clinic: Path, tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        run_unseen(Dataset.open(clinic), UnseenSettings(**{**FAST, **options}), tmp_path / "run")


def test_the_command_prints_a_table(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dermlab.cli import main

    out = tmp_path / "run"
    arguments = ["unseen", str(clinic), "--encoder", "histogram", "--classes", "NEV,MEL", "--out", str(out)]
    assert main([*arguments, "--n_boot", "100"]) == 0
    printed = capsys.readouterr().out
    assert "held out" in printed
    assert "NEV" in printed
    assert "mostly called" in printed
    assert (out / "unseen.json").exists()
