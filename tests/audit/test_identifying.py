"""Text burnt into pixels and whole faces are found; skin, hair and rulers are not taken for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dermlab.audit.identifying import find_faces, find_text, identifying_findings
from dermlab.core.randomness import generator
from dermlab.data.decode import decode_file


def skin(seed: int = 0, side: int = 300) -> np.ndarray:
    rng = generator(seed, "skin")
    coarse = cv2.resize(rng.normal(0, 12, (8, 8, 1)).astype(np.float32), (side, side))[..., None]
    return np.clip(np.array([196, 150, 128]) + coarse + rng.normal(0, 4, (side, side, 3)), 0, 255).astype(np.uint8)


def written(photo: np.ndarray, text: str, colour: tuple[int, int, int]) -> np.ndarray:
    return cv2.putText(photo.copy(), text, (10, 280), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 1, cv2.LINE_AA)


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (255, 255, 0), (0, 255, 0)])
def test_a_name_in_a_corner_is_found_where_it_stands(colour: tuple[int, int, int]) -> None:
    n, boxes = find_text(written(skin(), "Maria Schmidt 1961", colour))
    assert n >= 6
    left, top, width, height = boxes[0]
    assert top > 0.8
    assert left < 0.3
    assert width > 0.2
    assert height < 0.15


def test_skin_is_no_text() -> None:
    assert [len(find_text(skin(seed))[1]) for seed in range(5)] == [0] * 5


def test_hair_and_a_ruler_are_no_text() -> None:
    rng = generator(1, "hair")
    photo = skin(1)
    for _ in range(80):
        start = rng.integers(0, 300, 2)
        end = start + rng.integers(-90, 90, 2)
        cv2.line(photo, start.tolist(), end.tolist(), (40, 25, 20), 1, cv2.LINE_AA)
    for x in range(10, 290, 8):
        cv2.line(photo, (x, 285), (x, 296), (255, 255, 255), 1)
    assert len(find_text(photo)[1]) == 0


def face() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return np.asarray(data.astronaut()[0:256, 110:366])


def test_a_whole_upright_face_is_found() -> None:
    (box,) = find_faces(face())
    centre = box[:2] + box[2:] / 2
    assert np.abs(centre - [0.45, 0.45]).max() < 0.2


def test_findings_name_the_photo_and_the_place(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    photos = {"plain": skin(), "name": written(skin(2), "PAT 104532 Rossi", (255, 255, 255)), "face": face()}
    paths = [tmp_path / f"{name}.png" for name in photos]
    for path, photo in zip(paths, photos.values(), strict=True):
        cv2.imwrite(str(path), photo[..., ::-1])
    (tmp_path / "broken.png").write_bytes(b"no photo")
    found = identifying_findings("clinic", np.array([*photos, "broken"]), [*paths, tmp_path / "broken.png"])
    by_code = {finding.code: finding for finding in found}
    assert set(by_code) == {"burnt-in-text", "faces"}
    for code, name in (("burnt-in-text", "name"), ("faces", "face")):
        table = by_code[code].table
        assert table is not None
        assert table["image_id"].tolist() == [name]
        assert {"left", "top", "width", "height"} <= set(table)
        assert by_code[code].severity == "warning"
        assert by_code[code].evidence["n_looked_at"] == 3


def test_real_photos_raise_few_false_alarms(shared_data: Path) -> None:
    photos = sorted((shared_data / "ham10000" / "images").glob("*.jpg"))[::60]
    alarms = sum(len(find_text(decode_file(path))[1]) > 0 for path in photos)
    assert alarms <= 0.1 * len(photos)
