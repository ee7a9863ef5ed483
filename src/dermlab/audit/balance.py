"""How classes and groups are spread: over the data set, and over the parts of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import chi2

from dermlab.audit.findings import FOLDER, Finding, examples
from dermlab.audit.leakage import assignments
from dermlab.core.words import groups_word, plural
from dermlab.data.dataset import PARTS
from dermlab.data.missingness import MIN_EXPECTED_GROUPS, group_weights

PRIOR_DISTANCE = 0.05
"""Parts whose class frequencies differ by less than this (total variation distance) are alike for every purpose."""

PRIOR_P = 0.01
"""Differences of class frequencies are mentioned where chance would make them this rarely."""

FEW_GROUPS = 5
"""A class with fewer groups than this in the test part has no interval worth the name."""

LARGE_GROUP_SHARE = 0.05
"""One patient with a larger share of all photos speaks louder than a patient should."""

FEW_GROUPS_IN_ALL = 30
"""Intervals by resampling groups need about this many to hold what they promise."""

LARGE_PART_SHARE = 0.20
"""A test part of which one patient makes up more than this share says more about that patient than about others."""

MAJORITY_SHARE = 0.5
"""From this share of the largest class on, accuracy by itself misleads."""


def class_findings(
    name: str, target: str, labels: np.ndarray, groups: np.ndarray, classes: Sequence[str]
) -> list[Finding]:
    """Say how the classes are spread over photos and groups.

    Args:
        name: opens the sentences.
        target: the target's column.
        labels: class of each image, None where missing, (N,).
        groups: group of each image, (N,).
        classes: the target's classes.
    """
    codes = pd.Index(classes).get_indexer(pd.Index(labels))
    group = np.unique(groups.astype(str), return_inverse=True)[1]
    photos, n_groups, _ = _count(codes, group, codes >= 0, len(classes)).astype(np.int64)
    table = pd.DataFrame({"class": list(classes), "photos": photos, "groups": n_groups})
    table = table.sort_values("photos", ascending=False, ignore_index=True)
    findings = []
    unknown = int((codes < 0).sum())
    if unknown:
        message = (
            f"{name}: {plural(unknown, 'photo')} of {len(labels):,} {'has' if unknown == 1 else 'have'} no {target!r}."
        )
        findings.append(
            Finding("unlabelled", "info", message, {"n": unknown}, "They are left out of training and testing.")
        )
    empty = table.loc[table["photos"] == 0, "class"].tolist()
    if empty:
        message = (
            f"{name}: no photo is {', '.join(empty)}, though the card lists {'it' if len(empty) == 1 else 'them'}."
        )
        remedy = "Take that class out of the target's 'classes' in card.yaml, or import the rest of the data."
        findings.append(Finding("empty-class", "warning", message, {"classes": empty}, remedy))
    total = int(photos.sum())
    if total and photos.max() > MAJORITY_SHARE * total:
        first, last = table.iloc[0], table[table["photos"] > 0].iloc[-1]
        share = f"{first['photos'] / total:.0%}"
        rarest = plural(int(last["photos"]), "photo")
        message = (
            f"{name}: {first['class']} is {share} of the photos, {last['class']} {rarest}; "
            f"always answering {first['class']} is right {share} of the time."
        )
        evidence = {"n": len(table), "majority_share": float(first["photos"] / total), "examples": examples(table)}
        remedy = "Read balanced accuracy and the recall of each class; accuracy alone says little here."
        findings.append(Finding("class-imbalance", "info", message, evidence, remedy, table))
    return findings


def group_findings(name: str, column: str, groups: np.ndarray) -> list[Finding]:
    """Say whether there are few groups, or one that outweighs the others.

    Args:
        name: opens the sentences.
        column: what they are, ``patient_id`` for one.
        groups: group of each image, (N,).
    """
    names, counts = np.unique(groups.astype(str), return_counts=True)
    whose = groups_word(column)
    findings = []
    several = counts > 1
    if several.any() and column != "image_id":
        n, n_photos = int(several.sum()), int(counts[several].sum())
        message = (
            f"{name}: {n:,} of {len(names):,} {whose} have several photos ({n_photos:,}, up to {counts.max():,} each)."
        )
        table = pd.DataFrame({column: names[several], "photos": counts[several]})
        table = table.sort_values("photos", ascending=False, kind="stable", ignore_index=True)
        evidence = {"n": n, "n_photos": n_photos, "examples": examples(table)}
        remedy = f"Splits and intervals go by {column}: photos of one are never in two parts, and count as one."
        findings.append(Finding("several-photos", "info", message, evidence, remedy, table))
    if len(names) < FEW_GROUPS_IN_ALL:
        message = (
            f"{name}: only {len(names)} {whose}; with fewer than about {FEW_GROUPS_IN_ALL}, intervals by resampling "
            "are too narrow."
        )
        remedy = f"Collect from more {whose}, or read every interval as a lower bound of the uncertainty."
        findings.append(Finding("few-groups", "warning", message, {"n_groups": len(names)}, remedy))
    large = np.flatnonzero((counts > LARGE_GROUP_SHARE * len(groups)) & (counts > 10 * np.median(counts)))
    if len(large):
        table = pd.DataFrame({column: names[large], "photos": counts[large]}).sort_values("photos", ascending=False)
        worst = table.iloc[0]
        message = (
            f"{name}: {len(large)} of {len(names):,} {whose} {'holds' if len(large) == 1 else 'hold'} more than "
            f"{LARGE_GROUP_SHARE:.0%} of the photos; {worst[column]!r} has {worst['photos']:,} of {len(groups):,}."
        )
        remedy = f"Results will lean on these {whose}; check that the id is not a stand-in for 'unknown'."
        findings.append(
            Finding("large-groups", "warning", message, {"n": len(large), "examples": examples(table)}, remedy, table)
        )
    return findings


def part_findings(
    where: str, labels: np.ndarray, groups: np.ndarray, split: pd.DataFrame, classes: Sequence[str]
) -> list[Finding]:
    """Say which classes a part lacks, which rest on few groups, and which parts differ in make-up.

    Args:
        where: opens the sentences: data set and split.
        labels: class of each image, None where missing, (N,).
        groups: group of each image, (N,).
        split: the split.
        classes: the target's classes.
    """
    codes = pd.Index(classes).get_indexer(pd.Index(labels))
    group = np.unique(groups.astype(str), return_inverse=True)[1]
    keys, counted = [], []
    for repeat, fold, parts in assignments(split):
        keys.append((repeat, fold))
        counted.append([_count(codes, group, (parts == part) & (codes >= 0), len(classes)) for part in PARTS])
    photos, n_groups, effective = np.moveaxis(np.array(counted), 2, 0)  # each (assignments, parts, classes)
    return [
        *_absent(where, photos, keys, classes),
        *_few_groups(where, n_groups, keys, classes),
        *_prior_shifts(where, photos, effective, keys, classes),
        *_dominated(where, groups, split),
    ]


def _count(codes: np.ndarray, group: np.ndarray, inside: np.ndarray, n_classes: int) -> np.ndarray:
    """Return photos, groups and effective number of groups of each class among the images ``inside``, (3, C)."""
    codes, group = codes[inside], group[inside]
    pairs = np.unique(np.stack([codes, group]), axis=1)
    photos = np.bincount(codes, minlength=n_classes)
    n_groups = np.bincount(pairs[0], minlength=n_classes)
    return np.stack([photos, n_groups, np.bincount(codes, weights=group_weights(group), minlength=n_classes)])


def _absent(where: str, photos: np.ndarray, keys: list[tuple[int, int]], classes: Sequence[str]) -> list[Finding]:
    # A class without any photo at all is the data set's matter, a part without any photo the splitter's choice.
    absent = (photos == 0) & (photos.sum(axis=1, keepdims=True) > 0) & (photos.sum(axis=2, keepdims=True) > 0)
    if not absent.any():
        return []
    rows = [(*keys[a], PARTS[p], classes[c]) for a, p, c in np.argwhere(absent)]
    table = pd.DataFrame(rows, columns=["repeat", "fold", "part", "class"])
    told = [
        f"{part} has no {', '.join(dict.fromkeys(table.loc[table['part'] == part, 'class']))}"
        for part in PARTS
        if (table["part"] == part).any()
    ]
    folds = f" (in {int(absent.any(axis=(1, 2)).sum())} of {len(keys)} folds)" if len(keys) > 1 else ""
    remedy = (
        "A class that is not in train cannot be learned, one that is not in test is not measured: fewer folds, a "
        "larger part, or one class less in the card."
    )
    evidence = {"n": len(table), "examples": examples(table)}
    return [Finding("absent-class", "warning", f"{where}: {'; '.join(told)}{folds}.", evidence, remedy, table)]


def _few_groups(where: str, n_groups: np.ndarray, keys: list[tuple[int, int]], classes: Sequence[str]) -> list[Finding]:
    # The folds of one repeat tile the data: what is scored in the end is their union.
    repeats = np.array([repeat for repeat, _ in keys])
    tested = n_groups[:, PARTS.index("test")]
    union = np.stack([tested[repeats == repeat].sum(axis=0) for repeat in np.unique(repeats)]).min(axis=0)
    few = [(classes[c], int(union[c])) for c in np.flatnonzero((union > 0) & (union < FEW_GROUPS)).tolist()]
    if not few:
        return []
    told = ", ".join(f"{name} ({count})" for name, count in few)
    table = pd.DataFrame(few, columns=["class", "groups_in_test"])
    remedy = "Their recall will have an interval from nearly 0 to nearly 1: collect more, join classes, or use folds."
    evidence = {"n": len(few), "examples": examples(table)}
    message = f"{where}: fewer than {FEW_GROUPS} groups are tested for {told}."
    return [Finding("few-groups", "warning", message, evidence, remedy, table)]


def _prior_shifts(
    where: str, photos: np.ndarray, effective: np.ndarray, keys: list[tuple[int, int]], classes: Sequence[str]
) -> list[Finding]:
    """Compare class frequencies of val and train with those of test, by chi-squared on effective numbers of groups."""
    test = PARTS.index("test")
    consequence = {
        "val": "what is chosen on val (the winner, thresholds, calibration) may not hold on test",
        "train": "probabilities will be off on test unless corrected for it",
    }
    findings = []
    for part, effect in consequence.items():
        place = PARTS.index(part)
        rows = []
        for key, count, weight in zip(keys, photos, effective, strict=True):
            if count[place].sum() == 0 or count[test].sum() == 0:
                continue
            here, there = count[place] / count[place].sum(), count[test] / count[test].sum()
            distance = float(np.abs(here - there).sum() / 2)
            p = _homogeneity_p(weight[[place, test]])
            if distance >= PRIOR_DISTANCE and p < PRIOR_P:
                most = int(np.abs(here - there).argmax())
                rows.append((*key, part, distance, p, classes[most], float(here[most]), float(there[most])))
        if not rows:
            continue
        columns = ["repeat", "fold", "part", "distance", "p", "class", "share", "share_in_test"]
        table = pd.DataFrame(rows, columns=columns).sort_values("distance", ascending=False, ignore_index=True)
        worst = table.to_dict(orient="records")[0]
        message = (
            f"{where}: {part} and test differ in class frequencies: {worst['class']} is {worst['share']:.0%} of {part} "
            f"and {worst['share_in_test']:.0%} of test."
        )
        evidence = {"n": len(table), "distance": worst["distance"], "p": worst["p"], "examples": examples(table)}
        remedy = f"Split stratified, or mean it: {effect}."
        findings.append(Finding("prior-shift", "warning", message, evidence, remedy, table))
    return findings


def _dominated(where: str, groups: np.ndarray, split: pd.DataFrame) -> list[Finding]:
    """Say which test parts rest on one patient."""
    rows = []
    for repeat, fold, parts in assignments(split):
        names, counts = np.unique(groups[parts == "test"].astype(str), return_counts=True)
        # With a handful of groups every one of them is large; that is told elsewhere.
        if len(names) >= FEW_GROUPS and counts.max() > LARGE_PART_SHARE * counts.sum():
            rows.append((repeat, fold, names[counts.argmax()], int(counts.max()), int(counts.sum())))
    if not rows:
        return []
    table = pd.DataFrame(rows, columns=["repeat", "fold", "group", "photos", "photos_in_test"])
    worst = table.iloc[(table["photos"] / table["photos_in_test"]).argmax()]
    message = (
        f"{where}: {worst['group']!r} alone has {worst['photos']:,} of the {worst['photos_in_test']:,} photos of test."
    )
    evidence = {"n": len(table), "examples": examples(table)}
    remedy = "Score by patient ('unit: patient' in card.yaml), or see that the id is not a stand-in for 'unknown'."
    return [Finding("large-groups", "warning", message, evidence, remedy, table)]


def site_findings(
    name: str, column: str, sites: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: Sequence[str]
) -> list[Finding]:
    """Say which classes come from one site alone though others were to be expected: a model may learn the site.

    Args:
        name: opens the sentence.
        column: what the sites are: ``site``, ``modality``.
        sites: of each image, None where missing, (N,).
        labels: class of each image, None where missing, (N,).
        groups: group of each image, (N,).
        classes: the target's classes.
    """
    codes = pd.Index(classes).get_indexer(pd.Index(labels))
    known = (codes >= 0) & ~pd.isna(sites)
    names, site = np.unique(sites[known].astype(str), return_inverse=True)
    if len(names) < 2:
        return []
    counts = np.zeros((len(classes), len(names)))
    np.add.at(counts, (codes[known], site), group_weights(groups[known]))
    elsewhere = counts.sum(axis=0) / counts.sum()
    rows = []
    for code, row in enumerate(counts):
        home = int(row.argmax())
        expected = float(row.sum() * (1 - elsewhere[home]))
        if row.sum() > 0 and row[home] == row.sum() and expected >= MIN_EXPECTED_GROUPS:
            rows.append((classes[code], str(names[home]), round(float(row.sum()), 1), round(expected, 1)))
    if not rows:
        return []
    table = pd.DataFrame(rows, columns=["class", column, "groups", "groups_expected_elsewhere"])
    told = ", ".join(f"{row[0]} only in {row[1]!r}" for row in rows)
    message = f"{name}: by {column!r}, {told}; a model may learn the {column} and look right."
    evidence = {"n": len(table), "column": column, "examples": examples(table)}
    remedy = (
        f"Test on a {column} that has all classes ('dermlab data split {FOLDER} --by-site'), or collect the missing."
    )
    return [Finding("site-confounding", "warning", message, evidence, remedy, table)]


def _homogeneity_p(counts: np.ndarray) -> float:
    """Return the p-value of Pearson's chi-squared test that the rows of a (2, C) table have one distribution."""
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), df=max(1, counts.shape[1] - 1)))
