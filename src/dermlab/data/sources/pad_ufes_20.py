"""PAD-UFES-20 (Pacheco et al. 2020, doi 10.17632/zr7vgbcyr2.1): 2,298 smartphone photos, six diagnoses, 26 columns.

Layout as published: ``metadata.csv`` and the photos in ``images/imgs_part_1`` to ``_3`` (or any folders).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.card import Card, MetadataColumn, Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import find_images, image_ids, require_folder
from dermlab.data.sources.tables import class_order, read_table
from dermlab.data.sources.upstream import match_images, numbers, require_columns, truths

TARGET = Target(
    column="diagnostic",
    classes=("ACK", "BCC", "MEL", "NEV", "SCC", "SEK"),
    default=True,
    names={
        "ACK": "actinic keratosis",
        "BCC": "basal cell carcinoma",
        "MEL": "melanoma",
        "NEV": "nevus",
        "SCC": "squamous cell carcinoma (Bowen's disease included)",
        "SEK": "seborrheic keratosis",
    },
    hierarchy={"malignant": ("BCC", "MEL", "SCC"), "benign": ("ACK", "NEV", "SEK")},
)

BOOLEAN = {
    "smoke": "does the patient smoke",
    "drink": "does the patient drink alcohol",
    "pesticide": "was the patient exposed to pesticides",
    "skin_cancer_history": "skin cancer in the patient or family before",
    "cancer_history": "any cancer in the patient or family before",
    "has_piped_water": "piped water at home",
    "has_sewage_system": "sewage system at home",
    "itch": "does the lesion itch",
    "grew": "has it grown",
    "hurt": "does it hurt",
    "changed": "has it changed",
    "bleed": "does it bleed",
    "elevation": "is it elevated",
    "biopsed": "was the diagnosis confirmed by biopsy; known only with it",
}
NUMERIC = {
    "age": ("years", "age"),
    "fitspatrick": (None, "Fitzpatrick skin type, 1 to 6"),
    "diameter_1": ("mm", "longest diameter of the lesion"),
    "diameter_2": ("mm", "diameter across it"),
}
CATEGORICAL = {
    "background_father": "country that the father's family came from",
    "background_mother": "country that the mother's family came from",
    "gender": "gender",
    "region": "where on the body",
}
COLUMNS = ("patient_id", "lesion_id", "img_id", "diagnostic", *BOOLEAN, *NUMERIC, *CATEGORICAL)

CITATION = (
    "Pacheco et al.: PAD-UFES-20: A skin lesion dataset composed of patient data and clinical images collected from "
    "smartphones, Data in Brief 32:106221 (2020)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read PAD-UFES-20 from its upstream layout.

    ``UNK`` ("I do not know") becomes null. Lesion numbers recur under other patients upstream, so a lesion's id is
    ``<patient>/<number>`` here. ``biopsed`` gives the label away (every carcinoma was biopsied) and is a label proxy;
    ``fitspatrick`` is metadata as upstream and the reserved column ``skin_type`` too.

    Args:
        path: the folder with ``metadata.csv``.
        name: name of the data set; None is pad-ufes-20.
    """
    require_folder(path, "the folder of metadata.csv")
    if not (path / "metadata.csv").is_file():
        raise InputError(f"{path}: holds no metadata.csv; it is published beside the photos")
    table = read_table(path / "metadata.csv", missing_values=("UNK",))
    require_columns(table, COLUMNS)
    frame = table.frame
    for column in ("patient_id", "lesion_id", "diagnostic"):
        table.refuse(frame[column].isna().to_numpy(), column, "is blank; every photo has one")
    wrong = ~frame["diagnostic"].isin(TARGET.classes)
    table.refuse(wrong.to_numpy(), "diagnostic", f"label {{value}} is not one of {', '.join(TARGET.classes)}")
    files = find_images(path)
    paths, missing = match_images(table, "img_id", files)
    if not paths.notna().any():
        raise InputError(f"{path}: none of the photos of metadata.csv is in this folder")
    skin_type = numbers(table, "fitspatrick")
    wrong = skin_type.notna() & ~skin_type.isin([1, 2, 3, 4, 5, 6])
    table.refuse(wrong.to_numpy(), "fitspatrick", "{value} is not a Fitzpatrick type, 1 to 6")
    columns: dict[str, object] = {
        "image_id": image_ids(frame["img_id"]),
        "source_path": paths,
        "patient_id": frame["patient_id"],
        "lesion_id": frame["patient_id"] + "/" + frame["lesion_id"],
        "skin_type": skin_type,
        "modality": "clinical",
        "diagnostic": frame["diagnostic"],
    }
    metadata: list[MetadataColumn] = []
    for column in frame.columns:
        if column in BOOLEAN:
            columns[column] = truths(table, column)
            metadata.append(MetadataColumn(column=column, kind="boolean", description=BOOLEAN[column]))
        elif column in NUMERIC:
            unit, description = NUMERIC[column]
            columns[column] = numbers(table, column)
            metadata.append(MetadataColumn(column=column, kind="numeric", unit=unit, description=description))
        elif column in CATEGORICAL:
            columns[column] = frame[column]
            levels = class_order(frame[column].dropna())
            entry = MetadataColumn(
                column=column, kind="categorical", values=levels or None, description=CATEGORICAL[column]
            )
            metadata.append(entry)
    manifest = pd.DataFrame(columns)
    card = Card(
        name=name or "pad-ufes-20",
        description="Smartphone photos of skin lesions from a dermatological assistance programme in Espírito Santo",
        licence="CC-BY-4.0",
        licence_card="pad-ufes-20",
        citation=CITATION,
        source="doi:10.17632/zr7vgbcyr2.1",
        targets=(TARGET,),
        metadata=tuple(metadata),
        label_proxies=("biopsed",),
    )
    return SourceData(
        root=files.root,
        manifest=manifest[manifest["source_path"].notna()].reset_index(drop=True),
        card=card,
        quarantined=[*files.set_aside, *missing],
    )
