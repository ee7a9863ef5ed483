"""Does the mere blankness of a column betray the label? One test, shared by the questionnaire encoder and the audit.

Two measures, because neither is enough alone. *AUROC* of "is blank" for each class against the rest sees a blank that
is merely more frequent in some classes. *Ruled-out mass* sees the commoner harm, a blank (or an answer) that excludes
whole classes: thirteen columns of PAD-UFES-20 are blank only in photos that were never biopsied, so a blank rules out
every carcinoma, yet its best one-vs-rest AUROC is a modest .78 because the benign classes are often not blank.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dermlab.core.randomness import generator

MISSINGNESS_AUROC = 0.70
"""From this cross-validated one-vs-rest AUROC on, blankness betrays the label. PAD-UFES-20's leaking blanks reach .78;
its honest "I don't know" answers (older patients with a carcinoma know less about growth) reach .60."""

MISSINGNESS_RULED_OUT = 0.05
"""From this ruled-out mass on, blankness betrays the label. PAD-UFES-20's leaking blanks reach .15, honest ones 0."""

MIN_EXPECTED_GROUPS = 7.0
"""A class counts as ruled out only where at least this many groups were expected: by chance alone none of 7 expected
ones turns up with probability exp(-7) < .001."""

RULED_OUT_LIFT = 0.02
"""A class counts as ruled out where it turns up at most this often relative to its expectation: one mistyped record in
fifty does not hide a leak."""

MIN_CLASS_GROUPS = 8
"""A class of fewer groups is too small for an AUROC of its own: all of 5 are blank, or none, by chance too often."""

N_FOLDS = 5


