"""Colours against torchvision's, turns and shifts against numpy's, and what the presets draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from dermlab.data.augment import OPERATIONS, Augmentation, colour_matrix, draw, preset, render


def photo(size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 180, (size, size, 3), dtype=np.uint8)


def views_of(augmentation: Augmentation, image: np.ndarray, n: int, dtype: type = np.float32) -> np.ndarray:
    views = draw(augmentation, np.tile(image.shape[:2], (n, 1)), np.arange(n), seed=0, epoch=0)
    made = np.empty((n, augmentation.size_px, augmentation.size_px, 3), dtype)
    for place in range(n):
        render(image, views, place, made[place])
    return made


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_single_colour_changes_are_torchvisions(place: int, factor: float) -> None:
    image = photo().astype(np.float64)
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)[place]
    expected = adjust(torch.from_numpy(image / 255).permute(2, 0, 1), factor).permute(1, 2, 0).numpy() * 255
    factors = np.array([1.0, 1.0, 1.0, 0.0])
    factors[place] = factor
    matrix = colour_matrix(factors, float((image @ [0.299, 0.587, 0.114]).mean()))
    found = image @ matrix[:, :3].T + matrix[:, 3]
    # torchvision's grey has 0.2989 for red, and 0.9999 in all.
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_hue_turned_about_keeps_grey_and_turned_back_is_the_first() -> None:
    matrix = colour_matrix(np.array([1.0, 1.0, 1.0, 0.2]), 100.0)[:, :3]
    np.testing.assert_allclose(matrix @ np.full(3, 50.0), 50.0, atol=1e-3)
    back = colour_matrix(np.array([1.0, 1.0, 1.0, -0.2]), 100.0)[:, :3]
    np.testing.assert_allclose(back @ matrix, np.eye(3), atol=1e-9)


def test_quarter_turns_and_flips_are_the_eight_positions_and_no_others() -> None:
    image = photo(28)
    changes = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "quarter_turns": True}
    made = views_of(preset("none", 28, **changes), image, 200)
    eight = [np.rot90(one, k) for one in (image, image[:, ::-1]) for k in range(4)]
    nearest = [int(np.argmin([np.abs(view - one).max() for one in eight])) for view in made]
    assert set(nearest) == set(range(8))
    assert max(np.abs(view - eight[place]).max() for view, place in zip(made, nearest, strict=True)) < 1


def test_a_shift_moves_by_no_more_than_its_share_and_reflects() -> None:
    ramp = np.broadcast_to(np.arange(100, 164, dtype=np.uint8)[None, :, None], (64, 64, 3)).copy()
    made = views_of(preset("none", 64, shift=0.125), ramp, 300)
    moved = made[:, 32, 32, 0] - ramp[32, 32, 0]
    assert 6 < np.abs(moved).max() <= 8.1
    assert abs(moved.mean()) < 1


def test_none_is_the_photo_itself() -> None:
    image = photo(32)
    assert (views_of(preset("none", 32), image, 5, np.uint8) == image).all()


def test_strong_erases_a_quarter_and_uses_every_operation() -> None:
    augmentation = preset("strong", 32)
    views = draw(augmentation, np.tile((32, 32), (4000, 1)), np.arange(4000), seed=0, epoch=0)
    assert views.erased is not None
    assert views.operations is not None
    erased = views.erased[views.erased[:, 2] > 0]
    assert len(erased) / 4000 == pytest.approx(0.25, abs=0.03)
    assert (erased[:, :2] + erased[:, 2:] <= 32).all()
    assert set(views.operations.ravel().tolist()) == set(range(len(OPERATIONS)))
    made = views_of(augmentation, photo(32), 50)
    assert made.min() >= 0
    assert made.max() <= 255
    assert np.isfinite(made).all()


def test_each_occurrence_of_a_photo_has_a_view_of_its_own() -> None:
    augmentation = preset("light", 32)
    sizes, twice = np.tile((32, 32), (2, 1)), np.array([7, 7])
    views = draw(augmentation, sizes, twice, seed=0, epoch=0, view=np.array([0, 1]))
    alone = draw(augmentation, sizes[:1], twice[:1], seed=0, epoch=0, view=1)
    assert (views.boxes[0] != views.boxes[1]).any()
    assert (views.boxes[1] == alone.boxes[0]).all()


def test_grey_blurred_and_solarised_views_are_torchvisions() -> None:
    image = photo(32)
    as_tensor = torch.from_numpy(image).permute(2, 0, 1)
    grey = views_of(preset("none", 32, greyscale=1.0), image, 1)[0]
    np.testing.assert_allclose(grey[..., 0], functional.rgb_to_grayscale(as_tensor.float())[0], atol=0.1)
    assert (np.ptp(grey, axis=2) < 1e-4).all()
    blurred = views_of(preset("none", 32, blur=1.0, blur_sigma=(1.0, 1.0)), image, 1)[0]
    expected = functional.gaussian_blur(as_tensor.float(), [9, 9], [1.0, 1.0]).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(blurred, expected, atol=0.1)
    turned = views_of(preset("none", 32, solarise=1.0), image, 1, np.uint8)[0]
    np.testing.assert_array_equal(turned, functional.solarize(as_tensor, 128).permute(1, 2, 0).numpy())


def test_chances_of_a_view_are_met_and_leave_the_other_draws_as_they_were() -> None:
    sizes, images = np.tile((40, 40), (4000, 1)), np.arange(4000)
    plain = preset("light", 32)
    changed = preset("light", 32, jitter=0.8, greyscale=0.2, blur=0.5, blur_sigma=(0.5, 1.5), solarise=0.1)
    before, after = (draw(one, sizes, images, seed=3, epoch=1, view=2) for one in (plain, changed))
    np.testing.assert_array_equal(before.boxes, after.boxes)
    assert before.colours is not None
    assert after.colours is not None
    assert after.greys is not None
    assert after.blurs is not None
    assert after.solarised is not None
    unchanged = (after.colours == (1.0, 1.0, 1.0, 0.0)).all(1)
    np.testing.assert_array_equal(after.colours[~unchanged], before.colours[~unchanged])
    shares = [unchanged.mean(), after.greys.mean(), (after.blurs > 0).mean(), after.solarised.mean()]
    np.testing.assert_allclose(shares, [0.2, 0.2, 0.5, 0.1], atol=0.03)
    sigmas = after.blurs[after.blurs > 0]
    np.testing.assert_allclose([sigmas.min(), sigmas.mean(), sigmas.max()], [0.5, 1.0, 1.5], atol=0.05)
