"""Metrics equal scikit-learn's and torchmetrics', on ordinary and on awkward data."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import simulated

from dermlab.core.errors import InputError
from dermlab.evaluate import score
from dermlab.evaluate.cases import cases_from_arrays
from dermlab.evaluate.metrics import (
    METRICS,
    MULTILABEL,
    ONLY_PER_CLASS,
    ORDINAL,
    PER_CLASS,
    Evaluation,
    confusion_matrix,
    metric,
)


def one_hot(label: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes)[label]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_classes", [2, 4, 9])
def test_every_metric_agrees_with_scikit_learn(seed: int, n_classes: int) -> None:
    label, probabilities, _ = simulated(seed, n_classes=n_classes)
    hard = probabilities.argmax(axis=1)
    truth = one_hot(label, n_classes)
    expected = {
        "top1": sk.accuracy_score(label, hard),
        "balanced_accuracy": sk.balanced_accuracy_score(label, hard),
        "macro_f1": sk.f1_score(label, hard, average="macro"),
        "weighted_f1": sk.f1_score(label, hard, average="weighted"),
        "kappa": sk.cohen_kappa_score(label, hard),
        "auroc": sk.roc_auc_score(truth, probabilities, average="macro"),
        "auprc": sk.average_precision_score(truth, probabilities, average="macro"),
        "log_loss": sk.log_loss(label, probabilities, labels=range(n_classes)),
        "brier": sk.brier_score_loss(label, probabilities, labels=range(n_classes)),
    }
    if n_classes > 2:
        for k in (2, 3, 5):
            if k < n_classes:
                expected[f"top{k}"] = sk.top_k_accuracy_score(label, probabilities, k=k, labels=range(n_classes))
    for name, value in expected.items():
        assert score(label, probabilities, name) == pytest.approx(value, abs=1e-12), name


def test_metrics_of_single_classes_agree_with_scikit_learn() -> None:
    label, probabilities, _ = simulated(3)
    hard = probabilities.argmax(axis=1)
    names = [f"{key}:{code}" for key in PER_CLASS for code in range(4)]
    values = Evaluation([cases_from_arrays(label, probabilities)], names).value()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(label, hard)
    for code in range(4):
        assert values[f"recall:{code}"] == pytest.approx(recall[code])
        assert values[f"precision:{code}"] == pytest.approx(precision[code])
        assert values[f"f1:{code}"] == pytest.approx(f1[code])
        assert values[f"auroc:{code}"] == pytest.approx(sk.roc_auc_score(label == code, probabilities[:, code]))
        assert values[f"auprc:{code}"] == pytest.approx(
            sk.average_precision_score(label == code, probabilities[:, code])
        )
    assert (confusion_matrix([cases_from_arrays(label, probabilities)]) == sk.confusion_matrix(label, hard)).all()


def test_calibration_error_agrees_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_calibration_error

    for seed in range(3):
        label, probabilities, _ = simulated(seed, n=500)
        expected = multiclass_calibration_error(
            torch.tensor(probabilities), torch.tensor(label), num_classes=4, n_bins=15, norm="l1"
        )
        assert score(label, probabilities, "ece") == pytest.approx(float(expected), abs=1e-6)


def test_ordinal_metrics_agree_with_scikit_learn() -> None:
    label, probabilities, _ = simulated(1)
    cases = cases_from_arrays(label, probabilities, ordinal=True)
    values = Evaluation([cases], ["quadratic_kappa", "mean_absolute_error"]).value()
    hard = probabilities.argmax(axis=1)
    assert values["quadratic_kappa"] == pytest.approx(sk.cohen_kappa_score(label, hard, weights="quadratic"))
    assert values["mean_absolute_error"] == pytest.approx(np.abs(label - hard).mean())


def test_multilabel_metrics_are_means_over_labels() -> None:
    random = np.random.default_rng(0)
    truth = (random.random((200, 5)) < [0.1, 0.3, 0.5, 0.2, 0.4]).astype(float)
    probabilities = np.clip(0.6 * truth + 0.5 * random.random((200, 5)) - 0.1, 0, 1)
    values = {name: score(truth, probabilities, name) for name in ("macro_f1", "auroc", "auprc", "balanced_accuracy")}
    hard = probabilities >= 0.5
    assert values["macro_f1"] == pytest.approx(sk.f1_score(truth, hard, average="macro"))
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(truth, probabilities))
    assert values["auprc"] == pytest.approx(sk.average_precision_score(truth, probabilities))
    expected = np.mean([sk.balanced_accuracy_score(truth[:, k], hard[:, k]) for k in range(5)])
    assert values["balanced_accuracy"] == pytest.approx(expected)
    with pytest.raises(InputError, match="multi-label"):
        score(truth, probabilities, "top1")


def test_an_unknown_label_of_a_multilabel_row_is_left_out() -> None:
    truth = np.array([[1.0, 0], [0, 1], [1, np.nan], [0, 0]])
    probabilities = np.array([[0.9, 0.2], [0.4, 0.3], [0.3, 0.9], [0.1, 0.6]])
    expected = (sk.roc_auc_score([1, 0, 1, 0], probabilities[:, 0]) + sk.roc_auc_score([0, 1, 0], [0.2, 0.3, 0.6])) / 2
    assert score(truth, probabilities, "auroc") == pytest.approx(expected)


def test_ties_count_one_half_in_the_ranking() -> None:
    label = np.array([0, 1, 1, 0, 1, 0])
    positive = np.array([0.5, 0.5, 0.5, 0.2, 0.8, 0.8])
    assert score(label, positive, "auroc") == pytest.approx(sk.roc_auc_score(label, positive))
    assert score(label, positive, "auprc") == pytest.approx(
        (sk.average_precision_score(label, positive) + sk.average_precision_score(1 - label, 1 - positive)) / 2
    )


def test_a_tie_at_the_border_of_the_top_k_is_shared() -> None:
    """Three classes tie for two places: the true one is in with probability 2/3."""
    assert score([2], [[0.1, 0.3, 0.3, 0.3]], "top2", classes=range(4)) == pytest.approx(2 / 3)
    assert score([0], [[0.1, 0.3, 0.3, 0.3]], "top3", classes=range(4)) == 0
    assert score([0], [[0.1, 0.3, 0.3, 0.3]], "top5", classes=range(4)) == 1


def test_a_class_without_cases_is_left_out_of_averages() -> None:
    label, probabilities, _ = simulated(0)
    present = label != 2
    label, probabilities = label[present], probabilities[present]
    hard = probabilities.argmax(axis=1)
    recall = sk.recall_score(label, hard, labels=[0, 1, 3], average=None)
    assert score(label, probabilities, "balanced_accuracy") == pytest.approx(recall.mean())
    each = [sk.roc_auc_score(label == code, probabilities[:, code]) for code in (0, 1, 3)]
    assert score(label, probabilities, "auroc") == pytest.approx(np.mean(each))
    assert score(label, probabilities, "macro_f1") == pytest.approx(sk.f1_score(label, hard, average="macro"))


def test_one_class_alone_has_no_auroc() -> None:
    assert np.isnan(score([1, 1, 1], [[0.5, 0.5], [0.2, 0.8], [0.1, 0.9]], "auroc", classes=[0, 1]))


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="row 1 is not finite"):
        score([0, 1], [[0.5, 0.5], [np.nan, 1.0]], "auroc")


def test_the_zero_probability_of_the_true_class_costs_a_finite_log_loss() -> None:
    assert np.isfinite(score([0, 1], [[0.0, 1.0], [0.0, 1.0]], "log_loss"))


def test_hard_labels_have_accuracy_and_no_auroc() -> None:
    truth, said = ["a", "b", "a", "c"], ["a", "b", "b", "c"]
    assert score(truth, said, "top1") == 0.75
    assert score(truth, said, "macro_f1") == pytest.approx(sk.f1_score(truth, said, average="macro"))
    with pytest.raises(InputError, match="hard labels"):
        score(truth, said, "auroc")


WRONG = [
    "accuracy",
    "top0",
    "recall",
    "auroc:XYZ",
    "kappa:ACK",
    "ece:ACK",
    "specificity",
    "sens@spec=0.9",
    "sens@spec:1",
]
WRONG += [
    "sens@spec=1.2:1",
    "sens@foo=0.5:1",
    "ppv@thr=0.5:1",
    "auroc@thr=0.5:1",
    "sens@spec=0.9@spec=0.8:1",
    "sens@=:1",
]


@pytest.mark.parametrize("name", WRONG)
def test_an_unknown_metric_is_one_line(name: str) -> None:
    label, probabilities, _ = simulated(0)
    with pytest.raises(InputError, match="metric"):
        score(label, probabilities, name)


def test_direction_of_every_metric_is_known() -> None:
    """The better model of two scores better by every metric, in its direction."""
    label, good, _ = simulated(0, n=2000, n_classes=8, skill=3.0)
    _, poor, _ = simulated(0, n=2000, n_classes=8, skill=0.3)
    for name in METRICS:
        if name in (*ONLY_PER_CLASS, "ece", "ece_equal_mass", *ORDINAL, *MULTILABEL):
            continue
        better = score(label, good, name) - score(label, poor, name)
        assert (better > 0) == metric(name).higher_is_better, name


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 5), st.sampled_from([0, 1, 2]))
def test_metrics_do_not_depend_on_order_or_on_names(seed: int, n: int, n_classes: int, digits: int) -> None:
    """Rows shuffled, classes renamed and reordered: the same values, ties and absent classes included."""
    random = np.random.default_rng(seed)
    label = random.integers(0, n_classes, n)
    probabilities = random.dirichlet(np.ones(n_classes), n)
    if digits:  # ties
        probabilities = np.round(probabilities, digits) + 1e-9
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows, order = random.permutation(n), random.permutation(n_classes)
    names = [f"c{code}" for code in range(n_classes)]
    renamed = [names[code] for code in label[rows]]
    for name in ("top3", "auroc", "auprc", "brier", "log_loss"):
        plain = score(label, probabilities, name, classes=range(n_classes))
        moved = score(renamed, probabilities[rows][:, order], name, classes=[names[code] for code in order])
        assert moved == pytest.approx(plain, nan_ok=True, abs=1e-9), name
    if not digits:  # which of two tied classes is the answer depends on their order; without ties nothing does
        for name in ("top1", "balanced_accuracy", "macro_f1", "kappa", "ece"):
            plain = score(label, probabilities, name, classes=range(n_classes))
            moved = score(label[rows], probabilities[rows], name, classes=range(n_classes))
            swapped = score(np.argsort(order)[label], probabilities[:, order], name, classes=range(n_classes))
            assert moved == pytest.approx(plain, nan_ok=True), name
            assert swapped == pytest.approx(plain, nan_ok=True), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_counting_every_group_twice_changes_nothing(seed: int) -> None:
    label, probabilities, group = simulated(seed, n=60, n_groups=25)
    evaluation = Evaluation(
        [cases_from_arrays(label, probabilities, group)], ["top1", "macro_f1", "auroc", "ece", "kappa"]
    )
    values = evaluation.at(np.column_stack([np.ones(evaluation.n_groups), np.full(evaluation.n_groups, 2.0)]))
    for name, (once, twice) in values.items():
        assert once == pytest.approx(twice, nan_ok=True), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_weights_equal_repeated_rows(seed: int) -> None:
    """A bootstrap replicate by group counts is scikit-learn's metric on the rows repeated."""
    label, probabilities, group = simulated(seed, n=150, n_groups=40)
    cases = cases_from_arrays(label, probabilities, group)
    counts = np.random.default_rng(seed).integers(0, 4, cases.n_groups)
    rows = np.repeat(np.arange(len(label)), counts[cases.group])
    y, p = label[rows], probabilities[rows]
    if len(np.unique(y)) < 4:
        return
    names = ("top1", "balanced_accuracy", "macro_f1", "auroc", "auprc", "log_loss", "brier")
    found = Evaluation([cases], names).at(counts[:, None].astype(float))
    expected = {
        "top1": sk.accuracy_score(y, p.argmax(1)),
        "balanced_accuracy": sk.balanced_accuracy_score(y, p.argmax(1)),
        "macro_f1": sk.f1_score(y, p.argmax(1), average="macro"),
        "auroc": sk.roc_auc_score(one_hot(y, 4), p),
        "auprc": sk.average_precision_score(one_hot(y, 4), p),
        "log_loss": sk.log_loss(y, p, labels=range(4)),
        "brier": sk.brier_score_loss(y, p, labels=range(4)),
    }
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value), name


