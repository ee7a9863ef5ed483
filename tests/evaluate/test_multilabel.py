"""Multi-label and ordinal metrics against scikit-learn, MedMNIST's Evaluator and sums done by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk

from dermlab.core.errors import InputError
from dermlab.evaluate import bootstrap
from dermlab.evaluate.cases import case_sets, cases_from_arrays
from dermlab.evaluate.compare import compare_predictions
from dermlab.evaluate.metrics import Evaluation, score
from dermlab.evaluate.multilabel import best_threshold, mean_thresholds
from dermlab.evaluate.predictions import read_predictions, write_predictions
from dermlab.evaluate.summary import summarise


def simulated(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = (random.random((n, 4)) < [0.1, 0.3, 0.5, 0.2]).astype(float)
    return truth, np.clip(0.35 * truth + 0.6 * random.random((n, 4)), 0, 1)


def table(tmp_path: Path, name: str = "t", n: int = 300, seed: int = 0, **meta: object):
    truth, probabilities = simulated(n, seed)
    classes = ["a", "b", "c", "d"]
    frame = pd.DataFrame({"image_id": [f"im{k}" for k in range(n)], "group": [f"p{k // 2}" for k in range(n)]})
    frame["split"] = np.where(np.arange(n) % 4 < 2, "val", "test")
    frame[[f"y:{name}" for name in classes]] = truth
    frame[[f"p:{name}" for name in classes]] = probabilities
    return write_predictions(tmp_path / f"{name}.parquet", frame, {"kind": "multilabel", "classes": classes, **meta})


def test_metrics_of_label_sets_agree_with_scikit_learn() -> None:
    truth, probabilities = simulated()
    hard = probabilities >= 0.5
    expected = {
        "micro_auroc": sk.roc_auc_score(truth, probabilities, average="micro"),
        "micro_f1": sk.f1_score(truth, hard, average="micro"),
        "subset_accuracy": sk.accuracy_score(truth, hard),
        "hamming_loss": sk.hamming_loss(truth, hard),
        "auprc": sk.average_precision_score(truth, probabilities),
    }
    assert {name: score(truth, probabilities, name) for name in expected} == pytest.approx(expected)
    with pytest.raises(InputError, match="for multi-label targets"):
        score([0, 1], [[0.5, 0.5], [0.1, 0.9]], "micro_auroc")


def test_metrics_agree_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    import torchmetrics.functional.classification as tm

    truth, probabilities = simulated()
    given = torch.tensor(probabilities), torch.tensor(truth).long()
    assert score(truth, probabilities, "auroc") == pytest.approx(float(tm.multilabel_auroc(*given, num_labels=4)))
    exact = float(tm.multilabel_exact_match(*given, num_labels=4))
    assert score(truth, probabilities, "subset_accuracy") == pytest.approx(exact)


@pytest.mark.parametrize("task", ["multi-label, binary-class", "ordinal-regression", "multi-class", "binary-class"])
def test_auc_and_acc_are_those_of_medmnists_evaluator(task: str) -> None:
    evaluator = pytest.importorskip("medmnist.evaluator")
    truth, probabilities = simulated()
    names = "auroc", "label_accuracy" if task.startswith("multi-label") else "top1"
    scores = probabilities
    if not task.startswith("multi-label"):
        truth = truth[:, 2] if task == "binary-class" else np.random.default_rng(0).integers(0, 4, len(truth))
        scores = probabilities / probabilities.sum(axis=1, keepdims=True)
        if task == "binary-class":
            scores = np.column_stack([1 - probabilities[:, 2], probabilities[:, 2]])
    ours = [score(truth.astype(int) if truth.ndim == 1 else truth, scores, name) for name in names]
    label = truth if truth.ndim == 2 else truth[:, None]
    assert ours == pytest.approx([evaluator.getAUC(label, scores, task), evaluator.getACC(label, scores, task)])


def test_unknown_labels_and_absent_classes_take_no_part() -> None:
    truth = np.array([[1, 0, 0], [np.nan, 1, 0], [0, 1, 0], [np.nan, np.nan, np.nan]])
    probabilities = np.array([[0.9, 0.2, 0.1], [0.8, 0.4, 0.1], [0.1, 0.7, 0.6], [0.5, 0.5, 0.5]])
    values = {
        name: score(truth, probabilities, name)
        for name in ("subset_accuracy", "hamming_loss", "micro_f1", "label_accuracy", "auroc")
    }
    # By hand: row 1 right; row 2 misses b; row 3 calls c wrongly; row 4 is unknown.
    assert values == pytest.approx(
        {
            "subset_accuracy": 1 / 3,
            "hamming_loss": 2 / 8,
            "micro_f1": 2 * 2 / (3 + 3),
            "label_accuracy": (2 / 2 + 2 / 3 + 2 / 3) / 3,
            "auroc": 1.0,  # of a and b; nobody has c
        }
    )


def test_the_bootstrap_draws_whole_groups() -> None:
    truth, probabilities = simulated(120)
    doubled = bootstrap("micro_auroc", np.repeat(truth, 2, 0), np.repeat(probabilities, 2, 0), np.repeat(range(120), 2))
    alone = bootstrap("micro_auroc", truth, probabilities, range(120))
    assert (doubled.value, doubled.low, doubled.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_the_best_threshold_is_the_best_of_all() -> None:
    truth, probabilities = simulated(50)
    for code in range(4):
        chosen = best_threshold(truth[:, code], probabilities[:, code])
        f1 = sk.f1_score(truth[:, code], probabilities[:, code] >= chosen)
        assert f1 == max(sk.f1_score(truth[:, code], probabilities[:, code] >= cut) for cut in probabilities[:, code])
    assert best_threshold(np.array([1, 0, 0.0]), np.array([0.3, 0.2, 0.1])) == pytest.approx(0.25)
    assert best_threshold(np.zeros(3), np.array([0.3, 0.2, 0.1])) == 0.5
    assert best_threshold(np.array([1.0, 0, np.nan]), np.array([0.2, 0.2, 0.9])) == 0.2


def test_thresholds_are_chosen_on_val_and_told(tmp_path: Path) -> None:
    found = read_predictions(write_and_path(tmp_path))
    thresholds = mean_thresholds(found)
    assert thresholds is not None
    val, test = found.part("val"), found.test()
    wanted = {
        name: best_threshold(val.truth()[:, code], val.probabilities()[:, code]) for code, name in enumerate("abcd")
    }
    assert thresholds == pytest.approx(wanted)
    metrics = summarise(found, n_boot=100)
    hard = test.probabilities() >= list(wanted.values())
    assert metrics["macro_f1"]["value"] == pytest.approx(sk.f1_score(test.truth(), hard, average="macro"))
    assert metrics["hamming_loss"]["low"] < metrics["hamming_loss"]["value"] < metrics["hamming_loss"]["high"]
    assert metrics["per_class"]["a"]["recall"]["value"] == pytest.approx(
        sk.recall_score(test.truth()[:, 0], hard[:, 0])
    )
    assert metrics["thresholds"] == pytest.approx(wanted)
    assert any("highest F1 on val" in text for text in metrics["warnings"])


def write_and_path(tmp_path: Path) -> Path:
    table(tmp_path)
    return tmp_path / "t.parquet"


def test_without_val_labels_are_called_from_one_half_and_that_is_said(tmp_path: Path) -> None:
    found = table(tmp_path).test()
    bare = write_predictions(tmp_path / "test.parquet", found.frame, {"kind": "multilabel", "classes": list("abcd")})
    metrics = summarise(bare, n_boot=100)
    assert metrics["thresholds"] is None
    assert any("from probability .5" in text for text in metrics["warnings"])
    hard = found.probabilities() >= 0.5
    assert metrics["micro_f1"]["value"] == pytest.approx(sk.f1_score(found.truth(), hard, average="micro"))


def test_each_fold_has_thresholds_of_its_own(tmp_path: Path) -> None:
    first = table(tmp_path).frame
    second = first.assign(fold=1)
    columns = [f"p:{name}" for name in "abcd"]
    second[columns] = first[columns] / 2
    both = write_predictions(
        tmp_path / "both.parquet", pd.concat([first, second]), {"kind": "multilabel", "classes": list("abcd")}
    )
    sets = case_sets(both).sets
    assert len(sets) == 2
    assert (sets[0].predicted == sets[1].predicted).all()  # half the scores, half the thresholds
    assert sets[0].predicted.any()


def test_two_multilabel_models_are_compared(tmp_path: Path) -> None:
    good = table(tmp_path, "good")
    frame = good.frame.copy()
    columns = [f"p:{name}" for name in "abcd"]
    frame[columns] = np.random.default_rng(1).random((len(frame), 4))
    poor = write_predictions(tmp_path / "poor.parquet", frame, {"kind": "multilabel", "classes": list("abcd")})
    entries = compare_predictions({"good": good, "poor": poor}, n_boot=200, n_permutations=199)
    assert [entry["metric"] for entry in entries] == ["auroc", "auprc", "macro_f1"]
    assert {entry["verdict"] for entry in entries[:2]} == {"a better"}
    label_sets = compare_predictions(
        {"good": good, "poor": poor}, metrics=["hamming_loss", "micro_auroc"], n_boot=200, n_permutations=199
    )
    assert label_sets[0]["test"].startswith("paired permutation")
    assert label_sets[1]["verdict"] == "a better"
    itself = compare_predictions({"x": good, "y": good}, n_boot=200, n_permutations=199)
    assert {entry["verdict"] for entry in itself} == {"cannot tell apart"}


def test_within_one_counts_neighbours() -> None:
    cases = cases_from_arrays([0, 1, 2, 3], [0, 2, 0, 2], classes=range(4), ordinal=True)
    values = Evaluation([cases], ["within_one", "mean_absolute_error", "quadratic_kappa"]).value()
    assert values["within_one"] == 3 / 4
    assert values["mean_absolute_error"] == 1.0
    assert values["quadratic_kappa"] == pytest.approx(
        sk.cohen_kappa_score([0, 1, 2, 3], [0, 2, 0, 2], weights="quadratic")
    )
    with pytest.raises(InputError, match="ordinal"):
        score([0, 1], [[0.5, 0.5], [0.1, 0.9]], "within_one")
