"""Columns that alone give the label away: by their values, or by where they are blank.

A strong risk factor is no leak, and one AUROC threshold cannot tell the two apart. In PAD-UFES-20 ``biopsed`` (every
carcinoma and melanoma was biopsied; known only after the decision) has a cross-validated one-vs-rest AUROC of .80,
while honest ``age`` reaches .90 for naevi. What sets a leak apart is that an *answer excludes classes*: no photo that
was not biopsied is a carcinoma. So two rules, either of which makes a leak:

- *AUROC*: .95 or more for some class against the rest. Nothing a person can ask before the diagnosis does that alone.
- *Ruled-out mass* (:func:`dermlab.data.missingness.ruled_out_mass`): .08 or more of the label distribution excluded, on
  average over the rows. PAD-UFES-20's ``biopsed`` has .18, HAM10000's ``dx_type`` .15; the highest of their honest
  columns (age, site on the body, itching, bleeding, ...) has .01. Ranges of a measured number are left out of this rule
  (children have no actinic keratoses, and that is medicine); single values that many rows share are not.

Blanks are tested apart from values and more strictly, with :func:`dermlab.data.missingness.missingness_auroc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dermlab.audit.findings import Finding, Severity, examples
from dermlab.core.words import plural
from dermlab.data.card import MetadataColumn
from dermlab.data.missingness import (
    MIN_CLASS_GROUPS,
    MISSINGNESS_AUROC,
    MISSINGNESS_RULED_OUT,
    N_FOLDS,
    group_folds,
    group_weights,
    missingness_auroc,
    ruled_out_mass,
)

VALUE_AUROC = 0.95
"""From this cross-validated one-vs-rest AUROC on, a column's values give the label away."""

VALUE_RULED_OUT = 0.08
"""From this ruled-out mass on, a column's values give the label away."""

STRONG_AUROC = 0.90
"""From this AUROC on, a column is worth a look: is it known before the diagnosis?"""

N_BINS = 20
"""Numbers with more distinct values than this are cut into as many quantiles."""

ANSWER_SHARE = 0.05
"""A single value of a measured number counts as an answer where at least this share of the rows has it."""

_PRIOR_GROUPS = 2.0  # a level's class frequencies are drawn towards the overall ones as if by this many more groups

COLUMNS = ("column", "kind", "class", "auroc", "ruled_out", "n", "verdict", "reason")


