"""Several views of each photo: in 8 bits and on a device the same views as in float32, whatever threads do."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from dermlab.data.augment import Augmentation, Views, draw, gaussian_kernel, preset, render, render_all
from dermlab.data.device_views import pack, render_batch
from dermlab.data.loader import Normalise, epoch_order
from dermlab.data.pixel_cache import PixelRecipe, Pixels, open_pixels
from dermlab.data.view_batches import view_batches

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOUR = {"jitter": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "greyscale": 0.3}
GLOBAL = Augmentation(size_px=32, crop_scale=(0.4, 1.0), blur=1.0, solarise=0.4, **COLOUR)
LOCAL = Augmentation(size_px=16, crop_scale=(0.05, 0.4), rotation_degrees=180.0, blur=0.5, erasing=0.5, **COLOUR)
OPTIONS = {"mean": MEAN, "std": STD}


def smooth(height: int, width: int, seed: int) -> np.ndarray:
    """A photo without hard edges, so that two ways of interpolating agree."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


PHOTOS = [smooth(height, width, i) for i, (height, width) in enumerate([(48, 60), (60, 48), (48, 48), (48, 90)])]
SIZES = np.array([photo.shape[:2] for photo in PHOTOS])


def drawn(augmentation: Augmentation, n: int) -> Views:
    """``n`` views of each of the photos, those of one photo side by side."""
    photos = np.repeat(np.arange(len(PHOTOS)), n)
    return draw(augmentation, SIZES[photos], photos, seed=5, epoch=1, view=np.tile(np.arange(n), len(PHOTOS)))


