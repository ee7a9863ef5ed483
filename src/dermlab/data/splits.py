"""Splits: who is trained on, who chooses, who judges. A group (patient, else lesion, else image) is never divided.

Every function takes a data set and returns a frame ``image_id, split, fold, repeat`` for :meth:`Dataset.write_split`:
each (repeat, fold) is a complete assignment of all images to train, val and test. The same seed gives the same split,
whatever the order of the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dermlab.core.errors import InputError
from dermlab.core.progress import warn
from dermlab.core.randomness import generator
from dermlab.data.dataset import PARTS, Dataset
from dermlab.data.manifest import MANIFEST

TRAIN, VAL, TEST = range(3)

# Above this share of all images, groups that were joined because they share an id look like a mistake in the ids.
_SUSPICIOUS_SHARE = 0.1


def split_by_fraction(
    dataset: Dataset,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    *,
    by: str | None = None,
    target: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Split once into train, val and test, stratified by the target, groups undivided.

    Args:
        dataset: the data set.
        fractions: share of images in train, val and test; they sum to 1, and one may be 0.
        by: column that must not be divided; None is the card's, else patient, else lesion, else image.
        target: target to stratify by; None is the default one; without any target only sizes are met.
        seed: another seed is another split.

    Returns:
        One row per image: ``image_id, split, fold, repeat``.
    """
    shares = _checked_fractions(fractions)
    groups = _groups(dataset, by)
    strata = _strata(dataset, target)
    counts = _counts(strata, groups)
    if len(counts) < np.count_nonzero(shares):
        raise InputError(f"{dataset.folder}: {len(counts)} groups cannot fill {np.count_nonzero(shares)} parts")
    _warn_of_rare_classes(counts, strata, int(np.count_nonzero(shares)), "parts")
    return _frame(dataset, [deal(counts, shares, generator(seed, "split"))[groups]], [(0, 0)])


