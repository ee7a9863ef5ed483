"""An encoder as a second net for copies: what it takes for alike is aligned point by point, and told apart or not.

Perceptual frequencies (:mod:`dermlab.audit.duplicates`) find a photo that was encoded again, turned, mirrored or
trimmed at its edges. A deep crop, a slant or a screenshot of it they miss; an encoder's features still are near. But so
are two naevi on one back. So the encoder only proposes: pairs nearer than an altered copy usually is (measured here, on
copies of this data set's own photos) are matched by local features (Lowe 2004, "Distinctive image features from
scale-invariant keypoints") and count as one photo where enough points agree on one similarity transform. Pairs that do
not are listed as look-alikes, for a person to judge.

The search is an inverted-file index: sub-quadratic in time, linear in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from dermlab.audit.duplicates import COLUMNS, nearest_index
from dermlab.audit.findings import FOLDER, Finding, examples
from dermlab.audit.points import AGREEING, agreeing_points, points_both_ways
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.core.words import groups_word, plural
from dermlab.data.decode import DecodeError, available_cores, decode_file

N_NEIGHBOURS = 8
"""So many nearest photos of each are looked at."""

SAMPLE = 48
"""So many photos are altered and embedded anew to learn how near a copy is."""

MISSED = 0.10
"""Pairs are proposed where they are as near as all but this share of the altered copies are to their originals."""

ALIKE = 0.50
"""Pairs that no points confirm are listed where they are nearer than this share of the altered copies."""

MANY_SHARE = 0.05
"""More look-alikes than this share of the photos say that the encoder finds all of them alike, and nothing else."""

MOST_PAIRS = 4_000
"""So many pairs are matched point by point at most, the nearest first: each takes some 20 ms."""

KIND = "same photo, by encoder"


@dataclass(frozen=True)
class LookAlikes:
    """What an encoder proposed.

    Attributes:
        copies: confirmed pairs, as :func:`dermlab.audit.duplicates.find_duplicates` lists them; ``similarity`` is the
            encoder's.
        alike: unconfirmed pairs, ``a, b, similarity, points``, nearest first.
        threshold: similarity from which on pairs were proposed.
        n_proposed: how many were.
        encoder: its name.
    """

    copies: pd.DataFrame
    alike: pd.DataFrame
    threshold: float
    n_proposed: int
    encoder: str


def find_look_alikes(
    features: np.ndarray,
    usable: np.ndarray,
    paths: Sequence[Path],
    known: pd.DataFrame,
    encoder: str,
    *,
    seed: int = 0,
) -> LookAlikes:
    """Propose pairs by an encoder's features and confirm them point by point.

    Args:
        features: (N, D) float32.
        usable: which rows are a photo's, bool (N,).
        paths: of the photos, N.
        known: pairs that are known to be copies, columns ``a, b``: not looked at again.
        encoder: its name, to embed altered copies with.
        seed: of the photos that are altered.
    """
    rows = np.flatnonzero(usable)
    centre = features[rows].mean(axis=0)
    vectors = unit(features[rows] - centre)
    threshold, alike_from = _thresholds(vectors, [paths[row] for row in rows.tolist()], centre, encoder, seed)
    pairs, similarity = close_pairs(vectors, threshold)
    ends = np.sort(rows[pairs], axis=1)
    proposed = pd.DataFrame({"a": ends[:, 0], "b": ends[:, 1], "similarity": similarity})
    told = set(zip(known["a"], known["b"], strict=True))
    proposed = proposed[[pair not in told for pair in zip(proposed["a"], proposed["b"], strict=True)]]
    proposed = proposed.sort_values("similarity", ascending=False, kind="stable").head(MOST_PAIRS)
    matched = _matched(proposed, paths)
    proposed["points"] = [points for points, _ in matched]
    proposed["orientation"] = ["mirrored" if mirrored else "" for _, mirrored in matched]
    proposed["kind"] = KIND
    same = proposed["points"] >= AGREEING
    alike = proposed.loc[~same & (proposed["similarity"] >= alike_from), ["a", "b", "similarity", "points"]]
    copies = proposed.loc[same, list(COLUMNS)].sort_values(["a", "b"])
    return LookAlikes(copies.reset_index(drop=True), alike.reset_index(drop=True), threshold, len(proposed), encoder)


def close_pairs(vectors: np.ndarray, threshold: float, k: int = N_NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of rows whose cosine similarity is at least ``threshold``, among the ``k`` nearest of each.

    Args:
        vectors: (N, D) float32 of unit length.
        threshold: cosine similarity.
        k: neighbours of each row.

    Returns:
        Pairs of rows, int64 (M, 2), each once and the smaller first, and their similarity, float32 (M,).
    """
    if len(vectors) < 2:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32)
    index = nearest_index(vectors)
    pairs, values = [], []
    with progress("look for look-alikes", len(vectors)) as advance:
        for start in range(0, len(vectors), 4096):
            squared, neighbour = index.search(vectors[start : start + 4096], min(k + 1, len(vectors)))
            row = np.arange(start, start + len(neighbour))[:, None] + np.zeros_like(neighbour)
            similarity = 1 - squared / 2  # both have unit length
            close = (similarity >= threshold) & (neighbour >= 0) & (neighbour != row)
            pairs.append(np.sort(np.stack([row[close], neighbour[close]], axis=1), axis=1))
            values.append(similarity[close])
            advance(len(neighbour))
    every, first = np.unique(np.concatenate(pairs), axis=0, return_index=True)
    return every, np.concatenate(values)[first].astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return (N, D) rows at unit length, float32; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)


