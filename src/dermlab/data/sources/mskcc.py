"""MSKCC: the ISIC archive's dermoscopy images of Memorial Sloan Kettering Cancer Center, as PanDerm evaluates them.

Layout: an export of the archive (:mod:`dermlab.data.sources.isic_archive`), here under any name, as ``mskcc.csv`` in
Digital-Dermatology/core. Which images PanDerm chose (8,984) was not found; an export is imported whole.
"""

from __future__ import annotations

from pathlib import Path

from dermlab.data.sources import SourceData
from dermlab.data.sources.isic_archive import CITATION, read_export


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read MSKCC from an export of the ISIC archive.

    Args:
        path: the folder with the export and the images.
        name: name of the data set; None is mskcc.
    """
    return read_export(
        path,
        "MSKCC",
        name=name or "mskcc",
        description="Dermoscopy images of Memorial Sloan Kettering Cancer Center, New York",
        licence_card="mskcc",
        citation=f"Memorial Sloan Kettering Cancer Center; {CITATION}",
        source="https://api.isic-archive.com",
    )