def group_weights(groups: np.ndarray) -> np.ndarray:
    """Return a weight per row, one over the rows of its group, so that sums of weights count groups: float64 (N,)."""
    _, inverse, counts = np.unique(np.asarray(groups).astype(str), return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def group_folds(groups: np.ndarray, n_folds: int = N_FOLDS) -> np.ndarray:
    """Deal the groups out to ``n_folds`` folds, the largest first: int64 (N,), the same for the same groups."""
    _, inverse, counts = np.unique(np.asarray(groups).astype(str), return_inverse=True, return_counts=True)
    # Equally large groups are dealt in a random order: patient numbers often follow the date or the diagnosis.
    shuffled = generator(0, "group folds").permutation(len(counts))
    order = np.lexsort((shuffled, -counts))
    fold = np.empty(len(counts), dtype=np.int64)
    fold[order] = np.arange(len(counts)) % n_folds
    return fold[inverse]


def ruled_out_mass(
    levels: np.ndarray, labels: np.ndarray, weights: np.ndarray, folds: np.ndarray
) -> tuple[float, list[tuple[int, int]]]:
    """Return how much of the label distribution the level of a column rules out, averaged over the rows.

    A level rules a class out where at least :data:`MIN_EXPECTED_GROUPS` were expected if level and class were
    independent and at most :data:`RULED_OUT_LIFT` of those turned up. Classes too rare for that are judged together:
    those that a level seems to exclude on the other folds are looked up in the fold held out, so that picking them
    costs nothing, and all of them count where the same two conditions hold for their sum over the folds.
    The mass is the sum of P(level) * P(class) over such pairs: "for 46 % of the rows, classes that make up 38 % of the
    labels are excluded" is .46 * .38 = .18. It is near 0 for an honest risk factor, however strong, and does not change
    when classes that are excluded together are merged.

    Args:
        levels: integer code of the level of each row, int (N,), 0 <= level.
        labels: integer code of the class of each row, int (N,), 0 <= label.
        weights: weight of each row, float (N,), see :func:`group_weights`.
        folds: fold of each row, int (N,), see :func:`group_folds`.

    Returns:
        The mass in [0, 1], and the (level, class) pairs that make it up.
    """
    shape = (N_FOLDS, int(levels.max(initial=-1)) + 1, int(labels.max(initial=-1)) + 1)
    table = np.zeros(shape)
    np.add.at(table, (folds, levels, labels), weights)
    whole = table.sum(axis=0)
    total = whole.sum()
    if total == 0:
        return 0.0, []
    expected = _expected(whole)
    hardly = whole <= RULED_OUT_LIFT * expected
    alone = hardly & (expected >= MIN_EXPECTED_GROUPS)
    others = whole - table
    picked = (others <= RULED_OUT_LIFT * _expected(others)) & (_expected(others) > 0)
    held_out = _expected(table)
    expected_together = np.where(picked, held_out, 0).sum(axis=(0, 2))
    turned_up = np.where(picked, table, 0).sum(axis=(0, 2))
    together = (expected_together >= MIN_EXPECTED_GROUPS) & (turned_up <= RULED_OUT_LIFT * expected_together)
    excluded = alone | (together[:, None] & hardly & (expected > 0))
    pairs = [(int(level), int(label)) for level, label in np.argwhere(excluded)]
    return float(expected[excluded].sum() / total), pairs


def _expected(table: np.ndarray) -> np.ndarray:
    """Counts that (..., level, class) tables would hold if level and class were independent."""
    total = np.maximum(table.sum(axis=(-2, -1), keepdims=True), 1e-12)
    return table.sum(axis=-1, keepdims=True) * table.sum(axis=-2, keepdims=True) / total


def missingness_auroc(
    missing: pd.DataFrame | np.ndarray,
    y: np.ndarray,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """Test for each column whether being blank betrays the label.

    The AUROC is one-vs-rest and cross-validated: which way blankness points for a class is learned on the other folds
    of groups, so that chance does not count as signal. A column leaks where, for some class,
    AUROC >= :data:`MISSINGNESS_AUROC` and more than three standard errors (over groups) above one half, or where its
    :func:`ruled_out_mass` >= :data:`MISSINGNESS_RULED_OUT`.

    Args:
        missing: True where blank, bool (N, K); a data frame gives its column names to the result.
        y: classes, (N,), or 0/1 for each of several labels, (N, C), of which the worst counts; rows without a label
            (None or NaN) are left out.
        groups: patient (else lesion) of each row, (N,); default: every row is its own group.

    Returns:
        One row per column, in order: ``column``, ``n_missing``, ``share_missing``, ``auroc`` (of the worst class),
        ``class`` (that class), ``ruled_out`` (mass), ``classes_ruled_out`` (tuple: never, or hardly ever, blank or
        never filled in), ``leaks`` (bool), ``reason`` (one clause for a person; empty where it does not leak).
    """
    names = list(missing.columns) if isinstance(missing, pd.DataFrame) else list(range(np.shape(missing)[1]))
    blank = np.asarray(missing, dtype=bool)
    y = np.asarray(y, dtype=object)
    if y.ndim == 2:
        return _worst_label(missing, y, groups)
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    labelled = ~pd.isna(y)
    blank, y, groups = blank[labelled], y[labelled].astype(str), groups[labelled]
    classes, codes = np.unique(y, return_inverse=True)
    weights, folds = group_weights(groups), group_folds(groups)
    auroc, error = _out_of_fold_auroc(blank, codes, len(classes), weights, folds)
    rows = []
    for k, name in enumerate(names):
        levels = blank[:, k].astype(np.int64)
        mass, pairs = ruled_out_mass(levels, codes, weights, folds) if 0 < levels.sum() < len(levels) else (0.0, [])
        significant = np.where(auroc[k] - 3 * error[k] > 0.5, auroc[k], 0.0)
        by_auroc = len(classes) > 0 and float(significant.max()) >= MISSINGNESS_AUROC
        worst = int(np.argmax(significant if by_auroc else auroc[k])) if len(classes) else 0
        reason = ""
        if mass >= MISSINGNESS_RULED_OUT:
            reason = _ruled_out_reason(pairs, classes)
        elif by_auroc:
            reason = f"whether it is blank alone tells {classes[worst]} from the rest (AUROC {auroc[k, worst]:.2f})"
        rows.append(
            {
                "column": name,
                "n_missing": int(levels.sum()),
                "share_missing": float(levels.mean()) if len(levels) else 0.0,
                "auroc": float(auroc[k, worst]) if len(classes) else 0.5,
                "class": str(classes[worst]) if len(classes) else "",
                "ruled_out": mass,
                "classes_ruled_out": tuple(str(classes[label]) for label in sorted({label for _, label in pairs})),
                "leaks": bool(reason),
                "reason": reason,
            }
        )
    columns = ["column", "n_missing", "share_missing", "auroc", "class", "ruled_out", "classes_ruled_out", "leaks"]
    return pd.DataFrame(rows, columns=[*columns, "reason"])


def _worst_label(missing: pd.DataFrame | np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> pd.DataFrame:
    """Test each label of a multilabel target by itself and keep the worst result for each column."""
    tables = []
    for label in range(y.shape[1]):
        unknown = pd.isna(y[:, label])
        names = np.where(y[:, label] == 1, f"label {label}", f"not label {label}").astype(object)
        names[unknown] = None
        tables.append(missingness_auroc(missing, names, groups))
    table = pd.concat(tables).assign(column_number=lambda table: table.index)
    worst = table.sort_values(["leaks", "ruled_out", "auroc"], ascending=False).drop_duplicates("column_number")
    return worst.sort_values("column_number").drop(columns="column_number").reset_index(drop=True)


def _out_of_fold_auroc(
    blank: np.ndarray, codes: np.ndarray, n_classes: int, weights: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cross-validated AUROC of blankness for each class against the rest and its standard error, (K, C).

    For one binary feature the AUROC is 1/2 + (P(blank | class) - P(blank | rest)) / 2, with the sign that the other
    folds have: everything is a table of weighted counts (fold, class, column), and no row is visited twice.
    """
    n_columns = blank.shape[1]
    filled = np.zeros((N_FOLDS, n_classes, n_columns))  # weight of the blank rows
    size = np.zeros((N_FOLDS, n_classes))
    np.add.at(size, (folds, codes), weights)
    np.add.at(filled, (folds, codes), blank * weights[:, None])

    def difference(counts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # counts (..., C, K), sizes (..., C) -> P(blank | class) - P(blank | rest) and its variance, (..., C, K)
        rest, n_rest = counts.sum(-2, keepdims=True) - counts, sizes.sum(-1, keepdims=True) - sizes
        n, m = np.maximum(sizes, 1e-12)[..., None], np.maximum(n_rest, 1e-12)[..., None]
        p, q = counts / n, rest / m
        # Agresti and Caffo (2000): one blank and one filled record added to each side keep the variance above zero.
        p1, q1 = (counts + 1) / (n + 2), (rest + 1) / (m + 2)
        return p - q, p1 * (1 - p1) / (n + 2) + q1 * (1 - q1) / (m + 2)

    direction = np.sign(difference(filled.sum(0) - filled, size.sum(0) - size)[0])  # learned on the other folds
    held_out, _ = difference(filled, size)
    share = size / np.maximum(size.sum(0), 1e-12)
    auroc = 0.5 + 0.5 * (direction * held_out * share[..., None]).sum(0)
    error = 0.5 * np.sqrt(difference(filled.sum(0), size.sum(0))[1])
    too_small = size.sum(0) < MIN_CLASS_GROUPS
    auroc[too_small] = 0.5
    return auroc.T, error.T


def _ruled_out_reason(pairs: list[tuple[int, int]], classes: np.ndarray) -> str:
    never_blank = [str(classes[label]) for level, label in pairs if level == 1]
    always_blank = [str(classes[label]) for level, label in pairs if level == 0]
    clauses = []
    if never_blank:
        clauses.append(f"it is never blank for {', '.join(never_blank)}, so a blank rules them out")
    if always_blank:
        clauses.append(f"it is always blank for {', '.join(always_blank)}, so an answer rules them out")
    return "; ".join(clauses)
