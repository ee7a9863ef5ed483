"""Charts, collages and photos of something else are told from the photos among which they lie."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dermlab.audit.oddities import FAR, distances, odd_findings
from dermlab.audit.thumbnails import Thumbnails, read_thumbnails
from dermlab.core.randomness import generator


def lesion(seed: int, side: int = 160) -> np.ndarray:
    rng = generator(seed, "lesion")
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    spot = np.exp(-((rows / rng.uniform(0.1, 0.3)) ** 2) - (columns / rng.uniform(0.1, 0.3)) ** 2)
    skin = np.array([200, 155, 130]) + rng.normal(0, 8, 3)
    grain = cv2.GaussianBlur(rng.normal(0, 30, (side, side, 3)).astype(np.float32), (0, 0), 1.2)
    return np.clip(skin - 90 * spot[..., None] + grain, 0, 255).astype(np.uint8)


def chart() -> np.ndarray:
    picture = np.full((160, 160, 3), 255, dtype=np.uint8)
    cv2.rectangle(picture, (22, 22), (138, 138), (0, 0, 0), 2)
    for i in range(5):
        cv2.rectangle(picture, (32 + 20 * i, 60 + 10 * i), (44 + 20 * i, 136), (30, 90, 200), -1)
    return picture


def collage() -> np.ndarray:
    return np.block([[[lesion(90, 80)], [255 - lesion(91, 80)]], [[255 - lesion(92, 80)], [lesion(93, 80)]]])


@pytest.fixture(scope="module")
def thumbnails(tmp_path_factory: pytest.TempPathFactory) -> Thumbnails:
    folder = tmp_path_factory.mktemp("odd")
    leaf = np.clip(np.array([20, 160, 40]) + generator(0, "leaf").normal(0, 15, (160, 160, 3)), 0, 255)
    photos = [lesion(i) for i in range(60)] + [chart(), collage(), leaf.astype(np.uint8)]
    paths = [folder / f"{i}.png" for i in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        cv2.imwrite(str(path), photo[..., ::-1])
    return read_thumbnails(paths)


IDS = np.array([*(f"i{i}" for i in range(60)), "chart", "collage", "leaf"])


def listed(thumbnails: Thumbnails, features: np.ndarray | None = None) -> dict[str, list[str]]:
    found = odd_findings("clinic", IDS, thumbnails, features, None if features is None else "an encoder")
    assert all(finding.severity == "warning" for finding in found)
    return {finding.code: finding.table["image_id"].tolist() for finding in found if finding.table is not None}


def test_charts_and_collages_are_figures_and_photos_are_not(thumbnails: Thumbnails) -> None:
    assert set(listed(thumbnails)["figures"]) == {"chart", "collage"}


def test_what_has_other_colours_is_off_topic(thumbnails: Thumbnails) -> None:
    far = listed(thumbnails)["off-topic"]
    assert {"leaf", "chart"} <= set(far[:3])
    assert len(set(far) - {"leaf", "chart", "collage"}) <= 1


def test_an_encoder_decides_where_there_is_one(thumbnails: Thumbnails) -> None:
    rng = generator(1, "features")
    features = (rng.normal(0, 1, (len(IDS), 16)) + 20).astype(np.float32)
    features[-2] = -20
    assert listed(thumbnails, features)["off-topic"] == ["collage"]


def test_a_data_set_of_copies_has_no_outlier() -> None:
    assert (distances(np.ones((60, 4), dtype=np.float32)) < FAR).all()
