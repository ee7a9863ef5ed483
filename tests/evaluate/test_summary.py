"""What metrics.json holds, and what it warns of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from made_up import CLASSES, as_table, simulated

from dermlab.core.errors import InputError
from dermlab.core.files import json_ready
from dermlab.evaluate import summarise, wilson, write_predictions

INTERVAL = {"value", "low", "high"}


def test_the_promised_keys_are_there(table: Callable[..., Any]) -> None:
    metrics = summarise(table(), n_boot=200)
    promised = ["n", "n_groups", "unit", "target", "split", "folds", "classes", "top1", "top3", "balanced_accuracy"]
    promised += ["macro_f1", "auroc", "ece", "per_class", "warnings"]
    assert [key for key in promised if key not in metrics] == []
    assert (metrics["n"], metrics["unit"], metrics["target"], metrics["split"]) == (300, "image", "diagnosis", "test")
    assert metrics["classes"] == list(CLASSES)
    for key in ("top1", "top3", "balanced_accuracy", "macro_f1", "auroc", "ece", "kappa", "brier", "log_loss"):
        assert set(metrics[key]) >= INTERVAL
        assert metrics[key]["low"] <= metrics[key]["value"] <= metrics[key]["high"], key
    for name, found in metrics["per_class"].items():
        assert found["n"] > 0, name
        assert found["recall"]["low"] < found["recall"]["value"] < found["recall"]["high"]
    assert np.sum(metrics["confusion_matrix"]) == 300
    assert sum(item["n"] for item in metrics["reliability"]) == 300
    assert json.loads(json.dumps(json_ready(metrics))) == json_ready(metrics)


def test_values_are_scikit_learns(table: Callable[..., Any]) -> None:
    predictions = table()
    metrics = summarise(predictions, n_boot=100)
    label, said = predictions.truth(), predictions.predicted()
    assert metrics["top1"]["value"] == pytest.approx(sk.accuracy_score(label, said))
    assert metrics["auroc"]["value"] == pytest.approx(
        sk.roc_auc_score(np.eye(4)[label], predictions.probabilities(), average="macro")
    )
    assert metrics["confusion_matrix"] == sk.confusion_matrix(label, said).tolist()
    assert metrics["n_groups"] == predictions.frame["group"].nunique()


def test_independent_photos_have_wilsons_interval(tmp_path: Any) -> None:
    frame = as_table(*simulated(0)).drop(columns="group")
    metrics = summarise(write_predictions(tmp_path / "t.parquet", frame, {"classes": list(CLASSES)}), n_boot=100)
    hits = round(metrics["top1"]["value"] * 300)
    assert (metrics["top1"]["low"], metrics["top1"]["high"]) == pytest.approx(wilson(hits, 300))
    assert "top1" in metrics["interval"]["wilson"]
    assert metrics["group_by"] == "image_id"
    assert any("every image for independent" in text for text in metrics["warnings"])


def test_folds_are_pooled(tmp_path: Any) -> None:
    label, probabilities, group = simulated(0)
    frame = as_table(label, probabilities, group).assign(fold=group % 3)
    metrics = summarise(write_predictions(tmp_path / "t.parquet", frame, {"classes": list(CLASSES)}), n_boot=100)
    assert metrics["folds"] == 3
    assert metrics["auroc"]["value"] == pytest.approx(sk.roc_auc_score(np.eye(4)[label], probabilities))


def test_folds_that_score_the_same_test_set_are_averaged(tmp_path: Any) -> None:
    frames = [as_table(*simulated(0, skill=skill)).assign(fold=fold) for fold, skill in enumerate((1.0, 2.0, 3.0))]
    meta = {"classes": list(CLASSES)}
    metrics = summarise(write_predictions(tmp_path / "t.parquet", pd.concat(frames), meta), n_boot=100)
    each = [sk.accuracy_score(one["label"], one.filter(like="p:").idxmax(axis=1).str[2:]) for one in frames]
    assert metrics["n"] == 300
    assert metrics["top1"]["value"] == pytest.approx(np.mean(each))
    assert any("averaged over the folds, not pooled" in text for text in metrics["warnings"])


def test_repeats_of_cross_validation_are_averaged(tmp_path: Any) -> None:
    label, probabilities, group = simulated(0)
    frames = [
        as_table(label, probabilities, group).assign(fold=(group + shift) % 3, repeat=shift) for shift in range(2)
    ]
    metrics = summarise(
        write_predictions(tmp_path / "t.parquet", pd.concat(frames), {"classes": list(CLASSES)}), n_boot=100
    )
    assert (metrics["n"], metrics["folds"], metrics["repeats"]) == (300, 3, 2)
    assert metrics["auroc"]["value"] == pytest.approx(sk.roc_auc_score(np.eye(4)[label], probabilities))
    assert metrics["per_class"]["ACK"]["n"] == (label == 0).sum()


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_an_absent_class_and_a_tiny_test_set_are_told(tmp_path: Any, method: Any) -> None:
    label, probabilities, group = simulated(0, n=30, n_groups=12)
    kept = label != 2
    frame = as_table(label[kept], probabilities[kept], group[kept])
    predictions = write_predictions(tmp_path / "t.parquet", frame, {"classes": list(CLASSES)})
    metrics = summarise(predictions, n_boot=100, method=method)
    told = " | ".join(metrics["warnings"])
    assert "no case of MEL" in told
    assert "fewer than 10 cases of ACK" in told
    assert "groups: bootstrap intervals from so few" in told
    assert metrics["per_class"]["MEL"]["n"] == 0
    assert metrics["per_class"]["MEL"]["recall"] == {"value": None, "low": None, "high": None}
    assert metrics["auroc"]["value"] is not None


def test_one_class_alone_has_no_auroc_and_says_so(tmp_path: Any) -> None:
    _, probabilities, group = simulated(0, n=30)
    frame = as_table(np.zeros(30, int), probabilities, group)
    metrics = summarise(write_predictions(tmp_path / "t.parquet", frame, {"classes": list(CLASSES)}), n_boot=100)
    assert metrics["auroc"]["value"] is None
    assert "auroc is undefined on these cases" in metrics["warnings"]


def test_one_patient_alone_has_no_interval(tmp_path: Any) -> None:
    frame = as_table(*simulated(0, n=30, n_groups=1))
    metrics = summarise(write_predictions(tmp_path / "t.parquet", frame, {"classes": list(CLASSES)}), n_boot=100)
    assert metrics["macro_f1"]["low"] is None
    assert any("single group" in text for text in metrics["warnings"])


def test_a_constant_model_ties_and_says_so(tmp_path: Any) -> None:
    label, _, group = simulated(0)
    frame = as_table(label, np.full((300, 4), 0.25), group)
    metrics = summarise(write_predictions(tmp_path / "t.parquet", frame, {"classes": list(CLASSES)}), n_boot=100)
    assert metrics["auroc"]["value"] == 0.5
    assert metrics["top3"]["value"] == 0.75
    assert "300 of 300 rows tie for the most probable class; the first in class order counts" in metrics["warnings"]


def test_ordinal_targets_have_ordinal_metrics(table: Callable[..., Any]) -> None:
    predictions = table(meta={"kind": "ordinal"})
    metrics = summarise(predictions, n_boot=100)
    expected = sk.cohen_kappa_score(predictions.truth(), predictions.predicted(), weights="quadratic")
    assert metrics["quadratic_kappa"]["value"] == pytest.approx(expected)
    assert "quadratic_kappa" not in summarise(table(), n_boot=100)


def test_no_label_at_all_is_refused(tmp_path: Any) -> None:
    frame = as_table(*simulated(0, n=20)).assign(label=None)
    with pytest.raises(InputError, match="no row has a label"):
        summarise(write_predictions(tmp_path / "t.parquet", frame, {"classes": list(CLASSES)}))


def test_the_room_is_light_and_callable() -> None:
    code = (
        "import sys, dermlab.evaluate; assert not {'numpy', 'pandas', 'scipy', 'sklearn', 'torch'} & set(sys.modules);"
        "import dermlab; assert callable(dermlab.evaluate); from dermlab.evaluate import bootstrap, summarise;"
        "assert not {'sklearn', 'torch', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_metrics_asked_for_by_name_come_with_intervals(table: Callable[..., Any]) -> None:
    """Proportions among given cases have Wilson's interval, so that one found always is not certain."""
    names = ["sens@thr=0.0001:MEL", "sens@spec=0.9:MEL", "net_benefit@thr=0.1:MEL", "top2"]
    metrics = summarise(table(0), metrics=names, n_boot=200)
    assert list(metrics["further"]) == names
    always = metrics["further"]["sens@thr=0.0001:MEL"]
    assert always["value"] == 1.0
    assert always["low"] < 1.0
    assert always["high"] == 1.0
    for name in names[1:]:
        found = metrics["further"][name]
        assert found["low"] < found["value"] < found["high"]
    assert {"recall", "specificity", "precision", "npv", names[0]} <= set(metrics["interval"]["wilson"])
    assert "further" not in summarise(table(0), n_boot=100)
    area = metrics["auroc"]["delong"]
    assert area["high"] - area["low"] == pytest.approx(metrics["auroc"]["high"] - metrics["auroc"]["low"], rel=0.25)
    with pytest.raises(InputError, match="operating points"):
        summarise(table(0), metrics=["sens@spec=0.9@thr=0.5:MEL"])