def in_float32(views: Views, n: int) -> np.ndarray:
    made = np.empty((len(views), views.size_px, views.size_px, 3), np.float32)
    for place, out in enumerate(made):
        render(PHOTOS[place // n], views, place, out)
    return made.reshape(len(PHOTOS), n, *made.shape[1:])


VARIANTS = {
    "as pretraining": {},
    "all turned": {"rotation_degrees": 180.0},
    "moved beyond the edge": {"shift": 0.4, "quarter_turns": True, "crop_scale": (0.9, 1.0)},
    "crops as they are": {"jitter": 0.0, "greyscale": 0.0, "blur": 0.0, "solarise": 0.0},
    "erased": {"erasing": 1.0},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_views_in_8_bits_and_on_a_device_are_those_in_float32(changes: dict) -> None:
    augmentation = Augmentation.model_validate({**dict(GLOBAL), **changes})
    views = drawn(augmentation, 12)
    exact = in_float32(views, 12)
    bytewise = np.empty(exact.shape, np.uint8)
    for photo, image in enumerate(PHOTOS):
        render_all(image, views, 12 * photo, bytewise[photo])
    error = np.abs(exact - bytewise)
    assert error.mean() < 0.5
    assert error.max() < 4
    on_device = render_batch(pack(PHOTOS), SIZES, views)
    assert on_device.shape == (12, 4, 3, 32, 32)
    error = np.abs(exact - on_device.permute(1, 0, 3, 4, 2).numpy())
    assert error.mean() < 0.2
    assert error.max() < 2


@pytest.mark.parametrize("degrees", [0.0, 90.0])
def test_much_smaller_views_are_averages_on_a_device_too(degrees: float) -> None:
    augmentation = Augmentation(size_px=32, crop_scale=(0.8, 1.0), rotation_degrees=degrees)
    photo = cv2.resize(PHOTOS[0], (250, 200), interpolation=cv2.INTER_CUBIC)
    sizes = np.tile(photo.shape[:2], (6, 1))
    views = draw(augmentation, sizes, np.zeros(6, int), seed=0, epoch=0, view=np.arange(6))
    assert (views.shrinks >= 4).all()
    exact = np.empty((6, 32, 32, 3), np.float32)
    for place, out in enumerate(exact):
        render(photo, views, place, out)
    error = np.abs(exact - render_batch(pack([photo]), sizes[:1], views)[:, 0].permute(0, 2, 3, 1).numpy())
    assert error.mean() < 1.5
    checks = [(np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)]
    one = draw(augmentation, np.array([[96, 96]]), np.array([0]), seed=0, epoch=0)
    assert (render_batch(pack(checks), np.array([[96, 96]]), one) - 127.5).abs().mean() < 20


def test_single_steps_on_a_device_are_torchvisions() -> None:
    photo = pack([PHOTOS[2]])
    image = photo[0].permute(2, 0, 1).float()

    def made(**changes: object) -> torch.Tensor:
        one = draw(preset("none", 48, **changes), np.array([[48, 48]]), np.array([0]), seed=0, epoch=0)
        return render_batch(photo, np.array([[48, 48]]), one)[0, 0]

    torch.testing.assert_close(made(), image, rtol=0, atol=1e-3)
    torch.testing.assert_close(made(horizontal_flip=1.0), image.flip(2), rtol=0, atol=1e-3)
    blurred = functional.gaussian_blur(image, [7, 7], [1.0, 1.0])
    torch.testing.assert_close(made(blur=1.0, blur_sigma=(1.0, 1.0)), blurred, rtol=0, atol=1e-3)
    solarised = functional.solarize(image / 255, 0.5) * 255
    torch.testing.assert_close(made(solarise=1.0), solarised, rtol=0, atol=1e-3)
    grey = functional.rgb_to_grayscale(image, 3)
    torch.testing.assert_close(made(greyscale=1.0), grey, rtol=0, atol=0.1)


def test_operations_are_refused_on_a_device() -> None:
    with pytest.raises(ValueError, match="OpenCV only"):
        render_batch(pack(PHOTOS), SIZES, drawn(preset("strong", 16), 1))


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.7, 1.3, 2.0, 4.0])
def test_a_blur_of_8_bits_keeps_the_brightness(sigma: float) -> None:
    kernel = gaussian_kernel(sigma)
    assert kernel.sum() == 1
    assert (kernel == kernel[::-1]).all()
    np.testing.assert_array_equal(kernel * 256, np.rint(kernel * 256))
    even = np.full((30, 30, 3), 201, np.uint8)
    assert (cv2.sepFilter2D(even, -1, kernel, kernel) == 201).all()
    wide = np.arange(len(kernel)) - len(kernel) // 2
    if sigma >= 0.7:
        assert np.sqrt((kernel * wide**2).sum()) == pytest.approx(sigma, rel=0.05)


# ---------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(11):
        Image.fromarray(smooth(50, 60 + i, i)).save(folder / f"{i:02d}.png")
    return open_pixels(sorted(folder.iterdir()), PixelRecipe(size_px=40, fit="short"), root=folder / "cache")


def test_batches_hold_the_views_drawn_for_each_photo(pixels: Pixels) -> None:
    order = epoch_order(len(pixels), seed=4, epoch=3)
    normalise = Normalise(MEAN, STD)
    kinds = [GLOBAL, GLOBAL, LOCAL]
    n_batches = 0
    for views, kept in view_batches(pixels, order, 4, kinds, seed=4, epoch=3, **OPTIONS):
        n_batches += 1
        assert [view.shape[1:] for view in views] == [(3, 32, 32), (3, 32, 32), (3, 16, 16)]
        for number, (view, augmentation) in enumerate(zip(views, kinds, strict=True)):
            assert view.is_contiguous(memory_format=torch.channels_last)
            for tensor, index in zip(view, kept, strict=True):
                image = pixels.images([index])[0]
                one = draw(augmentation, np.array([image.shape[:2]]), np.array([index]), seed=4, epoch=3, view=number)
                out = np.empty((1, one.size_px, one.size_px, 3), np.uint8)
                render_all(image, one, 0, out)
                assert torch.equal(tensor, normalise(torch.from_numpy(out))[0])
    assert n_batches == 3


def all_views(pixels: Pixels, size: int = 4, **options: object) -> list[torch.Tensor]:
    parts = [views for views, _ in view_batches(pixels, range(11), size, [GLOBAL, LOCAL, LOCAL], **OPTIONS, **options)]
    return [torch.cat(views) for views in zip(*parts, strict=True)]


def test_threads_batch_size_and_prefetch_change_no_bit(pixels: Pixels) -> None:
    first = all_views(pixels, threads=1, prefetch=0)
    for size, threads, prefetch in ((1, 3, 2), (11, 2, 1), (7, 8, 0)):
        again = all_views(pixels, size, threads=threads, prefetch=prefetch)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], first[2])


