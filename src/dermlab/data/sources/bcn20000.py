"""BCN20000 (Hernández-Pérez et al. 2024, doi 10.1038/s41597-024-03387-w): dermoscopy images from Barcelona.

Two layouts. As published, read in public code that quotes a row: ``bcn_20k_train.csv`` (``bcn_filename``,
``age_approx``, ``anatom_site_general``, ``diagnosis``, ``lesion_id``, ``capture_date``, ``sex``, ``split``),
``bcn_20k_test.csv`` without diagnoses, and the images in folders of these names. And an export of the ISIC archive
(:mod:`dermlab.data.sources.isic_archive`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.card import MetadataColumn, Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import ImageFiles, Matcher, find_images, without_extension
from dermlab.data.sources.isic_2019 import TARGET as ISIC_TARGET
from dermlab.data.sources.isic_archive import read_export
from dermlab.data.sources.upstream import Rows, collect, find_file, locate, published

TABLES = ("bcn_20k_train.csv", "bcn_20k_test.csv")
COLUMNS = ("bcn_filename", "lesion_id")
METADATA = (
    MetadataColumn(column="age_approx", kind="numeric", unit="years", description="age, rounded to 5 years"),
    MetadataColumn(column="sex", kind="categorical", description="sex"),
    MetadataColumn(column="anatom_site_general", kind="categorical", description="where on the body"),
)

CITATION = "Hernández-Pérez et al.: BCN20000: Dermoscopic lesions in the wild, Scientific Data 11:641 (2024)"


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read BCN20000 from its upstream layout, or from an export of the ISIC archive.

    Images of the test table have no published diagnosis: they are imported without a label where they are there, and
    the tables' ``split`` becomes the official split.

    Args:
        path: the folder with ``bcn_20k_train.csv``, or of an export with ``metadata.csv``.
        name: name of the data set; None is bcn20000.
    """
    card = {
        "name": name or "bcn20000",
        "description": "Dermoscopy images of skin lesions from Barcelona, hard-to-diagnose places included",
        "citation": CITATION,
        "source": "doi:10.1038/s41597-024-03387-w",
    }
    if (path / "metadata.csv").is_file():
        return read_export(path, "BCN20000", default="diagnosis", licence_card="bcn20000", **card)
    first = find_file(path, TABLES[:1], "BCN20000")
    files = find_images(path)
    matcher = Matcher(files)
    tables = []
    for part, file in zip(("train", "test"), (first, first.with_name(TABLES[1])), strict=True):
        if file.is_file():
            rows = Rows(file, COLUMNS if part == "test" else (*COLUMNS, "diagnosis"))
            tables.append((rows, _manifest(rows, part, matcher, files)))
    manifest, quarantined = collect(files, tables)
    others = manifest["diagnosis"].dropna()
    target = Target(
        column="diagnosis",
        classes=(*ISIC_TARGET.classes, *(["OTHER"] if "OTHER" in set(others) else [])),
        default=True,
        names=ISIC_TARGET.names,
        hierarchy=ISIC_TARGET.hierarchy,
    )
    if others.empty:
        raise InputError(f"{path}: none of the images of {first.name} is in this folder")
    return published(
        files,
        manifest,
        quarantined,
        targets=[target],
        metadata=METADATA,
        licence="CC-BY-NC-4.0",
        licence_card="bcn20000",
        **card,
    )


def _manifest(rows: Rows, part: str, matcher: Matcher, files: ImageFiles) -> pd.DataFrame:
    entries = rows.ids("bcn_filename")
    taken = rows.texts("capture_date")
    dates = pd.to_datetime(taken.astype(object), errors="coerce", format="ISO8601")
    rows.set_aside(taken.notna() & dates.isna(), "capture_date", "{value} is not a date like 2012-05-16")
    labels = (
        rows.labels("diagnosis", (*ISIC_TARGET.classes, "OTHER"), required=part == "train")
        if "diagnosis" in rows
        else rows.texts("diagnosis")  # the test table as published
    )
    return pd.DataFrame(
        {
            "image_id": entries.map(without_extension, na_action="ignore"),
            "source_path": locate(entries, matcher, files),
            "lesion_id": rows.texts("lesion_id"),
            "captured_at": dates,
            "modality": "dermoscopy",
            "diagnosis": labels,
            **rows.questionnaire(METADATA),
            "part": rows.labels("split", ("train", "val", "test")) if "split" in rows else part,
        }
    )
