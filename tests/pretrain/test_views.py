"""The views of a method, their batches, and the picture of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dermlab.data.augment import draw, render_all
from dermlab.data.loader import Normalise
from dermlab.data.pixel_cache import PixelRecipe, Pixels, open_pixels
from dermlab.pretrain.views import ViewGroup, default_views, draw_views, view_batches

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(3):
        small = Image.fromarray(rng.integers(60, 220, (5, 6, 3), dtype=np.uint8))
        small.resize((70, 60)).save(folder / f"{i}.png")
    return open_pixels(sorted(folder.iterdir()), PixelRecipe(size_px=40, fit="short"), root=folder / "cache")


def of_dino(**changes: object) -> tuple[ViewGroup, ...]:
    scales = {"global_scale": (0.4, 1.0), "local_scale": (0.05, 0.4)}
    return default_views("dino", 36, local_views=5, local_size_px=16, changes=changes, **scales)


def test_batches_hold_global_views_first_each_drawn_by_its_number(pixels: Pixels) -> None:
    groups = of_dino()
    options = {"mean": MEAN, "std": STD, "seed": 3, "epoch": 2}
    views, kept = next(view_batches(pixels, [2, 0], 2, groups, **options))
    assert [view.shape for view in views] == 2 * [(2, 3, 36, 36)] + 5 * [(2, 3, 16, 16)]
    assert kept.tolist() == [2, 0]
    photo = pixels.images([2])[0]
    last = draw(groups[2].augmentation, np.array([photo.shape[:2]]), np.array([2]), seed=3, epoch=2, view=6)
    made = np.empty((1, 16, 16, 3), np.uint8)
    render_all(photo, last, 0, made)
    assert torch.equal(views[6][0], Normalise(MEAN, STD)(torch.from_numpy(made))[0])


def test_the_picture_shows_the_photos_middle_and_all_of_its_views(pixels: Pixels, tmp_path: Path) -> None:
    groups = of_dino()
    draw_views(pixels, np.array([1, 2]), groups, tmp_path / "views.png", seed=0)
    picture = np.asarray(Image.open(tmp_path / "views.png"))
    # Two rows; the middle and two global views of 36 px and 5 local ones of 16, two above each other; gaps of 4.
    assert picture.shape == (2 * 40, 3 * 40 + 3 * 20, 3)
    photo = pixels.images([1])[0]
    one = draw(groups[0].augmentation, np.array([photo.shape[:2]]), np.array([1]), seed=0, epoch=1, view=0)
    made = np.empty((1, 36, 36, 3), np.uint8)
    render_all(photo, one, 0, made)
    np.testing.assert_array_equal(picture[:36, 40:76], made[0])
    assert (picture[36:40] == 255).all()
    assert (picture[20:36, 160:176] == 255).all()  # where a sixth local view would be


def test_changes_reach_every_view() -> None:
    groups = of_dino(hue=0.0, greyscale=0.0)
    assert {(group.augmentation.hue, group.augmentation.greyscale) for group in groups} == {(0.0, 0.0)}
    assert [group.augmentation.solarise for group in groups] == [0.0, 0.2, 0.0]
