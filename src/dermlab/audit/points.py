"""Do two photos show the same skin? Local features that agree on one shift, turn and scale (Lowe 2004)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dermlab.data.decode import DecodeError, decode_file

AGREEING = 12
"""Two photos are one where at least this many points agree on one transform (docs/explanation/leaks_and_proxies.md)."""

_MATCH_PX = 320
_POINTS = 300
_RATIO = 0.8  # Lowe's test: the best match is that much nearer than the second best
_TOLERANCE_PX = 3.0


@dataclass(frozen=True)
class Points:
    """Local features of a photo: places, float32 (K, 2) in pixels, and descriptors, uint8 (K, 128)."""

    places: np.ndarray
    descriptors: np.ndarray


def find_points(grey: np.ndarray) -> Points:
    """Return the local features of a grey uint8 photo (SIFT)."""
    detector = cv2.SIFT.create(nfeatures=_POINTS, contrastThreshold=0.02)
    points, descriptors = detector.detectAndCompute(grey, None)
    if descriptors is None:
        return Points(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    return Points(np.array([point.pt for point in points], np.float32), descriptors.astype(np.uint8))


def agreeing_points(one: Points, other: Points) -> int:
    """Return in how many places two photos agree on one shift, turn and scale (RANSAC)."""
    if min(len(one.places), len(other.places)) < 2:
        return 0
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    pairs = matcher.knnMatch(one.descriptors.astype(np.float32), other.descriptors.astype(np.float32), k=2)
    good = [best for best, next_best in pairs if best.distance < _RATIO * next_best.distance]
    if len(good) < 4:
        return 0
    here = one.places[[match.queryIdx for match in good]]
    there = other.places[[match.trainIdx for match in good]]
    transform, inside = cv2.estimateAffinePartial2D(here, there, ransacReprojThreshold=_TOLERANCE_PX)
    if transform is None or not 1 / 3 <= float(np.hypot(transform[0, 0], transform[1, 0])) <= 3:
        return 0
    # One hair may give a dozen points in one place: what counts is how many places agree on both sides.
    places = np.concatenate([here, there], axis=1)[inside.ravel() > 0] // 8
    return len(np.unique(places, axis=0))


def points_both_ways(path: Path) -> tuple[Points, Points]:
    """Return the points of a photo, its longer side at most 320 px, and of its mirror image; none if unreadable."""
    try:
        photo = decode_file(path)
    except DecodeError:
        photo = np.zeros((8, 8, 3), np.uint8)
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    scale = _MATCH_PX / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return find_points(np.asarray(grey)), find_points(np.ascontiguousarray(grey[:, ::-1]))


def best_agreement(one: Path, other: Path) -> int:
    """Return in how many places two photos agree, the second as it is or mirrored."""
    first, _ = points_both_ways(one)
    return max(agreeing_points(first, points) for points in points_both_ways(other))
