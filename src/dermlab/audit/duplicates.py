"""One photo several times: identical files, identical pixels, and the same photo re-encoded, turned or cropped.

Three steps, none of them quadratic in memory, the first sub-quadratic in time:

1. *Candidates*: every photo's 8 x 8 lowest frequencies (a perceptual hash before its bits are cut), in a form that
   turning and mirroring leave unchanged; nearest neighbours in it by an inverted-file index.
2. *Which way round*: the eight turned and mirrored versions are signed permutations of the frequencies.
3. *Verification*: the fine detail of the two thumbnails, block by block, must correlate. Low frequencies say only "a
   dark spot in the middle"; hairs, pores and glints are in one photo alone. Where a crop or a slight turn has moved
   them, the pair is first aligned (Evangelidis and Psarakis 2008, "Parametric image alignment using enhanced
   correlation coefficient maximization").

Measured on PAD-UFES-20, HAM10000 and blood-cell photos: of copies that were re-encoded, halved, turned, mirrored,
brightened or tinted all are found, of copies cropped by 5 % or turned by 3 degrees nine in ten; the most alike two
different photos of different lesions stay below .56, the threshold is .70 (docs/explanation/leaks_and_proxies.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dermlab.audit.thumbnails import N_FREQUENCIES, SIZE_PX, Thumbnails
from dermlab.core.fingerprint import hash_bytes
from dermlab.core.progress import progress
from dermlab.data.decode import DecodeError, available_cores, decode_file

RADIUS = 0.30
"""Two photos are compared in detail where their unit-length low frequencies are this close. Re-encoding moves them by
at most .07, a brighter exposure by at most .26 (99 in 100), a crop of 5 % by .2 in the median."""

SAME_PHOTO = 0.70
"""Median correlation of the blocks' fine detail from which on two photos are one."""

ALIGNABLE = 0.12
"""Pairs whose detail correlates at least this much as they lie are worth aligning."""

MAX_ALIGNED = 5_000
"""At most this many pairs are aligned, the likeliest first: it takes a few milliseconds each."""

MIN_CONTRAST = 2.0
"""Below this standard deviation in grey levels a photo is blank, and every blank photo looks like every other."""

N_NEIGHBOURS = 32
EXACT_SEARCH_UP_TO = 20_000
_BLOCK_PX = 8
_MIN_BLOCKS = 12
_NOISE = 4.0  # norm of a block's detail below which it is noise of the encoder: half a grey level in 64 pixels

# An orientation (transpose, flip rows, flip columns) in words, as the second photo must be changed to give the first.
_ORIENTATIONS: dict[tuple[int, int, int], str] = {
    (0, 0, 0): "",
    (0, 0, 1): "mirrored left to right",
    (0, 1, 0): "mirrored top to bottom",
    (0, 1, 1): "turned by 180°",
    (1, 0, 0): "turned by 90° and mirrored",
    (1, 1, 0): "turned by 90°",
    (1, 0, 1): "turned by 270°",
    (1, 1, 1): "turned by 270° and mirrored",
}
_ORDER = tuple(_ORIENTATIONS)

COLUMNS = ("a", "b", "similarity", "kind", "orientation")


def find_duplicates(
    thumbnails: Thumbnails, paths: Sequence[Path], dataset_of: np.ndarray | None = None
) -> pd.DataFrame:
    """Find the pairs of photos that are one photo.

    Args:
        thumbnails: what :func:`dermlab.audit.thumbnails.read_thumbnails` read, N photos.
        paths: their files, for a second look at the full size where two thumbnails are equal to the last pixel.
        dataset_of: number of the data set of each photo, int (N,); default: all are of one.

    Returns:
        One row per pair, ``a < b`` rows of the photos: ``similarity`` (1 for identical ones), ``kind`` (``identical
        file``, ``identical pixels``, ``same photo``, ``same photo, cropped or shifted``) and ``orientation`` (in words;
        empty where they lie alike). Of several identical photos each is paired with the first of its data set only,
        and those first ones with each other.
    """
    dataset_of = np.zeros(len(thumbnails), dtype=np.int64) if dataset_of is None else dataset_of
    exact = _identical(thumbnails, paths, dataset_of)
    copy = np.zeros(len(thumbnails), dtype=bool)
    copy[exact.loc[dataset_of[exact["a"]] == dataset_of[exact["b"]], "b"]] = True
    singles = np.flatnonzero(thumbnails.readable & (thumbnails.contrast >= MIN_CONTRAST) & ~copy)
    near = _same_photo(thumbnails, singles)
    pairs = pd.concat([exact, near], ignore_index=True)[list(COLUMNS)]
    return pairs.drop_duplicates(["a", "b"]).reset_index(drop=True)