def test_seeds_and_epochs_give_other_views(pixels: Pixels) -> None:
    first = all_views(pixels)
    for changes in ({"seed": 1}, {"epoch": 1}):
        assert all(not torch.equal(a, b) for a, b in zip(first, all_views(pixels, **changes), strict=True))


def test_the_devices_way_gives_the_same_views(pixels: Pixels) -> None:
    for ours, theirs in zip(all_views(pixels), all_views(pixels, on_device=True), strict=True):
        assert theirs.is_contiguous(memory_format=torch.channels_last)
        assert (ours - theirs).abs().mean() < 0.6 / 255 / min(STD)
        assert (ours - theirs).abs().max() < 6 / 255 / min(STD)


def test_half_precision_is_the_rounded_float32(pixels: Pixels) -> None:
    for full, half in zip(all_views(pixels), all_views(pixels, dtype=torch.bfloat16), strict=True):
        assert torch.equal(full.bfloat16(), half)
    options = {"on_device": True, "dtype": torch.bfloat16}
    for full, half in zip(all_views(pixels, on_device=True), all_views(pixels, **options), strict=True):
        torch.testing.assert_close(half.float(), full, rtol=1 / 128, atol=1e-4)


def test_views_that_are_held_are_not_written_over(pixels: Pixels) -> None:
    held, copies = [], []
    for views, _ in view_batches(pixels, np.tile(np.arange(11), 8), 4, [GLOBAL, LOCAL], threads=2, **OPTIONS):
        held.append(views[len(held) % 2])
        copies.append(held[-1].clone())
        del views
    assert all(torch.equal(a, b) for a, b in zip(held, copies, strict=True))


@pytest.mark.parametrize("on_device", [False, True])
def test_photos_without_an_image_are_left_out(pixels: Pixels, tmp_path: Path, on_device: bool) -> None:
    paths = []
    for i in range(3):
        Image.fromarray(PHOTOS[i]).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    (tmp_path / "page.jpg").write_bytes(b"<html></html>")
    mixed = open_pixels(
        [paths[0], tmp_path / "page.jpg", *paths[1:]], PixelRecipe(size_px=40, fit="short"), root=tmp_path / "cache"
    )
    order = [1, 0, 2, 1, 3, 1, 1, 1, 1]
    options = {"threads": 2, "on_device": on_device, **OPTIONS}
    found = list(view_batches(mixed, order, 3, [GLOBAL, LOCAL], **options))
    assert [kept.tolist() for _, kept in found] == [[0, 2], [3]]
    alone = next(view_batches(mixed, [0, 2], 2, [GLOBAL, LOCAL], **options))[0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], alone, strict=True))


def test_a_loop_that_stops_early_leaves_no_thread_behind(pixels: Pixels) -> None:
    for _views, _kept in view_batches(pixels, np.tile(np.arange(11), 50), 4, [LOCAL], **OPTIONS):
        break
    for thread in threading.enumerate():
        if thread.name.startswith("dermlab-views"):
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_no_photos_are_no_batches_and_no_size_is_a_fault(pixels: Pixels) -> None:
    assert list(view_batches(pixels, [], 4, [GLOBAL], **OPTIONS)) == []
    with pytest.raises(ValueError, match="batch_size"):
        next(view_batches(pixels, [0], 0, [GLOBAL], **OPTIONS))
