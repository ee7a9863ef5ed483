"""Photos that may tell who the patient is: text burnt into the pixels, and faces.

Text: bright or dark strokes of one even colour that stand in a row, at least :data:`LEAST_CHARACTERS` of them of like
height (after Epshtein, Ofek and Wexler 2010, "Detecting text in natural scenes with stroke width transform", section 4,
with morphological hats in place of the transform). Faces: local binary patterns in a boosted cascade (Liao et al. 2007,
"Learning multi-scale block local binary patterns for face recognition"), as scikit-image ships it: upright, frontal and
whole faces only. Neither is a proof that there is none: half a face or handwriting is not looked for; tattoos are in
:mod:`dermlab.audit.tattoos`. How many are found and how many alarms are false: docs/explanation/leaks_and_proxies.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from dermlab.audit.findings import Finding, examples, not_looked_for
from dermlab.core.errors import MissingExtraError
from dermlab.core.progress import progress
from dermlab.core.words import plural
from dermlab.data.decode import DecodeError, available_cores, decode_file

LEAST_CHARACTERS = 6
"""So many strokes in a row are text; a row of pores or hairs has seldom more than three of one height and colour."""

LONG_SIDE_PX = 1024
"""Photos are looked at with their longer side at most this long."""

FACE_PX = 320
"""Faces are looked for in photos of this longer side at most: one that fills a seventh of the photo is still found."""

FACE_AGREEMENT = 4
"""So many overlapping windows must agree on a face."""

MOST_STROKES = 2_000
"""Of more strokes than this the first are looked at: hair by the thousand is hair."""

_HAT_PX = 15  # strokes are thinner than this
_CONTRAST = 45  # grey levels between a stroke and what surrounds it
_SAME_COLOUR = 36.0  # levels by which the cores of two characters of one row differ at most in any channel
_HEIGHT_PX = (7, 64)

Boxes = np.ndarray  # float64 (K, 4): left, top, width, height as shares of the photo's sides


def find_text(photo: np.ndarray) -> tuple[int, Boxes]:
    """Look for rows of characters in a (H, W, 3) uint8 photo.

    Returns:
        Number of characters of the longest row, and the boxes of the rows that are text.
    """
    photo = _at_most(photo, LONG_SIDE_PX)
    longest, boxes = 0, []
    for channel in range(3):  # yellow on skin shows in blue alone, green in red alone
        levels = np.ascontiguousarray(photo[..., channel])
        for hat in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
            height = cv2.morphologyEx(levels, hat, np.ones((_HAT_PX, _HAT_PX), np.uint8))
            for row in _rows_of(_characters(height, photo)):
                longest = max(longest, len(row))
                if len(row) >= LEAST_CHARACTERS:
                    left, top = row[:, 0].min(), row[:, 1].min()
                    right, bottom = (row[:, 0] + row[:, 2]).max(), (row[:, 1] + row[:, 3]).max()
                    boxes.append((len(row), left, top, right - left, bottom - top))
    boxes.sort(reverse=True)
    sides = np.array([photo.shape[1], photo.shape[0]] * 2, dtype=np.float64)
    return longest, np.array(boxes, dtype=np.float64).reshape(-1, 5)[:, 1:] / sides


def _characters(hat: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Return what may be characters among the strokes of a hat transform, float64 (K, 7).

    Columns: left, top, width, height, and red, green, blue of the stroke's core (its edges are mixed with the skin).
    """
    n, label, stats, _ = cv2.connectedComponentsWithStats((hat > _CONTRAST).astype(np.uint8), connectivity=8)
    left, top, width, height, area = stats.T.astype(np.float64)
    fill = area / (width * height)
    fits = (height >= _HEIGHT_PX[0]) & (height <= _HEIGHT_PX[1]) & (width <= 2.2 * height) & (width >= 2)
    fits &= (area >= 10) & (fill > 0.15) & (fill < 0.95)
    fits[0] = False  # what is no stroke at all
    if fits.sum() < LEAST_CHARACTERS:
        return np.zeros((0, 7))
    rows, columns = np.nonzero(fits[label])
    of = label[rows, columns].astype(np.int64)
    peak = np.zeros(n)
    np.maximum.at(peak, of, hat[rows, columns])
    core = hat[rows, columns] >= 0.8 * peak[of]
    of, colour = of[core], photo[rows[core], columns[core]].astype(np.float64)
    count = np.maximum(np.bincount(of, minlength=n), 1)
    mean = np.stack([np.bincount(of, weights=colour[:, i], minlength=n) / count for i in range(3)], axis=1)
    return np.column_stack([left, top, width, height, mean])[fits]


