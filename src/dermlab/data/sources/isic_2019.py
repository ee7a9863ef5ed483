"""ISIC 2019 challenge (HAM10000, BCN20000 and MSK in one): 25,331 dermoscopy images of 8 classes, and a test set.

Layout as published, read in public loaders: ``ISIC_2019_Training_GroundTruth.csv`` (``image`` and a 0/1 column for
MEL, NV, BCC, AK, BKL, DF, VASC, SCC, UNK), ``ISIC_2019_Training_Metadata.csv`` (``image``, ``age_approx``,
``anatom_site_general``, ``lesion_id``, ``sex``), the same for Test where its ground truth is there, and the images in
``ISIC_2019_Training_Input`` and ``ISIC_2019_Test_Input``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.data.card import MetadataColumn, Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import ImageFiles, Matcher, find_images
from dermlab.data.sources.upstream import Rows, collect, find_file, locate, look_for, published

TARGET = Target(
    column="diagnosis",
    classes=("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"),
    default=True,
    names={
        "MEL": "melanoma",
        "NV": "melanocytic nevus",
        "BCC": "basal cell carcinoma",
        "AK": "actinic keratosis",
        "BKL": "benign keratosis",
        "DF": "dermatofibroma",
        "VASC": "vascular lesion",
        "SCC": "squamous cell carcinoma",
    },
    hierarchy={"malignant": ("MEL", "BCC", "AK", "SCC"), "benign": ("NV", "BKL", "DF", "VASC")},
)
UNKNOWN_CLASS = "UNK"
METADATA = (
    MetadataColumn(column="age_approx", kind="numeric", unit="years", description="age, rounded to 5 years"),
    MetadataColumn(column="sex", kind="categorical", description="sex"),
    MetadataColumn(column="anatom_site_general", kind="categorical", description="where on the body"),
)

CITATION = (
    "Tschandl et al., Scientific Data 5:180161 (2018); Codella et al., arXiv 1710.05006; Hernández-Pérez et al., "
    "Scientific Data 11:641 (2024): ISIC 2019 challenge"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read ISIC 2019 from its upstream layout; with the test set's ground truth there is an official split.

    ``site`` is the collection that a lesion's id begins with (HAM, BCN, MSK); lesions without an id have none. Images
    of the class UNK, which only the test set has, keep it as a ninth class.

    Args:
        path: the folder with ``ISIC_2019_Training_GroundTruth.csv``.
        name: name of the data set; None is isic-2019.
    """
    truth = find_file(path, ["ISIC_2019_Training_GroundTruth.csv"], "ISIC 2019")
    files = find_images(path)
    matcher = Matcher(files)
    notes: list[str] = []
    tables = [_table(path, truth, "Training", files, matcher, notes)]
    test = look_for(path, "ISIC_2019_Test_GroundTruth.csv")
    if test is not None:
        tables.append(_table(path, test, "Test", files, matcher, notes))
    manifest, quarantined = collect(files, tables)
    target = TARGET
    if (manifest["diagnosis"] == UNKNOWN_CLASS).any():
        classes = (*TARGET.classes, UNKNOWN_CLASS)
        names = TARGET.names | {UNKNOWN_CLASS: "none of the others"}
        target = TARGET.model_copy(update={"classes": classes, "names": names})
    return published(
        files,
        manifest,
        quarantined,
        targets=[target],
        metadata=METADATA,
        notes=notes,
        name=name or "isic-2019",
        description="Dermoscopy images of HAM10000, BCN20000 and MSK",
        licence="CC-BY-NC-4.0",
        licence_card="isic-2019",
        citation=CITATION,
        source="https://challenge.isic-archive.com/data/#2019",
    )


def _table(
    path: Path, file: Path, part: str, files: ImageFiles, matcher: Matcher, notes: list[str]
) -> tuple[Rows, pd.DataFrame]:
    columns = [*TARGET.classes, UNKNOWN_CLASS]
    rows = Rows(file, ["image", *columns])
    images = rows.ids("image")
    manifest = pd.DataFrame(
        {
            "image_id": images,
            "source_path": locate(f"ISIC_2019_{part}_Input/" + images, matcher, files),
            "modality": "dermoscopy",
            "diagnosis": rows.marks(columns),
            "part": {"Training": "train", "Test": "test"}[part],
        }
    )
    table = look_for(path, f"ISIC_2019_{part}_Metadata.csv")
    if table is None:
        notes.append(f"no questionnaire and no lesions: ISIC_2019_{part}_Metadata.csv is not there")
        return rows, manifest
    answers = Rows(table, ["image"])
    told = pd.DataFrame({"image": answers.ids("image"), **answers.questionnaire(METADATA)})
    if "lesion_id" in answers:
        told["lesion_id"] = answers.texts("lesion_id")
        told["site"] = told["lesion_id"].str.extract(r"^([A-Z]+)", expand=False)
    told = told[answers.is_kept].set_index("image")
    rows.quarantined.extend(answers.quarantined)
    return rows, manifest.join(told, on="image_id")
