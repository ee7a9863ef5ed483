"""The loader: the reference transforms' numbers, the same whatever threads do, failed photos left out."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from dermlab.data import loader
from dermlab.data.augment import Augmentation, draw, render
from dermlab.data.loader import Normalise, batches, epoch_order
from dermlab.data.pixel_cache import PixelRecipe, Pixels, open_pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = PixelRecipe(size_px=32, crop_fraction=0.875)
SHORT = PixelRecipe(size_px=40, fit="short")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(23):
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        small.resize((60 + i, 50)).save(folder / f"{i:02d}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def opened(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Pixels]:
    return open_pixels(paths, [CROP, SHORT], root=tmp_path_factory.mktemp("cache"))


def test_plain_batches_are_torchvisions_numbers(paths, opened):
    reference = transforms.Compose(
        [
            transforms.Resize(36, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    order = np.random.default_rng(1).permutation(len(paths))
    seen = []
    for batch, kept in batches(opened[0], order, 8, mean=MEAN, std=STD):
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        expected = torch.stack([reference(Image.open(paths[i]).convert("RGB")) for i in kept])
        torch.testing.assert_close(batch, expected, rtol=0, atol=3e-6)
        seen.extend(kept.tolist())
    assert seen == order.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_rounded_float32(dtype):
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    full = Normalise(MEAN, STD)(pixels)
    half = Normalise(MEAN, STD, dtype=dtype)(pixels)
    assert torch.equal(half, full.to(dtype))
    assert half.is_contiguous(memory_format=torch.channels_last)


def test_half_precision_batches_are_the_rounded_float32_ones(opened):
    for pixels, augmentation in ((opened[0], None), (opened[1], Augmentation(size_px=24))):
        options = {"mean": MEAN, "std": STD, "augment": augmentation}
        full = next(batches(pixels, range(9), 9, **options))[0]
        half = next(batches(pixels, range(9), 9, dtype=torch.bfloat16, **options))[0]
        assert torch.equal(half, full.bfloat16())
        assert half.is_contiguous(memory_format=torch.channels_last)


def test_the_way_to_another_device_gives_the_same_numbers(opened):
    # What a GPU would get: uint8 pixels that are normalised where they arrive.
    images = opened[0].images(range(5))
    made = loader._as_pixels(images, None, torch.empty((5, 32, 32, 3), dtype=torch.uint8))
    arrived, _, _ = loader._upload(made, np.arange(5), Normalise(MEAN, STD), None)
    assert torch.equal(arrived, next(batches(opened[0], range(5), 5, mean=MEAN, std=STD))[0])
    short = opened[1].images(range(5))
    augmentation = Augmentation(size_px=24, rotation_degrees=10)
    views = draw(augmentation, np.array([image.shape[:2] for image in short]), np.arange(5), seed=0, epoch=0)
    made = loader._as_pixels(short, views, torch.empty((5, 24, 24, 3), dtype=torch.uint8))
    arrived, _, _ = loader._upload(made, np.arange(5), Normalise(MEAN, STD), None)
    exact = next(batches(opened[1], range(5), 5, mean=MEAN, std=STD, augment=augmentation))[0]
    assert (arrived - exact).abs().max() <= 1.01 / 255 / min(STD)


def test_only_cuda_is_copied_to_without_waiting(monkeypatch):
    # A copy to MPS that does not wait reads its source after it was given to others: wrong pixels, silently.
    waited: list[bool] = []
    to = torch.Tensor.to

    def spy(self, *args, **options):
        waited.append(not options.get("non_blocking", False))
        return to(self, *args, **options)

    normalise = Normalise(MEAN, STD, device="meta")
    monkeypatch.setattr(torch.Tensor, "to", spy)
    assert normalise(torch.zeros((1, 4, 4, 3), dtype=torch.uint8)).device.type == "meta"
    assert all(waited)


def test_the_callers_own_threads_are_left_alone(opened):
    before = torch.get_num_threads()
    list(batches(opened[0], range(10), 4, mean=MEAN, std=STD))
    assert torch.get_num_threads() == before


def test_normalising_leaves_uint8_pixels_alone():
    pixels = torch.full((1, 2, 2, 3), 7, dtype=torch.uint8)
    Normalise(MEAN, STD)(pixels)
    assert (pixels == 7).all()


def test_augmented_batches_are_the_views_drawn_for_each_photo(opened):
    short = opened[1]
    augmentation = Augmentation(size_px=24, rotation_degrees=20)
    order = epoch_order(len(short), seed=4, epoch=3)
    normalise = Normalise(MEAN, STD)
    for batch, kept in batches(short, order, 5, mean=MEAN, std=STD, augment=augmentation, seed=4, epoch=3):
        for tensor, index in zip(batch, kept, strict=True):
            image = short.images([index])[0]
            views = draw(augmentation, np.array([image.shape[:2]]), np.array([index]), seed=4, epoch=3)
            out = np.empty((24, 24, 3), np.float32)
            render(image, views, 0, out)
            values = torch.from_numpy(out)
            normalise.write(values, values)
            assert torch.equal(tensor, values.permute(2, 0, 1))


def test_threads_batch_size_and_prefetch_change_no_bit(opened):
    augmentation = Augmentation(size_px=24)
    results = []
    for size, threads, prefetch in ((1, 1, 0), (7, 3, 4), (23, 2, 1)):
        parts = list(
            batches(
                opened[1],
                range(23),
                size,
                mean=MEAN,
                std=STD,
                augment=augmentation,
                seed=1,
                threads=threads,
                prefetch=prefetch,
            )
        )
        results.append(torch.cat([batch for batch, _ in parts]))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_batch_that_is_held_is_not_written_over(opened):
    order = np.tile(np.arange(23), 20)
    options = {"mean": MEAN, "std": STD, "threads": 3}
    held, copies = [], []
    for batch, _ in batches(opened[0], order, 8, **options):
        held.append([batch, batch[:2], batch[0].numpy()][len(held) % 3])  # also by a view or an array
        copies.append(np.array(held[-1]))
        del batch
    for kept, copy in zip(held, copies, strict=True):
        np.testing.assert_array_equal(np.asarray(kept), copy)


def test_memory_of_batches_that_are_let_go_is_used_again(opened):
    memory = loader.BatchMemory(2)
    first = memory.take((4, 5), torch.float32)
    second = memory.take((4, 5), torch.bfloat16)
    assert first.data_ptr() != second.data_ptr()
    address = first.data_ptr()
    view = first[1]
    del first
    assert memory.take((4, 5), torch.float32).data_ptr() != address
    del view
    assert memory.take((4, 5), torch.float32).data_ptr() == address
    assert memory.take((2, 5), torch.float32).data_ptr() == address


def test_seeds_and_epochs_give_other_views(opened):
    augmentation = Augmentation(size_px=24)

    def views(seed: int, epoch: int) -> torch.Tensor:
        options = {"mean": MEAN, "std": STD, "augment": augmentation, "seed": seed, "epoch": epoch}
        return next(batches(opened[1], range(8), 8, **options))[0]

    assert torch.equal(views(0, 0), views(0, 0))
    assert not torch.equal(views(0, 0), views(0, 1))
    assert not torch.equal(views(0, 0), views(1, 0))


def test_photos_without_an_image_are_left_out_and_told(paths, tmp_path):
    (tmp_path / "page.jpg").write_bytes(b"<html></html>")
    mixed = [paths[0], tmp_path / "page.jpg", paths[1], tmp_path / "none.jpg"]
    for recipe, augmentation in ((CROP, None), (SHORT, Augmentation(size_px=16))):
        pixels = open_pixels(mixed, recipe, root=tmp_path / "cache")
        parts = list(batches(pixels, [1, 0, 3, 2, 1, 3], 2, mean=MEAN, std=STD, augment=augmentation))
        assert [kept.tolist() for _, kept in parts] == [[0], [2]]
        assert [len(batch) for batch, _ in parts] == [1, 1]
        assert set(pixels.failures) == {1, 3}


def test_a_loop_that_stops_early_leaves_no_thread_behind(opened):
    before = threading.active_count()
    for _ in range(3):
        for _batch, _kept in batches(opened[0], np.tile(np.arange(23), 50), 4, mean=MEAN, std=STD):
            break
    for thread in threading.enumerate():
        if thread.name.startswith("dermlab-batches"):
            thread.join(timeout=5)
    assert threading.active_count() <= before


def test_a_fault_in_a_thread_reaches_the_loop(opened, monkeypatch):
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(loader, "_as_numbers", broken)
    with pytest.raises(RuntimeError, match="on purpose"):
        list(batches(opened[0], range(4), 2, mean=MEAN, std=STD))


def test_no_photos_are_no_batches_and_no_size_is_a_fault(opened):
    assert list(batches(opened[0], [], 4, mean=MEAN, std=STD)) == []
    with pytest.raises(ValueError, match="short"):
        next(batches(opened[1], [0], 4, mean=MEAN, std=STD))
    with pytest.raises(ValueError, match="batch_size"):
        next(batches(opened[0], [0], 0, mean=MEAN, std=STD))


def test_an_epochs_order_is_a_permutation_of_its_own():
    first = epoch_order(100, seed=0, epoch=0)
    assert sorted(first.tolist()) == list(range(100))
    np.testing.assert_array_equal(first, epoch_order(100, seed=0, epoch=0))
    assert (first != epoch_order(100, seed=0, epoch=1)).any()
