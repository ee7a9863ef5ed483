"""Features are the encoder's own outputs, computed once for each photo's content and never stale."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from dermlab.core.device import Runtime
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.records import RecordStore
from dermlab.features import color_histogram, embed, embed_arrays, embed_paths, extract
from dermlab.features.store import feature_key
from dermlab.models import create_encoder, save_encoder, towers

FP32 = Runtime("cpu", "fp32", "a test")
BF16 = Runtime("cpu", "bf16", "a test")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A tiny network with lively statistics, saved as an encoder folder."""
    folder = tmp_path_factory.mktemp("encoder")
    encoder, _ = create_encoder("timm:test_resnet+random", seed=1, size_px=64)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    return save_encoder(encoder, folder)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(7):
        small = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(small).resize((140 + i, 90), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def count_encoded(monkeypatch) -> list[int]:
    """Record how many photos go through the encoder at each call."""
    seen: list[int] = []
    original = extract.encode

    def spy(encoder, pixels, indices, **arguments):
        seen.append(len(indices))
        return original(encoder, pixels, indices, **arguments)

    monkeypatch.setattr(extract, "encode", spy)
    return seen


def test_features_are_what_timm_gives_on_what_timms_transform_gives(encoder_folder, photos):
    plain = timm.create_model(f"local-dir:{encoder_folder}", pretrained=True).eval()
    transform = create_transform(**timm.data.resolve_model_data_config(plain))
    with torch.inference_mode():
        theirs = plain(torch.stack([transform(Image.open(path)) for path in photos])).numpy()
    features = embed_paths(photos, str(encoder_folder), runtime=FP32)
    np.testing.assert_allclose(features.values, theirs, atol=1e-4, rtol=1e-4)
    assert features.valid.all()
    assert features.values.dtype == np.float32
    assert features.encoder["dim"] == theirs.shape[1]


def test_known_photos_are_not_computed_again_and_a_new_one_costs_one(encoder_folder, photos, monkeypatch):
    seen = count_encoded(monkeypatch)
    first = embed_paths(photos[:6], str(encoder_folder), runtime=FP32)
    again = embed_paths(photos, str(encoder_folder), runtime=FP32)
    assert seen == [6, 1]
    assert (first.n_computed, again.n_computed) == (6, 1)
    np.testing.assert_array_equal(again.values[:6], first.values)


def test_where_all_is_known_the_network_is_not_even_built(encoder_folder, photos, monkeypatch):
    embed_paths(photos, str(encoder_folder), runtime=FP32)
    monkeypatch.setattr(towers, "build_timm", lambda *a, **k: pytest.fail("the network was built"))
    found = embed_paths(photos, str(encoder_folder), runtime=FP32)
    assert found.n_computed == 0
    assert 0 < found.seconds < 60


def test_a_copied_photo_costs_nothing(encoder_folder, photos, tmp_path, monkeypatch):
    seen = count_encoded(monkeypatch)
    shutil.copy(photos[0], tmp_path / "copy.png")
    features = embed_paths([*photos, tmp_path / "copy.png"], str(encoder_folder), runtime=FP32)
    assert seen == [7]
    np.testing.assert_array_equal(features.values[0], features.values[7])


def test_whatever_could_change_a_feature_is_in_its_key(encoder_folder, photos):
    encoder, _ = create_encoder(str(encoder_folder))
    identity = encoder.identity.to_dict()
    keys = {
        feature_key(identity, FP32),
        feature_key(identity, BF16),
        feature_key(identity, FP32, pooling="tokens"),
        feature_key(identity | {"fingerprint": "0" * 32}, FP32),
        feature_key(identity | {"preprocess": identity["preprocess"] | {"fit": "squash"}}, FP32),
        feature_key(identity | {"library": "transformers"}, FP32),
    }
    assert len(keys) == 6
    # The name, and where a file lies, are not.
    assert feature_key(identity | {"name": "another"}, FP32) in keys


def test_new_weights_under_the_old_name_give_new_features(encoder_folder, photos, tmp_path):
    folder = shutil.copytree(encoder_folder, tmp_path / "mine")
    before = embed_paths(photos, str(folder), runtime=FP32)
    other, _ = create_encoder("timm:test_resnet+random", seed=2, size_px=64)
    save_encoder(other, folder)
    after = embed_paths(photos, str(folder), runtime=FP32)
    assert after.n_computed == len(photos)
    assert not np.allclose(before.values, after.values)


def test_photos_without_an_image_are_told_and_do_not_stop_the_others(encoder_folder, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    paths = [photos[0], tmp_path / "text.jpg", photos[1], tmp_path / "absent.png"]
    for _ in range(2):  # the second time from the store
        features = embed_paths(paths, str(encoder_folder), runtime=FP32)
        assert features.valid.tolist() == [True, False, True, False]
        assert features.failures.keys() == {1, 3}
        assert all(features.failures.values())
        assert not features.values[[1, 3]].any()


def test_a_damaged_record_is_computed_again(encoder_folder, photos, tmp_path):
    first = embed_paths(photos, str(encoder_folder), runtime=FP32)
    (shard,) = (tmp_path / "cache" / "features").rglob("*.shard")
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    again = embed_paths(photos, str(encoder_folder), runtime=FP32)
    assert again.n_computed == 1
    np.testing.assert_allclose(again.values, first.values, atol=1e-5)


def test_an_interrupted_run_keeps_what_it_computed(encoder_folder, photos, monkeypatch):
    original = extract._forward

    def stops(*arguments):
        for place, vectors in enumerate(original(*arguments)):
            if place == 2:
                raise KeyboardInterrupt
            yield vectors

    monkeypatch.setattr(extract, "_forward", stops)
    with pytest.raises(KeyboardInterrupt):
        embed_paths(photos, str(encoder_folder), runtime=FP32, batch_size=2)
    monkeypatch.setattr(extract, "_forward", original)
    assert embed_paths(photos, str(encoder_folder), runtime=FP32).n_computed == 3


def test_bf16_features_agree_with_fp32(encoder_folder, photos):
    exact = embed_paths(photos, str(encoder_folder), runtime=FP32).values
    half = embed_paths(photos, str(encoder_folder), runtime=BF16).values
    cosine = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert not np.array_equal(exact, half)
    assert cosine.min() > 0.999


def test_a_rerun_is_bit_equal(encoder_folder, photos, monkeypatch, tmp_path):
    first = embed_paths(photos, str(encoder_folder), runtime=FP32)
    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "another"))
    np.testing.assert_array_equal(embed_paths(photos, str(encoder_folder), runtime=FP32).values, first.values)