def proxy_columns(
    frame: pd.DataFrame,
    y: np.ndarray,
    groups: np.ndarray | None = None,
    columns: Sequence[MetadataColumn | str] | None = None,
) -> pd.DataFrame:
    """Test each column, its values and its blanks apart, for what it alone says about the label.

    Args:
        frame: the questionnaire, one row an image, N rows.
        y: classes, (N,), or 0/1 for each of several labels, (N, C); rows without a label are left out.
        groups: patient (else lesion) of each row, (N,): one patient's ten photos are one observation, and stay in one
            fold of the cross-validation; default: every row is its own group.
        columns: which columns, by name or as the card describes them; default: all of ``frame``.

    Returns:
        Two rows per column, worst first: ``column``; ``kind`` (``value`` or ``missingness``); ``class`` (the one told
        best); ``auroc`` (of that class against the rest, cross-validated); ``ruled_out`` (mass); ``n`` (rows with a
        value); ``verdict`` (``leak``, ``strong`` or ``clean``); ``reason`` (a clause for a person).
    """
    chosen = list(frame.columns) if columns is None else list(columns)
    kinds = {_name(column): column.kind if isinstance(column, MetadataColumn) else None for column in chosen}
    y = np.asarray(y, dtype=object)
    groups = np.arange(len(frame)) if groups is None else np.asarray(groups)
    rows = []
    for name, kind in kinds.items():
        coded = level_codes(frame[name], kind)
        worst = _worst([_value(name, *coded, *one) for one in _labels(y, groups)])
        rows.append({"column": name, "kind": "value", **worst})
    blank = missingness_auroc(frame[list(kinds)].isna(), y, groups)
    for row in blank.to_dict(orient="records"):
        rows.append(
            {
                "column": row["column"],
                "kind": "missingness",
                "class": row["class"],
                "auroc": row["auroc"],
                "ruled_out": row["ruled_out"],
                "n": int(len(frame) - row["n_missing"]),
                "verdict": "leak" if row["leaks"] else "clean",
                "reason": row["reason"],
            }
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    rank = table["verdict"].map({"leak": 0, "strong": 1, "clean": 2})
    order = np.lexsort((-table["auroc"], -table["ruled_out"].round(3), rank))
    return table.iloc[order].reset_index(drop=True)


def level_codes(values: pd.Series, kind: str | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Code a column's values as levels, once for the AUROC and once for what an answer excludes.

    Categories, truth values and numbers with at most :data:`N_BINS` distinct values are taken as they stand. Other
    numbers and dates are cut at their quantiles for the AUROC; as answers count only single values that at least
    :data:`ANSWER_SHARE` of the rows share (a 0 that means "none", a 1900-01-01), and "any other".

    Returns:
        Quantile or level of each row, int64 (N,), -1 where blank; the answer of each row, likewise; the answers' names.
    """
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        values = values.astype("int64").where(values.notna()).astype("float64")
    numeric = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    answers, levels = pd.factorize(values, use_na_sentinel=True)
    answers = answers.astype(np.int64)
    names = [f"{level:g}" if isinstance(level, float) else str(level) for level in levels]
    if kind in ("boolean", "categorical") or not numeric or len(levels) <= N_BINS:
        return answers, answers, names
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    known = answers >= 0
    edges = np.unique(np.quantile(numbers[known], np.arange(1, N_BINS) / N_BINS))
    bins = np.where(known, np.searchsorted(edges, numbers, side="right"), -1).astype(np.int64)
    shared = np.flatnonzero(np.bincount(answers[known]) >= ANSWER_SHARE * known.sum())
    place = np.full(len(levels), len(shared))
    place[shared] = np.arange(len(shared))
    return bins, np.where(known, place[answers], -1), [*(names[i] for i in shared), "any other value"]


def _name(column: MetadataColumn | str) -> str:
    return column.column if isinstance(column, MetadataColumn) else column


def _labels(y: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (classes, groups) to test: one pair, or one for each label of a multilabel target."""
    if y.ndim == 1:
        return [(y, groups)]
    pairs = []
    for label in range(y.shape[1]):
        names = np.where(y[:, label] == 1, f"label {label}", f"not label {label}").astype(object)
        names[pd.isna(y[:, label])] = None
        pairs.append((names, groups))
    return pairs


def _worst(results: list[dict[str, object]]) -> dict[str, object]:
    rank = {"leak": 2, "strong": 1, "clean": 0}
    return max(results, key=lambda one: (rank[str(one["verdict"])], one["ruled_out"], one["auroc"]))


def _value(
    name: str, codes: np.ndarray, answers: np.ndarray, names: list[str], y: np.ndarray, groups: np.ndarray
) -> dict[str, object]:
    """Test the values of one column among the rows that have one and a label."""
    usable = (codes >= 0) & ~pd.isna(y)
    result: dict[str, object] = {"class": "", "auroc": 0.5, "ruled_out": 0.0, "n": int((codes >= 0).sum())}
    result |= {"verdict": "clean", "reason": ""}
    classes, labels = np.unique(y[usable].astype(str), return_inverse=True)
    codes, answers, groups = codes[usable], answers[usable], groups[usable]
    if len(classes) < 2 or len(np.unique(codes)) < 2:
        return result
    weights, folds = group_weights(groups), group_folds(groups)
    auroc = _out_of_fold_auroc(codes, labels, weights, folds)
    mass, pairs = ruled_out_mass(answers, labels, weights, folds)
    best = int(np.argmax(auroc))
    result |= {"class": str(classes[best]), "auroc": float(auroc[best]), "ruled_out": mass}
    told = f"{name} alone tells {classes[best]} from the rest (AUROC {auroc[best]:.2f})"
    if mass >= VALUE_RULED_OUT:
        result |= {"verdict": "leak", "reason": _ruled_out_reason(name, pairs, names, classes, answers, labels)}
    elif auroc[best] >= VALUE_AUROC:
        result |= {"verdict": "leak", "reason": told}
    elif auroc[best] >= STRONG_AUROC:
        result |= {"verdict": "strong", "reason": told}
    return result


def _out_of_fold_auroc(codes: np.ndarray, labels: np.ndarray, weights: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the cross-validated one-vs-rest AUROC of each class when a level is scored by its class frequencies, (C,).

    Every row of one (fold, level) has the same score, so the AUROC needs only the table of their weights. A class of
    fewer than :data:`MIN_CLASS_GROUPS` groups has .5.
    """
    n_levels, n_classes = int(codes.max()) + 1, int(labels.max()) + 1
    table = np.zeros((N_FOLDS, n_levels, n_classes))
    np.add.at(table, (folds, codes, labels), weights)
    others = table.sum(axis=0) - table
    prior = others.sum(axis=1, keepdims=True)
    prior = prior / np.maximum(prior.sum(axis=2, keepdims=True), 1e-12)
    size = others.sum(axis=2, keepdims=True)
    score = ((others + _PRIOR_GROUPS * prior) / (size + _PRIOR_GROUPS)).reshape(-1, n_classes)
    cells = table.reshape(-1, n_classes)
    auroc = np.full(n_classes, 0.5)
    for label in range(n_classes):
        positive, all_rows = cells[:, label], cells.sum(axis=1)
        if positive.sum() >= MIN_CLASS_GROUPS and positive.sum() < all_rows.sum():
            auroc[label] = _weighted_auroc(score[:, label], positive, all_rows - positive)
    return auroc


def _weighted_auroc(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve of scored cells that hold so much positive and so much negative weight; ties half."""
    distinct, place = np.unique(score, return_inverse=True)
    up = np.bincount(place, weights=positive, minlength=len(distinct))
    down = np.bincount(place, weights=negative, minlength=len(distinct))
    below = np.cumsum(down) - down
    return float((up * (below + down / 2)).sum() / (up.sum() * down.sum()))


def _ruled_out_reason(
    name: str,
    pairs: list[tuple[int, int]],
    names: list[str],
    classes: np.ndarray,
    answers: np.ndarray,
    labels: np.ndarray,
) -> str:
    """Say what the most excluding answer rules out: 'of 390 photos with biopsed = False not one is BCC, MEL, SCC'."""
    share = np.bincount(labels, minlength=len(classes)) / len(labels)
    rows = np.bincount(answers, minlength=len(names))
    excluded: dict[int, list[int]] = {}
    for answer, label in pairs:
        excluded.setdefault(answer, []).append(label)
    worst = max(excluded, key=lambda answer: rows[answer] * share[excluded[answer]].sum())
    out = excluded[worst]
    found = int(np.isin(labels[answers == worst], out).sum())
    which = "not one is" if found == 0 else f"only {found:,} are"
    what = ", ".join(str(classes[label]) for label in out)
    expected = rows[worst] * share[out].sum()
    return f"of {rows[worst]:,} photos with {name} = {names[worst]} {which} {what} ({expected:,.0f} expected)"


# --- findings ---------------------------------------------------------------------------------------------------------

SAME_BLANKS = 0.85
"""Columns whose blank rows overlap this much (Jaccard) are blank for one reason and told in one finding."""

_COUNTED_LEVELS = 12


def proxy_findings(
    name: str,
    frame: pd.DataFrame,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    used: Sequence[MetadataColumn | str],
    declared: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> list[Finding]:
    """Turn :func:`proxy_columns` into findings.

    Args:
        name: the data set's name, opening the sentences.
        frame: N rows with all the columns below.
        y: classes, (N,), or 0/1 for each of several labels, (N, C).
        groups: patient (else lesion) of each row, (N,).
        used: columns that a model gets as input: a leak among them is an error.
        declared: columns the card calls label proxies: never an input, a leak is a warning.
        unused: further columns of the manifest: never an input unless someone adds them, a leak is a warning.
    """
    columns = [*used, *declared, *unused]
    table = proxy_columns(frame, y, groups, columns)
    role = {
        **dict.fromkeys(unused, "unused"),
        **{_name(column): "input" for column in used},
        **dict.fromkeys(declared, "declared"),
    }
    table["role"] = table["column"].map(role)
    values = table[table["kind"] == "value"]
    leaks = [_value_finding(name, row, frame, y) for row in _records(values) if row["verdict"] == "leak"]
    blanks = table[(table["kind"] == "missingness") & (table["verdict"] == "leak")]
    honest = values[(values["role"] == "input") & (values["verdict"] != "leak")]
    return [*leaks, *_blank_findings(name, blanks, frame), *_strong(name, honest), *_tested(name, table, honest)]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in record.items()} for record in table.to_dict(orient="records")]


def _value_finding(name: str, row: dict[str, Any], frame: pd.DataFrame, y: np.ndarray) -> Finding:
    column = row["column"]
    evidence = {key: row[key] for key in ("column", "class", "auroc", "ruled_out", "n", "role")}
    evidence |= {"auroc_threshold": VALUE_AUROC, "ruled_out_threshold": VALUE_RULED_OUT}
    table = None
    if y.ndim == 1 and frame[column].nunique() <= _COUNTED_LEVELS:
        table = pd.crosstab(
            frame[column].astype(str).where(frame[column].notna(), "(blank)"), pd.Series(y, name="label")
        )
        table = table.reset_index()
        evidence["counts"] = examples(table)
    message = f"{name}: {column!r} gives the label away: {row['reason']}."
    severity: Severity = "warning"
    if row["role"] == "input":
        severity = "error"
        remedy = f"'label_proxies: [{column}]' in card.yaml keeps it out of every model; or 'waive: [proxy:{column}]'."
    elif row["role"] == "declared":
        remedy = "The card names it under 'label_proxies': no model gets it. Nothing to do."
    else:
        remedy = (
            "No model gets it, as the card's 'metadata' does not list it. Keep it so, or name it in 'label_proxies'."
        )
    return Finding(f"proxy:{column}", severity, message, evidence, remedy, table)


def _blank_findings(name: str, blanks: pd.DataFrame, frame: pd.DataFrame) -> list[Finding]:
    """One finding for all columns that are blank in (nearly) the same rows and play the same role."""
    findings = []
    left = _records(blanks)
    while left:
        first = left[0]
        one = frame[first["column"]].isna().to_numpy()
        alike = []
        for row in left:
            other = frame[row["column"]].isna().to_numpy()
            if row["role"] == first["role"] and (one & other).sum() >= SAME_BLANKS * (one | other).sum():
                alike.append(row)
        left = [row for row in left if row not in alike]
        findings.append(_blank_finding(name, first, [row["column"] for row in alike], frame, one))
    return findings


def _blank_finding(
    name: str, row: dict[str, Any], columns: list[str], frame: pd.DataFrame, blank: np.ndarray
) -> Finding:
    same = int(frame[columns].isna().all(axis=1).sum())
    evidence = {
        "columns": columns,
        "n_blank": same,
        **{key: row[key] for key in ("class", "auroc", "ruled_out", "role")},
    }
    evidence |= {"auroc_threshold": MISSINGNESS_AUROC, "ruled_out_threshold": MISSINGNESS_RULED_OUT}
    if len(columns) == 1:
        where = f"{columns[0]!r} is blank ({plural(int(blank.sum()), 'photo')})"
        message = f"{name}: where {where} gives the label away: {row['reason']}."
    else:
        listed = ", ".join(columns[:3]) + (", …" if len(columns) > 3 else "")
        message = (
            f"{name}: {len(columns)} columns ({listed}) are blank in the same {same:,} photos, and that gives the "
            f"label away: {row['reason']}."
        )
    if row["role"] != "input":
        return Finding("missingness", "info", message, evidence, "No model gets them. Nothing to do.")
    remedy = (
        f"The questionnaire encoder drops {'it' if len(columns) == 1 else 'them'} whole, values and blanks, so nothing "
        f"leaks; 'label_proxies: [{', '.join(columns)}]' in card.yaml makes that explicit."
    )
    return Finding("missingness", "warning", message, evidence, remedy)


def _strong(name: str, honest: pd.DataFrame) -> list[Finding]:
    return [
        Finding(
            "strong-column",
            "warning",
            f"{name}: {row['reason']}.",
            {key: row[key] for key in ("column", "class", "auroc", "ruled_out", "n")}
            | {"auroc_threshold": STRONG_AUROC},
            "Was it known before the diagnosis? If not, name it under 'label_proxies' in card.yaml; else all is well.",
        )
        for row in _records(honest[honest["verdict"] == "strong"])
    ]


def _tested(name: str, table: pd.DataFrame, honest: pd.DataFrame) -> list[Finding]:
    """List every column tested, and name the honest ones that say most."""
    if table.empty:
        return []
    best = honest.sort_values("auroc", ascending=False).head(3)
    told = ", ".join(
        f"{row['column']} (AUROC {row['auroc']:.2f} for {row['class']})" for row in _records(best) if row["class"]
    )
    message = f"{name}: {plural(table['column'].nunique(), 'column')} tested alone against the label"
    message += f"; of those kept as inputs these say most: {told}." if told else "."
    return [
        Finding(
            "columns-tested", "info", message, {"n": table["column"].nunique(), "examples": examples(table)}, "", table
        )
    ]


def stored_findings(name: str, headers: pd.DataFrame, y: np.ndarray, groups: np.ndarray) -> list[Finding]:
    """Say whether the way photos are stored (size, format) gives the label away: a network sees it, whatever is asked.

    Args:
        name: the data set's name, opening the sentences.
        headers: as :func:`dermlab.audit.files.read_headers` returns them, N rows.
        y: classes, (N,), or 0/1 for each of several labels, (N, C).
        groups: patient (else lesion) of each row, (N,).
    """
    words = {"width_px": "width", "height_px": "height", "format": "file format", "bytes": "file size"}
    frame = headers[list(words)].rename(columns=words)
    frame["file format"] = frame["file format"].replace("", None)
    table = proxy_columns(frame.reset_index(drop=True), y, groups)
    leaks = table[(table["kind"] == "value") & (table["verdict"] == "leak")]
    if leaks.empty:
        return []
    reasons = "; ".join(leaks["reason"])
    evidence = {"columns": leaks["column"].tolist(), "examples": examples(leaks)}
    remedy = (
        "Photos of one diagnosis come from another source or were cut by hand: a model may learn that instead of skin. "
        "Compare it on photos of one source, and collect the missing kind."
    )
    message = f"{name}: how the photos are stored gives the label away: {reasons}."
    return [Finding("storage-proxy", "warning", message, evidence, remedy, leaks.reset_index(drop=True))]