def test_the_wilson_interval_of_precision_is_that_of_the_cases_so_called(table: Callable[..., Any]) -> None:
    one = table(0, n_groups=10**6)
    metrics = summarise(one, n_boot=100)
    frame = one.frame
    said = np.array(one.classes)[frame[[f"p:{name}" for name in one.classes]].to_numpy().argmax(axis=1)]
    for name in one.classes:
        right = int(((said == name) & (frame["label"] == name)).sum())
        found = metrics["per_class"][name]["precision"]
        assert found["value"] == pytest.approx(right / (said == name).sum())
        assert (found["low"], found["high"]) == pytest.approx(wilson(right, int((said == name).sum())))


def test_a_class_without_a_case_that_is_predicted_is_said_to_count(table: Callable[..., Any]) -> None:
    """Macro-F1 counts it with 0, as scikit-learn does, while recalls and AUROCs leave it out."""
    whole = table(0)
    without = whole.with_frame(whole.frame[whole.frame["label"] != "MEL"].reset_index(drop=True))
    found = summarise(without, n_boot=100)
    assert np.array(found["confusion_matrix"]).sum(axis=0)[without.classes.index("MEL")] > 0
    told = "no case of MEL: left out of averages over classes; macro-F1 counts MEL with F1 0, being predicted"
    assert told in found["warnings"]
    columns = [f"p:{name}" for name in without.classes]
    answers = np.array(without.classes)[without.frame[columns].to_numpy().argmax(axis=1)]
    assert found["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(without.frame["label"], answers, average="macro", zero_division=0)
    )
    never = without.with_frame(without.frame.assign(**{"p:MEL": 0.0}))
    (said,) = (text for text in summarise(never, n_boot=100)["warnings"] if "no case of" in text)
    assert said == "no case of MEL: left out of averages over classes"
