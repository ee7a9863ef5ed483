"""A photo's copies are found however they were changed; different photos are not taken for one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dermlab.audit import duplicates
from dermlab.audit.duplicates import find_duplicates, photo_of
from dermlab.audit.thumbnails import read_thumbnails
from dermlab.core.randomness import generator
from dermlab.data.dataset import Dataset

Change = Callable[[Image.Image], Image.Image]


def encoded(image: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data)


def brighter(image: Image.Image) -> Image.Image:
    return image.point(lambda value: min(255, round(value * 1.1 + 4)))


def tinted(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge(
        "RGB", [red.point(lambda v: min(255, round(v * 1.08))), green, blue.point(lambda v: v * 9 // 10)]
    )


CHANGES: dict[str, tuple[Change, str]] = {
    "encoded again": (lambda image: encoded(image, 60), ""),
    "halved": (lambda image: encoded(image.resize((64, 64), Image.Resampling.BICUBIC), 90), ""),
    "mirrored": (lambda image: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 85), "mirrored left to right"),
    "turned": (lambda image: encoded(image.transpose(Image.Transpose.ROTATE_90), 85), "turned by 270°"),
    "upside down": (lambda image: encoded(image.transpose(Image.Transpose.ROTATE_180), 85), "turned by 180°"),
    "brighter": (lambda image: encoded(brighter(image), 85), ""),
    "tinted": (lambda image: encoded(tinted(image), 85), ""),
    "cropped": (lambda image: encoded(image.crop((3, 2, 125, 124)), 90), ""),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some forty photos of different patients at 128 px."""
    from dermlab.data.synthetic import make_clinic

    dataset = make_clinic(tmp_path_factory.mktemp("duplicates") / "clinic", n=110, size_px=128, seed=11)
    first = dataset.manifest.drop_duplicates("patient_id").index[:45]
    return [dataset.paths[row] for row in first]


def found(paths: list[Path]) -> pd.DataFrame:
    return find_duplicates(read_thumbnails(paths), paths)


def test_photos_of_different_patients_are_different(photos: list[Path]) -> None:
    assert found(photos).empty


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_is_found_and_how_it_was_turned(photos: list[Path], tmp_path: Path, name: str) -> None:
    change, orientation = CHANGES[name]
    copies = []
    for number, path in enumerate(photos[:12]):
        copies.append(tmp_path / f"{number}.png")
        with Image.open(path) as image:
            change(image.convert("RGB")).save(copies[-1])
    pairs = found([*photos, *copies])
    expected = {(number, len(photos) + number) for number in range(12)}
    assert set(zip(pairs["a"], pairs["b"], strict=True)) == expected
    assert pairs["kind"].str.startswith("same photo").all()
    if orientation:
        assert pairs["orientation"].value_counts().idxmax() == orientation


def test_equal_files_and_equal_pixels_are_told_apart(photos: list[Path], tmp_path: Path) -> None:
    equal_file, equal_pixels = tmp_path / "copy.jpg", tmp_path / "copy.bmp"
    equal_file.write_bytes(photos[0].read_bytes())
    with Image.open(photos[1]) as image:
        image.convert("RGB").save(equal_pixels)
    pairs = found([*photos[:3], equal_file, equal_pixels])
    assert pairs[["a", "b", "similarity", "kind"]].to_numpy().tolist() == [
        [0, 3, 1.0, "identical file"],
        [1, 4, 1.0, "identical pixels"],
    ]


def test_several_copies_are_paired_with_the_first_and_counted_as_one_photo(photos: list[Path], tmp_path: Path) -> None:
    copies = [tmp_path / f"{number}.jpg" for number in range(4)]
    for copy in copies:
        copy.write_bytes(photos[0].read_bytes())
    pairs = found([*photos[:2], *copies])
    assert pairs[["a", "b"]].to_numpy().tolist() == [[0, 2], [0, 3], [0, 4], [0, 5]]
    assert len(set(photo_of(6, pairs)[[0, 2, 3, 4, 5]])) == 1
    assert len(set(photo_of(6, pairs))) == 2


def test_in_two_data_sets_copies_within_and_between_are_both_kept(photos: list[Path], tmp_path: Path) -> None:
    copies = [tmp_path / f"{number}.jpg" for number in range(3)]
    for copy in copies:
        copy.write_bytes(photos[0].read_bytes())
    paths = [photos[0], copies[0], copies[1], copies[2]]
    pairs = find_duplicates(read_thumbnails(paths), paths, np.array([0, 0, 1, 1]))
    assert set(zip(pairs["a"], pairs["b"], strict=True)) == {(0, 1), (0, 2), (2, 3)}