def test_arrays_in_memory_get_the_features_of_the_same_files(encoder_folder, photos):
    arrays = [np.asarray(Image.open(path)) for path in photos]
    features = embed_arrays(arrays, str(encoder_folder), runtime=FP32, batch_size=3)
    np.testing.assert_allclose(
        features, embed_paths(photos, str(encoder_folder), runtime=FP32, batch_size=3).values, atol=1e-6
    )
    assert embed_arrays([], str(encoder_folder)).shape == (0, features.shape[1])


def test_another_size_and_fit_are_other_features(encoder_folder, photos):
    own = embed_paths(photos, str(encoder_folder), runtime=FP32)
    other = embed_paths(photos, str(encoder_folder), runtime=FP32, size_px=96, fit="squash")
    assert other.encoder["preprocess"]["size_px"] == 96
    assert other.encoder["preprocess"]["fit"] == "squash"
    assert not np.allclose(own.values, other.values)


def test_values_that_are_not_finite_are_an_error_and_not_kept(photos, tmp_path):
    encoder, _ = create_encoder("timm:test_resnet+random", size_px=64)
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    folder = save_encoder(encoder, tmp_path / "broken")
    with pytest.raises(DermlabError, match="not finite"):
        embed_paths(photos, str(folder), runtime=FP32)
    for store in (tmp_path / "cache" / "features").iterdir():
        assert len(RecordStore(store)) == 0


def test_a_batch_size_of_nothing_is_refused(photos):
    with pytest.raises(InputError, match="batch_size"):
        embed_paths(photos, "histogram", batch_size=0)


def test_a_data_set_is_embedded_in_the_order_of_its_manifest(clinic):
    from dermlab.data.dataset import Dataset

    dataset = Dataset.open(clinic)
    features = embed(dataset, "histogram")
    some = [3, 0, 17]
    expected = color_histogram(np.stack([_squashed(dataset.paths[i]) for i in some]))
    np.testing.assert_array_equal(features.values[some], expected)
    assert len(features.values) == len(dataset)


def _squashed(path):
    return np.asarray(Image.open(path).convert("RGB").resize((128, 128), Image.Resampling.NEAREST))


def test_the_histogram_counts_as_numpy_does():
    image = np.random.default_rng(0).integers(0, 256, (2, 31, 17, 3), dtype=np.uint8)
    expected = [
        np.concatenate([np.histogram(one[..., c], bins=16, range=(0, 256))[0] for c in range(3)]) / (31 * 17)
        for one in image
    ]
    np.testing.assert_allclose(color_histogram(image), np.array(expected, np.float32), rtol=1e-6)


def test_whoever_takes_the_vectors_is_left_with_gradients(tmp_path: Path) -> None:
    from dermlab.data.pixel_cache import open_pixels
    from dermlab.features.extract import encode

    path = tmp_path / "photo.png"
    Image.fromarray(np.full((40, 40, 3), 120, np.uint8)).save(path)
    encoder, preprocess = create_encoder("timm:test_resnet+random")
    pixels = open_pixels([path], preprocess.recipe())
    for _ in encode(encoder, pixels, np.array([0]), runtime=Runtime("cpu", "bf16", "a test")):
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")
