"""All checks of one or several data sets, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from dermlab.audit.balance import class_findings, group_findings, part_findings, site_findings
from dermlab.audit.columns import column_findings
from dermlab.audit.contradictions import contradiction_findings
from dermlab.audit.copies import contamination_findings, copy_findings
from dermlab.audit.duplicates import MIN_CONTRAST, find_duplicates, photo_of
from dermlab.audit.files import file_findings, read_headers
from dermlab.audit.findings import Finding, worst_first
from dermlab.audit.identifying import identifying_findings
from dermlab.audit.leakage import overlap_findings, shared_lesion_findings
from dermlab.audit.lookalikes import LookAlikes, find_look_alikes, look_alike_findings
from dermlab.audit.mislabelled import label_findings
from dermlab.audit.oddities import odd_findings
from dermlab.audit.proxies import proxy_findings, stored_findings
from dermlab.audit.tattoos import find_tattoos, tattoo_findings
from dermlab.audit.thumbnails import Thumbnails, read_thumbnails
from dermlab.data.card import RESERVED, Target
from dermlab.data.dataset import Dataset

SEEN_IN_PHOTOS = ("site", "modality", "captured_at")
"""Reserved columns that no questionnaire holds but a photo may show: camera, room and season differ between them."""


def audit(
    datasets: Dataset | Sequence[Dataset],
    *,
    split: str | None = None,
    target: str | None = None,
    inputs: Sequence[str] = (),
    encoder: str | None = None,
    closely: bool = False,
    pretraining: Sequence[Path] = (),
) -> list[Finding]:
    """Look for everything that would make results on these data sets wrong.

    Photos are read through the pixel cache; what cannot be read is a finding, never an exception.

    Args:
        datasets: one data set or several; of several, each pair is searched for shared photos too.
        split: check this split only (in every data set that has it); default: every split of every data set.
        target: name of the target; default: each card's default one. Without any target, checks that need labels are
            left out.
        inputs: columns that a model gets although the card calls them label proxies.
        encoder: look for copies, photos off the topic and wrong labels with this encoder's features too, and, closely,
            for tattoos; default: by frequencies and colours alone.
        closely: look for wrong labels, faces and text too; that decodes every photo once more, at its full size.
        pretraining: folders among the data sets that an encoder was (or will be) pretrained on: what they share with
            the others is judged by what it does to those.

    Returns:
        The findings, errors first.

    Raises:
        InputError: no data set has a split or a target of that name, or a card does not say which target is meant.
    """
    datasets = [datasets] if isinstance(datasets, Dataset) else list(datasets)
    names = _names(datasets)
    splits = [_splits(dataset, split) for dataset in datasets]
    if split is not None and not any(splits):
        datasets[0].read_split(split)  # says which splits there are
    targets = [_target(dataset, target) for dataset in datasets]
    if target is not None and not any(targets):
        datasets[0].card.target(target)  # says which targets there are

    paths = [path for dataset in datasets for path in dataset.paths]
    thumbnails = read_thumbnails(paths)
    headers = read_headers(paths)
    sizes = [len(dataset) for dataset in datasets]
    start = np.cumsum([0, *sizes])
    dataset_of = np.repeat(np.arange(len(datasets)), sizes)
    pairs = find_duplicates(thumbnails, paths, dataset_of)
    features, look_alikes = None, None
    if encoder is not None:
        from dermlab.features.extract import embed_paths

        embedded = embed_paths(paths, encoder)
        features = embedded.values
        usable = embedded.valid & thumbnails.readable & (thumbnails.contrast >= MIN_CONTRAST)
        look_alikes = find_look_alikes(features, usable, paths, pairs, encoder)
        pairs = pd.concat([pairs, look_alikes.copies], ignore_index=True)
    photo = photo_of(len(paths), pairs)
    home = dataset_of[pairs[["a", "b"]].to_numpy()]

    findings: list[Finding] = []
    for d, dataset in enumerate(datasets):
        here = dataset_of == d
        its_pairs = pairs[(home == d).all(axis=1)].reset_index(drop=True)
        its_pairs[["a", "b"]] -= start[d]
        found = _dataset_findings(
            names[d],
            dataset,
            targets[d],
            splits[d],
            thumbnails.rows(slice(int(start[d]), int(start[d + 1]))),
            headers[here].reset_index(drop=True),
            its_pairs,
            inputs,
        )
        rows = slice(int(start[d]), int(start[d + 1]))
        found += _photo_findings(
            names[d], dataset, targets[d], thumbnails.rows(rows), rows, features, encoder, look_alikes, closely
        )
        findings += [finding.in_folder(dataset.folder) for finding in found]
    for d in range(len(datasets)):
        for e in range(d + 1, len(datasets)):
            between = pairs[(home == [d, e]).all(axis=1)].reset_index(drop=True)
            between[["a", "b"]] -= start[[d, e]]
            found = contamination_findings(
                (names[d], names[e]),
                (datasets[d].image_ids, datasets[e].image_ids),
                (photo[dataset_of == d], photo[dataset_of == e]),
                (splits[d], splits[e]),
                between,
                pretraining=(_is_among(datasets[d], pretraining), _is_among(datasets[e], pretraining)),
            )
            findings += [finding.in_folder(datasets[d].folder, datasets[e].folder) for finding in found]
    return worst_first(findings)


def _is_among(dataset: Dataset, folders: Sequence[Path]) -> bool:
    return dataset.folder.resolve() in [folder.expanduser().resolve() for folder in folders]


def _names(datasets: Sequence[Dataset]) -> list[str]:
    """Name the data sets by their cards, with the folder where two cards have one name."""
    names = [dataset.card.name for dataset in datasets]
    return [
        name if names.count(name) == 1 else f"{name} ({dataset.folder})"
        for name, dataset in zip(names, datasets, strict=True)
    ]


def _splits(dataset: Dataset, split: str | None) -> dict[str, pd.DataFrame]:
    return {name: dataset.read_split(name) for name in dataset.split_names() if split in (None, name)}


def _target(dataset: Dataset, name: str | None) -> Target | None:
    """Return the target asked for or the default one, None where the data set has none such."""
    card = dataset.card
    if not card.targets or (name is not None and name not in [target.column for target in card.targets]):
        return None
    return card.target(name)


def _as_text(labels: np.ndarray) -> np.ndarray:
    """Return one text per image, None where unlabelled; of a multilabel target the 0/1 pattern."""
    if labels.ndim == 1:
        return labels
    text = np.array(["".join("1" if value == 1 else "0" for value in row) for row in labels], dtype=object)
    text[np.isnan(labels).any(axis=1)] = None
    return text


def _dataset_findings(
    name: str,
    dataset: Dataset,
    target: Target | None,
    splits: dict[str, pd.DataFrame],
    thumbnails: Thumbnails,
    headers: pd.DataFrame,
    pairs: pd.DataFrame,
    inputs: Sequence[str],
) -> list[Finding]:
    """All findings within one data set."""
    groups, column = dataset.groups(), dataset.group_column()
    labels = None if target is None else dataset.labels(target.column)
    text = None if labels is None else _as_text(labels)
    findings = file_findings(name, dataset.image_ids, thumbnails, headers, dataset.quarantine)
    findings += copy_findings(name, dataset.image_ids, text, groups, column, splits, pairs)
    findings += shared_lesion_findings(name, dataset.manifest)
    for split_name, split in splits.items():
        findings += _overlaps(f"{name}, split {split_name!r}", dataset, split_name, split)
    findings += group_findings(name, column, groups)
    if target is not None and labels is not None and labels.ndim == 1:
        findings += class_findings(name, target.column, labels, groups, target.classes)
        for seen in ("site", "modality"):
            if seen in dataset.manifest:
                sites = dataset.manifest[seen].to_numpy(dtype=object)
                findings += site_findings(name, seen, sites, labels, groups, target.classes)
        for split_name, split in splits.items():
            findings += part_findings(f"{name}, split {split_name!r}", labels, groups, split, target.classes)
    findings += column_findings(name, dataset.manifest, dataset.card.metadata)
    findings += contradiction_findings(name, dataset.manifest, dataset.card.targets)
    if labels is not None:
        findings += _leak_findings(name, dataset, labels, headers, inputs)
    if not dataset.card.targets:
        message = f"{name}: no column holds labels: nothing can be trained or scored, and no leak was looked for."
        remedy = "Name the column: 'dermlab data import … --label_column COLUMN', or 'targets:' in card.yaml."
        findings.append(Finding("no-target", "warning", message, {"columns": list(dataset.manifest.columns)}, remedy))
    return findings


def _photo_findings(
    name: str,
    dataset: Dataset,
    target: Target | None,
    thumbnails: Thumbnails,
    rows: slice,
    features: np.ndarray | None,
    encoder: str | None,
    look_alikes: LookAlikes | None,
    closely: bool,
) -> list[Finding]:
    """What the photos themselves show: odd ones, look-alikes, doubtful labels, text, faces and tattoos.

    Args:
        name: opens the sentences.
        dataset: whose photos.
        target: whose labels are doubted; None: none are.
        thumbnails: of its photos.
        rows: where its photos stand among those of all data sets.
        features: of the photos of all data sets, (N, D).
        encoder: whose features.
        look_alikes: among the photos of all data sets.
        closely: whether labels, text and faces are looked at.
    """
    own = None if features is None else features[rows]
    groups, column = dataset.groups(), dataset.group_column()
    findings = odd_findings(name, dataset.image_ids, thumbnails, own, encoder)
    if look_alikes is not None:
        inside = look_alikes.alike[["a", "b"]].ge(rows.start) & look_alikes.alike[["a", "b"]].lt(rows.stop)
        alike = look_alikes.alike[inside.all(axis=1)].reset_index(drop=True)
        alike[["a", "b"]] -= rows.start
        findings += look_alike_findings(name, dataset.image_ids, groups, column, replace(look_alikes, alike=alike))
    if not closely:
        return findings
    findings += identifying_findings(name, dataset.image_ids, dataset.paths)
    if own is not None and encoder is not None:
        tattoos = find_tattoos(own, thumbnails.readable, groups, dataset.paths, encoder)
        findings += tattoo_findings(name, dataset.image_ids, tattoos, encoder)
    if target is not None and target.kind != "multilabel":
        findings += label_findings(
            name,
            dataset.image_ids,
            dataset.labels(target.column),
            groups,
            target.classes,
            thumbnails.colours if own is None else own,
            thumbnails.readable,
            source="the photo's colours" if encoder is None else encoder,
        )
    return findings


def _overlaps(where: str, dataset: Dataset, split_name: str, split: pd.DataFrame) -> list[Finding]:
    manifest, group_by = dataset.manifest, dataset.card.group_by
    for column in dict.fromkeys([dataset.group_column(), "patient_id", "lesion_id"]):
        if column == "image_id" or column not in manifest or manifest[column].isna().all():
            continue
        # Who groups by lesion divides patients on purpose, who groups by photo both.
        on_purpose = group_by == "image_id" or (group_by == "lesion_id" and column == "patient_id")
        found = overlap_findings(where, split_name, column, dataset.ids_of(column), split, is_grouping=not on_purpose)
        if found:
            return found  # where patients are divided, so are their lesions: the coarsest says it all
    return []


def _leak_findings(
    name: str, dataset: Dataset, labels: np.ndarray, headers: pd.DataFrame, inputs: Sequence[str]
) -> list[Finding]:
    card = dataset.card
    declared = [column for column in card.label_proxies if column not in inputs]
    others = {target.column for target in card.targets} | {column.column for column in card.metadata}
    free = [str(column) for column in dataset.manifest if column not in RESERVED and column not in others]
    seen = [column for column in SEEN_IN_PHOTOS if column in dataset.manifest]
    groups = dataset.groups()
    findings = proxy_findings(
        name,
        dataset.manifest,
        labels,
        groups,
        used=[column for column in card.metadata if column.column not in declared],
        declared=declared,
        unused=[column for column in [*free, *seen] if column not in card.label_proxies],
    )
    return findings + stored_findings(name, headers, labels, groups)
