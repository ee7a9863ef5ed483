"""Diverse Dermatology Images (Daneshjou et al. 2022, doi 10.1126/sciadv.abq6147): 656 clinical photos, each biopsied.

Layout as published, read in the loaders of Digital-Dermatology/core and of others: ``ddi_metadata.csv`` (a column
without a name, ``DDI_ID``, ``DDI_file``, ``skin_tone``, ``malignant``, ``disease``) and the photos beside it or in a
subfolder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dermlab.data.card import MetadataColumn
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images, without_extension
from dermlab.data.sources.upstream import Rows, collect, find_file, locate, malignancy, observed_target, published

COLUMNS = ("DDI_file", "skin_tone", "malignant", "disease")
TONES = {"12": "I-II", "34": "III-IV", "56": "V-VI"}
METADATA = (
    MetadataColumn(
        column="skin_tone",
        kind="categorical",
        values=tuple(TONES.values()),
        description="Fitzpatrick types as upstream groups them",
    ),
)

CITATION = (
    "Daneshjou et al.: Disparities in dermatology AI performance on a diverse, curated clinical image set, Science "
    "Advances 8:eabq6147 (2022)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read DDI from its upstream layout.

    Upstream gives Fitzpatrick types in three groups, 12, 34 and 56. They are kept as ``skin_tone``, and the reserved
    column ``skin_type`` takes the lower type of each (1, 3, 5), which falls into the same three bands.

    Args:
        path: the folder with ``ddi_metadata.csv``.
        name: name of the data set; None is ddi.
    """
    rows = Rows(find_file(path, ["ddi_metadata.csv"], "DDI"), COLUMNS)
    files = find_images(path)
    entries = rows.ids("DDI_file")
    tones = rows.texts("skin_tone").str.removesuffix(".0")
    rows.set_aside(tones.notna() & ~tones.isin(list(TONES)), "skin_tone", "{value} is not one of 12, 34, 56")
    manifest = pd.DataFrame(
        {
            "image_id": entries.map(without_extension, na_action="ignore"),
            "source_path": locate(entries, Matcher(files), files),
            "skin_type": tones.str[0].map(lambda digit: float(digit) if digit in "135" else np.nan, na_action="ignore"),
            "modality": "clinical",
            "malignant": rows.labels(
                "malignant",
                ("benign", "malignant"),
                codes={"False": "benign", "True": "malignant", "0": "benign", "1": "malignant"},
            ),
            "disease": rows.texts("disease"),
            "skin_tone": tones.map(TONES),
        }
    )
    manifest, quarantined = collect(files, [(rows, manifest)])
    return published(
        files,
        manifest,
        quarantined,
        targets=[malignancy("malignant", default=True), observed_target(manifest, "disease", groups="malignant")],
        metadata=METADATA,
        notes=[
            "skin_type is the lower type of upstream's groups: 1 for I-II, 3 for III-IV, 5 for V-VI",
            "DDI names no patients though some have several photos: they cannot be kept together",
        ],
        name=name or "ddi",
        description="Clinical photos of biopsied lesions at Stanford, chosen for diverse skin tones",
        licence="Stanford research use agreement",
        licence_card="ddi",
        citation=CITATION,
        source="https://ddi-dataset.github.io",
    )
