"""SIIM-ISIC 2020 challenge (Rotemberg et al. 2021, doi 10.34970/2020-ds01): 33,126 dermoscopy images of 2,056 patients.

Layout as published, read in public loaders that quote its rows: ``ISIC_2020_Training_GroundTruth_v2.csv`` (or without
``_v2``, or Kaggle's ``train.csv``) with ``image_name``, ``patient_id``, ``lesion_id`` (v2), ``sex``, ``age_approx``,
``anatom_site_general_challenge``, ``diagnosis``, ``benign_malignant``, ``target``; the images in ``train`` or
``jpeg/train``; ``ISIC_2020_Training_Duplicates.csv`` with pairs. The test set's diagnoses are not public and it is
not read.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.data.card import MetadataColumn
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images
from dermlab.data.sources.upstream import (
    Rows,
    collect,
    find_file,
    locate,
    look_for,
    malignancy,
    observed_target,
    published,
)

TABLES = ("ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv", "train.csv")
COLUMNS = ("image_name", "patient_id", "benign_malignant")
METADATA = (
    MetadataColumn(column="age_approx", kind="numeric", unit="years", description="age, rounded to 5 years"),
    MetadataColumn(column="sex", kind="categorical", description="sex"),
    MetadataColumn(column="anatom_site_general_challenge", kind="categorical", description="where on the body"),
)

CITATION = (
    "Rotemberg et al.: A patient-centric dataset of images and metadata for identifying melanomas using clinical "
    "context, Scientific Data 8:34 (2021)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read ISIC 2020 from its upstream layout, grouped by patient.

    A ``diagnosis`` of 'unknown' (most benign lesions) becomes null: what is known of it is in ``benign_malignant``.

    Args:
        path: the folder with the table and the images.
        name: name of the data set; None is isic-2020.
    """
    file = find_file(path, TABLES, "ISIC 2020")
    rows = Rows(file, COLUMNS)
    files = find_images(path)
    images = rows.ids("image_name")
    patients = rows.texts("patient_id")
    rows.set_aside(patients.isna(), "patient_id", "is blank; every image has a patient")
    columns: dict[str, object] = {
        "image_id": images,
        # The test set's images may lie beside; they have other names.
        "source_path": locate("train/" + images, Matcher(files), files),
        "patient_id": patients,
        "modality": "dermoscopy",
        "benign_malignant": rows.labels("benign_malignant", ("benign", "malignant")),
        "diagnosis": rows.texts("diagnosis", missing=("unknown",)),
        **rows.questionnaire(METADATA),
    }
    if "lesion_id" in rows:
        columns["lesion_id"] = rows.texts("lesion_id")
    manifest, quarantined = collect(files, [(rows, pd.DataFrame(columns))])
    notes = []
    pairs = look_for(path, "ISIC_2020_Training_Duplicates.csv")
    if pairs is not None:
        n_pairs = len(Rows(pairs, ["image_name_1", "image_name_2"]))
        notes.append(f"upstream lists {n_pairs:,} pairs of duplicates; 'dermlab data check' names those that matter")
    return published(
        files,
        manifest,
        quarantined,
        targets=[
            malignancy("benign_malignant", default=True),
            observed_target(manifest, "diagnosis", groups="benign_malignant"),
        ],
        metadata=METADATA,
        notes=notes,
        name=name or "isic-2020",
        description="Dermoscopy images of patients with many lesions, from six clinics",
        licence="CC-BY-NC-4.0",
        licence_card="isic-2020",
        citation=CITATION,
        source="doi:10.34970/2020-ds01",
    )
