"""Import into a data set folder: self-contained, free of metadata, hostile files set aside, resumable."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image

from dermlab.core.config import read_yaml, write_yaml
from dermlab.core.errors import DermlabError, InputError
from dermlab.data import ingest
from dermlab.data.dataset import Dataset
from dermlab.data.decode import DecodeError, decode_file
from dermlab.data.ingest import file_stems, import_source
from dermlab.data.sources import read_source


def photo(path: Path, seed: int = 0, size=(20, 12), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(size)
    image.save(path, **options)
    return path


def gps() -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    tags[ExifTags.Base.Artist] = "Erika Mustermann"
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 12.0, 30.0)
    return tags


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes, every format that is copied and some that are converted."""
    root = tmp_path / "photos"
    photo(root / "mel" / "a.jpg", 0, exif=gps())
    photo(root / "mel" / "b.png", 1)
    photo(root / "nv" / "c.webp", 2, lossless=True)
    photo(root / "nv" / "d.bmp", 3)
    photo(root / "nv" / "e.tif", 4)
    return root


def bring(photos: Path, out: Path, **options) -> ingest.ImportReport:
    return import_source(read_source("folder", photos), out, **options)


def test_the_folder_is_self_contained_and_pixels_are_the_same(photos, tmp_path):
    report = bring(photos, tmp_path / "set")
    expected = {path.stem: decode_file(path) for path in photos.rglob("*.*")}
    for path in photos.rglob("*.*"):
        path.unlink()
    dataset = Dataset.open(tmp_path / "set")
    assert [path.name for path in dataset.paths] == ["a.jpg", "b.png", "c.webp", "d.bmp", "e.png"]
    assert len(report.dataset) == report.n_new == 5
    for name, path in zip(dataset.image_ids, dataset.paths, strict=True):
        np.testing.assert_array_equal(decode_file(path), expected[name])
    assert dataset.labels().tolist() == ["mel", "mel", "nv", "nv", "nv"]
    assert dataset.quarantine.empty
    everything = b"".join(path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in everything  # nobody needs to know where they were


def test_gps_is_gone_and_orientation_stays(photos, tmp_path):
    copy = bring(photos, tmp_path / "set").dataset.paths[0]
    assert b"Erika" in (photos / "mel" / "a.jpg").read_bytes()
    assert b"Erika" not in copy.read_bytes()
    with Image.open(copy) as image:
        assert dict(image.getexif()) == {ExifTags.Base.Orientation: 6}
        assert image.size == (20, 12)
    assert decode_file(copy).shape == (20, 12, 3)


def test_hard_links_spare_the_disk_and_keep_metadata(photos, tmp_path):
    dataset = bring(photos, tmp_path / "set", images="hardlink").dataset
    assert os.path.samefile(dataset.paths[0], photos / "mel" / "a.jpg")
    assert b"Erika" in dataset.paths[0].read_bytes()
    assert dataset.paths[4].name == "e.png"  # a TIFF is converted all the same


def bomb() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_hostile_files_are_set_aside_with_a_reason_and_stop_nothing(photos, tmp_path):
    good = (photos / "mel" / "a.jpg").read_bytes()
    (photos / "nv" / "empty.jpg").write_bytes(b"")
    (photos / "nv" / "cut.jpg").write_bytes(good[: len(good) // 2])
    (photos / "nv" / "page.jpg").write_bytes(b"<!DOCTYPE html><html>404</html>")
    (photos / "nv" / "bomb.png").write_bytes(bomb())
    (photos / "nv" / "renamed.png").write_bytes(good)  # harmless: taken, under its true extension
    (photos / "nv" / "broken.jpg").symlink_to(photos / "nv" / "nothing.jpg")
    secret = photo(tmp_path / "secret.jpg")
    (photos / "nv" / "way out.jpg").symlink_to(secret)
    (photos / "linked").symlink_to(tmp_path)
    os.mkfifo(photos / "nv" / "pipe.jpg")
    report = bring(photos, tmp_path / "set")
    dataset = Dataset.open(tmp_path / "set")
    assert sorted(dataset.image_ids) == ["a", "b", "c", "d", "e", "renamed"]
    reasons = dict(zip(dataset.quarantine["path"], dataset.quarantine["reason"], strict=True))
    assert set(reasons) == {
        *(
            f"nv/{name}"
            for name in ("empty.jpg", "cut.jpg", "page.jpg", "bomb.png", "broken.jpg", "way out.jpg", "pipe.jpg")
        ),
        "linked",
    }
    assert reasons["nv/empty.jpg"] == "empty file"
    assert "leaves the folder" in reasons["nv/way out.jpg"]
    assert "web page" in reasons["nv/page.jpg"]
    assert "more than" in reasons["nv/bomb.png"]
    assert sum(report.reasons.values()) == 8
    assert dataset.paths[list(dataset.image_ids).index("renamed")].suffix == ".jpg"
    assert not any("secret" in path.name for path in (tmp_path / "set").rglob("*"))


def test_thousands_of_bad_files_do_not_stop_the_good_one(tmp_path):
    root = tmp_path / "photos"
    photo(root / "a" / "good.png")
    for k in range(2000):
        (root / "a" / f"bad{k}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([k % 256]) * 20)
    report = bring(root, tmp_path / "set")
    assert len(report.dataset) == 1
    assert len(report.dataset.quarantine) == 2000
    assert sum(report.reasons.values()) == 2000


def test_nothing_usable_is_one_line(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    (root / "a.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match=r"none of 1 images is usable, the first: a\.jpg: not an image"):
        bring(root, tmp_path / "set")


# --- going on, coming back ---


def test_an_interrupted_import_goes_on_where_it_was(photos, tmp_path, monkeypatch):
    whole = bring(photos, tmp_path / "whole").dataset
    taken = []

    def stop_after_three(job, out, link, take=ingest._take):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(job.stem)
        return take(job, out, link)

    monkeypatch.setattr(ingest, "_take", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        bring(photos, tmp_path / "set", threads=1)
    assert not (tmp_path / "set" / "manifest.parquet").exists()
    monkeypatch.undo()
    report = bring(photos, tmp_path / "set")
    assert report.n_new == 2
    assert report.dataset.fingerprint == whole.fingerprint
    assert [path.read_bytes() for path in report.dataset.paths] == [path.read_bytes() for path in whole.paths]
    assert not list((tmp_path / "set").rglob("*.part"))


def test_a_kill_in_the_middle_of_a_line_or_of_a_copy_is_mended(photos, tmp_path):
    first = bring(photos, tmp_path / "set").dataset
    journal = tmp_path / "set" / ingest.JOURNAL
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:17])
    first.paths[0].write_bytes(first.paths[0].read_bytes()[:50])  # half a copy: not the size the journal knows
    (tmp_path / "set" / "images" / ".b.part").write_bytes(b"half")
    report = bring(photos, tmp_path / "set")
    assert report.n_new == 2
    np.testing.assert_array_equal(decode_file(report.dataset.paths[0]), decode_file(photos / "mel" / "a.jpg"))
    assert not list((tmp_path / "set").rglob("*.part"))


def test_a_repeated_import_takes_new_photos_changes_and_withdrawals(photos, tmp_path, capsys):
    dataset = bring(photos, tmp_path / "set").dataset
    dataset.write_split("main", pd.DataFrame({"image_id": dataset.image_ids, "split": "train"}))
    assert bring(photos, tmp_path / "set").n_new == 0
    photo(photos / "nv" / "f.png", 7)
    photo(photos / "mel" / "b.png", 8, size=(30, 30))
    (photos / "nv" / "d.bmp").unlink()
    capsys.readouterr()
    report = bring(photos, tmp_path / "set")
    assert report.n_new == 2
    assert list(report.dataset.image_ids) == ["a", "b", "c", "e", "f"]
    assert decode_file(report.dataset.paths[1]).shape == (30, 30, 3)
    assert sorted(path.name for path in (tmp_path / "set" / "images").iterdir()) == sorted(
        p.name for p in report.dataset.paths
    )
    assert "splits/main.parquet" in capsys.readouterr().err


def test_a_reason_that_may_pass_is_tried_again(photos, tmp_path, monkeypatch):
    real = ingest.read_file

    def forgetful(path):
        if str(path).endswith("a.jpg"):
            raise ingest.DecodeError("cannot be read (Permission denied)", lasting=False)
        return real(path)

    monkeypatch.setattr(ingest, "read_file", forgetful)
    assert len(bring(photos, tmp_path / "set").dataset) == 4
    monkeypatch.undo()
    report = bring(photos, tmp_path / "set")
    assert (report.n_new, len(report.dataset)) == (1, 5)


# --- what is not spoiled ---


def test_a_folder_with_other_things_is_refused(photos, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="mine: holds other files; choose a new folder for --out"):
        bring(photos, out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="is a file"):
        bring(photos, file)


def test_another_data_set_is_not_overwritten(photos, tmp_path):
    bring(photos, tmp_path / "set")
    other = tmp_path / "others"
    photo(other / "x" / "a.png")
    with pytest.raises(InputError, match="holds an import with name 'photos', this one has 'others'"):
        bring(other, tmp_path / "set")
    with pytest.raises(InputError, match="with images 'copy', this one has 'hardlink'"):
        bring(photos, tmp_path / "set", images="hardlink")
    (tmp_path / "set" / ingest.JOURNAL).unlink()
    with pytest.raises(InputError, match="holds a data set that no import made"):
        bring(photos, tmp_path / "set")


def test_a_data_set_folder_inside_the_photos_is_not_imported_again(photos):
    first = bring(photos, photos / "set").dataset
    again = bring(photos, photos / "set")
    assert again.n_new == 0
    assert again.dataset.fingerprint == first.fingerprint


def test_a_full_disk_is_one_line(photos, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        DermlabError, match=r"cannot be written \(No space left on device\); anything finished before is kept"
    ):
        bring(photos, tmp_path / "set")


# --- names, masks, arrays ---


def test_file_names_are_safe_and_unique_in_any_case():
    ids = ["a/b", "../../etc/passwd", "A", "a", "ä ö", "", "x" * 300, "a b", "a_b", "-rf", ".hidden"]
    stems = file_stems(ids)
    assert len({stem.casefold() for stem in stems}) == len(ids)
    for stem in stems:
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}", stem)
    assert file_stems(reversed(ids)) == stems[::-1]


def test_ids_that_differ_only_in_signs_keep_their_own_image(tmp_path):
    root = tmp_path / "photos"
    for k, name in enumerate(["x y", "x_y", "X_Y", "x+y"]):
        photo(root / str(k) / f"{name}.png", k)
    dataset = bring(root, tmp_path / "set").dataset
    assert len(set(dataset.paths)) == 4
    for name, path in zip(dataset.image_ids, dataset.paths, strict=True):
        np.testing.assert_array_equal(decode_file(path), decode_file(next(root.rglob(f"{name}.png"))))


def test_masks_come_along_without_losing_their_values(tmp_path):
    root = tmp_path / "photos"
    photo(root / "a.jpg")
    photo(root / "b.jpg", 1)
    mask = Image.fromarray(np.arange(240, dtype=np.uint8).reshape(12, 20) % 3)
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    (root / "masks").mkdir()
    mask.save(root / "masks" / "a_mask.png")
    mask.save(root / "masks" / "b_mask.tif")
    (root / "t.csv").write_text("file,dx,mask\na.jpg,x,a_mask.png\nb.jpg,y,b_mask.tif\n")
    report = import_source(read_source("csv", root), tmp_path / "set")
    frame = report.dataset.manifest
    assert frame["mask_path"][0] == "masks/a.png"
    with Image.open(tmp_path / "set" / "masks" / "a.png") as copy:
        np.testing.assert_array_equal(np.asarray(copy), np.asarray(mask))
    assert pd.isna(frame["mask_path"][1])
    assert "mask: a mask in TIFF" in report.dataset.quarantine["reason"][0]


def test_arrays_become_png_pixel_for_pixel_and_resume(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "set.npz", images=images, labels=np.arange(30) % 3)
    monkeypatch.setattr("dermlab.data.sources.npz.BLOCK_BYTES", 7 * 8 * 8 * 3)
    report = import_source(read_source("npz", tmp_path / "set.npz"), tmp_path / "out")
    for path, image in zip(report.dataset.paths, images, strict=True):
        with Image.open(path) as copy:
            np.testing.assert_array_equal(np.asarray(copy), image)
    for name in ("image_000003.png", "image_000029.png"):
        (tmp_path / "out" / "images" / name).unlink()
    again = import_source(read_source("npz", tmp_path / "set.npz"), tmp_path / "out")
    assert again.n_new == 2
    assert again.dataset.fingerprint == report.dataset.fingerprint


def test_the_journal_tells_nothing_about_the_source(photos, tmp_path):
    bring(photos, tmp_path / "set")
    lines = [json.loads(line) for line in (tmp_path / "set" / ingest.JOURNAL).read_text().splitlines()]
    assert set(lines[0]) == {"name", "images"}
    assert all(set(line) == {"key", "file", "size"} for line in lines[1:])


def test_a_jpeg_of_odd_structure_is_written_anew(photos, tmp_path):
    data = (photos / "mel" / "a.jpg").read_bytes()
    # Bytes between two segments: decoders skip them, a careful copy cannot say what they are.
    end = 4 + struct.unpack(">H", data[4:6])[0]
    odd = data[:end] + b"Erika Mustermann" + data[end:]
    Image.open(io.BytesIO(odd)).load()
    (photos / "mel" / "a.jpg").write_bytes(odd)
    dataset = bring(photos, tmp_path / "set").dataset
    assert dataset.paths[0].suffix == ".png"
    np.testing.assert_array_equal(decode_file(dataset.paths[0]), decode_file(photos / "mel" / "a.jpg"))
    assert b"Erika" not in dataset.paths[0].read_bytes()


@pytest.mark.parametrize("filled", [False, True], ids=["cut", "filled up with zeros"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {}),
        ("a.jpg", {"progressive": True}),
        ("a.jpg", {"exif": gps()}),
        ("a.jpg", {"restart_marker_rows": 1}),
        ("a.png", {}),
        ("a.webp", {}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_a_truncated_photo_is_set_aside_wherever_it_ends(name, options, filled, tmp_path):
    root = tmp_path / "photos"
    photo(root / "whole.png")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    noise.save(tmp_path / name, **options)
    whole = (tmp_path / name).read_bytes()
    assert ingest._clean(whole, is_mask=False)[2]
    for percent in (10, 33, 66, 90, 99):
        cut = len(whole) * percent // 100
        content = whole[:cut] + bytes(len(whole) - cut if filled else 0)
        (root / f"{percent}{name[1:]}").write_bytes(content)
    dataset = bring(root, tmp_path / "set").dataset
    assert dataset.image_ids.tolist() == ["whole"]
    assert len(dataset.quarantine) == 5
    assert dataset.quarantine["reason"].str.match("truncated|damaged").all()


@pytest.mark.parametrize("filled", [False, True])
def test_a_jpeg_that_only_lacks_its_end_is_truncated(filled, tmp_path):
    whole = photo(tmp_path / "a.jpg", size=(128, 96)).read_bytes()
    with pytest.raises(DecodeError, match="truncated"):
        ingest._clean(whole[:-2] + bytes(2 if filled else 0), is_mask=False)


def test_what_follows_the_end_of_a_photo_stays_behind(tmp_path):
    whole = photo(tmp_path / "a.jpg").read_bytes()
    assert (
        ingest._clean(whole + b"Erika \xff\xd8\xff\xda" * 9, is_mask=False)[0] == ingest._clean(whole, is_mask=False)[0]
    )


def table_of(root: Path, text: str) -> Path:
    (root / "table.csv").write_text(text)
    return root / "table.csv"


def test_what_a_person_wrote_into_the_card_outlives_the_next_import(photos, tmp_path):
    rows = [
        f"{name},{label},{age},{cut}"
        for name, label, age, cut in [
            ("a.jpg", "mel", 40, "yes"),
            ("b.png", "mel", 50, "yes"),
            ("c.webp", "nv", 30, "no"),
            ("d.bmp", "nv", 20, "no"),
        ]
    ]
    table = table_of(photos, "file,dx,age,cut\n" + "\n".join(rows))
    out = tmp_path / "set"
    import_source(read_source("csv", table), out)
    card = read_yaml(out / "card.yaml")
    card["licence"] = "CC-BY-4.0"
    card["label_proxies"] = ["cut"]
    card["targets"][0]["hierarchy"] = {"malignant": ["mel"], "benign": ["nv"]}
    card["metadata"] = [entry | ({"unit": "years"} if entry["column"] == "age" else {}) for entry in card["metadata"]]
    (out / "card.yaml").write_text(write_yaml(card))
    rows = [row + ",left" if k % 2 else row + ",right" for k, row in enumerate(rows)]
    photo(photos / "bcc" / "f.png", 9)
    table_of(photos, "file,dx,age,cut,side\n" + "\n".join([*rows, "f.png,bcc,60,yes,left"]))
    for _ in range(2):
        report = import_source(read_source("csv", table), out)
        card = Dataset.open(out).card
        assert (card.licence, card.label_proxies) == ("CC-BY-4.0", ("cut",))
        assert card.target().hierarchy == {"malignant": ("mel",), "benign": ("nv",)}
        assert set(card.target().classes) == {"mel", "nv", "bcc"}
        assert {entry.column: entry.unit for entry in card.metadata} == {"age": "years", "cut": None, "side": None}
        assert all(name in report.notes[-1] for name in ("licence", "label_proxies", "hierarchy", "unit"))
    source = read_source("csv", table)
    source = dataclasses.replace(source, card=source.card.model_copy(update={"licence": "CC0-1.0"}))
    assert import_source(source, out, said=["licence"]).dataset.card.licence == "CC0-1.0"


def test_a_card_that_nobody_touched_follows_the_import(photos, tmp_path):
    bring(photos, tmp_path / "set")
    photo(photos / "bcc" / "f.png", 7)
    report = bring(photos, tmp_path / "set")
    assert report.dataset.card.target().classes == ("bcc", "mel", "nv")
    assert not any("kept" in note for note in report.notes)


def test_a_card_that_cannot_be_read_stops_before_it_is_lost(photos, tmp_path):
    bring(photos, tmp_path / "set")
    (tmp_path / "set" / "card.yaml").write_text("name: [")
    with pytest.raises(InputError, match=r"card\.yaml"):
        bring(photos, tmp_path / "set")
    assert (tmp_path / "set" / "card.yaml").read_text() == "name: ["
