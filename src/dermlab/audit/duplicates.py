"""One photo several times: identical files, identical pixels, and the same photo re-encoded, turned or cropped.

Three steps, none of them quadratic in memory, the first sub-quadratic in time:

1. *Candidates*: every photo's 8 x 8 lowest frequencies (a perceptual hash before its bits are cut), in a form that
   turning and mirroring leave unchanged; nearest neighbours in it by an inverted-file index. Each photo is looked up
   whole and as two centre crops, so that its crops are found too.
2. *Which way round*: the eight turned and mirrored versions are signed permutations of the frequencies.
3. *Verification*: the fine detail of the two thumbnails, block by block, must correlate. Low frequencies say only "a
   dark spot in the middle"; hairs, pores and glints are in one photo alone. Where a crop or a slight turn has moved
   them, the pair is first aligned (Evangelidis and Psarakis 2008, "Parametric image alignment using enhanced
   correlation coefficient maximization").

How many copies are found, and how alike two different photos get: docs/explanation/leaks_and_proxies.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dermlab.audit.points import AGREEING, best_agreement
from dermlab.audit.thumbnails import SIZE_PX, Thumbnails
from dermlab.core.fingerprint import hash_bytes
from dermlab.core.progress import progress
from dermlab.data.decode import DecodeError, available_cores, decode_file

RADIUS = 0.30
"""Two photos are compared in detail where their unit-length low frequencies are this close. Re-encoding moves them by
at most .07, a brighter exposure by at most .26 (99 in 100), a crop of 5 % by .2 in the median."""

RADIUS_OF_RINGED = 0.40
"""The same where a dark surround is masked out: a crop moves the mask's blurred edge, and with it the frequencies. One
crop of 3 % a side in a faint photo lay at .36; finer steps of :data:`CROPS` do not bring it nearer."""

SAME_PHOTO = 0.50
"""Median correlation of the blocks' fine detail from which on two photos are one as they lie. Re-encoded, resized,
turned and mirrored copies have .68 and more, two different lesions .41 at most."""

SAME_ALIGNED = 0.65
"""The same for a crop and after alignment: with more ways to try, different photos get more alike, up to .55."""

SURE_ALIGNED_TURNED = 0.75
"""A crop that is turned or mirrored too is a rarer copy with more ways to be alike by chance: below this, points must
agree as well. Of ten clean synthetic clinics of small photos one had two patients' lesions at .68."""

ALIGNABLE = 0.10
"""Pairs whose detail correlates at least this much as they lie are worth aligning."""

MAX_ALIGNED = 2_000
"""So many pairs, or one for every fourth photo if that is more, are aligned at most, the likeliest first: it takes a
few milliseconds each, and their number grows with the square of the number of photos."""

WAYS_ALIGNED = 2
"""So many of a pair's likeliest ways to lie on one another are tried."""

CROPS = (1.0, 0.94, 0.88)
"""Each photo is looked up whole and as centre crops of these shares of its sides."""

MIN_CONTRAST = 2.0
"""Below this standard deviation in grey levels a photo is blank, and every blank photo looks like every other."""

N_NEIGHBOURS = 32
EXACT_SEARCH_UP_TO = 20_000
_FREQUENCIES = 8
_BLOCK_PX = 8
_MIN_WEIGHT = 12.0  # telling blocks
_NOISE = 4.0  # norm of a block's detail that is noise of the encoder: half a grey level in 64 pixels

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

CROPPED = "same photo, cropped or shifted"

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
    near = _confirmed(_same_photo(thumbnails, singles), paths)
    pairs = pd.concat([exact, near], ignore_index=True)[list(COLUMNS)]
    return pairs.drop_duplicates(["a", "b"]).reset_index(drop=True)


