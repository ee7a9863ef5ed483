"""Random views: the same for the same (seed, epoch, image, view), distributed as torchvision's, drawn once for all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torchvision import transforms

from dermlab.data.augment import Augmentation, Views, draw, philox, render, uniforms


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A photo without hard edges, so that two ways of interpolating agree."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def rendered(image: np.ndarray, views: Views, place: int = 0, dtype: type = np.uint8) -> np.ndarray:
    out = np.empty((views.size_px, views.size_px, 3), dtype)
    render(image, views, place, out)
    return out


def one_view(box: tuple[int, ...], size: int, flips: tuple[bool, bool] = (False, False), degrees: float = 0.0) -> Views:
    return Views(np.array([box]), np.array([flips]), np.array([degrees]), size)


def test_philox_gives_the_authors_known_answers():
    # kat_vectors of Random123, the reference implementation of Salmon et al. 2011
    cases = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, answer in cases:
        assert philox(np.array([counter], np.uint32), key)[0].tolist() == list(answer)


def test_numbers_are_uniform_and_differ_by_every_argument():
    base = uniforms(0, 0, np.arange(3000), 0, 0, 7)
    assert base.shape == (3000, 7)
    assert stats.kstest(base.ravel(), "uniform").pvalue > 0.001
    assert np.abs(np.corrcoef(base.T) - np.eye(7)).max() < 0.08
    others = [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    for seed, epoch, view, stream in others:
        other = uniforms(seed, epoch, np.arange(3000), view, stream, 7)
        assert np.abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.03


def test_a_view_depends_on_its_own_image_only():
    augmentation = Augmentation(size_px=32, rotation_degrees=45)
    images = np.array([5, 9, 1000, 3])
    sizes = np.array([[60, 80], [64, 64], [300, 40], [50, 51]])
    together = draw(augmentation, sizes, images, seed=3, epoch=2, view=1)
    for i in range(4):
        alone = draw(augmentation, sizes[i : i + 1], images[i : i + 1], seed=3, epoch=2, view=1)
        np.testing.assert_array_equal(alone.boxes[0], together.boxes[i])
        np.testing.assert_array_equal(alone.flips[0], together.flips[i])
        assert alone.degrees[0] == together.degrees[i]


@pytest.mark.parametrize("size", [(90, 120), (200, 64), (100, 100)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.6, 0.9)])
def test_crops_are_distributed_as_torchvisions(size, scale):
    n = 1500
    augmentation = Augmentation(size_px=16, crop_scale=scale)
    boxes = draw(augmentation, np.tile(size, (n, 1)), np.arange(n), seed=0, epoch=0).boxes
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    reference = np.array(
        [transforms.RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(n)]
    )
    left, top, width, height = boxes.T
    for ours, theirs in zip((top, left, height, width), reference.T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 0.001
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= size[1]).all()
    assert (top + height <= size[0]).all()


def test_a_photo_no_crop_fits_gets_the_largest_central_one():
    augmentation = Augmentation(size_px=16, crop_scale=(1.0, 1.0))
    boxes = draw(augmentation, np.array([[300, 30], [30, 300], [1, 1]]), np.arange(3), seed=0, epoch=0).boxes
    assert boxes.tolist() == [[0, 130, 30, 40], [130, 0, 40, 30], [0, 0, 1, 1]]


def test_flips_and_rotations_have_the_probabilities_asked_for():
    augmentation = Augmentation(size_px=8, horizontal_flip=0.2, vertical_flip=0.9, rotation_degrees=30)
    views = draw(augmentation, np.full((4000, 2), 50), np.arange(4000), seed=1, epoch=0)
    np.testing.assert_allclose(views.flips.mean(0), (0.2, 0.9), atol=0.03)
    assert stats.kstest(views.degrees, stats.uniform(-30, 60).cdf).pvalue > 0.001


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_a_crop_is_opencvs_resize_of_that_part_mirrored(flips):
    image = smooth(70, 90)
    got = rendered(image, one_view((11, 7, 50, 40), 32, flips))
    part = image[7:47, 11:61]
    part = part[:, ::-1] if flips[0] else part
    part = part[::-1] if flips[1] else part
    np.testing.assert_array_equal(got, cv2.resize(np.ascontiguousarray(part), (32, 32)))


def test_a_crop_of_the_right_size_is_taken_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(rendered(image, one_view((4, 2, 32, 32), 32)), image[2:34, 4:36])
    np.testing.assert_array_equal(rendered(image, one_view((4, 2, 32, 32), 32), dtype=np.float32), image[2:34, 4:36])


def test_float_views_are_the_uint8_ones_before_rounding():
    image = smooth(70, 90)
    for view in (
        one_view((11, 7, 50, 40), 32),
        one_view((0, 0, 90, 70), 20, (True, False)),
        one_view((11, 7, 50, 40), 32, degrees=30),
    ):
        exact, rounded = rendered(image, view, dtype=np.float32), rendered(image, view)
        assert np.abs(exact - rounded).max() <= 1.01


@pytest.mark.parametrize(("degrees", "turns"), [(90.0, 1), (180.0, 2), (-90.0, 3)])
def test_rotation_is_counter_clockwise_about_the_middle_of_the_crop(degrees, turns):
    image = smooth(60, 60)
    got = rendered(image, one_view((10, 10, 40, 40), 40, degrees=degrees))
    assert np.abs(got.astype(int) - np.rot90(image[10:50, 10:50], turns)).max() <= 2


@pytest.mark.parametrize("box", [(20, 10, 60, 50), (0, 0, 120, 100)], ids=["inside", "beyond the edge"])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (True, True)])
def test_a_rotated_view_is_what_its_matrix_says(box, flips):
    image = smooth(100, 120)
    view = one_view(box, 40, flips, degrees=25.0)
    got = rendered(image, view)
    columns, rows = np.meshgrid(np.arange(40.0), np.arange(40.0))
    x, y = np.einsum("ij,jhw->ihw", view.matrices()[0], np.stack([columns, rows, np.ones_like(rows)]))
    expected = cv2.remap(
        image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    if box[2] // 40 >= 2:  # averaged first: a little softer
        assert np.abs(got.astype(int) - expected).mean() < 6
    else:
        assert np.abs(got.astype(int) - expected).max() <= 3


def test_a_tiny_turn_changes_little():
    image = smooth(120, 120)
    straight = rendered(image, one_view((20, 20, 60, 60), 48))
    turned = rendered(image, one_view((20, 20, 60, 60), 48, degrees=0.01))
    assert np.abs(straight.astype(int) - turned).max() <= 3


def test_strong_shrinking_averages_instead_of_skipping():
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    for degrees in (0.0, 10.0):
        got = rendered(checks, one_view((40, 40, 160, 160), 32, degrees=degrees))
        assert np.abs(got.astype(float) - 127.5).mean() < 20


def test_impossible_ranges_are_faults_of_the_config():
    for wrong in ({"crop_scale": (0.5, 0.2)}, {"crop_scale": (0.5, 1.5)}, {"crop_ratio": (0, 1)}):
        with pytest.raises(ValidationError, match=r"crop_(scale|ratio)"):
            Augmentation(size_px=8, **wrong)
