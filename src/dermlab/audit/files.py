"""Photos that are missing, unreadable, blank, tiny or blurred, and what their headers give away about a patient."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from dermlab.audit.duplicates import MIN_CONTRAST
from dermlab.audit.findings import Finding, Severity, examples
from dermlab.audit.thumbnails import RECIPE, Thumbnails
from dermlab.core.words import plural
from dermlab.data.decode import available_cores

TOO_MANY_UNREADABLE = 0.05
"""A data set of which more than this share cannot be read is another data set than its manifest says."""

TINY_PX = 32
"""A photo whose shorter side is below this shows no lesion."""

MIN_DETAIL = 0.4
"""Detail finer than a 64th of the side, in grey levels, below which a photo is blurred. 2,666 photos of PAD-UFES-20 and
HAM10000 have .43 at the least and 2.2 in the median; blurred by a Gaussian of 1 % of the longer side, .33 at most."""

BLURRED_SHARE = 0.5
"""Where more than this share of a data set looks blurred, it is how its photos are, and said once."""

_GPS_TAGS = {"GPSLatitude", "GPSLongitude"}
# DICOM PS3.15 annex E, the attributes that name a person, and PS3.3 C.7.6.1.1: the pixels hold identifying text.
_DICOM_TAGS = {
    "PatientName": "patient's name",
    "PatientBirthDate": "patient's name",
    "PatientAddress": "patient's name",
    "BurnedInAnnotation": "DICOM flag of burnt-in text",
}
_NAMING_TAGS = {"Artist", "XPAuthor", "UserComment", "ImageDescription", "XPComment", "XPTitle", "XPSubject"}


def read_headers(paths: Sequence[Path]) -> pd.DataFrame:
    """Read each file's header, not its pixels.

    Returns:
        One row per path: ``width_px``, ``height_px`` (as stored; NaN where the header is none that Pillow reads),
        ``format`` (upper case, "" where unknown), ``bytes`` (NaN where the file is missing) and ``personal`` (what the
        EXIF block or the DICOM header holds that may identify someone: ``GPS position``, ``comment or author``,
        ``patient's name``, ``DICOM flag of burnt-in text``; else "").
    """
    with ThreadPoolExecutor(available_cores()) as pool:
        rows = list(pool.map(_read_header, paths))
    return pd.DataFrame(rows, columns=["width_px", "height_px", "format", "bytes", "personal"])


def _read_header(path: Path) -> tuple[float, float, str, float, str]:
    try:
        size = float(os.stat(path).st_size)
    except OSError:
        return np.nan, np.nan, "", np.nan, ""
    try:
        with Image.open(path) as image:
            width, height = image.size
            kind = image.format or ""
            personal = _personal(image)
    except Exception:  # a hostile or unknown header; whether the photo can be decoded is not judged here
        return _read_dicom_header(path, size)
    return float(width), float(height), kind, size, personal


def _read_dicom_header(path: Path, size: float) -> tuple[float, float, str, float, str]:
    """Read what a DICOM file says of itself and of its patient; NaN and "" where it is none."""
    unknown = np.nan, np.nan, "", size, ""
    try:
        import pydicom

        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_DICOM_TAGS, "Rows", "Columns"])
        found = [what for tag, what in _DICOM_TAGS.items() if _is_told(header.get(tag), tag)]
        return float(header.Columns), float(header.Rows), "DICOM", size, ", ".join(dict.fromkeys(found))
    except Exception:  # no DICOM file, a hostile one, or nothing here reads them
        return unknown


def _is_told(value: object, tag: str) -> bool:
    text = str(value if value is not None else "").strip()
    return text.upper() == "YES" if tag == "BurnedInAnnotation" else text.strip("^ ") != ""


def _personal(image: Image.Image) -> str:
    exif = image.getexif()
    found = []
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    if _GPS_TAGS & {ExifTags.GPSTAGS.get(tag, "") for tag in gps}:
        found.append("GPS position")
    tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    texts = [tags[tag] for tag in tags if ExifTags.TAGS.get(tag, "") in _NAMING_TAGS]
    if any(bytes(text).strip(b"\x00 ") if isinstance(text, bytes) else str(text).strip("\x00 ") for text in texts):
        found.append("comment or author")
    return ", ".join(found)


def file_findings(
    name: str, image_ids: np.ndarray, thumbnails: Thumbnails, headers: pd.DataFrame, quarantine: pd.DataFrame
) -> list[Finding]:
    """Turn what was read of the files of one data set into findings.

    Args:
        name: the data set's name, for the sentences.
        image_ids: (N,).
        thumbnails: of the N photos.
        headers: what :func:`read_headers` returned for them.
        quarantine: what the import set aside: ``path, reason``.
    """
    return [
        *_unreadable(name, image_ids, thumbnails),
        *_quarantined(name, quarantine),
        *_blank(name, image_ids, thumbnails),
        *_tiny(name, image_ids, headers),
        *_blurred(name, image_ids, thumbnails, headers),
        *_personal_headers(name, image_ids, headers),
    ]


def _unreadable(name: str, image_ids: np.ndarray, thumbnails: Thumbnails) -> list[Finding]:
    if not thumbnails.failures:
        return []
    rows = sorted(thumbnails.failures)
    table = pd.DataFrame({"image_id": image_ids[rows], "reason": [thumbnails.failures[row] for row in rows]})
    share = len(rows) / len(image_ids)
    reasons = Counter(table["reason"])
    commonest = "; ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(3))
    too_many = share > TOO_MANY_UNREADABLE
    message = f"{name}: {plural(len(rows), 'photo')} of {len(image_ids):,} cannot be read ({commonest})."
    remedy = "Mend or remove the files and import again; until then they are left out of every run and counted."
    if too_many:
        remedy += " 'waive: [unreadable]' goes on without them."
    severity: Severity = "error" if too_many else "warning"
    evidence = {"n": len(rows), "n_images": len(image_ids), "reasons": dict(reasons), "examples": examples(table)}
    return [Finding("unreadable", severity, message, evidence, remedy, table)]


def _quarantined(name: str, quarantine: pd.DataFrame) -> list[Finding]:
    if quarantine.empty:
        return []
    reasons = Counter(quarantine["reason"])
    commonest = "; ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(3))
    return [
        Finding(
            "quarantined",
            "warning",
            f"{name}: the import set {plural(len(quarantine), 'file')} aside ({commonest}).",
            {"n": len(quarantine), "reasons": dict(reasons), "examples": examples(quarantine)},
            "Each file and its reason stands in quarantine.csv; mend them and import again.",
            quarantine,
        )
    ]


def _blank(name: str, image_ids: np.ndarray, thumbnails: Thumbnails) -> list[Finding]:
    rows = np.flatnonzero(thumbnails.readable & (thumbnails.contrast < MIN_CONTRAST))
    if len(rows) == 0:
        return []
    table = pd.DataFrame({"image_id": image_ids[rows], "contrast": thumbnails.contrast[rows].round(2)})
    message = f"{name}: {plural(len(rows), 'photo')} {'is' if len(rows) == 1 else 'are'} blank (one even colour)."
    return [
        Finding(
            "blank-photos",
            "warning",
            message,
            {"n": len(rows), "below_contrast": MIN_CONTRAST, "examples": examples(table)},
            "Look at them and take them out of the source before importing again.",
            table,
        )
    ]


def _tiny(name: str, image_ids: np.ndarray, headers: pd.DataFrame) -> list[Finding]:
    short = headers[["width_px", "height_px"]].min(axis=1)
    rows = np.flatnonzero(short < TINY_PX)
    if len(rows) == 0:
        return []
    table = headers.loc[rows, ["width_px", "height_px"]].astype(int).reset_index(drop=True)
    table.insert(0, "image_id", image_ids[rows])
    smallest = int(short.iloc[rows].min())
    return [
        Finding(
            "tiny-photos",
            "warning",
            f"{name}: {plural(len(rows), 'photo')} measure less than {TINY_PX} px (the smallest: {smallest}).",
            {"n": len(rows), "below_px": TINY_PX, "smallest_px": smallest, "examples": examples(table)},
            "Find the originals; a thumbnail scaled up shows a model its own blur.",
            table,
        )
    ]


def _blurred(name: str, image_ids: np.ndarray, thumbnails: Thumbnails, headers: pd.DataFrame) -> list[Finding]:
    # A smaller photo was enlarged to the thumbnail and has no such detail to lose.
    large = headers[["width_px", "height_px"]].min(axis=1).to_numpy() >= RECIPE.size_px
    judged = thumbnails.readable & large & (thumbnails.contrast >= MIN_CONTRAST)
    rows = np.flatnonzero(judged & (thumbnails.sharpness < MIN_DETAIL))
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(thumbnails.sharpness[rows], kind="stable")]
    table = pd.DataFrame({"image_id": image_ids[rows], "detail": thumbnails.sharpness[rows].round(3)})
    most = len(rows) > BLURRED_SHARE * judged.sum()
    remedy = (
        "So many that it is how these photos are made; expect less from models that read fine structure."
        if most
        else "Look at them, the most blurred first: a model should not be judged on what a dermatologist cannot judge."
    )
    n_judged = int(judged.sum())
    return [
        Finding(
            "blurred-photos",
            "info" if most else "warning",
            f"{name}: {plural(len(rows), 'photo')} of {n_judged:,} {'is' if len(rows) == 1 else 'are'} blurred.",
            {"n": len(rows), "n_judged": n_judged, "below_detail": MIN_DETAIL, "examples": examples(table)},
            remedy,
            table,
        )
    ]


def _personal_headers(name: str, image_ids: np.ndarray, headers: pd.DataFrame) -> list[Finding]:
    rows = np.flatnonzero(headers["personal"] != "")
    if len(rows) == 0:
        return []
    table = pd.DataFrame({"image_id": image_ids[rows], "holds": headers["personal"].to_numpy()[rows]})
    kinds = Counter(kind for text in table["holds"] for kind in text.split(", "))
    what = " and ".join(f"a {kind} ({count:,})" for kind, count in kinds.most_common())
    return [
        Finding(
            "personal-data",
            "warning",
            f"{name}: the headers of {plural(len(rows), 'photo')} hold {what}.",
            {"n": len(rows), "kinds": dict(kinds), "examples": examples(table)},
            "dermlab never carries headers on, but whoever gets the files gets them: strip them, for example with "
            "'exiftool -all= -tagsfromfile @ -orientation FILE'.",
            table,
        )
    ]