def split_by_folds(
    dataset: Dataset,
    n_folds: int,
    *,
    n_repeats: int = 1,
    val_fraction: float = 0.2,
    by: str | None = None,
    target: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Split into K stratified, grouped folds, each the test part once; val is a grouped part of the other folds.

    Args:
        dataset: the data set.
        n_folds: number of folds K, at least 2.
        n_repeats: how often the whole is drawn anew.
        val_fraction: share of the training folds that becomes val, in (0, 1).
        by: as in :func:`split_by_fraction`.
        target: as in :func:`split_by_fraction`.
        seed: another seed is another split.

    Returns:
        One row per image, fold and repeat: ``image_id, split, fold, repeat``.
    """
    if n_folds < 2:
        raise InputError(f"folds: at least 2, got {n_folds}")
    if n_repeats < 1:
        raise InputError(f"repeats: at least 1, got {n_repeats}")
    groups = _groups(dataset, by)
    strata = _strata(dataset, target)
    counts = _counts(strata, groups)
    if len(counts) < n_folds:
        raise InputError(f"{dataset.folder}: {len(counts)} groups are too few for {n_folds} folds")
    _warn_of_rare_classes(counts, strata, n_folds, "folds")
    assignments, keys = [], []
    for repeat in range(n_repeats):
        fold_of = deal(counts, np.full(n_folds, 1 / n_folds), generator(seed, "split", "folds", repeat))
        for fold in range(n_folds):
            rng = generator(seed, "split", "val", repeat, fold)
            assignments.append(_hold_out(counts, fold_of == fold, val_fraction, rng)[groups])
            keys.append((repeat, fold))
    return _frame(dataset, assignments, keys)


def split_by_site(
    dataset: Dataset,
    *,
    val_fraction: float = 0.2,
    by: str | None = None,
    target: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Leave one site out: fold k tests on the k-th site (in alphabetical order), val is a grouped part of the others.

    A group photographed at several sites counts whole to the one with most of its images.

    Args:
        dataset: the data set; ``site`` must be filled in for every group.
        val_fraction: share of the other sites' images that becomes val, in (0, 1).
        by: as in :func:`split_by_fraction`.
        target: as in :func:`split_by_fraction`.
        seed: another seed draws another val.

    Returns:
        One row per image and fold: ``image_id, split, fold, repeat``.
    """
    groups = _groups(dataset, by)
    site = _column(dataset, "site", "photographed where")
    table = pd.crosstab(groups, site)
    _refuse_unknown(dataset, groups, table.index, "site")
    main = table.to_numpy().argmax(axis=1)  # of equally frequent ones the first
    sites = [str(name) for name in table.columns[np.unique(main)]]
    if len(sites) < 2:
        raise InputError(f"{dataset.folder}: all images are of one site ({sites[0]}); leaving one out needs two")
    travelling = (table.to_numpy() > 0).sum(axis=1) > 1
    if travelling.any():
        warn(f"{travelling.sum():,} groups were photographed at several sites; each counts to its most frequent one")
    counts = _counts(_strata(dataset, target), groups)
    assignments = []
    for fold, column in enumerate(np.unique(main)):
        rng = generator(seed, "split", "site", fold)
        assignments.append(_hold_out(counts, main == column, val_fraction, rng)[groups])
    return _frame(dataset, assignments, [(0, fold) for fold in range(len(sites))])


def split_by_date(
    dataset: Dataset,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    *,
    by: str | None = None,
) -> pd.DataFrame:
    """Split by time: train before val before test, as a model meets the future.

    A group goes whole where its last photo belongs, so that nothing in train is later than the first cut and nothing
    in val later than the second. Older photos of patients who came back stay with them in val or test.

    Args:
        dataset: the data set; ``captured_at`` must be filled in for every group.
        fractions: share of images in train, val and test; met as nearly as whole days and groups allow.
        by: as in :func:`split_by_fraction`.

    Returns:
        One row per image: ``image_id, split, fold, repeat``.
    """
    shares = _checked_fractions(fractions)
    groups = _groups(dataset, by)
    dates = _column(dataset, "captured_at", "photographed when").dt.normalize()
    last = dates.groupby(groups).max()
    _refuse_unknown(dataset, groups, last.index[last.notna()], "captured_at")
    days, day_of_group = np.unique(last.to_numpy(), return_inverse=True)
    images = np.bincount(day_of_group[groups], minlength=len(days))
    wanted = np.flatnonzero(shares)
    if len(days) < len(wanted):
        raise InputError(f"{dataset.folder}: {len(days)} different dates cannot be cut into {len(wanted)} parts")
    cumulative = np.concatenate([[0], np.cumsum(images)]) / len(dataset)
    part_of_day = np.full(len(days), wanted[-1])
    start = 0
    for k, part in enumerate(wanted[:-1]):
        # At least one day for this part and one for each that follows.
        lowest, highest = start + 1, len(days) - (len(wanted) - 1 - k)
        goal = shares[: part + 1].sum()
        end = lowest + int(np.abs(cumulative[lowest : highest + 1] - goal).argmin())
        part_of_day[start:end] = part
        start = end
    part = part_of_day[day_of_group][groups]
    old = _older_than_training(dates, part)
    if old:
        warn(f"{old:,} photos in val or test are older than the cut: they are of groups whose last photo is later")
    return _frame(dataset, [part], [(0, 0)])


def _older_than_training(dates: pd.Series, part: np.ndarray) -> int:
    """Count the photos of val and test that were taken no later than the last one of train."""
    last = dates[part == TRAIN].max()
    return int((dates[part != TRAIN] <= last).sum())


# --- groups ---------------------------------------------------------------------------------------------------------


def linked_groups(dataset: Dataset, by: str | None = None) -> np.ndarray:
    """Return the group of each image, int64 (N,), codes 0, 1, …: what no split may divide.

    Images of one patient belong together, and so do those of one lesion: groups that share an id in another column (a
    lesion under two patients) are joined.

    Args:
        dataset: the data set.
        by: column that must not be divided; None is :meth:`Dataset.group_column`. ``lesion_id`` and ``image_id`` are
            taken as they are, though they may divide patients; any other column is joined with patients and lesions.
    """
    column = by or dataset.group_column()
    if column not in dataset.manifest:
        names = ", ".join(name for name in dataset.manifest.columns if name not in ("path", "mask_path"))
        raise InputError(f"{dataset.folder}: no column {column!r} to group by; there is {names}")
    joined = [column] if column in ("image_id", "lesion_id") else [column, "patient_id", "lesion_id"]
    links = [dataset.manifest[name] for name in dict.fromkeys(joined) if name in dataset.manifest]
    n_images = len(dataset)
    rows, nodes, n_nodes = [], [], n_images
    for values in links:
        codes, levels = pd.factorize(values, use_na_sentinel=True)
        present = np.flatnonzero(codes >= 0)
        rows.append(present)
        nodes.append(codes[present] + n_nodes)
        n_nodes += len(levels)
    edges = (np.concatenate(rows), np.concatenate(nodes))
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][:n_images]
    # Numbered by their first image in alphabetical order: the order of the manifest plays no part.
    order = np.argsort(dataset.image_ids, kind="stable")
    _, first, inverse = np.unique(component[order], return_index=True, return_inverse=True)
    groups = np.empty(n_images, dtype=np.int64)
    groups[order] = np.argsort(np.argsort(first))[inverse]
    return groups


