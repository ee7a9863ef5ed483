"""PATCH16 (Kriegsmann et al. 2022, doi 10.11588/data/7QCR8S): 129,364 tiles of skin histology, 16 kinds of tissue.

Layout as published, read in public code that trains on it: ``tiles-v2.csv`` with ``file``
(``data/tiles/<class>/…jpg``), ``class`` and ``set`` (Train, Test and, where there is one, Valid), beside the folder
``tiles``. That the number after ``ws_`` in a file's name is the slide's was not confirmed; taking it so is the
careful reading, since it keeps more tiles together.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.data.card import Target
from dermlab.data.manifest import TEXT
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images, image_ids
from dermlab.data.sources.upstream import Rows, collect, find_file, locate, published

CLASSES = {
    "nontumor_skin_chondraltissue_chondraltissue": "chondral tissue",
    "nontumor_skin_dermis_dermis": "dermis",
    "nontumor_skin_elastosis_elastosis": "elastosis",
    "nontumor_skin_epidermis_epidermis": "epidermis",
    "nontumor_skin_hairfollicle_hairfollicle": "hair follicle",
    "nontumor_skin_muscle_skeletal": "skeletal muscle",
    "nontumor_skin_necrosis_necrosis": "necrosis",
    "nontumor_skin_nerves_nerves": "nerves",
    "nontumor_skin_sebaceousglands_sebaceousglands": "sebaceous glands",
    "nontumor_skin_subcutis_subcutis": "subcutis",
    "nontumor_skin_sweatglands_sweatglands": "sweat glands",
    "nontumor_skin_vessel_vessel": "vessels",
    "tumor_skin_epithelial_bcc": "basal cell carcinoma",
    "tumor_skin_epithelial_sqcc": "squamous cell carcinoma",
    "tumor_skin_melanoma_melanoma": "melanoma",
    "tumor_skin_naevus_naevus": "naevus",
}
TARGET = Target(
    column="tissue",
    classes=tuple(CLASSES.values()),
    default=True,
    hierarchy={
        "tumour": tuple(name for code, name in CLASSES.items() if code.startswith("tumor")),
        "no tumour": tuple(name for code, name in CLASSES.items() if code.startswith("nontumor")),
    },
)
_PARTS = {"Train": "train", "Valid": "val", "Validation": "val", "Val": "val", "Test": "test"}

CITATION = (
    "Kriegsmann et al.: Deep learning for the detection of anatomical tissue structures and neoplasms of the skin on "
    "scanned histopathological tissue sections, Frontiers in Oncology 12:1022967 (2022)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read PATCH16 from its upstream layout; ``set`` becomes the official split.

    Args:
        path: the folder with ``tiles-v2.csv``.
        name: name of the data set; None is patch16.
    """
    file = find_file(path, ["tiles-v2.csv"], "PATCH16")
    rows = Rows(file, ["file", "class", "set"])
    files = find_images(file.parent)
    entries = rows.ids("file")
    manifest = pd.DataFrame(
        {
            "image_id": pd.Series(image_ids(entries.fillna("")), index=entries.index, dtype=TEXT),
            "source_path": locate(entries, Matcher(files), files),
            "lesion_id": "ws_" + entries.str.extract(r"_ws_(\d+)", expand=False),
            "modality": "histopathology",
            "tissue": rows.labels("class", TARGET.classes, codes=CLASSES),
            "part": rows.labels("set", ("train", "val", "test"), codes=_PARTS),
        }
    )
    manifest, quarantined = collect(files, [(rows, manifest)])
    return published(
        files,
        manifest,
        quarantined,
        targets=[TARGET],
        notes=["lesion_id is the number after 'ws_' in the files' names, taken for the slide's"],
        name=name or "patch16",
        description="Tiles of haematoxylin-eosin sections of skin from Heidelberg",
        licence_card="patch16",
        citation=CITATION,
        source="doi:10.11588/data/7QCR8S",
    )
