"""Each published model through the factory: its own names of tensors, its own pooling, its own preprocessing."""

import argparse
import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from dermlab.cli import main
from dermlab.core.errors import InputError, MissingWeightsError
from dermlab.data.loader import Normalise
from dermlab.data.pixel_cache import resize
from dermlab.models import converters, create_encoder, published, save_encoder, towers
from dermlab.models.names import ALIASES
from dermlab.models.preprocess import Preprocess, from_open_clip
from dermlab.models.remote import png
from dermlab.models.two_tower import class_probabilities, open_two_tower

# The suite hides DERMLAB_WEIGHTS from every test; whoever has the real tower names its folder here.
REAL_CLIP = Path(os.environ.get("DERMLAB_REAL_WEIGHTS", "")) / "clip_vit_b16_image.safetensors"
SIZES = [(301, 200), (120, 333), (97, 97)]
DIM, HEADS = 24, 3
TINY = {"embed_dim": DIM, "depth": 2, "num_heads": HEADS, "img_size": 32, "patch_size": 8}
VISION = {"hidden_size": DIM, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": HEADS}
VISION |= {"image_size": 32, "patch_size": 8}


@pytest.fixture(autouse=True)
def weights_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DERMLAB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "weights").mkdir()
    with torch.no_grad():
        yield tmp_path / "weights"