def test_blank_photos_are_not_each_others_copies_unless_identical(tmp_path: Path) -> None:
    paths = []
    for number, colour in enumerate([(200, 150, 130), (90, 60, 50), (10, 10, 10)]):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (100, 100), colour).save(paths[-1])
    assert found(paths).empty


def test_the_same_round_field_of_view_makes_no_pair(photos: list[Path], tmp_path: Path) -> None:
    row, column = np.mgrid[:128, :128] - 63.5
    ring = (np.hypot(row, column) < 62)[..., None]
    paths = []
    for number, path in enumerate(photos[:40]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray((np.asarray(Image.open(path).convert("RGB")) * ring).astype(np.uint8)).save(paths[-1])
    assert found(paths).empty
    with Image.open(paths[0]) as image:
        encoded(image.transpose(Image.Transpose.ROTATE_180), 80).save(tmp_path / "copy.png")
    pairs = found([*paths, tmp_path / "copy.png"])
    assert pairs[["a", "b"]].to_numpy().tolist() == [[0, 40]]


def test_unreadable_photos_are_left_out(photos: list[Path], tmp_path: Path) -> None:
    broken = [tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "missing.jpg"]
    for path in broken[:2]:
        path.write_bytes(b"no photo")
    pairs = found([*photos[:2], *broken])
    assert pairs["kind"].tolist() == ["identical file"]  # equal bytes they are, whatever they hold


def test_pad_holds_three_photos_twice_of_which_two_have_two_labels(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "pad-ufes-20" / "metadata.csv")
    table["path"] = [
        shared_data / "pad-ufes-20" / "images" / Path(name).with_suffix(".jpg") for name in table["img_id"]
    ]
    some = table[table["patient_id"].isin(["PAT_56", "PAT_701", "PAT_759", "PAT_120", "PAT_53"])].reset_index(drop=True)
    pairs = found(some["path"].tolist())
    lesions = set(zip(some["lesion_id"][pairs["a"]], some["lesion_id"][pairs["b"]], strict=True))
    assert {(86, 88), (1321, 4056), (1433, 1538)} <= {tuple(sorted(pair)) for pair in lesions}
    labels = [set(some.loc[[a, b], "diagnostic"]) for a, b in pairs[["a", "b"]].to_numpy()]
    assert sum(len(pair) == 2 for pair in labels) == 2


# --- parts ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), turn=st.integers(0, 7))
def test_turning_a_photo_permutes_its_frequencies_and_leaves_the_invariant_alone(seed: int, turn: int) -> None:
    photo = generator(seed, "photo").integers(1, 255, (1, 64, 64)).astype(np.uint8)
    turned = duplicates._turn(photo, duplicates._ORDER[turn])
    first, second = duplicates._spectra(photo), duplicates._spectra(turned)
    np.testing.assert_allclose(duplicates._invariant(first), duplicates._invariant(second), atol=1e-4)
    pairs = np.array([[0, 0]])
    _, _, ways, _ = duplicates._turned_pairs(second, first, pairs, np.full(len(second), duplicates.RADIUS))
    assert turn in ways


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_invariant_never_moves_two_photos_apart(seed: int) -> None:
    spectra = generator(seed, "spectra").standard_normal((2, 8, 8)).astype(np.float32)
    spectra[:, 0, 0] = 0
    one, other = duplicates._invariant(spectra)
    assert np.linalg.norm(one - other) <= np.linalg.norm(spectra[0] - spectra[1]) + 1e-5


def test_the_inverted_file_finds_what_brute_force_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = generator(0, "vectors")
    centres = rng.standard_normal((1500, 63)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    near = centres + 0.02 * rng.standard_normal(centres.shape).astype(np.float32)  # about .16 away
    vectors = np.concatenate([centres, near])

    def pairs() -> set[tuple[int, int]]:
        radius = np.full(len(vectors), duplicates.RADIUS)
        return set(map(tuple, duplicates._close_pairs(vectors, duplicates.nearest_index(vectors), radius).tolist()))

    exact = pairs()
    assert len(exact) == 3000
    monkeypatch.setattr(duplicates, "EXACT_SEARCH_UP_TO", 100)
    assert len(exact - pairs()) <= 3


def test_photo_of_joins_chains() -> None:
    pairs = pd.DataFrame({"a": [0, 1, 4], "b": [1, 2, 5]})
    numbers = photo_of(6, pairs)
    assert len(set(numbers)) == 3
    assert numbers[0] == numbers[2]
    assert numbers[4] == numbers[5]


def test_the_clinic_without_traps_holds_no_photo_of_one_patient_under_another(clinic: Path) -> None:
    dataset = Dataset.open(clinic)
    pairs, groups = found(dataset.paths), dataset.groups()
    assert (groups[pairs["a"]] == groups[pairs["b"]]).all()
