"""The pixel cache: the pixels of the reference transforms, decoded once, whoever asks and whatever breaks."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from torchvision import transforms

from dermlab.core import records
from dermlab.core.records import RecordStore, shard_files
from dermlab.data import pixel_cache
from dermlab.data.decode import DecodeError
from dermlab.data.pixel_cache import PixelRecipe, Pixels, open_pixels, resize

SMALL = PixelRecipe(size_px=16)
SHORT = PixelRecipe(size_px=12, fit="short", interpolation="bilinear")

TORCHVISION = {
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "lanczos": transforms.InterpolationMode.LANCZOS,
    "nearest": transforms.InterpolationMode.NEAREST,
    "area": transforms.InterpolationMode.BOX,
}
ODD_SIZES = [(300, 225), (225, 301), (97, 97), (31, 200), (224, 224), (50, 41), (640, 479)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


@pytest.mark.parametrize("interpolation", TORCHVISION)
@pytest.mark.parametrize("size", ODD_SIZES)
def test_crop_equals_torchvision_bit_for_bit(size, interpolation):
    image = noise(*size)
    for resize_px, crop_px in [(64, 56), (57, 57), (232, 224)]:
        recipe = PixelRecipe(size_px=crop_px, crop_fraction=crop_px / resize_px, interpolation=interpolation)
        steps = [transforms.Resize(resize_px, TORCHVISION[interpolation]), transforms.CenterCrop(crop_px)]
        np.testing.assert_array_equal(resize(image, recipe), np.asarray(transforms.Compose(steps)(image)))


@pytest.mark.parametrize("size", ODD_SIZES)
def test_squash_and_short_equal_torchvision_bit_for_bit(size):
    image = noise(*size)
    for interpolation, mode in TORCHVISION.items():
        squashed = resize(image, PixelRecipe(size_px=45, fit="squash", interpolation=interpolation))
        np.testing.assert_array_equal(squashed, np.asarray(transforms.Resize((45, 45), mode)(image)))
        short = resize(image, PixelRecipe(size_px=45, fit="short", interpolation=interpolation))
        np.testing.assert_array_equal(short, np.asarray(transforms.Resize(45, mode)(image)))


@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.9, 0.95, 0.965])
@pytest.mark.parametrize("size", ODD_SIZES)
def test_crop_and_squash_equal_timm_bit_for_bit(size, crop_pct):
    from timm.data import create_transform

    image = noise(*size)
    for crop_mode, fit in (("center", "crop"), ("squash", "squash")):
        reference = create_transform((3, 48, 48), crop_pct=crop_pct, crop_mode=crop_mode, interpolation="bicubic")
        expected = transforms.Compose(reference.transforms[:-2])(image)  # without ToTensor and Normalize
        recipe = PixelRecipe(size_px=48, fit=fit, crop_fraction=crop_pct)
        np.testing.assert_array_equal(resize(image, recipe), np.asarray(expected))


def test_pad_keeps_the_whole_photo_in_the_middle_of_black():
    image = Image.new("RGB", (90, 60), (10, 200, 30))
    padded = resize(image, PixelRecipe(size_px=30, fit="pad"))
    assert padded.shape == (30, 30, 3)
    assert (padded[5:25] == (10, 200, 30)).all()
    assert not padded[:5].any()
    assert not padded[25:].any()
    upright = resize(image.transpose(Image.Transpose.ROTATE_90), PixelRecipe(size_px=30, fit="pad"))
    np.testing.assert_array_equal(upright, np.rot90(padded))
    content = resize(noise(90, 60), PixelRecipe(size_px=30, fit="pad"))[5:25]
    np.testing.assert_array_equal(content, np.asarray(noise(90, 60).resize((30, 20), Image.Resampling.BICUBIC)))


def test_without_antialiasing_the_filter_is_opencvs():
    import cv2

    image = noise(100, 80)
    recipe = PixelRecipe(size_px=32, fit="squash", interpolation="bilinear", antialias=False)
    np.testing.assert_array_equal(resize(image, recipe), cv2.resize(np.asarray(image), (32, 32)))


def test_a_photo_too_long_and_narrow_is_refused_before_it_fills_the_memory():
    thread = Image.new("RGB", (500_000, 1))
    for fit in ("crop", "short"):
        with pytest.raises(DecodeError, match="narrow"):
            resize(thread, PixelRecipe(size_px=224, fit=fit))
    assert resize(thread, PixelRecipe(size_px=8, fit="pad")).shape == (8, 8, 3)


def test_a_short_recipe_that_would_crop_is_a_fault_of_the_config():
    with pytest.raises(ValidationError, match="crop_fraction must be 1"):
        PixelRecipe(size_px=8, fit="short", crop_fraction=0.9)


def test_whatever_changes_a_pixel_changes_the_folder():
    recipes = [SMALL, SHORT, PixelRecipe(size_px=17)]
    for change in (
        {"fit": "pad"},
        {"crop_fraction": 0.9},
        {"interpolation": "lanczos"},
        {"antialias": False},
        {"codec": "jpeg95"},
    ):
        recipes.append(SMALL.model_copy(update=change))
    assert len({recipe.name for recipe in recipes}) == len(recipes)


# -------------------------------------------------------------------- the cache


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Twelve photos of different sizes; the last two hold the same bytes."""
    paths = []
    for i in range(12):
        path = tmp_path / f"{i}.png"
        seed = min(i, 10)
        noise(20 + seed, 40 - seed, seed).save(path)
        paths.append(path)
    assert paths[10].read_bytes() == paths[11].read_bytes()
    return paths