def _groups(dataset: Dataset, by: str | None) -> np.ndarray:
    """Return :func:`linked_groups` and warn where they are not what the user may expect."""
    groups = linked_groups(dataset, by)
    column = by or dataset.group_column()
    finer = {"image_id": ("patient_id", "lesion_id"), "lesion_id": ("patient_id",)}.get(column, ())
    divided = [name for name in finer if name in dataset.manifest and dataset.manifest[name].notna().any()]
    if divided:
        warn(f"grouping by {column} may put images of one {divided[0].removesuffix('_id')} into several parts")
    values = dataset.manifest[column].groupby(groups).nunique()
    joined = values[values > 1]
    if len(joined):
        largest = int(np.bincount(groups)[joined.index].max())
        text = f"{int(joined.sum()):,} values of {column} share an id in another column and form {len(joined):,} groups"
        if largest > _SUSPICIOUS_SHARE * len(dataset) and joined.max() > 2:
            text += (
                f"; the largest holds {largest:,} of {len(dataset):,} images: are lesions numbered for each patient?"
            )
        warn(text)
    return groups


def _column(dataset: Dataset, name: str, meaning: str) -> pd.Series:
    if name not in dataset.manifest or dataset.manifest[name].isna().all():
        raise InputError(f"{dataset.folder}: the column {name!r} ({meaning}) is needed here and not filled in")
    return dataset.manifest[name]


def _refuse_unknown(dataset: Dataset, groups: np.ndarray, known: pd.Index, name: str) -> None:
    unknown = ~np.isin(groups, known.to_numpy())
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise InputError.at(
            dataset.folder / MANIFEST,
            f"blank for every photo of this group ({int(unknown.sum()):,} images in all); fill it in or leave them out",
            row=row + 2,
            column=name,
        )


# --- dealing out groups ---------------------------------------------------------------------------------------------


def _strata(dataset: Dataset, target: str | None) -> pd.DataFrame:
    """Return what is to be spread evenly, 0/1 per image (N, classes): the classes, and those without a label."""
    if target is None and not dataset.card.targets:
        return pd.DataFrame(index=dataset.manifest.index)
    wanted = dataset.card.target(target)
    labels = dataset.labels(target)
    if labels.ndim == 1:
        labels = (labels[:, None] == np.array(wanted.classes, dtype=object)).astype(float)
        missing = labels.sum(axis=1) == 0
    else:
        missing = np.isnan(labels).any(axis=1)
    frame = pd.DataFrame(np.nan_to_num(labels), columns=list(wanted.classes))
    return frame.assign(**{"": missing.astype(float)}) if missing.any() else frame


