"""Decisions that weigh errors: the least expected cost under a cost matrix, and the branches of a hierarchy.

Confusing two benign growths costs little, calling a melanoma a naevus may cost a life. A card may say so, by a cost for
each pair of true and decided class and by branches such as benign and malignant; here a model is judged by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.evaluate.cases import Cases, case_sets
from dermlab.evaluate.compare import bootstrap_p
from dermlab.evaluate.estimates import estimate
from dermlab.evaluate.fitting import share
from dermlab.evaluate.intervals import interval, resample
from dermlab.evaluate.metrics import Evaluation
from dermlab.evaluate.predictions import Predictions, least_cost
from dermlab.evaluate.ratios import Ratios, Terms

PER = 100  # costs are told per so many units
CHEAPER, DEARER, NEITHER = "lower cost", "higher cost", "cannot tell apart"


def expected_cost(
    predictions: Predictions,
    cost_matrix: Sequence[Sequence[float]],
    *,
    split: str = "test",
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Compare deciding for the most probable class with deciding for the least expected cost.

    The costs counted are those of what really was there; the probabilities only decide. Probabilities that do not mean
    what they say (calibrate first) make the second rule worse than it could be.

    Args:
        predictions: a table of probabilities.
        cost_matrix: (C, C) in the order of the table's classes, row = the true class, column = the decision.
        split: the split scored.
        n_boot: bootstrap replicates over groups, the same for both rules.
        seed: of the bootstrap.
        level: coverage of the intervals; ``1 - level`` is the level of the verdict.

    Returns:
        A dictionary for JSON, costs per 100 units::

            {"n", "n_groups", "unit", "group_by", "per": 100, "classes",
             "most_probable": {value, low, high}, "least_cost": {value, low, high},
             "one_class": {"class", value, low, high},      # the best decision that looks at nothing, on these cases
             "difference": {value, low, high, "p", "verdict"},          # least cost minus most probable
             "against_one_class": {value, low, high, "p", "verdict"},   # least cost minus one class
             "changed": {value, low, high},                             # share of units decided otherwise
             "decisions": {"most_probable": [[C × C counts]], "least_cost": [[…]]}, "warnings"}

        ``verdict``: "lower cost", "higher cost" or "cannot tell apart".

    Raises:
        InputError: hard labels, a multi-label target, or a matrix of another shape.
    """
    found = case_sets(predictions, split)
    _needs_probabilities(predictions, found.sets[0], "costs")
    costs = np.asarray(cost_matrix, np.float64)
    n_classes = len(predictions.classes)
    if costs.shape != (n_classes, n_classes) or not np.isfinite(costs).all():
        raise InputError(f"cost matrix: must be {n_classes} rows of {n_classes} finite numbers, one per class")
    terms: list[Terms] = []
    decisions = {rule: np.zeros((n_classes, n_classes), np.int64) for rule in ("most_probable", "least_cost")}
    fixed = int(np.mean([costs[cases.truth].mean(axis=0) for cases in found.sets], axis=0).argmin())
    for cases in found.sets:
        assert cases.probabilities is not None
        # Not cases.predicted: a table may say that costs decide.
        first = cases.probabilities.argmax(axis=1)
        decided = {"most_probable": first, "least_cost": least_cost(cases.probabilities, costs)}
        ones = np.ones(len(cases))
        one = {rule: (PER * costs[cases.truth, choice], ones) for rule, choice in decided.items()}
        one["one_class"] = (PER * costs[cases.truth, fixed], ones)
        one["changed"] = ((decided["most_probable"] != decided["least_cost"]).astype(float), ones)
        terms.append(one)
        for rule, choice in decided.items():
            np.add.at(decisions[rule], (cases.truth, choice), 1)
    ratios = Ratios(terms, [cases.group for cases in found.sets], len(found.groups))
    draws, values = resample([ratios], n_boot=n_boot, seed=seed)[0], ratios.value()
    n_groups = len(found.groups)
    told = {name: interval(values[name], draws[name], n_groups, level=level).to_dict() for name in ratios.names}
    told["changed"] = share(found, [one["changed"] for one in terms], level).to_dict()

    def paired(a: str, b: str) -> dict[str, Any]:
        """Return ``a`` minus ``b`` with its interval, p and verdict."""
        difference, apart = values[a] - values[b], draws[a] - draws[b]
        p = bootstrap_p(apart, n_groups) if apart.any() else 1.0
        verdict = (CHEAPER if difference < 0 else DEARER) if p < 1 - level and difference != 0 else NEITHER
        return {**interval(difference, apart, n_groups, level=level).to_dict(), "p": p, "verdict": verdict}

    return {
        "n": len(found.units),
        "n_groups": n_groups,
        "unit": predictions.meta.get("unit", "image"),
        "group_by": predictions.meta.get("group_by", "image_id"),
        "per": PER,
        "classes": list(predictions.classes),
        "most_probable": told["most_probable"],
        "least_cost": told["least_cost"],
        "one_class": {"class": predictions.classes[fixed], **told["one_class"]},
        "difference": paired("least_cost", "most_probable"),
        "against_one_class": paired("least_cost", "one_class"),
        "changed": told["changed"],
        "decisions": {rule: counts.tolist() for rule, counts in decisions.items()},
        "warnings": [*predictions.warnings, *found.warnings, *_odd_costs(costs, predictions.classes)],
    }