def expected(paths: Sequence[Path], recipe: PixelRecipe) -> list[np.ndarray]:
    return [resize(Image.open(path).convert("RGB"), recipe) for path in paths]


def reopened(paths: Sequence[Path], recipe: PixelRecipe, root: Path) -> Pixels:
    """Open as another process would: nothing of this one is shared."""
    pixel_cache._open_stores.clear()
    return open_pixels(paths, recipe, root=root)


def test_the_first_pass_writes_through_and_the_second_decodes_nothing(photos, tmp_path):
    root = tmp_path / "cache"
    pixels = open_pixels(photos, SMALL, root=root)
    order = np.random.default_rng(0).permutation(len(photos))
    np.testing.assert_array_equal(pixels.batch(order), np.stack(expected(photos, SMALL))[order])
    assert pixels.n_decoded == 11  # two photos are one content
    pixels.batch(order)
    assert pixels.n_decoded == 11
    pixels.flush()
    again = reopened(photos, SMALL, root)
    np.testing.assert_array_equal(again.batch(range(12)), np.stack(expected(photos, SMALL)))
    again.fill()
    assert again.n_decoded == 0
    assert len(again) == 12
    assert again.failures == {}


def test_a_later_pass_does_not_even_open_the_decoder(photos, tmp_path, monkeypatch):
    open_pixels(photos, SMALL, root=tmp_path / "cache").fill()
    monkeypatch.setattr(pixel_cache, "decode_image", lambda data: pytest.fail("decoded"))
    monkeypatch.setattr(pixel_cache, "read_file", lambda path: pytest.fail("read"))
    again = reopened(photos, SMALL, tmp_path / "cache")
    again.batch(range(12))
    assert again.n_decoded == 0


def test_one_decode_writes_every_recipe(photos, tmp_path):
    root = tmp_path / "cache"
    small, short = open_pixels(photos, [SMALL, SHORT], root=root)
    small.fill()
    assert small.n_decoded == short.n_decoded == 11
    for got, want in zip(short.images(range(12)), expected(photos, SHORT), strict=True):
        np.testing.assert_array_equal(got, want)
        assert not got.flags.writeable
    assert short.n_decoded == 11
    with pytest.raises(ValueError, match="images"):
        short.batch([0])
    assert reopened(photos, SHORT, root).images([3])[0].shape == expected(photos, SHORT)[3].shape


def test_photos_added_later_are_the_only_ones_decoded(photos, tmp_path):
    root = tmp_path / "cache"
    open_pixels(photos[:7], SMALL, root=root).fill()
    more = reopened(photos, SMALL, root)
    more.fill()
    assert more.n_decoded == 4


def test_a_moved_or_renamed_photo_is_the_same_photo(photos, tmp_path):
    root = tmp_path / "cache"
    open_pixels(photos, SMALL, root=root).fill()
    moved = tmp_path / "elsewhere.jpg"
    photos[3].rename(moved)
    again = reopened([moved], SMALL, root)
    np.testing.assert_array_equal(again.batch([0])[0], expected([moved], SMALL)[0])
    assert again.n_decoded == 0


def test_two_objects_of_one_process_share_what_is_not_sealed_yet(photos, tmp_path):
    first = open_pixels(photos, SMALL, root=tmp_path / "cache")
    first.batch(range(12))
    second = open_pixels(photos, SMALL, root=tmp_path / "cache")
    second.batch(range(12))
    assert second.n_decoded == 0


