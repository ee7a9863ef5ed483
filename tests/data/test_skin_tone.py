"""The typology angle of the skin around a lesion, from the photo."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

from dermlab.data.dataset import Dataset
from dermlab.data.skin_tone import BANDS, estimate_ita, estimated_bands, ita_bands, skin_tones, typology_angles
from dermlab.data.synthetic.canvas import melanin_of, reflectance

SIZE = 128


def skin(degrees: float) -> np.ndarray:
    """Return a photo (S, S, 3) of bare skin of a typology angle, by the synthetic clinic's model of skin."""
    linear = reflectance(melanin_of(degrees), 0.30)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.full((SIZE, SIZE, 3), np.rint(255 * srgb), np.uint8)


def test_the_angle_is_chardons() -> None:
    # arctan((65 − 50) / 15) is 45°, (50 − 50) / b is 0°; skin darker than L* 50 is below 0°.
    np.testing.assert_allclose(
        typology_angles(np.array([65, 50, 35, 70]), np.array([15, 20, 15, 10])), [45, 0, -45, 63.43495], atol=1e-4
    )


def test_bands_are_del_binos() -> None:
    angles = [60, 55.1, 55, 41.1, 41, 28.1, 28, 10.1, 10, -29.9, -30, -60, np.nan]
    named = (
        ["very light"] * 2 + ["light"] * 2 + ["intermediate"] * 2 + ["tan"] * 2 + ["brown"] * 2 + ["dark"] * 2 + [None]
    )
    assert ita_bands(np.array(angles)).tolist() == named


@pytest.mark.parametrize("degrees", [60.0, 48.0, 35.0, 20.0, -10.0, -40.0])
def test_bare_skin_has_its_angle(degrees: float) -> None:
    found, share = estimate_ita(skin(degrees)[None])
    assert found[0] == pytest.approx(degrees, abs=2.5)  # whole numbers of sRGB are 2° apart where the skin is dark
    assert share[0] > 0.3


@pytest.mark.parametrize("degrees", [48.0, 20.0, -40.0])
def test_lesion_hair_surround_ruler_and_glare_do_not_count(degrees: float) -> None:
    photo = skin(degrees)
    cv2.circle(photo, (64, 64), 36, (70, 40, 30), -1)  # the lesion
    for x in range(4, 124, 14):
        cv2.line(photo, (x, 0), (x + 8, 127), (25, 18, 15), 1)  # hairs
    photo[:14, :60] = (250, 250, 248)  # a ruler
    photo[100:110, 4:20] = 255  # glare
    photo[118:, :] = (40, 70, 160)  # a blue cloth
    corner = np.hypot(*(np.mgrid[:SIZE, :SIZE] - 63.5)) > 82
    photo[corner] = 0  # a dermatoscope's surround
    assert estimate_ita(photo[None])[0][0] == pytest.approx(degrees, abs=4)


def test_a_mask_tells_where_the_lesion_is() -> None:
    photo = skin(45.0)
    photo[:, :110] = (80, 45, 35)  # a lesion that fills the photo, ring and all
    lesion = np.zeros((SIZE, SIZE), bool)
    lesion[:, :110] = True
    assert estimate_ita(photo[None])[0][0] < 20
    assert estimate_ita(photo[None], [lesion])[0][0] == pytest.approx(45, abs=2.5)


def test_what_shows_no_skin_has_no_angle() -> None:
    black, blue = np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE, 3), (40, 70, 160), np.uint8)
    angles, shares = estimate_ita(np.stack([black, blue]))
    assert np.isnan(angles).all()
    assert (shares == 0).all()


def test_the_synthetic_clinics_skin_types_are_told_apart(clinic: Path) -> None:
    dataset = Dataset.open(clinic)
    tones = skin_tones(dataset)
    assert tones["image_id"].tolist() == dataset.image_ids.tolist()
    assert set(tones["ita_band"].dropna()) <= set(BANDS)
    known = tones["ita_degrees"].notna().to_numpy()
    assert known.mean() > 0.95
    skin_type = dataset.manifest["skin_type"].to_numpy(float, na_value=np.nan)
    assert spearmanr(skin_type[known], tones["ita_degrees"][known])[0] < -0.8


def test_only_images_without_a_recorded_skin_type_get_a_band(clinic: Path) -> None:
    dataset = Dataset.open(clinic)
    assert estimated_bands(dataset) is None  # recorded of all
    manifest = dataset.manifest.copy()
    manifest.loc[:9, "skin_type"] = None
    partly = Dataset(dataset.folder, dataset.card, manifest)
    bands = estimated_bands(partly)
    assert bands is not None
    assert (bands["ita_band"][10:] == "skin type recorded").all()
    assert set(bands["ita_band"][:10].dropna()) <= set(BANDS)