def photo_of(n: int, pairs: pd.DataFrame) -> np.ndarray:
    """Number the photos so that rows of one photo share a number: int64 (n,), from pairs with columns ``a, b``."""
    a, b = pairs["a"].to_numpy(dtype=np.int64), pairs["b"].to_numpy(dtype=np.int64)
    graph = coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _identical(thumbnails: Thumbnails, paths: Sequence[Path], dataset_of: np.ndarray) -> pd.DataFrame:
    """Pair each copy with the first of its kind: equal files, then files that decode to equal pixels."""
    pairs = _paired(thumbnails.content_hash, np.arange(len(thumbnails)), dataset_of)
    rows = [(a, b, 1.0, "identical file", "") for a, b in pairs]
    firsts = np.setdiff1d(np.flatnonzero(thumbnails.content_hash != ""), [b for _, b in pairs])
    by_digest = pd.Series(firsts).groupby(thumbnails.digest[firsts])
    for digest, alike in by_digest:
        if digest and len(alike) > 1:
            where = alike.to_numpy()
            pairs = _paired(np.array([_full_size(paths[i]) for i in where], dtype=object), where, dataset_of)
            rows += [(a, b, 1.0, "identical pixels", "") for a, b in pairs]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"a": np.int64, "b": np.int64, "similarity": np.float64})


def _paired(keys: np.ndarray, rows: np.ndarray, dataset_of: np.ndarray) -> list[tuple[int, int]]:
    """Pair rows of equal, non-empty keys: each with the first of its data set, the first ones with each other."""
    firsts: dict[str, dict[int, int]] = {}
    pairs = []
    for key, row in zip(keys.tolist(), rows.tolist(), strict=True):
        if not key:
            continue
        first = firsts.setdefault(key, {})
        home = int(dataset_of[row])
        if home in first:
            pairs.append((first[home], row))
        else:
            pairs.extend((other, row) for other in first.values())
            first[home] = row
    return pairs


def _full_size(path: Path) -> str:
    """Hash a photo's pixels at their full size; "" where it cannot be decoded (any more)."""
    try:
        photo = decode_file(path)
    except DecodeError:
        return ""
    return hash_bytes(repr(photo.shape).encode(), photo.tobytes())


def _same_photo(thumbnails: Thumbnails, singles: np.ndarray) -> pd.DataFrame:
    """Candidates, orientation, verification among the rows ``singles``."""
    spectrum = thumbnails.spectrum[singles]
    pairs = _close_pairs(_invariant(spectrum), RADIUS)
    pairs, turn = _turned_pairs(spectrum, pairs, RADIUS)
    names = np.array([_ORIENTATIONS[key] for key in _ORDER], dtype=object)
    involved, local = np.unique(pairs, return_inverse=True)
    luminance = thumbnails.luminance[singles[involved]]
    local = local.reshape(pairs.shape)
    similarity, kind = _verify(luminance, local, turn)
    table = pd.DataFrame(
        {
            "a": singles[pairs[:, 0]],
            "b": singles[pairs[:, 1]],
            "similarity": similarity,
            "kind": kind,
            "orientation": names[turn],
        }
    )
    table = table[table["similarity"] >= SAME_PHOTO].sort_values("similarity", ascending=False, kind="stable")
    table = table.drop_duplicates(["a", "b"])  # a symmetrical lesion may match in two orientations
    return table.sort_values(["a", "b"]).reset_index(drop=True)