def _odd_costs(costs: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Say where a matrix punishes the right answer."""
    told = []
    for code, name in enumerate(classes):
        cheaper = [other for place, other in enumerate(classes) if costs[code, place] < costs[code, code]]
        if cheaper:
            told.append(f"cost matrix: for a true {name} deciding {', '.join(cheaper)} costs less than deciding {name}")
    if (costs < 0).any():
        told.append("cost matrix: holds negative costs, which count as gains")
    return told


def hierarchy_metrics(
    predictions: Predictions,
    hierarchy: Mapping[str, Sequence[str]],
    *,
    positive: str | None = None,
    threshold: float = 0.5,
    split: str = "test",
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Score a table at the level of branches: probabilities summed within each, errors told by whether they cross.

    Args:
        predictions: a table of probabilities over the classes.
        hierarchy: branch → its classes (a card's ``hierarchy``); cases of classes in no branch are left out.
        positive: the branch that is looked for; None: ``malignant`` where there is one, else the first.
        threshold: summed probability from which a case counts as positive.
        split: the split scored.
        n_boot: bootstrap replicates.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Returns:
        A dictionary for JSON::

            {"n", "n_groups", "unit", "group_by", "positive", "threshold", "branches": {branch: [classes]},
             "cases": {branch: n}, "sensitivity": {value, low, high}, "specificity": {…}, "auroc": {…},
             "by_most_probable_class": {"sensitivity", "specificity"},  # the branch of the most probable class instead
             "branch_accuracy": {…},                        # most probable branch right, over all branches
             "errors": {"all": {…}, "within": {…}, "across": {…}},       # shares of all cases: class wrong; its branch
             "across_of_errors": {…}, "missed": {class: {"n", "share": {…}}},  # positive classes called negative
             "warnings"}

    Raises:
        InputError: hard labels, a multi-label target, a branch or class that is not there, fewer than two branches.
    """
    first = case_sets(predictions, split).sets[0]
    _needs_probabilities(predictions, first, "branches")
    branches = {name: tuple(members) for name, members in hierarchy.items()}
    branch_of = _branch_of(branches, predictions.classes)
    positive = positive or ("malignant" if "malignant" in branches else next(iter(branches), None))
    if positive not in branches:
        raise InputError(f"positive: {positive!r} is not one of the branches {', '.join(branches)}")
    if len(branches) < 2:
        raise InputError("hierarchy: needs at least two branches")
    labels = predictions.frame["label"]
    outside = [name for name in predictions.classes if branch_of[predictions.classes.index(name)] < 0]
    warnings = list(predictions.warnings)
    left_out = labels.isin(outside) & (predictions.frame["split"] == split)
    if left_out.any():
        warnings.append(
            f"{int(left_out.sum())} rows of {', '.join(outside)} are in no branch and are left out of the branches"
        )
        predictions = predictions.with_frame(predictions.frame[~left_out].reset_index(drop=True))
    found = case_sets(predictions, split)
    names, code = list(branches), list(branches).index(positive)
    terms: list[Terms] = []
    binary: list[Cases] = []
    for cases in found.sets:
        assert cases.probabilities is not None
        summed = np.column_stack(
            [cases.probabilities[:, branch_of == place].sum(axis=1) for place in range(len(names))]
        )
        branch, said = branch_of[cases.truth], summed[:, code] >= threshold
        likeliest = branch_of[cases.probabilities.argmax(axis=1)]  # not cases.predicted: a table's costs may decide
        truth, ones = branch == code, np.ones(len(cases))
        wrong = cases.truth != cases.predicted
        crossing = branch_of[cases.predicted] != branch
        one: dict[str, tuple[np.ndarray, np.ndarray]] = {
            "sensitivity": ((said & truth).astype(float), truth.astype(float)),
            "specificity": ((~said & ~truth).astype(float), (~truth).astype(float)),
            "class_sensitivity": (((likeliest == code) & truth).astype(float), truth.astype(float)),
            "class_specificity": (((likeliest != code) & ~truth).astype(float), (~truth).astype(float)),
            "branch_accuracy": ((summed.argmax(axis=1) == branch).astype(float), ones),
            "all": (wrong.astype(float), ones),
            "within": ((wrong & ~crossing).astype(float), ones),
            "across": (crossing.astype(float), ones),
            "across_of_errors": (crossing.astype(float), wrong.astype(float)),
        }
        for name in branches[positive]:
            own = cases.truth == predictions.classes.index(name)
            one[f"missed:{name}"] = ((own & ~said).astype(float), own.astype(float))
        terms.append(one)
        scores = np.clip(np.column_stack([1 - summed[:, code], summed[:, code]]), 0.0, 1.0)
        binary.append(
            Cases(
                truth.astype(np.int64), said.astype(np.int64), scores, cases.group, cases.n_groups, ("rest", positive)
            )
        )
    area = estimate([Evaluation(binary, ["auroc"])], n_boot=n_boot, seed=seed, level=level, names=["auroc"])[0]["auroc"]

    def told(name: str) -> dict[str, float | None]:
        return share(found, [one[name] for one in terms], level).to_dict()

    truth_of_all = np.concatenate([branch_of[cases.truth] for cases in found.sets])
    return {
        "n": len(found.units),
        "n_groups": len(found.groups),
        "unit": predictions.meta.get("unit", "image"),
        "group_by": predictions.meta.get("group_by", "image_id"),
        "positive": positive,
        "threshold": threshold,
        "branches": {name: list(members) for name, members in branches.items()},
        "cases": {name: int((truth_of_all == place).sum() // len(found.sets)) for place, name in enumerate(names)},
        "sensitivity": told("sensitivity"),
        "specificity": told("specificity"),
        "auroc": area.to_dict(),
        "by_most_probable_class": {
            "sensitivity": told("class_sensitivity"),
            "specificity": told("class_specificity"),
        },
        "branch_accuracy": told("branch_accuracy"),
        "errors": {name: told(name) for name in ("all", "within", "across")},
        "across_of_errors": told("across_of_errors"),
        "missed": {
            name: {
                "n": int(np.mean([terms[place][f"missed:{name}"][1].sum() for place in range(len(terms))])),
                "share": told(f"missed:{name}"),
            }
            for name in branches[positive]
        },
        "warnings": list(dict.fromkeys([*warnings, *found.warnings])),
    }


def _branch_of(branches: Mapping[str, Sequence[str]], classes: Sequence[str]) -> np.ndarray:
    """Return the branch of each class, int64 (C,), -1 where it is in none."""
    result = np.full(len(classes), -1, np.int64)
    for place, (branch, members) in enumerate(branches.items()):
        for name in members:
            if name not in classes:
                raise InputError(f"hierarchy: {name!r} of {branch!r} is not one of the classes {', '.join(classes)}")
            if result[list(classes).index(name)] >= 0:
                raise InputError(f"hierarchy: class {name!r} stands in two branches")
            result[list(classes).index(name)] = place
    return result


def _needs_probabilities(predictions: Predictions, cases: Cases, what: str) -> None:
    if cases.multilabel:
        raise InputError(f"{predictions.source}: {what} are for one label a case, not for a multi-label target")
    if cases.probabilities is None:
        raise InputError(f"{predictions.source}: {what} need probabilities, and these are hard labels")