POINTS = ("sens@spec=0.9:1", "spec@sens=0.8:1", "sens@thr=0.3:1", "spec@thr=0.3:1", "ppv@prev=0.02:1")
POINTS += (
    "npv@prev=0.02@thr=0.2:1",
    "net_benefit@thr=0.1:1",
    "net_benefit@thr=0.1@prev=0.05:1",
    "npv:1",
    "specificity:1",
)


def at_points(y: np.ndarray, p: np.ndarray, hard: np.ndarray) -> dict[str, float]:
    """The operating points of class 1, from scikit-learn's ROC curve and confusion matrices."""
    truth, score_of = (y == 1).astype(int), p[:, 1]
    fpr, tpr, _ = sk.roc_curve(truth, score_of, drop_intermediate=False)

    def cells(called: np.ndarray) -> tuple[float, ...]:
        tn, fp, fn, tp = sk.confusion_matrix(truth, called, labels=[0, 1]).ravel().tolist()
        return tp / (tp + fn), tn / (tn + fp), tp / len(y), fp / len(y)

    sens, spec, _, _ = cells(hard == 1)
    result = {
        "sens@spec=0.9:1": tpr[1 - fpr >= 0.9 - 1e-9].max(),
        "spec@sens=0.8:1": (1 - fpr[tpr >= 0.8 - 1e-9]).max(),
        "sens@thr=0.3:1": cells(score_of >= 0.3)[0],
        "spec@thr=0.3:1": cells(score_of >= 0.3)[1],
        "specificity:1": spec,
    }
    if sens or spec < 1:
        result["ppv@prev=0.02:1"] = sens * 0.02 / (sens * 0.02 + (1 - spec) * 0.98)
        result["npv:1"] = sk.precision_score(1 - truth, hard != 1, zero_division=np.nan)
    at, right = cells(score_of >= 0.2)[:2]
    if right or at < 1:
        result["npv@prev=0.02@thr=0.2:1"] = right * 0.98 / (right * 0.98 + (1 - at) * 0.02)
    found = cells(score_of >= 0.1)
    result["net_benefit@thr=0.1:1"] = found[2] - found[3] / 9
    result["net_benefit@thr=0.1@prev=0.05:1"] = found[0] * 0.05 - (1 - found[1]) * 0.95 / 9
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 60), st.integers(2, 4), st.booleans())
def test_operating_points_and_their_replicates_are_scikit_learns(seed: int, n: int, n_classes: int, tied: bool) -> None:
    """Values, and a replicate by group counts against the rows repeated; ties and rare classes included."""
    random = np.random.default_rng(seed)
    label = random.integers(0, n_classes, n)
    probabilities = random.dirichlet(np.ones(n_classes), n)
    if tied:
        probabilities = random.multinomial(8, np.ones(n_classes) / n_classes, n) / 8
    group = random.integers(0, max(1, n // 3), n)
    cases = cases_from_arrays(label, probabilities, group, classes=range(n_classes))
    counts = random.integers(0, 3, cases.n_groups)
    rows = np.repeat(np.arange(n), counts[cases.group])
    evaluation = Evaluation([cases], POINTS)
    for values, kept in ((evaluation.value(), np.arange(n)), (evaluation.at(counts[:, None] * 1.0), rows)):
        if len(np.unique(label[kept] == 1)) < 2:
            continue
        for name, value in at_points(label[kept], probabilities[kept], cases.predicted[kept]).items():
            assert float(np.squeeze(values[name])) == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_operating_points_agree_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    import torchmetrics.functional.classification as theirs

    label, probabilities, _ = simulated(0)
    score_of, truth = torch.tensor(probabilities[:, 3]), torch.tensor((label == 3).astype(int))
    for least in (0.5, 0.8, 0.95):
        expected = theirs.binary_sensitivity_at_specificity(score_of, truth, least)[0]
        assert score(label, probabilities, f"sens@spec={least}:3") == pytest.approx(float(expected), abs=1e-6)
        expected = theirs.binary_specificity_at_sensitivity(score_of, truth, least)[0]
        assert score(label, probabilities, f"spec@sens={least}:3") == pytest.approx(float(expected), abs=1e-6)


def test_other_metrics_agree_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    import torchmetrics.functional.classification as theirs

    label, probabilities, _ = simulated(7, n=250)
    scores, truth, how = torch.tensor(probabilities), torch.tensor(label), {"num_classes": 4}
    expected = {
        "top2": theirs.multiclass_accuracy(scores, truth, top_k=2, average="micro", **how),
        "balanced_accuracy": theirs.multiclass_accuracy(scores, truth, average="macro", **how),
        "macro_f1": theirs.multiclass_f1_score(scores, truth, average="macro", **how),
        "weighted_f1": theirs.multiclass_f1_score(scores, truth, average="weighted", **how),
        "kappa": theirs.multiclass_cohen_kappa(scores, truth, **how),
        "auroc": theirs.multiclass_auroc(scores, truth, **how),
        "auprc": theirs.multiclass_average_precision(scores, truth, **how),
        "specificity:2": theirs.multiclass_specificity(scores, truth, average="none", **how)[2],
        "npv:2": theirs.multiclass_negative_predictive_value(scores, truth, average="none", **how)[2],
    }
    for name, value in expected.items():
        assert score(label, probabilities, name) == pytest.approx(float(value), abs=1e-6), name


def test_net_benefit_by_hand_and_its_reference_lines() -> None:
    """Vickers & Elkin 2006: 10 patients, 4 ill; at 20 % 3 of the ill and 2 of the well are treated: .3 - .2 / 4."""
    label = np.array([1] * 4 + [0] * 6)
    risk = np.array([0.9, 0.5, 0.2, 0.1, 0.6, 0.3, 0.1, 0.1, 0.05, 0.0])
    assert score(label, risk, "net_benefit@thr=0.2") == pytest.approx(0.3 - 0.2 * 0.25)
    everyone, nobody = np.ones(10), np.zeros(10)
    assert score(label, everyone, "net_benefit@thr=0.2") == pytest.approx(0.4 - 0.6 * 0.25)
    assert score(label, nobody, "net_benefit@thr=0.2") == 0
    assert score(label, everyone, "net_benefit@thr=0.2@prev=0.1") == pytest.approx(0.1 - 0.9 * 0.25)


def test_operating_points_at_their_edges() -> None:
    label, scores = np.array([0, 0, 1, 1]), np.array([0.9, 0.4, 0.8, 0.3])
    assert score(label, scores, "sens@spec=0.9") == 0  # a negative lies above all positives: nobody can be called
    assert score(label, scores, "spec@sens=0.9") == 0
    assert np.isnan(score(label, np.full(4, 0.1), "ppv@prev=0.1"))  # the class is never called
    alone = np.ones(3, int)
    for name in ("sens@spec=0.9", "spec@sens=0.9", "ppv@prev=0.1", "spec@thr=0.5"):
        assert np.isnan(score(alone, scores[:3], name, classes=[0, 1])), name
    assert score(alone, scores[:3], "net_benefit@thr=0.5", classes=[0, 1]) == pytest.approx(2 / 3)
    for name in ("sens@spec=0.9:2", "net_benefit@thr=0.5@prev=0.1:2", "npv@prev=0.1:2"):  # a class nobody has
        assert np.isnan(score([0, 1], [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], name, classes=[0, 1, 2])), name
    with pytest.raises(InputError, match="row 1 is not finite"):
        score([0, 1], [0.5, np.nan], "sens@spec=0.9")
    assert score(["a", "b", "b"], ["a", "b", "a"], "ppv@prev=0.5:b") == 1  # hard labels decide without a threshold
    with pytest.raises(InputError, match="hard labels"):
        score(["a", "b", "b"], ["a", "b", "a"], "sens@thr=0.5:b")


def test_operating_points_of_a_label_among_several() -> None:
    truth = np.array([[1.0, 0], [0, 1], [1, np.nan], [0, 0]])
    probabilities = np.array([[0.9, 0.2], [0.4, 0.3], [0.3, 0.9], [0.1, 0.6]])
    assert score(truth, probabilities, "sens@spec=0.9:0") == pytest.approx(0.5)
    assert score(truth, probabilities, "spec@thr=0.5:1") == pytest.approx(0.5)  # the unknown row counts on no side
    assert score(truth, probabilities, "specificity:1") == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 40), st.integers(2, 5), st.sampled_from([1, 2, 8]))