def _counts(strata: pd.DataFrame, groups: np.ndarray) -> np.ndarray:
    """Return per group its images of each stratum and, in the last column, of all: float64 (G, D + 1)."""
    n_groups = int(groups.max()) + 1
    columns = [np.bincount(groups, weights=strata.iloc[:, k], minlength=n_groups) for k in range(strata.shape[1])]
    return np.stack([*columns, np.bincount(groups, minlength=n_groups).astype(float)], axis=1)


def deal(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal groups out to parts so that each part gets its share of every stratum, as nearly as whole groups allow.

    Groups with the same counts are interchangeable: most of them are dealt at once in proportion, and only what is left
    over goes greedily, the hardest to place first, where the chi-squared distance to the goal grows least. This is the
    idea of scikit-learn's ``StratifiedGroupKFold`` (which has equal folds only, and takes time with every group) for
    parts of any size.

    Args:
        counts: images of each stratum in each group, float (G, D).
        shares: share of each part, float (K,), sum 1; a part of share 0 stays empty.
        rng: source of the draw.

    Returns:
        Part of each group, int64 (G,).
    """
    shares = np.asarray(shares, dtype=float)
    open_parts = np.flatnonzero(shares > 0)
    kinds, kind_of = np.unique(counts, axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    n_of_kind = np.bincount(kind_of)
    totals = counts.sum(axis=0)
    weights = np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
    dealt = np.zeros((len(kinds), len(open_parts)))
    dealt[:] = np.floor(n_of_kind[:, None] * shares[open_parts] + 1e-9)
    excess = dealt.T @ kinds - np.outer(shares[open_parts], totals)  # how far each part is above its goal, (K, D)
    left = np.repeat(np.arange(len(kinds)), (n_of_kind - dealt.sum(axis=1)).astype(int))
    left = left[np.lexsort((rng.random(len(left)), -(kinds @ weights)[left]))]
    place = np.full(len(left), -1)
    tie = rng.random((len(left), len(open_parts))) * 1e-9
    scale = weights / shares[open_parts][:, None]
    for sweep in range(_sweeps(len(left))):
        moved = False
        for item, kind in enumerate(left):
            images = kinds[kind]
            if sweep:
                excess[place[item]] -= images
            growth = ((2 * excess + images) * images * scale).sum(axis=1) + tie[item]
            best = int(growth.argmin())
            moved |= best != place[item]
            place[item] = best
            excess[best] += images
        if not moved:
            break
    np.add.at(dealt, (left, place), 1)
    # Which of the interchangeable groups go where is drawn.
    order = np.lexsort((rng.random(len(counts)), kind_of))
    part = np.empty(len(counts), dtype=np.int64)
    part[order] = np.repeat(np.tile(open_parts, len(kinds)), dealt.astype(int).ravel())
    return part


def _sweeps(n_items: int) -> int:
    """Return how often the placed groups are looked at again: the fewer there are, the more each one matters."""
    return 1 + int(np.clip(20_000 // max(n_items, 1), 0, 10))


def _hold_out(counts: np.ndarray, test: np.ndarray, val_fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return the part of each group, int64 (G,): test as given, the others dealt out to train and val."""
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction: between 0 and 1, got {val_fraction}")
    part = np.full(len(counts), TEST, dtype=np.int64)
    rest = np.flatnonzero(~test)
    if len(rest) < 2:
        raise InputError("too few groups: without the test part fewer than two are left for train and val")
    part[rest] = deal(counts[rest], np.array([1 - val_fraction, val_fraction]), rng)
    return part


def _warn_of_rare_classes(counts: np.ndarray, strata: pd.DataFrame, n_parts: int, what: str) -> None:
    n_groups = (counts[:, :-1] > 0).sum(axis=0)
    rare = [f"{name} ({n})" for name, n in zip(strata.columns, n_groups, strict=True) if name and n < n_parts]
    if rare:
        warn(f"classes in fewer groups than there are {what} ({n_parts}) are absent from some: {', '.join(rare)}")


def _checked_fractions(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6 or shares[TRAIN] == 0:
        given = ", ".join(f"{share:g}" for share in shares.ravel())
        raise InputError(
            f"fractions: three shares for train, val and test that sum to 1, as in 0.6,0.2,0.2; got {given}"
        )
    return shares / shares.sum()


def _frame(dataset: Dataset, parts: Sequence[np.ndarray], keys: Sequence[tuple[int, int]]) -> pd.DataFrame:
    n = len(dataset)
    ids = dataset.manifest["image_id"]
    return pd.DataFrame(
        {
            "image_id": pd.concat([ids] * len(keys), ignore_index=True),
            "split": np.asarray(PARTS, dtype=object)[np.concatenate(parts)],
            "fold": np.repeat([fold for _, fold in keys], n).astype(np.int32),
            "repeat": np.repeat([repeat for repeat, _ in keys], n).astype(np.int32),
        }
    )


# --- what came of it ------------------------------------------------------------------------------------------------


def balance(
    frame: pd.DataFrame, labels: np.ndarray, groups: np.ndarray, *, classes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Measure how evenly a split came out.

    Args:
        frame: a split, its blocks in manifest order (as every function here and :meth:`Dataset.read_split` return it).
        labels: labels of the images, object (N,) with None where missing, or 0/1 per class, (N, C).
        groups: group of each image, (N,).
        classes: names of the classes, in order; default: those that occur, sorted, or 0, 1, … for a matrix.

    Returns:
        One row per repeat, fold and part: ``repeat, fold, split, n_images, n_groups``, for each class
        ``share:<class>`` (share of the part's labelled images), and ``worst_class`` with ``worst_deviation``: the share
        that is farthest from that of the whole, and by how much (signed, 0.01 is one point).
    """
    labels = np.asarray(labels)
    if labels.ndim == 1:
        present = pd.Series(labels, dtype=object).dropna()
        classes = sorted(present.unique()) if classes is None else list(classes)
        onehot = (labels[:, None] == np.array(classes, dtype=object)).astype(float)
        labelled = onehot.any(axis=1)
    else:
        classes = [str(k) for k in range(labels.shape[1])] if classes is None else list(classes)
        labelled = ~np.isnan(labels).any(axis=1)
        onehot = np.nan_to_num(labels)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    overall = onehot.sum(axis=0) / max(labelled.sum(), 1)
    n = len(labels)
    if len(frame) % n:
        raise InputError(f"a split of {len(frame):,} rows is not of {n:,} images")
    split = frame["split"].to_numpy(dtype=object).reshape(-1, n)
    keys = frame[["repeat", "fold"]].to_numpy()[::n]
    rows = []
    for (repeat, fold), parts in zip(keys, split, strict=True):
        for part in PARTS:
            here = parts == part
            if not here.any():
                continue
            share = onehot[here].sum(axis=0) / max(labelled[here].sum(), 1)
            row = {
                "repeat": int(repeat),
                "fold": int(fold),
                "split": part,
                "n_images": int(here.sum()),
                "n_groups": len(np.unique(codes[here])),
            }
            row |= {f"share:{name}": float(value) for name, value in zip(classes, share, strict=True)}
            worst = int(np.abs(share - overall).argmax()) if len(classes) else -1
            row["worst_class"] = classes[worst] if len(classes) else None
            row["worst_deviation"] = float((share - overall)[worst]) if len(classes) else 0.0
            rows.append(row)
    return pd.DataFrame(rows)
