"""PASSION (Gottfrois et al. 2024): smartphone photos of patients in sub-Saharan Africa, four conditions and impetigo.

Layout as published, read in the authors' code (Digital-Dermatology/PASSION-Evaluation) and in loaders of others:
``label.csv`` with one row a patient (``subject_id``, ``country``, ``age``, ``sex``, ``fitzpatrick``, ``body_loc``,
``impetig``, ``conditions_PASSION``), ``PASSION_split.csv`` (``subject_id``, ``Split``: TRAIN or TEST) and the photos
in ``images/``, whose names begin with the patient's id (``AA00970173_1.jpg``).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from dermlab.data.card import MetadataColumn, Target
from dermlab.data.manifest import TEXT
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import find_images, image_ids
from dermlab.data.sources.upstream import Rows, collect, find_file, published

COLUMNS = ("subject_id", "conditions_PASSION", "impetig")
TARGETS = (
    Target(column="conditions", classes=("Eczema", "Fungal", "Others", "Scabies"), default=True),
    Target(column="impetigo", kind="binary", classes=("no impetigo", "impetigo")),
)
METADATA = (
    MetadataColumn(column="age", kind="numeric", unit="years", description="age"),
    MetadataColumn(column="sex", kind="categorical", description="sex"),
)
_SUBJECT = re.compile(r"[A-Za-z]+[0-9]+")

CITATION = (
    "Gottfrois et al.: PASSION for Dermatology: Bridging the diversity gap with pigmented skin images from sub-Saharan "
    "Africa, MICCAI 2024"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read PASSION from its upstream layout; ``PASSION_split.csv`` becomes the official split, which is by patient.

    A blank in ``impetig`` counts as 'no impetigo', as in the authors' code. The country, where the photos were taken,
    is the reserved column ``site``; places on the body become one yes/no column each.

    Args:
        path: the folder with ``label.csv``.
        name: name of the data set; None is passion.
    """
    file = find_file(path, ["label.csv"], "PASSION")
    rows = Rows(file, COLUMNS)
    files = find_images(file.parent)
    subjects = rows.ids("subject_id")
    blank = rows.texts("impetig").isna()
    codes = {"0": "no impetigo", "0.0": "no impetigo", "1": "impetigo", "1.0": "impetigo"}
    places = _places(rows)
    columns: dict[str, object] = {
        "patient_id": subjects,
        "site": rows.texts("country"),
        "modality": "clinical",
        "conditions": rows.labels("conditions_PASSION", TARGETS[0].classes),
        "impetigo": rows.labels("impetig", TARGETS[1].classes, codes=codes, required=False).fillna("no impetigo"),
        **rows.questionnaire(METADATA),
        **places,
    }
    if "fitzpatrick" in rows:
        columns["skin_type"] = rows.skin_types("fitzpatrick")
    notes = [f"impetigo is blank for {blank.sum():,} patients and counts as none, as in the authors' code"]
    parts = _parts(file.parent / "PASSION_split.csv")
    quarantined: list[tuple[str, str]] = []
    if parts is None:
        notes.append("no official split: PASSION_split.csv is not beside label.csv")
    else:
        columns["part"] = subjects.map(parts[0])
        quarantined += parts[1]
    by_subject = {subject: row for row, subject in subjects.dropna().drop_duplicates().items()}
    photo_rows: list[int] = []
    photos: list[str] = []
    for photo in files.paths:
        named = _SUBJECT.match(PurePosixPath(photo).name)
        row = by_subject.get(named.group()) if named else None
        if row is None:
            quarantined.append((photo, "label.csv has no patient of that name"))
        else:
            photos.append(photo)
            photo_rows.append(int(str(row)))
    bare = ~np.isin(np.arange(len(rows)), photo_rows)
    rows.set_aside(bare, "subject_id", "{value} has no photo")
    manifest = pd.DataFrame(
        {
            "image_id": pd.Series(image_ids(photos), dtype=TEXT),
            "source_path": pd.Series([files.absolute(photo) for photo in photos], dtype=TEXT),
        }
    ).set_index(np.array(photo_rows, dtype=np.int64))
    manifest = manifest.join(pd.DataFrame(columns, index=rows.table.frame.index))
    manifest, missing = collect(files, [(rows, manifest)])
    return published(
        files,
        manifest,
        [*quarantined, *missing],
        targets=TARGETS,
        metadata=(*METADATA, *(MetadataColumn(column=column, kind="boolean") for column in places)),
        notes=notes,
        name=name or "passion",
        description="Smartphone photos of patients of dermatological outpatient clinics in sub-Saharan Africa",
        licence="PASSION Data Use Public License",
        licence_card="passion",
        citation=CITATION,
        source="https://passionderm.github.io",
    )


def _places(rows: Rows) -> dict[str, pd.Series]:
    """Return a yes/no column for each place on the body; ``body_loc`` lists them with semicolons."""
    listed = rows.texts("body_loc", missing=("None", "none")).str.casefold()
    parts = listed.str.split(";").map(lambda names: {name.strip() for name in names} - {""}, na_action="ignore")
    known = sorted({name for names in parts.dropna() for name in names})
    return {
        f"body_{name.replace(' ', '_')}": parts.map(lambda names, name=name: name in names, na_action="ignore").astype(
            "boolean"
        )
        for name in known
    }


def _parts(file: Path) -> tuple[dict[str, str], list[tuple[str, str]]] | None:
    """Return the part of each patient, and the rows that were set aside; None where there is no such file."""
    if not file.is_file():
        return None
    rows = Rows(file, ["subject_id", "Split"])
    subjects = rows.ids("subject_id")
    parts = rows.labels(
        "Split", ("train", "val", "test"), codes={"TRAIN": "train", "VALIDATION": "val", "TEST": "test"}
    )
    return dict(zip(subjects[rows.is_kept], parts[rows.is_kept], strict=True)), rows.quarantined