def test_awkward_predictions_score_as_in_scikit_learn(seed: int, n: int, n_classes: int, levels: int) -> None:
    """Probabilities of 0 and 1, many ties, absent classes, classes never predicted."""
    random = np.random.default_rng(seed)
    label = random.integers(0, n_classes, n) if seed % 3 else np.full(n, seed % n_classes)
    probabilities = random.multinomial(levels, np.ones(n_classes) / n_classes, n) / levels
    hard = probabilities.argmax(axis=1)
    classes = range(n_classes)
    names = ["top1", "balanced_accuracy", "macro_f1", "weighted_f1", "kappa", "log_loss", "brier"]
    names += [f"{name}:{code}" for name in ("auroc", "auprc", "recall", "f1") for code in classes]
    values = Evaluation([cases_from_arrays(label, probabilities, classes=classes)], names).value()
    recall = [sk.recall_score(label == code, hard == code) for code in np.unique(label)]
    expected = {
        "top1": sk.accuracy_score(label, hard),
        "balanced_accuracy": np.mean(recall),
        "macro_f1": sk.f1_score(label, hard, average="macro"),
        "weighted_f1": sk.f1_score(label, hard, average="weighted"),
        "log_loss": sk.log_loss(label, probabilities, labels=classes),
        "brier": sk.brier_score_loss(label, probabilities, labels=classes),
    }
    if len(np.unique(np.concatenate([label, hard]))) > 1:
        expected["kappa"] = sk.cohen_kappa_score(label, hard)
    for code in classes:
        truth = label == code
        if 0 < truth.sum() < n:
            expected[f"auroc:{code}"] = sk.roc_auc_score(truth, probabilities[:, code])
            expected[f"auprc:{code}"] = sk.average_precision_score(truth, probabilities[:, code])
        else:
            assert np.isnan(values[f"auroc:{code}"])
        assert np.isnan(values[f"recall:{code}"]) == (not truth.any())
        if truth.any() or (hard == code).any():
            expected[f"f1:{code}"] = sk.f1_score(truth, hard == code)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=1e-9), name


def test_calibration_error_of_equal_mass_is_that_of_scikit_learns_quantile_bins() -> None:
    from sklearn.calibration import calibration_curve

    label, probabilities, _ = simulated(4, n=300)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    shares, means = calibration_curve(right, confidence, n_bins=15, strategy="quantile")  # 20 cases a bin
    assert score(label, probabilities, "ece_equal_mass") == pytest.approx(np.abs(shares - means).mean())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_more_photos_of_everybody_change_neither_values_nor_replicates(seed: int) -> None:
    """Each row three times in its own group: every metric, and every bootstrap replicate by group, stays."""
    label, probabilities, group = simulated(seed, n=60, n_groups=25)
    names = [*POINTS, "top1", "top2", "macro_f1", "kappa", "auroc", "auprc", "brier", "log_loss", "ece"]
    counts = np.random.default_rng(seed).integers(0, 3, (len(np.unique(group)), 4)).astype(float)
    found = [
        Evaluation([cases_from_arrays(label[rows], probabilities[rows], group[rows])], names).at(counts)
        for rows in (np.arange(60), np.repeat(np.arange(60), 3))
    ]
    for name in names:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-9, err_msg=name)
