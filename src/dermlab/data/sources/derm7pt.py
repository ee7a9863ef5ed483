"""Derm7pt (Kawahara et al. 2019, doi 10.1109/JBHI.2018.2824327): 1,011 cases, a clinical and a dermoscopic photo each.

Layout as published, read in the authors' code (jeremykawahara/derm7pt) and in loaders that list the columns:
``meta/meta.csv``, ``meta/train_indexes.csv``, ``valid_indexes.csv``, ``test_indexes.csv`` (a column ``indexes``, rows
of the table counted from 0) and ``images/``, whose files the columns ``clinic`` and ``derm`` name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dermlab.data.card import MetadataColumn, Target
from dermlab.data.manifest import TEXT
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images
from dermlab.data.sources.upstream import Rows, collect, find_file, locate, published

COLUMNS = ("case_num", "diagnosis", "clinic", "derm")
_MELANOMAS = (
    "melanoma",
    "melanoma (in situ)",
    "melanoma (less than 0.76 mm)",
    "melanoma (0.76 to 1.5 mm)",
    "melanoma (more than 1.5 mm)",
    "melanoma metastasis",
)
# The groups of the paper's five classes; its fifteen diagnoses count every melanoma as one.
GROUPS = {
    "BCC": ("basal cell carcinoma",),
    "NEV": (
        "blue nevus",
        "clark nevus",
        "combined nevus",
        "congenital nevus",
        "dermal nevus",
        "recurrent nevus",
        "reed or spitz nevus",
    ),
    "MEL": ("melanoma",),
    "MISC": ("dermatofibroma", "lentigo", "melanosis", "miscellaneous", "vascular lesion"),
    "SK": ("seborrheic keratosis",),
}
DIAGNOSES = tuple(sorted(name for members in GROUPS.values() for name in members))
TARGETS = (
    Target(
        column="diagnosis_group",
        classes=tuple(GROUPS),
        default=True,
        names={
            "BCC": "basal cell carcinoma",
            "NEV": "nevus",
            "MEL": "melanoma",
            "MISC": "miscellaneous",
            "SK": "seborrheic keratosis",
        },
        hierarchy={"malignant": ("BCC", "MEL"), "benign": ("NEV", "MISC", "SK")},
    ),
    Target(column="diagnosis", classes=DIAGNOSES, hierarchy=dict(GROUPS)),
    Target(column="pigment_network", classes=("absent", "typical", "atypical")),
    Target(column="blue_whitish_veil", kind="binary", classes=("absent", "present")),
    Target(
        column="vascular_structures",
        classes=(
            "absent",
            "arborizing",
            "comma",
            "hairpin",
            "within regression",
            "wreath",
            "dotted",
            "linear irregular",
        ),
    ),
    Target(
        column="pigmentation",
        classes=("absent", "diffuse regular", "localized regular", "diffuse irregular", "localized irregular"),
    ),
    Target(column="streaks", classes=("absent", "regular", "irregular")),
    Target(column="dots_and_globules", classes=("absent", "regular", "irregular")),
    Target(column="regression_structures", classes=("absent", "blue areas", "white areas", "combinations")),
)
CRITERIA = TARGETS[2:]
METADATA = (
    MetadataColumn(column="sex", kind="categorical", description="sex"),
    MetadataColumn(column="location", kind="categorical", description="where on the body"),
    MetadataColumn(column="elevation", kind="categorical", description="flat, palpable or nodular"),
    MetadataColumn(
        column="seven_point_score", kind="numeric", description="the seven-point checklist, read by experts"
    ),
    MetadataColumn(column="level_of_diagnostic_difficulty", kind="categorical", description="as experts judged it"),
    MetadataColumn(column="management", kind="categorical", description="what was advised, given the diagnosis"),
)
PROXIES = ("seven_point_score", "level_of_diagnostic_difficulty", "management")

CITATION = (
    "Kawahara, Daneshvar, Argenziano, Hamarneh: Seven-point checklist and skin lesion classification using multitask "
    "multimodal neural nets, IEEE Journal of Biomedical and Health Informatics 23:538-546 (2019)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read Derm7pt from its upstream layout: two images a case, told apart by ``modality``, joined by ``lesion_id``.

    The seven criteria are targets, as in the paper; what experts derived from them or from the diagnosis (score,
    difficulty, management) are label proxies. Cases that share a photo are of one patient: the column ``photo_group``
    keeps them together.

    Args:
        path: the folder with ``meta`` and ``images``.
        name: name of the data set; None is derm7pt.
    """
    file = find_file(path, ["meta.csv"], "Derm7pt")
    rows = Rows(file, COLUMNS)
    files = find_images(path)
    case = rows.ids("case_num")
    diagnosis = rows.labels(
        "diagnosis", DIAGNOSES, codes={d: d for d in DIAGNOSES} | dict.fromkeys(_MELANOMAS, "melanoma")
    )
    columns: dict[str, Any] = {
        "lesion_id": case,
        "diagnosis_group": diagnosis.map({name: group for group, members in GROUPS.items() for name in members}),
        "diagnosis": diagnosis,
    }
    for target in CRITERIA:
        if target.column in rows:
            columns[target.column] = rows.labels(target.column, target.classes, required=False)
    columns |= rows.questionnaire(METADATA)
    parts, notes = _parts(file.parent, rows.n_total)
    if parts is not None:
        columns["part"] = pd.Series(parts[rows.positions], dtype=TEXT)
    matcher = Matcher(files)
    photos = []
    for column, modality in (("clinic", "clinical"), ("derm", "dermoscopy")):
        ids = pd.DataFrame({"image_id": case + f"_{column}", "source_path": locate(rows.texts(column), matcher, files)})
        photos.append(ids.assign(modality=modality, **columns))
    manifest, quarantined = collect(files, [(rows, pd.concat(photos).sort_index(kind="stable"))])
    groups = _photo_groups(manifest)
    n_shared = manifest["lesion_id"].nunique() - groups.nunique()
    if n_shared:
        manifest["photo_group"] = groups
        notes.append(f"{n_shared:,} cases share a photo with another one: photo_group keeps them together")
    return published(
        files,
        manifest,
        quarantined,
        targets=[target for target in TARGETS if target.column in manifest],
        metadata=METADATA,
        label_proxies=PROXIES,
        notes=notes,
        name=name or "derm7pt",
        description="Cases of an atlas: a clinical and a dermoscopic photo each, and the seven-point checklist",
        licence_card="derm7pt",
        citation=CITATION,
        source="https://derm.cs.sfu.ca",
        group_by="photo_group" if n_shared else None,
    )