def test_jpeg95_keeps_photos_small_and_the_same_at_every_reading(tmp_path):
    gradient = np.linspace(0, 255, 100, dtype=np.uint8)
    array = np.stack([np.tile(gradient, (100, 1)), np.tile(gradient[:, None], (1, 100)), np.full((100, 100), 90)], 2)
    Image.fromarray(array.astype(np.uint8)).save(tmp_path / "a.png")
    for recipe in (
        PixelRecipe(size_px=100, fit="squash", codec="jpeg95"),
        PixelRecipe(size_px=100, fit="short", codec="jpeg95"),
    ):
        pixels = open_pixels([tmp_path / "a.png"], recipe, root=tmp_path / "cache")
        first = pixels.images([0])[0]
        pixels.flush()
        again = reopened([tmp_path / "a.png"], recipe, tmp_path / "cache")
        np.testing.assert_array_equal(again.images([0])[0], first)
        assert np.abs(first.astype(int) - array).mean() < 1.5
        assert again.n_decoded == 0
        assert sum(s.size_bytes for s in shard_files(tmp_path / "cache" / "pixels" / recipe.name)) < 10_000
        if recipe.fit == "squash":
            np.testing.assert_array_equal(again.batch([0])[0], first)


def test_failures_are_told_recorded_and_not_tried_again(photos, tmp_path, monkeypatch):
    root = tmp_path / "cache"
    (tmp_path / "page.jpg").write_bytes(b"<html>not found</html>")
    (tmp_path / "same_page.jpg").write_bytes(b"<html>not found</html>")
    cut = photos[0].read_bytes()[:200]
    (tmp_path / "cut.png").write_bytes(cut)
    paths = [
        photos[0],
        tmp_path / "page.jpg",
        tmp_path / "missing.jpg",
        tmp_path / "cut.png",
        tmp_path / "same_page.jpg",
    ]
    small, short = open_pixels(paths, [SMALL, SHORT], root=root)
    batch = small.batch(range(5))
    np.testing.assert_array_equal(batch[0], expected(paths[:1], SMALL)[0])
    assert not batch[1:].any()
    assert set(small.failures) == set(short.failures) == {1, 2, 3, 4}
    assert "web page" in small.failures[1]
    assert "no such file" in small.failures[2]
    assert "PNG" in small.failures[3]
    assert small.content_hashes[2] == ""
    small.flush()
    monkeypatch.setattr(pixel_cache, "decode_image", lambda data: pytest.fail("tried again"))
    again = reopened(paths, SMALL, root)
    assert again.failures == small.failures
    np.testing.assert_array_equal(again.batch(range(5)), batch)
    again.fill()


def test_a_fault_of_this_machine_is_not_recorded_against_the_photo(photos, tmp_path, monkeypatch):
    def without_package(data: bytes) -> None:
        raise DecodeError("needs a package", lasting=False)

    root = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache, "decode_image", without_package)
        pixels = open_pixels(photos, SMALL, root=root)
        pixels.fill()
        assert len(pixels.failures) == 12
    again = reopened(photos, SMALL, root)
    assert again.failures == {}
    np.testing.assert_array_equal(again.batch(range(12)), np.stack(expected(photos, SMALL)))


def test_a_file_that_changes_while_it_is_read_does_not_enter_under_the_wrong_name(photos, tmp_path):
    pixels = open_pixels(photos, SMALL, root=tmp_path / "cache")
    noise(30, 30, seed=99).save(photos[0])
    assert not pixels.batch([0]).any()
    assert "changed" in pixels.failures[0]
    again = reopened(photos, SMALL, tmp_path / "cache")
    np.testing.assert_array_equal(again.batch([0])[0], expected(photos, SMALL)[0])


def test_a_photo_that_vanishes_is_read_from_its_copy(photos, tmp_path):
    want = np.stack(expected(photos, SMALL))
    pixels = open_pixels(photos, SMALL, root=tmp_path / "cache")
    photos[10].unlink()
    np.testing.assert_array_equal(pixels.batch([10, 11]), want[[10, 11]])
    photos[0].unlink()
    assert not pixels.batch([0]).any()
    assert "no such file" in pixels.failures[0]


def test_a_flipped_byte_is_found_and_the_photo_decoded_again(photos, tmp_path):
    root = tmp_path / "cache"
    open_pixels(photos, SMALL, root=root).fill()
    (shard,) = shard_files(root / "pixels" / SMALL.name)
    data = bytearray(shard.path.read_bytes())
    data[16 * 16 * 3 * 4 + 5] ^= 1
    shard.path.write_bytes(data)
    again = reopened(photos, SMALL, root)
    np.testing.assert_array_equal(again.batch(range(12)), np.stack(expected(photos, SMALL)))
    assert again.n_decoded == 1
    again.flush()
    once_more = reopened(photos, SMALL, root)
    once_more.batch(range(12))
    assert once_more.n_decoded == 0


