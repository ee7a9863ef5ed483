"""Fitzpatrick17k (Groh et al. 2021, arXiv 2104.09957): 16,577 clinical photos of two atlases, 114 conditions.

Layout as published, read in the authors' repository (mattgroh/fitzpatrick17k): ``fitzpatrick17k.csv`` with
``md5hash``, ``fitzpatrick_scale``, ``fitzpatrick_centaur``, ``label``, ``nine_partition_label``,
``three_partition_label``, ``qc``, ``url``, ``url_alphanum``. The photos are fetched by ``url`` and named
``<md5hash>.jpg`` or as ``url_alphanum`` says; some addresses are dead, so missing photos are normal.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.data.card import MetadataColumn, Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images
from dermlab.data.sources.upstream import Rows, collect, find_file, locate, observed_target, published

COLUMNS = ("md5hash", "fitzpatrick_scale", "label", "nine_partition_label", "three_partition_label")
NINE = (
    "inflammatory",
    "malignant epidermal",
    "genodermatoses",
    "benign dermal",
    "benign epidermal",
    "malignant melanoma",
    "benign melanocyte",
    "malignant cutaneous lymphoma",
    "malignant dermal",
)
THREE = Target(
    column="three_partition_label",
    classes=("non-neoplastic", "benign", "malignant"),
    default=True,
)
NINE_TARGET = Target(
    column="nine_partition_label",
    classes=NINE,
    hierarchy={
        "non-neoplastic": ("inflammatory", "genodermatoses"),
        "benign": tuple(name for name in NINE if name.startswith("benign")),
        "malignant": tuple(name for name in NINE if name.startswith("malignant")),
    },
)
METADATA = (
    MetadataColumn(
        column="fitzpatrick_centaur", kind="numeric", description="Fitzpatrick type as a second crowd annotated it"
    ),
    MetadataColumn(
        column="qc", kind="categorical", description="what two dermatologists said of the label, for 504 photos"
    ),
)
_NOT_GIVEN = ("-1", "-1.0")

CITATION = (
    "Groh et al.: Evaluating deep neural networks trained on clinical images in dermatology with the Fitzpatrick 17k "
    "dataset, CVPR Workshops 2021"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read Fitzpatrick17k from its upstream layout: three targets, of 3, 9 and 114 classes.

    A type of -1 is upstream's way to say 'unknown'; it becomes null. ``qc`` speaks of the label and is a label proxy.

    Args:
        path: the folder with ``fitzpatrick17k.csv`` and the photos.
        name: name of the data set; None is fitzpatrick17k.
    """
    rows = Rows(find_file(path, ["fitzpatrick17k.csv"], "Fitzpatrick17k"), COLUMNS)
    files = find_images(path)
    matcher = Matcher(files)
    hashes = rows.ids("md5hash")
    paths = locate(hashes, matcher, files)
    paths = paths.fillna(locate(rows.texts("url_alphanum").where(paths.isna()), matcher, files))
    manifest = pd.DataFrame(
        {
            "image_id": hashes,
            "source_path": paths,
            "skin_type": rows.skin_types("fitzpatrick_scale", missing=_NOT_GIVEN),
            "modality": "clinical",
            "three_partition_label": rows.labels("three_partition_label", THREE.classes),
            "nine_partition_label": rows.labels("nine_partition_label", NINE),
            "label": rows.texts("label"),
            **rows.questionnaire(METADATA, missing=_NOT_GIVEN),
        }
    )
    rows.set_aside(manifest["label"].isna(), "label", "is blank; every row has a label")
    manifest, quarantined = collect(files, [(rows, manifest)])
    notes = [f"{len(manifest):,} of {len(rows):,} photos are here; some addresses of the two atlases are dead"]
    wrong = int(manifest["qc"].str.contains("Wrongly").sum()) if "qc" in manifest else 0
    if wrong:
        notes.append(f"upstream's quality check calls {wrong:,} labels wrong; they are kept as they are")
    return published(
        files,
        manifest,
        quarantined,
        targets=[THREE, NINE_TARGET, observed_target(manifest, "label", groups="three_partition_label")],
        metadata=METADATA,
        label_proxies=("qc",),
        notes=notes,
        name=name or "fitzpatrick17k",
        description="Clinical photos of the atlases DermaAmin and Atlas Dermatologico with Fitzpatrick types",
        licence="CC-BY-NC-SA-3.0",
        licence_card="fitzpatrick17k",
        citation=CITATION,
        source="https://github.com/mattgroh/fitzpatrick17k",
    )
