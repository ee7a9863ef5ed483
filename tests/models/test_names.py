"""What a person may write for an encoder, and what they are told when they mistype it."""

import pytest

from dermlab.core.errors import InputError
from dermlab.models.names import ALIASES, parse_name


def test_an_alias_stands_for_a_published_checkpoint():
    name = parse_name("clip_vit_b16")
    assert (name.library, name.architecture) == ("timm", "vit_base_patch16_clip_quickgelu_224.openai")
    assert not name.random


def test_random_weights_are_asked_for_by_a_suffix_and_kept_in_the_name():
    name = parse_name("resnet50+random")
    assert name.random
    assert (name.asked, name.display) == ("resnet50", "resnet50+random")


@pytest.mark.parametrize("prefix", ["hf", "hf-hub"])
def test_a_hub_name_has_an_owner_and_may_have_a_revision(prefix):
    name = parse_name(f"{prefix}:google/medsiglip-448@abc123")
    assert name.library == "transformers"
    assert name.architecture == "google/medsiglip-448@abc123"
    assert name.hub_id == "google/medsiglip-448"


def test_a_weights_file_may_name_its_architecture(tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"x")
    name = parse_name(f"timm:vit_tiny_patch16_224@{file}")
    assert (name.library, name.architecture, name.path) == ("timm", "vit_tiny_patch16_224", file)


def test_a_folder_and_a_file_are_names_too(tmp_path):
    assert parse_name(str(tmp_path)).path == tmp_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet5", "did you mean resnet50"),
        ("jax:resnet50", "'jax' is not one of torchvision, timm, hf"),
        ("timm:", "a model is missing after timm:"),
        ("hf:medsiglip", "neither a folder nor OWNER/NAME"),
        ("google/medsiglip-448", "hf:google/medsiglip-448"),
        ("missing/run/encoder.safetensors", "no such file or folder"),
        ("timm:resnet18@nowhere.pth", "no such file: nowhere.pth"),
        ("+random", "a name is missing"),
    ],
)
def test_a_wrong_name_is_one_line_that_says_what_would_be_right(name, told):
    with pytest.raises(InputError, match=r"^encoder") as caught:
        parse_name(name)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_alias_leads_to_a_library():
    for alias in ALIASES:
        assert parse_name(alias).library in ("torchvision", "timm", "transformers", "checkpoint")
