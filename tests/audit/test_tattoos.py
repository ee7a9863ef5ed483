"""Tattoos: drawn as ink under the skin, found by an encoder that sees them, and not claimed by one that does not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermlab.audit.tattoos import LISTED, Tattoos, find_tattoos, tattoo_findings
from dermlab.core.randomness import generator
from dermlab.data.synthetic.tattoos import INKS, KINDS, draw_tattoo

N, SIDE_PX = 96, 96
TATTOOED = 5


def skin(seed: int) -> np.ndarray:
    """Skin with a brown lesion and grain."""
    rng = generator(seed, "skin")
    photo = np.full((SIDE_PX, SIDE_PX, 3), (205, 160, 135), dtype=np.float32) * float(rng.uniform(0.8, 1.1))
    cv2.circle(photo, rng.integers(30, 66, 2).tolist(), int(rng.integers(6, 20)), (110, 70, 50), -1)
    return np.clip(photo + rng.normal(0, 4, photo.shape), 0, 255).astype(np.uint8)


def sees_ink(photos: Iterable[np.ndarray], encoder: str, **_: object) -> np.ndarray:
    """Stand in for an encoder: how much red lacks where it lacks most, and how bright the photo is."""
    rows = []
    for photo in photos:
        ratio = np.log1p(photo[..., 2].astype(np.float32)) - np.log1p(photo[..., 0].astype(np.float32))
        ratio -= np.median(ratio)
        rows.append([np.quantile(ratio, 0.99), photo.mean() / 255])
    return np.array(rows, dtype=np.float32)


def sees_nothing(photos: Iterable[np.ndarray], encoder: str, **_: object) -> np.ndarray:
    photos = list(photos)
    return generator(len(photos), "noise").standard_normal((len(photos), 5)).astype(np.float32)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("skin")
    files = []
    for number in range(N):
        photo = skin(number)
        if number == TATTOOED:
            photo = draw_tattoo(photo, generator(number, "ink"), kind="filled", ink="blue-black", share=0.6)[0]
        files.append(folder / f"{number}.png")
        cv2.imwrite(str(files[-1]), photo[..., ::-1])
    return files


def found_by(see, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> Tattoos:
    monkeypatch.setattr("dermlab.features.extract.embed_arrays", see)
    photos = [cv2.imread(str(path))[..., ::-1] for path in paths]
    features, groups = see(photos, "toy"), np.array([f"P{number // 2}" for number in range(len(paths))])
    found = find_tattoos(features, np.ones(len(paths), bool), groups, paths, "toy", sample=64)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ink", list(INKS))
def test_ink_takes_light_away_and_leaves_the_rest_alone(kind: str, ink: str) -> None:
    photo = skin(0)
    kept = photo.copy()
    drawn, density = draw_tattoo(photo, generator(1, kind), kind=kind, ink=ink, share=0.5)
    np.testing.assert_array_equal(photo, kept)
    assert (drawn <= photo).all()
    np.testing.assert_array_equal(drawn[density == 0], photo[density == 0])
    assert 0.005 < (density > 0.3).mean() < 0.25
    deep = density > 0.5
    expected = photo[deep] * (1 - density[deep][:, None] * (1 - np.array(INKS[ink])))
    np.testing.assert_allclose(drawn[deep], expected, atol=0.51)


def test_an_encoder_that_sees_ink_lists_the_tattooed(paths, monkeypatch) -> None:
    found = found_by(sees_ink, paths, monkeypatch)
    assert found.score[TATTOOED] > 0
    (finding,) = tattoo_findings("clinic", np.arange(N).astype(str), found, "toy")
    assert (finding.code, finding.severity) == ("tattoos", "info")
    assert finding.table is not None
    assert str(TATTOOED) in set(finding.table["image_id"])
    assert len(finding.table) <= LISTED * N + len(KINDS)
    drawn = finding.evidence["drawn"]
    assert drawn["low"] < drawn["n_found"] / drawn["n"] < drawn["high"]
    assert f"{drawn['n_found']} of {drawn['n']} tattoos drawn" in finding.message


def test_an_encoder_that_sees_none_says_so_and_lists_nothing(paths, monkeypatch) -> None:
    found = found_by(sees_nothing, paths, monkeypatch)
    (finding,) = tattoo_findings("clinic", np.arange(N).astype(str), found, "toy")
    assert finding.severity == "info"
    assert finding.table is None
    assert "cannot be told" in finding.message


def test_each_drawn_tattoo_is_judged_by_a_head_that_saw_neither_kind_nor_patient(paths, monkeypatch) -> None:
    from dermlab.adapt.linear import LinearHead

    taught = []
    fit = LinearHead.fit

    def spy(self, X, y, groups=None):
        taught.append(set(groups))
        return fit(self, X, y, groups=groups)

    monkeypatch.setattr(LinearHead, "fit", spy)
    found = found_by(sees_ink, paths, monkeypatch)
    assert len(taught) == len(KINDS)
    assert np.isfinite(found.drawn).all()
    assert np.isfinite(found.score).all()
    everyone = set().union(*taught)
    left_out = [everyone - groups for groups in taught]
    assert all(left_out)
    assert sum(map(len, left_out)) == len(everyone)


def test_too_few_photos_are_not_judged(paths) -> None:
    few = paths[:20]
    assert find_tattoos(np.zeros((20, 3)), np.ones(20, bool), np.arange(20), few, "toy") is None
    assert tattoo_findings("clinic", np.arange(20).astype(str), None, "toy") == []