def images(size: int = 32, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def lively(network: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Draw every parameter, so that none is at the value that it has untouched."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.eval()


def photo(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * height)
    small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def prepared(preprocess, image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(resize(image, preprocess.recipe()).copy())[None]
    return Normalise(preprocess.mean, preprocess.std)(pixels)[0]


def within_a_grey_level(ours: torch.Tensor, theirs: torch.Tensor, std: tuple[float, ...]) -> None:
    difference = (ours - theirs).abs() * torch.tensor(std)[:, None, None]
    assert difference.max() <= 1.01 / 255


# ---------------------------------------------------------------- PanDerm and CAE


def cae(q_bias: bool = True) -> dict[str, torch.Tensor]:
    """A CAE encoder's tensors, tiny, under the names of its repository."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    state = {"cls_token": draw(1, 1, DIM), "pos_embed": draw(1, 17, DIM)}
    state |= {"patch_embed.proj.weight": draw(DIM, 3, 8, 8), "patch_embed.proj.bias": draw(DIM)}
    for i in range(2):
        block = f"blocks.{i}"
        for norm in ("norm1", "norm2"):
            state |= {f"{block}.{norm}.weight": draw(DIM), f"{block}.{norm}.bias": draw(DIM)}
        state |= {f"{block}.attn.qkv.weight": draw(3 * DIM, DIM)}
        state |= {f"{block}.attn.q_bias": draw(DIM), f"{block}.attn.v_bias": draw(DIM)}
        state |= {f"{block}.attn.proj.weight": draw(DIM, DIM), f"{block}.attn.proj.bias": draw(DIM)}
        state |= {f"{block}.mlp.fc1.weight": draw(4 * DIM, DIM), f"{block}.mlp.fc1.bias": draw(4 * DIM)}
        state |= {f"{block}.mlp.fc2.weight": draw(DIM, 4 * DIM), f"{block}.mlp.fc2.bias": draw(DIM)}
        state |= {f"{block}.gamma_1": draw(DIM), f"{block}.gamma_2": draw(DIM)}
    return state | {"norm.weight": draw(DIM), "norm.bias": draw(DIM)}


def beit(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """timm's BEiT, which has CAE's attention (biases of queries and values only) and its layer scale: the oracle."""
    twin = timm.create_model(
        "beit_base_patch16_224",
        **TINY,
        use_rel_pos_bias=False,
        use_abs_pos_emb=True,
        init_values=0.1,
        global_pool="token",
        num_classes=0,
    )
    report = twin.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert all("k_bias" in key or "relative_position" in key for key in report.missing_keys)
    return twin.eval()


@pytest.fixture
def tiny_panderm(monkeypatch):
    for name in ("panderm_base", "panderm_large", "dermlip_panderm_tower"):
        spec = published.PUBLISHED[name]
        monkeypatch.setitem(published.PUBLISHED, name, replace(spec, arguments=dict(spec.arguments) | TINY))


@pytest.mark.parametrize("packed", ["bare", "pretraining", "module"])
def test_panderm_is_its_own_network_whatever_its_checkpoint_is_packed_in(tmp_path, tiny_panderm, packed):
    state = cae()
    extra = {"head.weight": torch.zeros(5, DIM), "head.bias": torch.zeros(5)}
    if packed == "pretraining":
        others = {"regressor.norm.weight": torch.ones(3), "alignment_encoder.norm.weight": torch.ones(DIM)}
        value = {"model": {f"encoder.{key}": one for key, one in state.items()} | others, "epoch": 499}
        value["args"] = argparse.Namespace(lr=1.5e-3)
    elif packed == "module":
        value = {"state_dict": {f"module.{key}": one for key, one in (state | extra).items()}}
    else:
        value = state | extra
    torch.save(value, tmp_path / "panderm.pth")
    encoder, preprocess = create_encoder(f"panderm_large@{tmp_path / 'panderm.pth'}")
    twin = beit(state)
    torch.testing.assert_close(encoder(images()), twin(images()), atol=1e-5, rtol=0)
    assert encoder.tokens(images()).shape == (2, 16, DIM)
    assert preprocess.std == (0.228, 0.224, 0.225)
    save_encoder(encoder, tmp_path / "saved")
    assert torch.equal(create_encoder(str(tmp_path / "saved"))[0](images()), encoder(images()))


def test_panderm_takes_no_other_network_for_its_own(tmp_path, tiny_panderm):
    state = cae()
    del state["blocks.1.gamma_2"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(InputError, match="another network: 1 tensors are missing"):
        create_encoder(f"panderm_base@{tmp_path / 'cut.pth'}")


def test_the_fixed_positions_are_those_of_the_paper():
    state = converters.from_cae({"cls_token": torch.zeros(1, 1, 8)})
    row, column, dim = 3, 11, 8
    omega = [10_000.0 ** -(i / (dim // 4)) for i in range(dim // 4)]
    expected = [f(x * w) for x in (row, column) for f in (math.sin, math.cos) for w in omega]
    torch.testing.assert_close(state["pos_embed"][0, 1 + 14 * row + column], torch.tensor(expected))
    assert not state["pos_embed"][0, 0].any()


def test_where_panderm_is_to_be_had_is_said_and_nothing_else_is_taken_for_it():
    with pytest.raises(MissingWeightsError, match=r"follow its authors' link at https://github.com/SiyuanYan1/PanDerm"):
        create_encoder("panderm_base")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["panderm_base", "panderm_large", "swavderm", "ssl_derm_vit_tiny"])
def test_published_checkpoints_see_what_their_authors_transform_gives(name, size):
    side = (256, 256) if name.startswith("ssl") else 256
    std = (0.229, 0.224, 0.225) if name.startswith("ssl") else (0.228, 0.224, 0.225)
    theirs = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(side),
            torchvision.transforms.CenterCrop(224),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), std),
        ]
    )
    ours = prepared(published.PUBLISHED[name].preprocess, photo(*size))
    torch.testing.assert_close(ours, theirs(photo(*size)), atol=2e-6, rtol=0)


# ---------------------------------------------------------------- SwAVDerm, DINO


def test_swavderm_is_torchvisions_resnet_without_head_and_prototypes(weights_folder):
    with towers.seeded(3):
        original = torchvision.models.resnet50().eval()
    state = {f"module.{key}": value for key, value in original.state_dict().items() if not key.startswith("fc.")}
    state |= {"module.projection_head.0.weight": torch.zeros(4, 2048), "module.prototypes.weight": torch.zeros(5, 4)}
    torch.save({"state_dict": state, "epoch": 800}, weights_folder / "swavderm.pth")
    encoder, _ = create_encoder("swavderm")
    original.fc = torch.nn.Identity()
    assert torch.equal(encoder(images(64)), original(images(64)))


def test_a_dino_training_checkpoint_gives_its_teachers_backbone(weights_folder):
    with towers.seeded(4):
        original = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    head = {"module.head.mlp.0.weight": torch.zeros(2, 2), "module.head.last_layer.weight_g": torch.zeros(2, 1)}
    teacher = {f"module.backbone.{key}": value for key, value in original.state_dict().items()} | head
    torch.save({"teacher": teacher, "student": {}, "epoch": 100}, weights_folder / "ssl_derm_vit_tiny.pth")
    encoder, _ = create_encoder("ssl_derm_vit_tiny")
    assert torch.equal(encoder(images(224, 1)), original(images(224, 1)))
    plain, _ = create_encoder(f"timm:vit_tiny_patch16_224@{weights_folder / 'ssl_derm_vit_tiny.pth'}")
    assert torch.equal(plain(images(224, 1)), original(images(224, 1)))


# ---------------------------------------------------------------- timm and transformers, one tower


def timm_folder(folder, architecture: str, arguments: dict, state: dict[str, torch.Tensor]) -> str:
    folder.mkdir()
    config = {"architecture": architecture, "model_args": arguments, "num_classes": 0}
    config["pretrained_cfg"] = {"input_size": [3, 32, 32], "fixed_input_size": True, "classifier": "head"}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors")
    return str(folder)


PROCESSOR = {
    "clip": ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    "siglip": ("SiglipImageProcessor", {"size": {"height": 32, "width": 32}}),
    "vit": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "dinov2": ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
    "registers": ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
}
MODELS = {
    "clip": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)),
    "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**VISION, layer_norm_eps=1e-6)),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**VISION)),
    "registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**VISION, num_register_tokens=4)
    ),
}
TWINS = {
    "clip": ("vit_base_patch16_clip_quickgelu_224", {"mlp_ratio": 2}),
    "siglip": ("vit_base_patch16_siglip_224", {"mlp_ratio": 2, "act_layer": "gelu_tanh"}),
    "vit": ("vit_base_patch16_224", {"mlp_ratio": 2}),
    "dinov2": ("vit_base_patch14_dinov2", {}),
    "registers": ("vit_base_patch14_reg4_dinov2", {}),
}


@pytest.mark.parametrize("kind", MODELS)
def test_timm_and_transformers_agree_on_one_tower_through_the_factory(tmp_path, kind):
    model = lively(MODELS[kind]())
    model.save_pretrained(tmp_path / "hf")
    processor, options = PROCESSOR[kind]
    getattr(transformers, processor)(**options).save_pretrained(tmp_path / "hf")
    ours, _ = create_encoder(str(tmp_path / "hf"))
    architecture, arguments = TWINS[kind]
    # The file is transformers' own: the factory sees by its names what has to be renamed.
    twin, _ = create_encoder(
        timm_folder(tmp_path / "timm", architecture, TINY | arguments, load_file(tmp_path / "hf" / "model.safetensors"))
    )
    torch.testing.assert_close(ours(images()), twin(images()), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.tokens(images()), twin.tokens(images()), atol=1e-5, rtol=0)


def clip_folder(folder, model: torch.nn.Module, state: dict[str, torch.Tensor]) -> str:
    model.config.save_pretrained(folder)
    transformers.CLIPImageProcessor(**PROCESSOR["clip"][1]).save_pretrained(folder)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors")
    return str(folder)


def test_a_clip_tower_goes_by_timms_names_and_by_transformers(tmp_path):
    model = lively(MODELS["clip"]())
    theirs = {key: value for key, value in model.state_dict().items() if "position_ids" not in key}
    ours = converters.from_transformers(theirs)
    back = converters.to_clip(ours)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)
    named_theirs, _ = create_encoder(clip_folder(tmp_path / "theirs", model, theirs))
    named_ours, _ = create_encoder(clip_folder(tmp_path / "ours", model, ours))
    assert torch.equal(named_ours(images()), named_theirs(images()))
    del ours["blocks.1.norm2.weight"]
    with pytest.raises((InputError, KeyError)):
        create_encoder(clip_folder(tmp_path / "cut", model, ours))


def test_seed_001s_checkpoint_may_have_either_librarys_names(weights_folder):
    # A public user of these checkpoints tells them by their number of tensors: 150 are timm's, 200 transformers' with
    # the pooler of tanh, which is not used.
    size = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    with towers.seeded(4):
        model = transformers.ViTModel(transformers.ViTConfig(**size, layer_norm_eps=1e-6)).eval()
    model.save_pretrained(weights_folder / "saved")
    state = load_file(weights_folder / "saved" / "model.safetensors")
    assert len(state) == 200
    torch.save({f"backbone.{key}": value for key, value in state.items()}, weights_folder / "ssl_derm_vit_tiny.pth")
    encoder, _ = create_encoder("ssl_derm_vit_tiny")
    expected = model(pixel_values=images(224, 1)).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(images(224, 1)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_as_its_authors_published_it_takes_any_size(tmp_path, registers):
    kind = f"vit_small_patch14_{'reg4_' if registers else ''}dinov2"
    with towers.seeded(5):
        original = lively(timm.create_model(kind, **TINY, num_classes=0))
    state = dict(original.state_dict())
    if registers:  # their class token has its position apart, and its position table one row more
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([torch.zeros(1, 1, DIM), state["pos_embed"]], dim=1)
    state["mask_token"] = torch.zeros(1, DIM)
    folder = timm_folder(tmp_path / "dinov2", kind, TINY, state)
    encoder, _ = create_encoder(folder)
    torch.testing.assert_close(encoder(images()), original(images()), atol=1e-6, rtol=0)
    larger, preprocess = create_encoder(folder, size_px=48)
    assert preprocess.size_px == 48
    assert larger.tokens(images(48)).shape == (2, 36, DIM)
    assert larger.tokens(images(64)).shape == (2, 64, DIM)


def test_dinov3_of_timm_and_of_transformers(tmp_path):
    config = transformers.DINOv3ViTConfig(**VISION, num_register_tokens=4)
    model = lively(transformers.DINOv3ViTModel(config))
    model.save_pretrained(tmp_path / "hf")
    transformers.DINOv3ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "hf")
    encoder, preprocess = create_encoder(str(tmp_path / "hf"))
    expected = model(pixel_values=images())
    torch.testing.assert_close(encoder(images()), expected.pooler_output)
    torch.testing.assert_close(encoder.tokens(images()), expected.last_hidden_state[:, 5:])
    assert (preprocess.fit, preprocess.size_px) == ("squash", 32)
    twin = lively(timm.create_model("vit_small_patch16_dinov3", **TINY, num_classes=0))
    state = dict(twin.state_dict())
    state = {key.replace("reg_token", "storage_tokens"): value for key, value in state.items()}
    state = {key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): value for key, value in state.items()}
    state |= {"mask_token": torch.zeros(1, DIM), "rope_embed.periods": torch.zeros(4)}
    published_names, _ = create_encoder(timm_folder(tmp_path / "dinov3", "vit_small_patch16_dinov3", TINY, state))
    torch.testing.assert_close(published_names(images()), twin(images()))


# ---------------------------------------------------------------- open_clip: BiomedCLIP, DermLIP


def open_clip_folder(folder, vision: dict, *, quick_gelu: bool = False) -> torch.nn.Module:
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    model = {"embed_dim": 20, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": text}
    network = lively(open_clip.model.CLIP(**model))
    folder.mkdir()
    preprocess = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "open_clip_model.safetensors")
    return network


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_an_open_clip_model_gives_open_clips_own_vector_before_its_projection(weights_folder, quick_gelu):
    vision = {"image_size": 32, "patch_size": 8, "width": DIM, "head_width": 8, "layers": 2, "mlp_ratio": 2.0}
    model = open_clip_folder(weights_folder / "redlessone--DermLIP_ViT-B-16", vision, quick_gelu=quick_gelu)
    encoder, preprocess = create_encoder("dermlip_vit_b16")
    torch.testing.assert_close(encoder(images()) @ model.visual.proj, model.encode_image(images()), atol=1e-5, rtol=0)
    assert encoder.dim == DIM
    assert encoder.licence_card == "dermlip"
    theirs = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)), is_train=False
    )
    for size in SIZES:
        within_a_grey_level(prepared(preprocess, photo(*size)), theirs(photo(*size)), preprocess.std)
    save_encoder(encoder, weights_folder / "saved")
    assert torch.equal(create_encoder(str(weights_folder / "saved"))[0](images()), encoder(images()))


def test_biomedclips_tower_is_timms(weights_folder):
    folder = weights_folder / "microsoft--BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
    vision = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}
    model = open_clip_folder(folder, vision | {"image_size": 160})
    encoder, _ = create_encoder("biomedclip")
    torch.testing.assert_close(encoder(images(160)), model.visual.trunk(images(160)))
    assert encoder.licence_card == "biomedclip"


def test_dermlips_panderm_tower_norms_its_patches_and_their_mean(weights_folder, tiny_panderm):
    state = cae()
    folder = weights_folder / "redlessone--DermLIP_PanDerm-base-w-PubMed-256"
    folder.mkdir()
    model = {"embed_dim": 20, "vision_cfg": {"image_size": 224, "pretrain_path": None}, "text_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    whole = {f"visual.{key}": value for key, value in state.items()}
    whole |= {"visual.head.weight": torch.zeros(20, DIM), "visual.head.bias": torch.zeros(20)}
    whole |= {"text.proj.weight": torch.zeros(2, 2), "logit_scale": torch.tensor(1.0)}
    save_file(whole, folder / "open_clip_model.safetensors")
    encoder, preprocess = create_encoder("dermlip_panderm")
    twin = beit(state)
    tokens = twin.forward_features(images())  # normed by the twin's own last norm
    expected = twin.norm(tokens[:, 1:].mean(1))
    torch.testing.assert_close(encoder(images()), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.tokens(images()), tokens[:, 1:], atol=1e-5, rtol=0)
    assert preprocess.mean[0] == pytest.approx(0.48145466)
    save_encoder(encoder, weights_folder / "saved")
    assert torch.equal(create_encoder(str(weights_folder / "saved"))[0](images()), encoder(images()))


def test_an_open_clip_tower_that_timm_has_not_is_refused(weights_folder):
    vision = {"image_size": 32, "patch_size": 8, "width": DIM, "head_width": 8, "layers": 2, "attentional_pool": True}
    folder = weights_folder / "odd"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 8, "vision_cfg": vision}}))
    with pytest.raises(InputError, match=r"no plain CLIP transformer .attentional_pool."):
        create_encoder(f"{folder}+random")


# ---------------------------------------------------------------- MedSigLIP


def medsiglip(folder, size: int) -> None:
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = VISION | {"image_size": size, "patch_size": 16}
    model = transformers.SiglipModel(
        transformers.SiglipConfig(vision_config=vision, text_config=text | {"vocab_size": 50, "projection_size": DIM})
    )
    model.save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": size, "width": size}, resample=3).save_pretrained(folder)


@pytest.mark.parametrize("size", SIZES)
def test_medsiglip_sees_its_own_processors_squash_or_by_name_the_notebooks_padding(weights_folder, size):
    medsiglip(weights_folder / "google--medsiglip-448", 448)
    _, squashed = create_encoder("medsiglip")
    processor = transformers.SiglipImageProcessorPil.from_pretrained(weights_folder / "google--medsiglip-448")
    theirs = processor(photo(*size), return_tensors="pt")["pixel_values"][0]
    within_a_grey_level(prepared(squashed, photo(*size)), theirs, squashed.std)
    _, padded = create_encoder("medsiglip_padded")
    notebook = torchvision.transforms.Compose(
        [
            torchvision.transforms.CenterCrop(max(size)),
            torchvision.transforms.Resize((448, 448), torchvision.transforms.InterpolationMode.BILINEAR),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(squashed.mean, squashed.std),
        ]
    )
    torch.testing.assert_close(prepared(padded, photo(*size)), notebook(photo(*size)), atol=2e-6, rtol=0)
    assert ALIASES["medsiglip_padded"].target == ALIASES["medsiglip"].target


# ---------------------------------------------------------------- every adaptor's photo is its publisher's

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BICUBIC = torchvision.transforms.InterpolationMode.BICUBIC


def short_side(resize: int, crop: int, statistics) -> torchvision.transforms.Compose:
    return torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(resize, BICUBIC),
            torchvision.transforms.CenterCrop(crop),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(*statistics),
        ]
    )


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("dino_vits16", short_side(256, 224, IMAGENET)),  # facebookresearch/dino, eval_knn.py
        ("dinov2_vits14", short_side(256, 224, IMAGENET)),  # facebookresearch/dinov2, data/transforms.py
        ("clip_vit_b16", short_side(224, 224, CLIP)),  # openai/CLIP, clip/clip.py
        ("clip_vit_l14", short_side(224, 224, CLIP)),
    ],
)
def test_timms_transformers_see_what_their_authors_transform_gives(name, theirs, monkeypatch):
    monkeypatch.setattr(towers, "initialisation", lambda seed: towers._WithoutInitialisation())
    _, preprocess = create_encoder(f"{name}+random")
    for size in SIZES:
        torch.testing.assert_close(prepared(preprocess, photo(*size)), theirs(photo(*size)), atol=2e-6, rtol=0)


def test_dinov3_sees_what_timms_transform_gives():
    config = timm.data.resolve_data_config(
        {}, pretrained_cfg=timm.get_pretrained_cfg("vit_small_patch16_dinov3").to_dict()
    )
    theirs = timm.data.create_transform(**config)
    _, preprocess = create_encoder("dinov3_vits16+random")
    for size in SIZES:
        torch.testing.assert_close(prepared(preprocess, photo(*size)), theirs(photo(*size)), atol=2e-6, rtol=0)


@pytest.mark.parametrize("resample", [2, 3])
def test_siglip_2_sees_its_own_processors_squash(weights_folder, resample):
    folder = weights_folder / "google--siglip2-base-patch16-224"
    medsiglip(folder, 224)
    transformers.SiglipImageProcessor(size={"height": 224, "width": 224}, resample=resample).save_pretrained(folder)
    _, preprocess = create_encoder("siglip2_vit_b16")
    processor = transformers.SiglipImageProcessorPil.from_pretrained(folder)
    for size in SIZES:
        theirs = processor(photo(*size), return_tensors="pt")["pixel_values"][0]
        within_a_grey_level(prepared(preprocess, photo(*size)), theirs, preprocess.std)


def test_monet_sees_its_own_processors_crop(weights_folder):
    folder = weights_folder / "suinleelab--monet"
    MODELS["clip"]().save_pretrained(folder)
    transformers.CLIPImageProcessor().save_pretrained(folder)
    _, preprocess = create_encoder("monet")
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    for size in SIZES:
        theirs = processor(photo(*size), return_tensors="pt")["pixel_values"][0]
        within_a_grey_level(prepared(preprocess, photo(*size)), theirs, preprocess.std)
    assert preprocess.mean == pytest.approx(CLIP[0])


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_open_clip_models_see_what_open_clips_transform_gives(mode):
    config = {"size": 224, "mean": CLIP[0], "std": CLIP[1], "interpolation": "bicubic", "resize_mode": mode}
    theirs = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**config), is_train=False)
    ours = from_open_clip(config, {})
    for size in SIZES:
        within_a_grey_level(prepared(ours, photo(*size)), theirs(photo(*size)), ours.std)


def test_derm_foundations_png_holds_the_squashed_photo_bit_for_bit():
    recipe = Preprocess(448, fit="squash", interpolation="bilinear").recipe()
    for size in [*SIZES, (448, 448)]:
        pixels = resize(photo(*size), recipe)
        decoded = np.asarray(Image.open(io.BytesIO(png(pixels))))
        np.testing.assert_array_equal(decoded, pixels)
        expected = photo(*size).resize((448, 448), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(decoded, np.asarray(expected))


# ---------------------------------------------------------------- the real CLIP ViT-B/16


@pytest.mark.skipif(not REAL_CLIP.is_file(), reason="DERMLAB_REAL_WEIGHTS holds no clip_vit_b16_image.safetensors")
def test_the_real_clip_by_both_names_and_its_zero_shot_path(tmp_path, monkeypatch, shared_data):
    state = load_file(REAL_CLIP)
    projection = state.pop("head.weight")
    assert not state.pop("head.bias").any()  # timm's layer has a bias, CLIP's has none
    monkeypatch.setenv("DERMLAB_WEIGHTS", str(REAL_CLIP.parent))
    ours, preprocess = create_encoder("clip_vit_b16")
    config = transformers.CLIPConfig(
        vision_config={"patch_size": 16, "hidden_act": "quick_gelu"},
        text_config={"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"intermediate_size": 32, "max_position_embeddings": 8, "eos_token_id": 1},
        projection_dim=512,
    )
    vision = {f"vision_model.{key}": value for key, value in converters.to_clip(state).items()}
    with towers.initialisation(0):
        text = transformers.CLIPTextModelWithProjection(config.text_config).state_dict()
    text = {key: value for key, value in text.items() if "position_ids" not in key}
    whole = vision | text | {"visual_projection.weight": projection, "logit_scale": torch.tensor(4.6)}
    (tmp_path / "clip").mkdir()
    config.save_pretrained(tmp_path / "clip")
    transformers.CLIPImageProcessor().save_pretrained(tmp_path / "clip")
    save_file({key: value.contiguous() for key, value in whole.items()}, tmp_path / "clip" / "model.safetensors")
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[END]": 1, "mole": 2, "melanoma": 3}, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[END]", eos_token="[END]").save_pretrained(
        tmp_path / "clip"
    )
    theirs, their_preprocess = create_encoder(str(tmp_path / "clip"))
    assert their_preprocess == preprocess
    files = sorted((shared_data / "pad-ufes-20").rglob("*.png"))[:2] or sorted(shared_data.rglob("*.jpg"))[:2]
    pixels = torch.stack([prepared(preprocess, Image.open(file).convert("RGB")) for file in files])
    found = ours(pixels)
    torch.testing.assert_close(theirs(pixels), found, atol=1e-5 * float(found.abs().max()), rtol=0)
    tower = open_two_tower(str(tmp_path / "clip"))
    vectors = tower.images(found.numpy())
    expected = torch.nn.functional.normalize(found @ projection.T, dim=-1)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    probabilities = class_probabilities(tower, vectors, tower.texts(["mole", "melanoma"]))
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_what_is_unconfirmed_is_said_before_anything_is_run(capsys, tmp_path):
    assert main(["encoders", "--check", "ssl_derm_vit_tiny"]) == 1
    assert "WARN  layout: the code that writes its checkpoints is not public" in capsys.readouterr().out
    assert main(["encoders", "--check", "hf:nobody/knows"]) == 1
    assert "WARN  licence: unknown, as no licence card knows it" in capsys.readouterr().out


def test_medsiglip_fine_tunes_by_its_recipe_from_a_folder_of_transformers(weights_folder, clinic, tmp_path, capsys):
    medsiglip(weights_folder / "google--medsiglip-448", 32)
    recipe = Path(__file__).parents[2] / "configs" / "finetune" / "medsiglip_448.yaml"
    toy = ["--batch_size", "16", "--max_train_samples", "32", "--finetune_epochs", "1", "--warmup_steps", "1"]
    toy += ["--precision", "fp32", "--device", "cpu", "--n_boot", "100"]
    call = ["finetune", str(clinic), "--config", str(recipe), "--out", str(tmp_path / "run"), *toy]
    with torch.enable_grad():
        status = main(call)
    assert status == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["n"] > 0
    assert (tmp_path / "run" / "predictions.parquet").is_file()