def _rows_of(found: np.ndarray) -> list[np.ndarray]:
    """Join characters that stand on one line side by side, alike in height and colour; return each row's characters."""
    if len(found) < LEAST_CHARACTERS:
        return []
    found = found[np.argsort(found[:, 0], kind="stable")][:MOST_STROKES]
    left, top, width, height = found[:, :4].T
    tall = np.maximum(height[:, None], height)
    gap = np.maximum(left[:, None], left) - np.minimum((left + width)[:, None], left + width)
    beside = (gap < 1.0 * tall) & (gap > -0.3 * tall)
    lower, upper = np.abs((top + height)[:, None] - (top + height)), np.abs(top[:, None] - top)
    level_with = np.minimum(lower, upper) <= np.maximum(1.5, 0.12 * tall)  # ascenders differ above, descenders below
    alike = tall <= 1.9 * np.minimum(height[:, None], height)
    colour = np.abs(found[:, None, 4:] - found[None, :, 4:]).max(axis=2) <= _SAME_COLOUR
    _, row = connected_components(beside & level_with & alike & colour, directed=False)
    rows = []
    for number in np.flatnonzero(np.bincount(row) >= LEAST_CHARACTERS):
        members = found[row == number]
        line = _on_one_line(members)
        share = line[:, 2] / line[:, 3]
        # The ticks of a ruler are all equally thin; letters are not.
        if len(line) and (share >= 0.35).mean() >= 0.5 and (line[:, 4:].std(axis=0) <= _SAME_COLOUR / 2).all():
            rows.append(line)
    return rows


def _on_one_line(members: np.ndarray) -> np.ndarray:
    """Return those of a chain that share a lower or an upper edge to a pixel or two, as only print does."""
    slack = max(1.0, 0.06 * float(np.median(members[:, 3])))
    best = members[:0]
    for edge in (members[:, 1], members[:, 1] + members[:, 3]):
        near = np.abs(edge[:, None] - edge) <= slack
        chosen = members[near[near.sum(axis=1).argmax()]]
        best = chosen if len(chosen) > len(best) else best
    return best


@functools.cache
def _cascade() -> Any:
    try:
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade
    except ImportError:
        raise MissingExtraError("looking for faces", "scikit-image", "audit") from None
    return Cascade(lbp_frontal_face_cascade_filename())


def find_faces(photo: np.ndarray) -> Boxes:
    """Look for upright, frontal, whole faces in a (H, W, 3) uint8 photo.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    photo = _at_most(photo, FACE_PX)
    short = min(photo.shape[:2])
    if short < 30:
        return np.zeros((0, 4))
    windows = _cascade().detect_multi_scale(
        img=photo,
        scale_factor=1.2,
        step_ratio=1.3,
        min_size=(max(24, short // 7),) * 2,
        max_size=(short, short),
        min_neighbor_number=FACE_AGREEMENT,
    )
    boxes = [(one["c"], one["r"], one["width"], one["height"]) for one in windows]
    sides = np.array([photo.shape[1], photo.shape[0]] * 2, dtype=np.float64)
    return np.array(boxes, dtype=np.float64).reshape(-1, 4) / sides


def _at_most(photo: np.ndarray, long_side_px: int) -> np.ndarray:
    scale = long_side_px / max(photo.shape[:2])
    if scale >= 1:
        return photo
    return np.asarray(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def identifying_findings(name: str, image_ids: np.ndarray, paths: Sequence[Path]) -> list[Finding]:
    """Look at every photo at its full size for text and faces; photos that cannot be read are left out.

    Args:
        name: opens the sentences.
        image_ids: (N,).
        paths: of the photos, N.
    """
    try:
        _cascade()
        missing = []
    except MissingExtraError as error:
        missing = [not_looked_for(name, error)]

    def look(path: Path) -> tuple[int, Boxes, Boxes] | None:
        try:
            photo = decode_file(path)
        except DecodeError:
            return None
        return *find_text(photo), np.zeros((0, 4)) if missing else find_faces(photo)

    texts, faces, n = [], [], 0
    with progress("look for text and faces", len(paths)) as advance, ThreadPoolExecutor(available_cores()) as pool:
        for image_id, seen in zip(image_ids.tolist(), pool.map(look, paths), strict=True):
            advance(1)
            if seen is None:
                continue
            n += 1
            characters, rows, found = seen
            if len(rows):
                texts.append({"image_id": image_id, "characters": characters, **_box(rows[0])})
            if len(found):
                faces.append({"image_id": image_id, **_box(found[np.argmax(found[:, 2])])})
    return [
        *_finding("burnt-in-text", name, texts, n, "what may be text", "text in the pixels names patients"),
        *_finding("faces", name, faces, n, "what may be a face", "a face is personal data whatever the consent form"),
        *missing,
    ]


def _box(box: np.ndarray) -> dict[str, float]:
    """Name the sides of a box, as shares of the photo's."""
    return {key: round(float(value), 3) for key, value in zip(("left", "top", "width", "height"), box, strict=True)}


def _finding(code: str, name: str, rows: list[dict[str, Any]], n: int, what: str, why: str) -> list[Finding]:
    if not rows:
        return []
    table = pd.DataFrame(rows)
    if "characters" in table:
        table = table.sort_values("characters", ascending=False, kind="stable", ignore_index=True)
    message = f"{name}: {what} is in {plural(len(table), 'photo')} of {n:,}."
    evidence = {"n": len(table), "n_looked_at": n, "examples": examples(table)}
    remedy = (
        f"Look at them: {why}. Paint over or crop the files at the source and import again; dermlab changes no photo."
    )
    return [Finding(code, "warning", message, evidence, remedy, table)]
