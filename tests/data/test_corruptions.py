"""Corruptions of photos: pure, repeatable, stronger by severity, of the same meaning at every size."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from dermlab.core.errors import InputError
from dermlab.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, describe

# Turning by 160 degrees moves a pixel no farther from its value than turning by 90 does.
GROWING = [name for name in CORRUPTIONS if name != "rotation"]


def photo(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """A lesion on skin with texture at several scales, uint8 (H, W, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / min(height, width)
    lesion = np.exp(-(((x - 0.6) / 0.2) ** 2 + ((y - 0.5) / 0.15) ** 2))
    skin = np.array([205, 160, 135]) - lesion[..., None] * np.array([110, 100, 80])
    for cells in (6, 24, 60):
        grain = cv2.resize(random.normal(size=(cells, cells)), (width, height), interpolation=cv2.INTER_CUBIC)
        skin = skin + 9 * grain[..., None]
    return np.clip(skin, 0, 255).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(cv2.PSNR(a, b))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_zero_changes_nothing_and_the_photo_itself_is_never_touched(name: str) -> None:
    image = photo()
    before = image.copy()
    assert np.array_equal(corrupt(image, name, 0), image)
    assert corrupt(image, name, 0) is not image
    for severity in SEVERITIES:
        found = corrupt(image, name, severity, image_id="a")
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        assert found.flags["C_CONTIGUOUS"]
        assert np.array_equal(image, before)


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_severity_is_farther_from_the_photo_than_the_one_before(name: str, seed: int) -> None:
    image = photo(240, 300, seed)
    found = [psnr(corrupt(image, name, severity, seed=seed, image_id="a"), image) for severity in SEVERITIES]
    assert all(np.diff(found) < 0), found


def test_rotation_turns_by_its_angle_about_the_centre() -> None:
    """Turned back by the same angle, the middle of the photo is what it was."""
    image = cv2.GaussianBlur(photo(201, 201), (0, 0), 2)
    for severity, angle in zip(SEVERITIES, CORRUPTIONS["rotation"].levels, strict=True):
        turned = corrupt(image, "rotation", severity, image_id="a")
        back = [
            cv2.warpAffine(turned, cv2.getRotationMatrix2D((100, 100), way * angle, 1), (201, 201)) for way in (1, -1)
        ]
        middle = slice(60, 141)
        assert max(psnr(one[middle, middle], image[middle, middle]) for one in back) > 35


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_and_photo_give_the_same_bits(name: str) -> None:
    image = photo()
    first = corrupt(image, name, 3, seed=5, image_id="a")
    assert np.array_equal(first, corrupt(image, name, 3, seed=5, image_id="a"))


@pytest.mark.parametrize("name", ["noise", "hair", "occlusion", "motion"])
def test_every_photo_and_seed_has_its_own_randomness(name: str) -> None:
    image = photo()
    found = [corrupt(image, name, 4, seed=seed, image_id=key) for seed, key in ((0, "a"), (0, "b"), (1, "a"))]
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_a_stronger_cover_hides_what_the_weaker_hid_and_more() -> None:
    image = photo()
    hidden = [(corrupt(image, "occlusion", severity, image_id="a") != image).any(axis=2) for severity in SEVERITIES]
    for less, more in itertools.pairwise(hidden):
        assert (less & ~more).mean() < 0.01
    shares = [mask.mean() for mask in hidden]
    assert shares == pytest.approx(CORRUPTIONS["occlusion"].levels, abs=0.03)


@pytest.mark.parametrize("name", ["blur", "motion", "hair", "occlusion", "resolution", "jpeg", "noise"])
def test_a_severity_means_the_same_at_any_size(name: str) -> None:
    """The large photo corrupted and then reduced resembles the small photo corrupted: within 4 dB of the same loss."""
    large = cv2.GaussianBlur(photo(896, 896), (0, 0), 2)
    small = cv2.resize(large, (224, 224), interpolation=cv2.INTER_AREA)
    losses = []
    for image in (large, small):
        found = [corrupt(image, name, 4, seed=seed, image_id="a") for seed in range(3)]
        reduced = [cv2.resize(one, (224, 224), interpolation=cv2.INTER_AREA) for one in found]
        losses.append(np.mean([psnr(one, small) for one in reduced]))
    assert abs(losses[0] - losses[1]) < 4, losses


def test_light_is_multiplied_as_light_and_not_as_pixel_values() -> None:
    """Mid grey of 50 % light is 188 in sRGB; at 0.4 of the light (severity 2 of darker) 20 % is left, 124."""
    grey = np.full((8, 8, 3), 188, np.uint8)
    assert abs(int(corrupt(grey, "darker", 2)[0, 0, 0]) - 124) <= 1


def test_jpeg_of_a_small_photo_is_opencv_s_own() -> None:
    image = photo(100, 100)
    quality = int(CORRUPTIONS["jpeg"].levels[2])
    written = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert np.array_equal(corrupt(image, "jpeg", 3), cv2.imdecode(written, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3), (17, 5, 3)])
def test_odd_photos_come_through(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for name in CORRUPTIONS:
        for severity in (1, 5):
            assert corrupt(image, name, severity).shape == shape


def test_wrong_requests_are_one_line() -> None:
    with pytest.raises(InputError, match="not one of blur"):
        corrupt(photo(), "fog", 1)
    with pytest.raises(InputError, match="severity: 6"):
        corrupt(photo(), "blur", 6)
    with pytest.raises(InputError, match="uint8"):
        corrupt(photo().astype(np.float32), "blur", 1)


def test_every_corruption_says_what_its_numbers_are() -> None:
    assert all(entry["parameter"] and len(entry["levels"]) == 5 for entry in describe())