def test_a_cache_pruned_under_a_running_process_is_made_again(photos, tmp_path):
    root = tmp_path / "cache"
    open_pixels(photos, SMALL, root=root).fill()
    pixels = reopened(photos, SMALL, root)
    for shard in shard_files(root / "pixels" / SMALL.name):
        shard.path.unlink()
    np.testing.assert_array_equal(pixels.batch(range(12)), np.stack(expected(photos, SMALL)))
    assert pixels.n_decoded == 11


@pytest.mark.parametrize("recipe", [SMALL, SHORT, SMALL.model_copy(update={"codec": "jpeg95"})], ids=lambda r: r.name)
def test_a_full_disk_means_no_cache_and_no_loss(photos, tmp_path, monkeypatch, capsys, recipe):
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records, "_open_new", full)
    monkeypatch.setattr(records, "_warned", set())
    pixels = reopened(photos, recipe, tmp_path / "cache")
    for store in pixels._photos.stores:
        store.shard_bytes = 1000
    for _ in range(2):
        images = pixels.images(range(12))
        for got, want in zip(images, expected(photos, recipe), strict=True):
            assert got.shape == want.shape
            if recipe.codec == "raw":
                np.testing.assert_array_equal(got, want)
    pixels.fill()
    assert capsys.readouterr().err.count("warning") == 1
    assert pixels.n_decoded > 11


def test_threads_may_ask_at_once(photos, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    pixels = open_pixels(photos, SMALL, root=tmp_path / "cache", threads=3)
    want = np.stack(expected(photos, SMALL))
    orders = [np.random.default_rng(i).permutation(12) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for order, got in zip(orders, pool.map(pixels.batch, orders), strict=True):
            np.testing.assert_array_equal(got, want[order])


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from dermlab.core.records import RecordStore
    from dermlab.data import pixel_cache
    from dermlab.data.pixel_cache import PixelRecipe, open_pixels
    pixel_cache.RecordStore = lambda folder: RecordStore(folder, shard_bytes=4000)
    paths = sorted(Path(sys.argv[1]).glob("*.png"))
    pixels = open_pixels(paths, PixelRecipe(size_px=16), root=Path(sys.argv[2]))
    print(len(pixels), pixels.n_decoded, flush=True)
    for start in range(0, len(pixels), 5):
        pixels.batch(range(start, min(start + 5, len(pixels))))
        print(pixels.n_decoded, flush=True)
    pixels.flush()
    """
)


def writer(folder: Path, root: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(folder), str(root)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(200):
        noise(24, 20, seed=i).save(folder / f"{i:03d}.png")
    return sorted(folder.glob("*.png"))


def test_a_pass_that_was_killed_goes_on_where_it_was(many, tmp_path):
    root = tmp_path / "cache"
    process = writer(many[0].parent, root)
    goal = random.Random(1).randrange(60, 150)
    process.stdout.readline()
    seen = 0
    while seen < goal:
        seen = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    pixels = reopened(many, SMALL, root)
    np.testing.assert_array_equal(pixels.batch(range(200)), np.stack(expected(many, SMALL)))
    in_hand = 4000 // (16 * 16 * 3) + 1
    assert pixels.n_decoded <= 200 - seen + in_hand
    assert pixels.n_decoded < 200


def test_two_processes_fill_one_cache(many, tmp_path):
    root = tmp_path / "cache"
    processes = [writer(many[0].parent, root) for _ in range(2)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    pixels = reopened(many, SMALL, root)
    np.testing.assert_array_equal(pixels.batch(range(200)), np.stack(expected(many, SMALL)))
    assert pixels.n_decoded == 0
    with RecordStore(root / "pixels" / SMALL.name) as store:
        report = store.verify()
        assert report.n_corrupt == 0
        store.compact()
        assert len(store) == 200


def test_the_pixels_of_exotic_files_arrive_too(tmp_path):
    buffer = io.BytesIO()
    noise(30, 20).convert("CMYK").save(buffer, "TIFF")
    (tmp_path / "photo.jpg").write_bytes(buffer.getvalue())
    pixels = open_pixels([tmp_path / "photo.jpg"], SMALL, root=tmp_path / "cache")
    assert pixels.batch([0]).any()
    assert pixels.failures == {}
