"""An encoder proposes, points confirm: deep crops are copies, alike lesions are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from dermlab.audit import lookalikes
from dermlab.audit.lookalikes import (
    LookAlikes,
    close_pairs,
    find_look_alikes,
    look_alike_findings,
    unit,
)
from dermlab.audit.points import AGREEING, Points, agreeing_points, find_points
from dermlab.core.randomness import generator


def scene(seed: int, side: int = 300) -> np.ndarray:
    """Skin with moles and hairs of its own."""
    rng = generator(seed, "scene")
    photo = np.full((side, side, 3), (200, 160, 140), dtype=np.uint8)
    for _ in range(60):
        centre, axes = rng.integers(0, side, 2).tolist(), rng.integers(3, 16, 2).tolist()
        shade = int(rng.integers(40, 140))
        cv2.ellipse(photo, centre, axes, int(rng.integers(180)), 0, 360, (shade, shade // 2, shade // 3), -1)
    return cv2.GaussianBlur(photo, (0, 0), 1.0)


def points(photo: np.ndarray) -> Points:
    return find_points(np.asarray(cv2.cvtColor(np.ascontiguousarray(photo), cv2.COLOR_RGB2GRAY)))


def test_a_deep_turned_crop_agrees_and_another_scene_does_not() -> None:
    photo = scene(1)
    crop = cv2.resize(np.ascontiguousarray(np.rot90(photo[40:240, 60:260])), (300, 300))
    assert agreeing_points(points(photo), points(crop)) >= 2 * AGREEING
    assert max(agreeing_points(points(photo), points(scene(seed))) for seed in range(2, 8)) < AGREEING
    assert agreeing_points(points(photo), points(np.full((300, 300, 3), 90, np.uint8))) == 0


def test_close_pairs_are_those_of_all_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = generator(0, "vectors")
    vectors = unit(rng.standard_normal((400, 24)))
    vectors[200:] = unit(vectors[:200] + 0.05 * rng.standard_normal((200, 24)))
    every = vectors @ vectors.T
    wanted = {(int(a), int(b)) for a, b in np.argwhere(np.triu(every, 1) >= 0.9)}
    pairs, similarity = close_pairs(vectors, 0.9)
    assert set(map(tuple, pairs.tolist())) == wanted
    np.testing.assert_allclose(similarity, every[pairs[:, 0], pairs[:, 1]], atol=1e-5)
    from dermlab.audit import duplicates

    monkeypatch.setattr(duplicates, "EXACT_SEARCH_UP_TO", 50)
    found = set(map(tuple, close_pairs(vectors, 0.9)[0].tolist()))
    assert len(wanted - found) <= 0.02 * len(wanted)


def test_a_deep_crop_is_proposed_and_confirmed_and_nothing_else(tmp_path: Path) -> None:
    photos = [scene(seed) for seed in range(16)]
    photos.append(cv2.resize(photos[4][40:270, 20:250], (300, 300)))  # a quarter of each side is gone
    paths = [tmp_path / f"{i}.png" for i in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        cv2.imwrite(str(path), photo[..., ::-1])
    from dermlab.features.extract import embed_paths

    embedded = embed_paths(paths, "histogram")
    nothing = pd.DataFrame({"a": [], "b": []})
    found = find_look_alikes(embedded.values, embedded.valid, paths, nothing, "histogram")
    assert (4, 16) in set(zip(found.copies["a"], found.copies["b"], strict=True))
    assert len(found.copies) == 1
    assert set(found.copies["kind"]) == {lookalikes.KIND}
    known = pd.DataFrame({"a": [4], "b": [16]})
    assert find_look_alikes(embedded.values, embedded.valid, paths, known, "histogram").copies.empty


def test_look_alikes_of_two_patients_come_first() -> None:
    alike = pd.DataFrame({"a": [0, 1], "b": [2, 3], "similarity": [0.9, 0.8], "points": [3, 4]})
    found = LookAlikes(pd.DataFrame(), alike, 0.7, 9, "an encoder")
    ids, groups = np.array([*"wxyz", *map(str, range(20))]), np.array(["p", "p", "p", "q", *map(str, range(20))])
    (finding,) = look_alike_findings("clinic", ids, groups, "patient_id", found)
    assert finding.severity == "warning"
    assert finding.evidence["n_across"] == 1
    assert finding.table is not None
    assert finding.table[["image_id", "copy"]].to_numpy().tolist() == [["x", "z"], ["w", "y"]]
    (crowded,) = look_alike_findings("clinic", ids[:4], groups[:4], "patient_id", found)
    assert crowded.severity == "info"  # one in four: the encoder finds everything alike