# --- candidates -------------------------------------------------------------------------------------------------------


def _invariant(spectrum: np.ndarray) -> np.ndarray:
    """Return what turning and mirroring leave unchanged of (N, 8, 8) frequencies, float32 (N, 63).

    Mirroring changes the sign of odd frequencies, transposing swaps the two axes: sizes of the odd ones and the pair
    (larger, smaller) of each (u, v) and (v, u) stay. Taking sizes and sorting never move two vectors apart, so two
    photos are at most as far apart here as in their best orientation: no true pair is lost.
    """
    row, column = np.triu_indices(N_FREQUENCIES)
    row, column = row[1:], column[1:]  # without the mean
    even = (row % 2 == 0) & (column % 2 == 0)
    one, other = spectrum[:, row, column], spectrum[:, column, row]
    one, other = np.where(even, one, np.abs(one)), np.where(even, other, np.abs(other))
    off_diagonal = row != column
    parts = [np.maximum(one, other), np.minimum(one, other)[:, off_diagonal]]
    return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)


def _close_pairs(vectors: np.ndarray, radius: float) -> np.ndarray:
    """Return pairs of rows within ``radius``, int64 (M, 2), first < second, among the 32 nearest of each row.

    Exact up to 20,000 rows; beyond that an inverted-file index that looks at the 32 nearest of 4 sqrt(N) cells (of the
    pairs within half the radius none was missed among 100,000 photos, of all pairs 2 in 1,000).
    """
    import faiss

    n, dim = vectors.shape
    if n < 2:
        return np.zeros((0, 2), dtype=np.int64)
    index: Any = faiss.IndexFlatL2(dim)
    if n > EXACT_SEARCH_UP_TO:
        n_cells = int(4 * n**0.5)
        index = faiss.IndexIVFFlat(index, dim, n_cells)
        index.nprobe = 32
        step = max(1, n // (40 * n_cells))
        index.train(np.ascontiguousarray(vectors[::step]))
    index.add(vectors)
    k = min(N_NEIGHBOURS + 1, n)
    found = []
    with progress("look for the same photo", n) as advance:
        for start in range(0, n, 4096):
            squared, neighbour = index.search(vectors[start : start + 4096], k)
            row, place = np.nonzero((squared <= radius**2) & (neighbour >= 0))
            found.append(np.stack([row + start, neighbour[row, place]], axis=1))
            advance(len(squared))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0).astype(np.int64)


