"""Files that are missing, broken, blank, tiny, blurred or tell too much are found and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image, ImageFilter

from dermlab.audit.files import file_findings, read_headers
from dermlab.audit.findings import Finding
from dermlab.audit.thumbnails import read_thumbnails
from dermlab.core.randomness import generator

NO_QUARANTINE = pd.DataFrame({"path": [], "reason": []})


def texture(seed: int, size: int = 256) -> Image.Image:
    """Coarse shapes with fine grain."""
    rng = generator(seed, "texture")
    coarse = Image.fromarray(rng.integers(60, 200, (8, 8, 3)).astype(np.uint8)).resize((size, size))
    return Image.fromarray((np.asarray(coarse) + rng.integers(-20, 20, (size, size, 3))).astype(np.uint8))


def findings_of(paths: list[Path], quarantine: pd.DataFrame = NO_QUARANTINE) -> dict[str, Finding]:
    ids = np.array([path.stem for path in paths])
    found = file_findings("clinic", ids, read_thumbnails(paths), read_headers(paths), quarantine)
    return {finding.code: finding for finding in found}


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"good{i}.png" for i in range(30)]
    for i, path in enumerate(paths):
        texture(i).save(path)
    return paths


def test_good_photos_give_no_finding(good: list[Path]) -> None:
    assert findings_of(good) == {}


def test_broken_and_missing_files_are_counted_by_reason_and_do_not_stop_anything(good: list[Path]) -> None:
    (good[0].parent / "broken.jpg").write_bytes(good[0].read_bytes()[:100])
    found = findings_of([*good, good[0].parent / "broken.jpg"])
    finding = found["unreadable"]
    assert finding.severity == "warning"
    assert finding.evidence["n"] == 1
    assert finding.evidence["examples"][0]["image_id"] == "broken"


def test_a_data_set_of_which_much_is_missing_is_an_error(good: list[Path]) -> None:
    gone = [good[0].parent / f"gone{i}.png" for i in range(5)]
    finding = findings_of([*good, *gone])["unreadable"]
    assert finding.severity == "error"
    assert "5 photos of 35" in finding.message
    assert "waive: [unreadable]" in finding.remedy


def test_what_the_import_set_aside_is_told(good: list[Path]) -> None:
    quarantine = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "reason": ["empty file", "empty file"]})
    finding = findings_of(good, quarantine)["quarantined"]
    assert "2 files aside (2 × empty file)" in finding.message


def test_blank_and_tiny_photos_are_found(good: list[Path]) -> None:
    blank, tiny = good[0].parent / "blank.png", good[0].parent / "tiny.png"
    Image.new("RGB", (200, 200), (200, 160, 140)).save(blank)
    texture(99, 24).save(tiny)
    found = findings_of([*good, blank, tiny])
    assert found["blank-photos"].evidence["examples"][0]["image_id"] == "blank"
    assert found["tiny-photos"].evidence["smallest_px"] == 24
    assert "blurred-photos" not in found  # what is blank or tiny is not judged for blur


def test_blurred_photos_are_found_most_blurred_first(good: list[Path]) -> None:
    paths = list(good)
    for radius in (4, 8):
        paths.append(good[0].parent / f"blurred{radius}.png")
        texture(radius).filter(ImageFilter.GaussianBlur(radius)).save(paths[-1])
    finding = findings_of(paths)["blurred-photos"]
    assert [example["image_id"] for example in finding.evidence["examples"]] == ["blurred8", "blurred4"]


def test_real_photos_are_sharp_and_blurred_ones_are_not(shared_data: Path, tmp_path: Path) -> None:
    originals = sorted((shared_data / "pad-ufes-20" / "images").glob("*.jpg"))[:40]
    assert "blurred-photos" not in findings_of(originals)
    paths = [tmp_path / path.name for path in originals[:10]]
    for original, path in zip(originals, paths, strict=False):
        with Image.open(original) as image:
            image.convert("RGB").filter(ImageFilter.GaussianBlur(0.015 * max(image.size))).save(path, quality=95)
    assert findings_of(paths)["blurred-photos"].evidence["n"] == 10


def test_a_position_in_the_header_is_personal_data(good: list[Path]) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({ExifTags.GPS.GPSLatitude: (48.0, 12.0, 30.0)})
    path = good[0].parent / "located.jpg"
    texture(1).save(path, exif=exif)
    finding = findings_of([*good, path])["personal-data"]
    assert finding.severity == "warning"
    assert finding.evidence["examples"] == [{"image_id": "located", "holds": "GPS position"}]


def test_headers_are_read_without_trusting_them(tmp_path: Path) -> None:
    texture(0, 50).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe1" + b"\x00" * 50)
    headers = read_headers([tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "gone.jpg"])
    assert headers["width_px"].tolist()[0] == 50
    assert headers["format"].tolist() == ["JPEG", "", ""]
    assert headers["bytes"].isna().tolist() == [False, False, True]


def test_a_dicom_header_that_names_a_patient_or_admits_burnt_in_text_is_told(good: list[Path]) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    paths = []
    for name, (patient, burnt) in {"named": ("Rossi^Paolo", "NO"), "burnt": ("", "YES"), "bare": ("", "NO")}.items():
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        dataset.PatientName, dataset.BurnedInAnnotation = patient, burnt
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.Rows = dataset.Columns = 64
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PixelData = np.asarray(texture(5, 64).convert("L")).tobytes()
        paths.append(good[0].parent / f"{name}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    headers = read_headers(paths)
    assert headers["personal"].tolist() == ["patient's name", "DICOM flag of burnt-in text", ""]
    assert headers["width_px"].tolist() == [64.0] * 3
    assert set(headers["format"]) == {"DICOM"}
    finding = findings_of([*good, *paths])["personal-data"]
    assert finding.evidence["kinds"] == {"patient's name": 1, "DICOM flag of burnt-in text": 1}