def _parts(folder: Path, n_rows: int) -> tuple[np.ndarray | None, list[str]]:
    """Return the part of each row of the file, object (N,), or None where the three files of indexes are not there."""
    files = {"train": "train_indexes.csv", "val": "valid_indexes.csv", "test": "test_indexes.csv"}
    missing = [file for file in files.values() if not (folder / file).is_file()]
    if missing:
        return None, [f"no official split: {', '.join(missing)} is not beside meta.csv"]
    parts = np.full(n_rows, None, dtype=object)
    for part, file in files.items():
        rows = Rows(folder / file, ["indexes"])
        indexes = rows.numbers("indexes", low=0, high=n_rows - 1)
        if rows.quarantined:
            return None, [f"no official split: {rows.quarantined[0][0]}: {rows.quarantined[0][1]}"]
        parts[indexes.dropna().astype(int)] = part
    return parts, []


def _photo_groups(manifest: pd.DataFrame) -> pd.Series:
    """Return a name for each photo's group: cases that share a photo are one."""
    cases, case_names = pd.factorize(manifest["lesion_id"])
    photos, names = pd.factorize(manifest["source_path"])
    n = len(case_names)
    graph = coo_array((np.ones(len(cases), dtype=np.int8), (cases, photos + n)), shape=(n + len(names),) * 2)
    component = connected_components(graph, directed=False)[1][cases]
    first = pd.Series(component).map(
        pd.Series(manifest["lesion_id"].to_numpy(), index=component).groupby(level=0).first()
    )
    return ("case " + first.astype(str)).astype(TEXT)
