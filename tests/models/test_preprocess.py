"""The encoder's preprocessing through our pixel cache is its publisher's own transform."""

import math

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from timm.data import create_transform

from dermlab.core.errors import InputError
from dermlab.data.loader import Normalise
from dermlab.data.pixel_cache import resize
from dermlab.models.preprocess import Preprocess, crop_fraction, from_timm, from_torchvision, from_transformers

SIZES = [(301, 200), (120, 333), (97, 97), (640, 481)]


def photo(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * height)
    small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def prepared(preprocess: Preprocess, image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(resize(image, preprocess.recipe()).copy())[None]
    return Normalise(preprocess.mean, preprocess.std)(pixels)[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["resnet18", "vit_base_patch16_clip_224.openai", "tf_efficientnet_lite0"])
def test_timm_models_see_what_timms_transform_gives(name, size):
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    image = photo(*size)
    theirs = create_transform(**config)(image)
    torch.testing.assert_close(prepared(from_timm(config), image), theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_timms_squash_is_ours(size):
    config = {"input_size": (3, 96, 96), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}
    config |= {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    image = photo(*size)
    torch.testing.assert_close(prepared(from_timm(config), image), create_transform(**config)(image), atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weights", ["ResNet50_Weights.IMAGENET1K_V2", "ResNet18_Weights.IMAGENET1K_V1"])
def test_torchvision_models_see_what_torchvisions_transform_gives(weights, size):
    transform = torchvision.models.get_weight(weights).transforms()
    image = photo(*size)
    torch.testing.assert_close(prepared(from_torchvision(transform), image), transform(image), atol=2e-6, rtol=0)


PROCESSORS = {
    "CLIP": {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
    "Siglip": {"size": {"height": 64, "width": 64}},
    "Bit": {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 64}, "resample": 3},  # DINOv2's
    "ViT": {"size": {"height": 64, "width": 64}},
    "ConvNext": {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", PROCESSORS)
def test_transformers_models_see_what_their_processor_gives(kind, size):
    # Transformers 5 has each processor twice; the one on Pillow is the one that the models were published with.
    on_pillow = getattr(transformers, f"{kind}ImageProcessorPil", None) or getattr(
        transformers, f"{kind}ImageProcessor"
    )
    theirs = on_pillow(**PROCESSORS[kind])(photo(*size), return_tensors="pt")["pixel_values"][0]
    preprocess = from_transformers(getattr(transformers, f"{kind}ImageProcessor")(**PROCESSORS[kind]))
    ours = prepared(preprocess, photo(*size))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1.01 / 255 / min(preprocess.std)
    assert (ours - theirs).abs().mean() <= 0.01 / 255


def test_a_resize_that_is_no_neat_fraction_is_still_exact():
    for size_px in (224, 384, 448):
        for resize_px in range(size_px, 2 * size_px):
            assert math.floor(size_px / crop_fraction(size_px, resize_px)) == resize_px


def test_it_survives_a_round_trip_through_json():
    preprocess = Preprocess(224, fit="squash", interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.3))
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess


def test_another_fit_keeps_the_whole_photo():
    changed = Preprocess(224, crop_fraction=0.875).changed(size_px=96, fit="squash")
    assert (changed.size_px, changed.fit, changed.crop_fraction) == (96, "squash", 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Preprocess(224, fit="stretch"),
        lambda: Preprocess(0),
        lambda: Preprocess(224, crop_fraction=1.5),
        lambda: Preprocess.from_dict({"size_px": 224}),
        lambda: from_timm({"input_size": (1, 224, 224), "mean": (0.5,), "std": (0.5,)}),
        lambda: from_transformers(transformers.CLIPImageProcessor(do_resize=False)),
    ],
)
def test_what_cannot_be_followed_is_refused(make):
    with pytest.raises(InputError):
        make()