def altered(photo: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return copies of a (H, W, 3) uint8 photo as they get into data sets: encoded again, turned, mirrored, cropped."""
    height, width = photo.shape[:2]
    top, left = rng.uniform(0, 0.25, 2)
    deep = photo[int(top * height) : int((top + 0.75) * height), int(left * width) : int((left + 0.75) * width)]
    edge = max(1, round(0.08 * min(height, width)))
    encoded = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return [
        np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8),
        np.ascontiguousarray(photo[:, ::-1]),
        np.ascontiguousarray(np.rot90(photo)),
        np.ascontiguousarray(photo[edge:-edge, edge:-edge]),
        np.ascontiguousarray(deep),
    ]


def _thresholds(
    vectors: np.ndarray, paths: Sequence[Path], centre: np.ndarray, encoder: str, seed: int
) -> tuple[float, float]:
    """Return the similarity that all but :data:`MISSED` of altered copies reach, and what :data:`ALIKE` of them do."""
    from dermlab.features.extract import embed_arrays

    rng = generator(seed, "altered copies")
    chosen = np.sort(rng.permutation(len(paths))[:SAMPLE])
    originals, copies = [], []
    for row in chosen.tolist():
        try:
            photo = decode_file(paths[row])
        except DecodeError:
            continue
        found = altered(photo, rng)
        originals += [row] * len(found)
        copies += found
    if not copies:
        return 1.0, 1.0
    embedded = unit(embed_arrays(copies, encoder) - centre)
    similarity = np.einsum("nd,nd->n", embedded, vectors[originals])
    return float(np.quantile(similarity, MISSED)), float(np.quantile(similarity, ALIKE))


def _matched(pairs: pd.DataFrame, paths: Sequence[Path]) -> list[tuple[int, bool]]:
    """Return for each pair in how many places it agrees, and whether one photo is mirrored for it."""
    ends = list(zip(pairs["a"].tolist(), pairs["b"].tolist(), strict=True))
    wanted = sorted({*(row for pair in ends for row in pair)})

    def match(pair: tuple[int, int]) -> tuple[int, bool]:
        one, (other, mirror) = known[pair[0]][0], known[pair[1]]
        straight, mirrored = agreeing_points(one, other), agreeing_points(one, mirror)
        return max(straight, mirrored), mirrored > straight

    found = []
    n = len(wanted) + len(ends)
    with progress("match look-alikes", n, "steps") as advance, ThreadPoolExecutor(available_cores()) as pool:
        known = {}
        for row, points in zip(wanted, pool.map(lambda row: points_both_ways(paths[row]), wanted), strict=True):
            known[row] = points
            advance(1)
        for result in pool.map(match, ends):
            found.append(result)
            advance(1)
    return found


def look_alike_findings(
    name: str, image_ids: np.ndarray, groups: np.ndarray, group_column: str, found: LookAlikes
) -> list[Finding]:
    """List the pairs that an encoder takes for copies and no points confirm, those of different groups first.

    Args:
        name: opens the sentence.
        image_ids: (N,).
        groups: group of each image, (N,).
        group_column: what the groups are.
        found: pairs among these N images.
    """
    if found.alike.empty:
        return []
    a, b = found.alike["a"].to_numpy(), found.alike["b"].to_numpy()
    table = pd.DataFrame(
        {
            "image_id": image_ids[a],
            "copy": image_ids[b],
            "similarity": found.alike["similarity"].to_numpy().round(3),
            "points": found.alike["points"].to_numpy(),
            "groups": np.where(groups[a] == groups[b], "one", "two"),
        }
    )
    table = table.sort_values("groups", ascending=False, kind="stable", ignore_index=True)
    across = int((groups[a] != groups[b]).sum())
    message = (
        f"{name}: {plural(len(table), 'pair')} {'is' if len(table) == 1 else 'are'} as near for {found.encoder} as a "
        f"photo and its altered copy, though no points agree; {across:,} of them of different "
        f"{groups_word(group_column)}."
    )
    evidence = {
        "n": len(table),
        "n_across": across,
        "encoder": found.encoder,
        "similarity_from": found.threshold,
        "examples": examples(table),
    }
    remedy = (
        f"Look at the first ones ('dermlab data check {FOLDER} --out DIR' shows them): one lesion under two patients "
        "belongs under one id; look-alikes of two people are as they should be."
    )
    many = across > MANY_SHARE * len(image_ids)
    if many:
        remedy = f"So many that {found.encoder} simply finds these photos alike; look at the first ones, if at any."
    return [Finding("look-alikes", "warning" if across and not many else "info", message, evidence, remedy, table)]
