"""ISIC 2018 challenge, task 3: HAM10000's seven classes with the challenge's validation and test sets.

Layout as published, read in public loaders: ``ISIC2018_Task3_Training_GroundTruth.csv`` (``image`` and a 0/1 column
for MEL, NV, BCC, AKIEC, BKL, DF, VASC), the same for Validation and Test,
``ISIC2018_Task3_Training_LesionGroupings.csv`` (``image``, ``lesion_id``, ``diagnosis_confirm_type``), and the images
in ``ISIC2018_Task3_Training_Input`` and so on. The segmentation task is the source ``isic-2018-segmentation``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.data.card import MetadataColumn
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images
from dermlab.data.sources.ham10000 import TARGET
from dermlab.data.sources.upstream import Rows, collect, find_file, locate, look_for, published, require_columns

MARKS = {"MEL": "mel", "NV": "nv", "BCC": "bcc", "AKIEC": "akiec", "BKL": "bkl", "DF": "df", "VASC": "vasc"}
PARTS = {"Training": "train", "Validation": "val", "Test": "test"}
METADATA = (
    MetadataColumn(
        column="diagnosis_confirm_type",
        kind="categorical",
        description="how the diagnosis was made; known only with it, and only of the training set",
    ),
)

CITATION = (
    "Codella et al.: Skin lesion analysis toward melanoma detection 2018, arXiv 1902.03368; Tschandl et al., "
    "Scientific Data 5:180161 (2018)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read task 3 of ISIC 2018 from its upstream layout; the target is HAM10000's, in its order and with its names.

    Lesions are published for the training set, and for the test set in the form of HAM10000's page: images without one
    count as lesions of their own.

    Args:
        path: the folder with the ground truth and the images.
        name: name of the data set; None is isic-2018.
    """
    first = find_file(path, ["ISIC2018_Task3_Training_GroundTruth.csv"], "ISIC 2018, task 3,")
    files = find_images(path)
    matcher = Matcher(files)
    tables = []
    for part, ours in PARTS.items():
        file = first if part == "Training" else look_for(path, f"ISIC2018_Task3_{part}_GroundTruth.csv")
        if file is None:
            continue
        rows = Rows(file, [])
        images, labels = _labels(rows)
        manifest = pd.DataFrame(
            {
                "image_id": images,
                "source_path": locate(f"ISIC2018_Task3_{part}_Input/" + images, matcher, files),
                "lesion_id": rows.texts("lesion_id"),
                "modality": "dermoscopy",
                TARGET.column: labels,
                "part": ours,
            }
        )
        tables.append((rows, manifest))
    manifest, quarantined = collect(files, tables)
    notes: list[str] = []
    groupings = look_for(path, "ISIC2018_Task3_Training_LesionGroupings.csv")
    if groupings is None:
        notes.append("no lesions: ISIC2018_Task3_Training_LesionGroupings.csv is not there")
    else:
        lesions = Rows(groupings, ["image", "lesion_id"])
        told = pd.DataFrame({"image": lesions.ids("image"), "lesion": lesions.texts("lesion_id")})
        told = told.assign(**lesions.questionnaire(METADATA))[lesions.is_kept].set_index("image")
        quarantined.extend(lesions.quarantined)
        manifest = manifest.join(told, on="image_id")
        manifest["lesion_id"] = manifest["lesion_id"].fillna(manifest.pop("lesion"))
    if manifest["lesion_id"].isna().all():
        del manifest["lesion_id"]
    return published(
        files,
        manifest,
        quarantined,
        targets=[TARGET],
        metadata=METADATA,
        label_proxies=("diagnosis_confirm_type",),
        notes=notes,
        name=name or "isic-2018",
        description="Dermoscopy images of pigmented lesions: HAM10000 with the challenge's validation and test sets",
        licence="CC-BY-NC-4.0",
        licence_card="isic-2018",
        citation=CITATION,
        source="https://challenge.isic-archive.com/data/#2018",
    )


def _labels(rows: Rows) -> tuple[pd.Series, pd.Series]:
    """Return images and labels: of the challenge's tables, or of the test set as HAM10000's page publishes it."""
    if "dx" in rows:
        require_columns(rows.table, ["image_id"])
        return rows.ids("image_id"), rows.labels("dx", TARGET.classes)
    require_columns(rows.table, ["image", *MARKS])
    return rows.ids("image"), rows.marks(list(MARKS), names=MARKS)