def _turned_pairs(spectrum: np.ndarray, pairs: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Keep the pairs, with each orientation, in which the second turned photo lies within the radius of the first."""
    sign = (-1.0) ** np.arange(N_FREQUENCIES, dtype=np.float32)
    kept, turns = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(pairs), 65_536):
        some = pairs[start : start + 65_536]
        first, second = spectrum[some[:, 0]], spectrum[some[:, 1]]
        for turn, (transpose, rows, columns) in enumerate(_ORDER):
            other = second.transpose(0, 2, 1) if transpose else second
            mask = (sign[:, None] if rows else 1.0) * (sign if columns else 1.0) * np.ones((1, 1), dtype=np.float32)
            squared = 2 - 2 * np.einsum("nij,nij->n", first, other * mask)  # both have unit length
            close = squared <= radius**2
            kept.append(some[close])
            turns.append(np.full(int(close.sum()), turn))
    return np.concatenate(kept), np.concatenate(turns)


# --- verification -----------------------------------------------------------------------------------------------------


def _turn(photos: np.ndarray, orientation: tuple[int, int, int]) -> np.ndarray:
    """Transpose, then flip, (..., H, W) photos."""
    transpose, rows, columns = orientation
    photos = np.swapaxes(photos, -1, -2) if transpose else photos
    photos = photos[..., ::-1, :] if rows else photos
    return photos[..., ::-1] if columns else photos


def _detail(luminance: np.ndarray) -> np.ndarray:
    """Return what is finer than about a tenth of the side, float32 (..., 64, 64)."""
    smooth = np.stack([cv2.GaussianBlur(photo, (0, 0), 3.0) for photo in luminance.astype(np.float32)])
    return np.asarray(luminance - smooth, dtype=np.float32)


def _block_similarity(first: np.ndarray, second: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Return the median correlation of the 8 x 8 px blocks of two stacks of details, float64 (M,).

    The median, because an immersion ring, a ruler or a vignette fills only some blocks. Blocks that are plain in both
    photos say nothing and are left out; a pair with fewer than 12 telling blocks is not judged (-1).
    """
    n, side = len(first), SIZE_PX // _BLOCK_PX

    def blocks(photos: np.ndarray) -> np.ndarray:
        cut = photos.reshape(n, side, _BLOCK_PX, side, _BLOCK_PX).swapaxes(2, 3).reshape(n, side * side, -1)
        return cut - cut.mean(axis=2, keepdims=True)

    one, other = blocks(first), blocks(second)
    size_one, size_other = np.linalg.norm(one, axis=2), np.linalg.norm(other, axis=2)
    correlation = np.einsum("nbp,nbp->nb", one, other) / np.maximum(size_one * size_other, 1e-6)
    telling = np.maximum(size_one, size_other) > _NOISE
    if inside is not None:
        telling &= inside.reshape(n, side, _BLOCK_PX, side, _BLOCK_PX).swapaxes(2, 3).reshape(n, side * side, -1).all(2)
    correlation = np.where(telling, correlation, np.nan)
    enough = telling.sum(axis=1) >= _MIN_BLOCKS
    result = np.full(n, -1.0)
    if enough.any():
        result[enough] = np.nanmedian(correlation[enough], axis=1)
    return result


def _verify(luminance: np.ndarray, pairs: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return similarity and kind of each pair: as they lie, and where that leaves doubt, aligned."""
    similarity = np.full(len(pairs), -1.0)
    kind = np.full(len(pairs), "same photo", dtype=object)
    if not len(pairs):
        return similarity, kind
    detail = _detail(luminance)
    for number, orientation in enumerate(_ORDER):
        here = np.flatnonzero(turn == number)
        for start in range(0, len(here), 2048):
            some = here[start : start + 2048]
            second = _turn(detail[pairs[some, 1]], orientation)
            similarity[some] = _block_similarity(detail[pairs[some, 0]], second)
    doubtful = np.flatnonzero((similarity >= ALIGNABLE) & (similarity < SAME_PHOTO))
    doubtful = doubtful[np.argsort(-similarity[doubtful], kind="stable")][:MAX_ALIGNED]

    def align(i: int) -> float:
        a, b = pairs[i]
        return _aligned_similarity(luminance[a], _turn(luminance[b], _ORDER[turn[i]]))

    with progress("align photos", len(doubtful), "pairs") as advance, ThreadPoolExecutor(available_cores()) as pool:
        for i, aligned in zip(doubtful, pool.map(align, doubtful), strict=True):
            if aligned >= SAME_PHOTO:
                similarity[i], kind[i] = aligned, "same photo, cropped or shifted"
            advance(1)
    return similarity, kind


def _aligned_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Warp the second luminance onto the first (affine) and return their similarity; -1 where that does not work."""
    one = np.ascontiguousarray(first, dtype=np.float32)
    other = np.ascontiguousarray(second, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    try:
        start = np.eye(2, 3, dtype=np.float32)
        everywhere = np.ones(one.shape, np.uint8)
        _, warp = cv2.findTransformECC(one, other, start, cv2.MOTION_AFFINE, stop, everywhere, 5)
    except cv2.error:  # did not converge
        return -1.0
    if not 0.5 <= abs(float(np.linalg.det(warp[:, :2]))) <= 2.0:
        return -1.0
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(other, warp, one.shape[::-1], flags=how, borderMode=cv2.BORDER_REFLECT)
    inside = cv2.warpAffine(np.ones(one.shape, np.uint8), warp, one.shape[::-1], flags=how) > 0
    detail = _detail(np.stack([one, warped]))
    return float(_block_similarity(detail[:1], detail[1:], inside[None])[0])