def _confirmed(pairs: pd.DataFrame, paths: Sequence[Path]) -> pd.DataFrame:
    """Leave out turned crops below :data:`SURE_ALIGNED_TURNED` of which no points agree at the full size."""
    turned = pairs["kind"].eq(CROPPED) & pairs["orientation"].ne("") & (pairs["similarity"] < SURE_ALIGNED_TURNED)
    kept = [
        not doubtful or best_agreement(paths[int(a)], paths[int(b)]) >= AGREEING
        for doubtful, a, b in zip(turned, pairs["a"], pairs["b"], strict=True)
    ]
    return pairs[kept].reset_index(drop=True)


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
    tables = []
    luminance = thumbnails.luminance[singles]
    ringed = (luminance == 0).any(axis=(1, 2))
    near = np.full(len(luminance), RADIUS, np.float32)
    whole = _spectra(luminance)
    bank = nearest_index(_invariant(whole))
    for crop in CROPS:
        spectra = whole if crop == 1 else _spectra(_cropped(luminance, crop))
        # Farther off, ringed photos count as they lie only: aligned, two photos of one lesion would be one.
        radius = np.where(ringed, np.float32(RADIUS_OF_RINGED), near) if crop == 1 else near
        pairs = _close_pairs(_invariant(spectra), bank, radius)
        if crop == 1:
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        first, second, turn, apart = _turned_pairs(spectra, whole, pairs, radius)
        rows = {"first": first, "second": second, "turn": turn, "crop": crop, "far": apart > RADIUS}
        tables.append(pd.DataFrame(rows))
    ways = pd.concat(tables, ignore_index=True)
    ways["similarity"], aligned = _verify(luminance, ways)
    ways["kind"] = np.where(aligned | (ways["crop"] < 1), CROPPED, "same photo")
    ways["orientation"] = np.array(list(_ORIENTATIONS.values()), dtype=object)[ways["turn"]]
    ways = ways[ways["similarity"] >= _required(ways)]
    ends = singles[ways[["first", "second"]].to_numpy()]
    ways["a"], ways["b"] = ends.min(axis=1), ends.max(axis=1)
    # One pair may match in several ways, a symmetrical lesion in several orientations: as it lies best.
    ways = ways.sort_values(["crop", "similarity"], ascending=False, kind="stable").drop_duplicates(["a", "b"])
    return ways.sort_values(["a", "b"])[list(COLUMNS)].reset_index(drop=True)


# --- candidates -------------------------------------------------------------------------------------------------------


def _cropped(luminance: np.ndarray, share: float) -> np.ndarray:
    """Return the centre crop of that share of the sides of (N, 64, 64) luminances, enlarged to 64 x 64 again."""
    edge = SIZE_PX * (1 - share) / 2
    scale = np.array([[share, 0, edge - 0.5 + share / 2], [0, share, edge - 0.5 + share / 2]], dtype=np.float32)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    result = np.empty_like(luminance)
    for i, photo in enumerate(luminance):
        cv2.warpAffine(photo, scale, photo.shape, dst=result[i], flags=how, borderMode=cv2.BORDER_REFLECT)
        if not photo.all():  # the edge of the field of view must stay sharp
            inside = cv2.warpAffine((photo > 0).astype(np.uint8), scale, photo.shape, flags=cv2.WARP_INVERSE_MAP)
            result[i] = np.where(inside, np.maximum(result[i], 1), 0)
    return result


def _spectra(luminance: np.ndarray) -> np.ndarray:
    """Return the 8 x 8 lowest DCT-II frequencies of (N, 64, 64) luminances without the mean, at unit length, float32.

    Brightness and contrast are divided out; what is outside the field of view is filled with the mean.
    """
    result = np.empty((len(luminance), _FREQUENCIES, _FREQUENCIES), dtype=np.float32)
    for start in range(0, len(luminance), 2048):
        photos = luminance[start : start + 2048].astype(np.float32)
        inside = photos > 0
        mean = photos.sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
        photos = np.where(inside, photos - mean[:, None, None], 0)
        rows = dct(photos, axis=2, norm="ortho")[:, :, :_FREQUENCIES]
        spectra = dct(rows, axis=1, norm="ortho")[:, :_FREQUENCIES]
        spectra[:, 0, 0] = 0
        length = np.linalg.norm(spectra, axis=(1, 2), keepdims=True)
        result[start : start + 2048] = spectra / np.maximum(length, 1e-3)
    return result


def _invariant(spectra: np.ndarray) -> np.ndarray:
    """Return what turning and mirroring leave unchanged of (N, 8, 8) frequencies, float32 (N, 63).

    Mirroring changes the sign of odd frequencies, transposing swaps the two axes: sizes of the odd ones and the pair
    (larger, smaller) of each (u, v) and (v, u) stay. Taking sizes and sorting never move two vectors apart, so two
    photos are at most as far apart here as in their best orientation: no true pair is lost.
    """
    row, column = np.triu_indices(_FREQUENCIES)
    row, column = row[1:], column[1:]  # without the mean
    even = (row % 2 == 0) & (column % 2 == 0)
    one, other = spectra[:, row, column], spectra[:, column, row]
    one, other = np.where(even, one, np.abs(one)), np.where(even, other, np.abs(other))
    off_diagonal = row != column
    parts = [np.maximum(one, other), np.minimum(one, other)[:, off_diagonal]]
    return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)


def nearest_index(vectors: np.ndarray) -> Any:
    """Return a nearest-neighbour index of the rows: exact up to 20,000, an inverted file beyond.

    The inverted file looks at the 32 nearest of 4 sqrt(N) cells: of the pairs within half of :data:`RADIUS` none was
    missed among 100,000 photos, of all pairs 2 in 1,000.
    """
    import faiss

    n, dim = vectors.shape
    index: Any = faiss.IndexFlatL2(dim)
    if n > EXACT_SEARCH_UP_TO:
        n_cells = int(4 * n**0.5)
        index = faiss.IndexIVFFlat(index, dim, n_cells)
        index.nprobe = 32
        index.train(np.ascontiguousarray(vectors[:: max(1, n // (40 * n_cells))]))
    index.add(vectors)
    return index


def _close_pairs(vectors: np.ndarray, index: Any, radius: np.ndarray) -> np.ndarray:
    """Return (row of ``vectors``, other row of the index) within that row's radius, int64 (M, 2), 32 to a row at most.

    Args:
        vectors: of N photos, (N, D).
        index: of :func:`nearest_index`.
        radius: of each row, float32 (N,).
    """
    k = min(N_NEIGHBOURS + 1, index.ntotal)
    found = [np.zeros((0, 2), dtype=np.int64)]
    with progress("look for copies", len(vectors)) as advance:
        for start in range(0, len(vectors) if k > 1 else 0, 4096):
            squared, neighbour = index.search(vectors[start : start + 4096], k)
            row, place = np.nonzero((squared <= radius[start : start + 4096, None] ** 2) & (neighbour >= 0))
            found.append(np.stack([row + start, neighbour[row, place]], axis=1))
            advance(len(squared))
    pairs = np.concatenate(found)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _turned_pairs(
    first: np.ndarray, second: np.ndarray, pairs: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (row of ``first``, row of ``second``, orientation, distance) of all ways in which a pair is near enough.

    Args:
        first: frequencies of N photos, (N, 8, 8).
        second: of the photos of the index, (K, 8, 8).
        pairs: rows of both, int64 (M, 2).
        radius: of each row of ``first``, float32 (N,).
    """
    sign = (-1.0) ** np.arange(_FREQUENCIES, dtype=np.float32)
    kept = [np.zeros((3, 0), dtype=np.int64)]
    distances = [np.zeros(0)]
    for start in range(0, len(pairs), 65_536):
        some = pairs[start : start + 65_536]
        one, two = first[some[:, 0]], second[some[:, 1]]
        for turn, (transpose, rows, columns) in enumerate(_ORDER):
            other = two.transpose(0, 2, 1) if transpose else two
            mask = (sign[:, None] if rows else 1.0) * (sign if columns else 1.0) * np.ones((1, 1), dtype=np.float32)
            squared = 2 - 2 * np.einsum("nij,nij->n", one, other * mask)  # both have unit length
            near = squared <= radius[some[:, 0]] ** 2
            close = some[near]
            kept.append(np.stack([close[:, 0], close[:, 1], np.full(len(close), turn)]))
            distances.append(np.sqrt(np.maximum(squared[near], 0)))
    first_row, second_row, turns = np.concatenate(kept, axis=1)
    return first_row, second_row, turns, np.concatenate(distances)


# --- verification -----------------------------------------------------------------------------------------------------


def _turn(photos: np.ndarray, orientation: tuple[int, int, int]) -> np.ndarray:
    """Transpose, then flip, (..., H, W) photos."""
    transpose, rows, columns = orientation
    photos = np.swapaxes(photos, -1, -2) if transpose else photos
    photos = photos[..., ::-1, :] if rows else photos
    return photos[..., ::-1] if columns else photos


def _detail(luminance: np.ndarray) -> np.ndarray:
    """Return what is finer than about a tenth of the side of (N, 64, 64) luminances, float32; 0 outside the field."""
    result = np.empty(luminance.shape, dtype=np.float32)
    for i, photo in enumerate(luminance.astype(np.float32)):
        inside = (photo > 0).astype(np.float32)
        share = cv2.GaussianBlur(inside, (0, 0), 3.0)
        smooth = cv2.GaussianBlur(photo, (0, 0), 3.0) / np.maximum(share, 1e-3)
        # Exactly 0 means outside: a detail of 0 inside is moved off it by far less than the noise.
        result[i] = (photo - smooth + 1e-3) * inside
    return result


def _block_similarity(one: np.ndarray, other: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return how alike two stacks of details are: the median correlation of their 8 x 8 px blocks, float64 (M,).

    The median, because a ruler or a reflection fills only some blocks; weighted, because a block that is plain in both
    photos holds noise of the encoder only. A pair with too few telling blocks is not judged (-1).

    Args:
        one: details, (M, 64, 64).
        other: details, (M, 64, 64).
        inside: where both photos show something, bool (M, 64, 64).
    """
    n, side = len(one), SIZE_PX // _BLOCK_PX

    def blocks(photos: np.ndarray) -> np.ndarray:
        return photos.reshape(n, side, _BLOCK_PX, side, _BLOCK_PX).swapaxes(2, 3).reshape(n, side * side, -1)

    mask = blocks(inside).astype(np.float32)
    count = mask.sum(axis=2)
    details = []
    for photos in (one, other):
        cut = blocks(photos) * mask
        details.append((cut - (cut.sum(axis=2) / np.maximum(count, 1))[..., None]) * mask)
    size = [np.linalg.norm(detail, axis=2) for detail in details]
    correlation = np.einsum("nbp,nbp->nb", *details) / np.maximum(size[0] * size[1], 1e-6)
    power = np.maximum(size[0], size[1]) ** 2
    weight = np.where(count >= mask.shape[2] / 2, power / (power + _NOISE**2), 0)
    order = np.argsort(correlation, axis=1)
    below = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
    total = below[:, -1:]
    middle = np.take_along_axis(order, (below >= total / 2).argmax(axis=1)[:, None], axis=1)
    median = np.take_along_axis(correlation, middle, axis=1)[:, 0]
    return np.where(total[:, 0] >= _MIN_WEIGHT, median, -1.0).astype(np.float64)


def _verify(luminance: np.ndarray, pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the similarity of each pair, as it lies or, where that leaves doubt, aligned; and which were aligned."""
    similarity = np.full(len(pairs), -1.0)
    aligned = np.zeros(len(pairs), dtype=bool)
    first, second, turn = (pairs[name].to_numpy() for name in ("first", "second", "turn"))
    whole, place = _details_of(luminance, second)
    for crop in CROPS:
        of_crop = pairs["crop"].to_numpy() == crop
        cropped, crop_place = _details_of(luminance, first[of_crop], crop)
        for number, orientation in enumerate(_ORDER):
            here = np.flatnonzero(of_crop & (turn == number))
            for start in range(0, len(here), 1024):
                rows = here[start : start + 1024]
                one = cropped[crop_place[first[rows]]].astype(np.float32)
                other = _turn(whole[place[second[rows]]], orientation).astype(np.float32)
                similarity[rows] = _block_similarity(one, other, (one != 0) & (other != 0))
    doubtful = _worth_aligning(pairs, similarity)[: max(MAX_ALIGNED, len(luminance) // 4)]

    def align(row: int) -> float:
        pair = pairs.iloc[row : row + 1]
        one, other = _views(luminance, pair, _ORDER[int(pair["turn"].iloc[0])], float(pair["crop"].iloc[0]))
        return _aligned_similarity(one[0], other[0])

    with progress("align photos", len(doubtful), "pairs") as advance, ThreadPoolExecutor(available_cores()) as pool:
        for row, value in zip(doubtful, pool.map(align, doubtful), strict=True):
            if value >= SAME_ALIGNED:
                similarity[row], aligned[row] = value, True
            advance(1)
    return similarity, aligned


def _details_of(luminance: np.ndarray, rows: np.ndarray, crop: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the details of the photos in ``rows``, float16 (K, 64, 64), and the place of each photo there."""
    involved = np.unique(rows)
    place = np.full(len(luminance), -1)
    place[involved] = np.arange(len(involved))
    details = np.empty((len(involved), SIZE_PX, SIZE_PX), dtype=np.float16)
    for start in range(0, len(involved), 2048):
        photos = luminance[involved[start : start + 2048]]
        details[start : start + 2048] = _detail(photos if crop == 1 else _cropped(photos, crop))
    return details, place


def _worth_aligning(pairs: pd.DataFrame, similarity: np.ndarray) -> np.ndarray:
    """Return the rows to align, likeliest first: the two best ways of each near pair that is in doubt in every way."""
    ends = np.sort(pairs[["first", "second"]].to_numpy(), axis=1)
    ways = pd.DataFrame({"a": ends[:, 0], "b": ends[:, 1], "similarity": similarity})
    found = pd.Series(similarity >= _required(pairs)).groupby([ways["a"], ways["b"]]).transform("any")
    ways = ways[~found & (similarity >= ALIGNABLE) & ~pairs["far"]].sort_values(
        "similarity", ascending=False, kind="stable"
    )
    return ways.index[ways.groupby(["a", "b"]).cumcount() < WAYS_ALIGNED].to_numpy()


def _required(ways: pd.DataFrame) -> np.ndarray:
    """Return the similarity that makes two photos one, as they lie: more for a crop."""
    return np.where(ways["crop"] == 1, SAME_PHOTO, SAME_ALIGNED)


def _views(
    luminance: np.ndarray, pairs: pd.DataFrame, orientation: tuple[int, int, int], crop: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return both luminances of pairs of one orientation and crop: the first ones cropped, the second ones turned."""
    one = luminance[pairs["first"].to_numpy()]
    other = _turn(luminance[pairs["second"].to_numpy()], orientation)
    return one if crop == 1 else _cropped(one, crop), np.ascontiguousarray(other)


def _aligned_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Warp the second (64, 64) luminance onto the first (affine); return their similarity, -1 where that fails."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    field, start = (one > 0).astype(np.uint8), np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(one, other, start, cv2.MOTION_AFFINE, stop, field, 5)
    except cv2.error:  # did not converge
        return -1.0
    if not 0.5 <= abs(float(np.linalg.det(warp[:, :2]))) <= 2.0:
        return -1.0
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(other, warp, one.shape, flags=how, borderMode=cv2.BORDER_REFLECT)
    seen = cv2.warpAffine((other > 0).astype(np.uint8), warp, one.shape, flags=how)
    inside = (cv2.erode(seen, np.ones((3, 3), np.uint8), borderValue=1) > 0) & (one > 0)
    photos = np.stack([one, np.where(inside, np.maximum(warped, 1), 0).astype(np.uint8)])
    detail = _detail(photos)
    return float(_block_similarity(detail[:1], detail[1:], inside[None])[0])
