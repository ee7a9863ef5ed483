"""Sentences and photos in one space, with a toy text tower: the model's own logits are the oracle."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from dermlab.cli import main
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.models import towers
from dermlab.models.two_tower import (
    class_probabilities,
    concept_scores,
    open_two_tower,
    prompt_vectors,
    recall_at,
)

WORDS = ["[PAD]", "[END]", "[UNK]", "a", "photo", "of", "mole", "naevus", "melanoma", "skin", "ulcer"]
TINY = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}


@pytest.fixture(params=["clip", "siglip"])
def folder(request, tmp_path):
    text = TINY | {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    text |= {"max_position_embeddings": 8, "projection_size": 16}
    vision = TINY | {"image_size": 32, "patch_size": 8}
    with towers.seeded(3):
        if request.param == "clip":
            config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=12)
            model = transformers.CLIPModel(config)
            processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
        else:
            model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
            processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", eos_token="[END]", unk_token="[UNK]"
    ).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_scaled_similarities_are_the_models_own_logits(folder):
    tower = open_two_tower(str(folder))
    sentences = ["a photo of melanoma", "a mole"]
    with torch.inference_mode():
        padding = "max_length" if tower.is_sigmoid else True
        tokens = tower.tokenizer(sentences, padding=padding, max_length=8, return_tensors="pt")
        given = {"input_ids": tokens["input_ids"], "pixel_values": images()}
        if not tower.is_sigmoid:
            given["attention_mask"] = tokens["attention_mask"]
        expected = tower.network(**given).logits_per_image.numpy()
    ours = tower.scale * tower.images(images()) @ tower.texts(sentences).T + tower.bias
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    probabilities = class_probabilities(tower, tower.images(images()), tower.texts(sentences))
    np.testing.assert_allclose(probabilities, torch.softmax(torch.tensor(expected), 1), atol=1e-5)


def test_a_class_is_the_mean_of_its_words_in_every_template(folder):
    tower = open_two_tower(str(folder))
    found = prompt_vectors(tower, {"nev": ["mole", "naevus"], "mel": ["melanoma"]}, ["a photo of {}", "{} skin"])
    four = tower.texts(["a photo of mole", "mole skin", "a photo of naevus", "naevus skin"]).mean(0)
    np.testing.assert_allclose(found[0], four / np.linalg.norm(four), atol=1e-6)
    assert found.shape[0] == 2
    with pytest.raises(InputError, match="where the word goes"):
        prompt_vectors(tower, {"a": ["mole"]}, ["a photo"])
    with pytest.raises(InputError, match=r"classes.a: needs"):
        prompt_vectors(tower, {"a": []}, ["{}"])


def test_a_concept_is_held_against_a_sentence_that_says_nothing(folder):
    tower = open_two_tower(str(folder))
    photos, concepts, reference = tower.images(images()), tower.texts(["ulcer", "skin"]), tower.texts(["skin"])[0]
    scores = concept_scores(tower, photos, concepts, reference)
    np.testing.assert_allclose(scores[:, 1], 0.5, atol=1e-5)
    both = np.stack([photos @ concepts[0], photos @ reference], 1) * tower.scale
    np.testing.assert_allclose(scores[:, 0], torch.softmax(torch.tensor(both), 1)[:, 0], atol=1e-5)


def test_recall_counts_partners_among_the_nearest():
    axes = np.eye(4, dtype=np.float32)
    assert recall_at(axes, axes, 1) == (1.0, 1.0)
    assert recall_at(axes, axes[[1, 0, 2, 3]], 1) == (0.5, 0.5)
    assert recall_at(np.ones((4, 2)), np.ones((4, 2)), 3) == (0.0, 0.0)
    with pytest.raises(InputError, match="as many texts as photos"):
        recall_at(axes, axes, 4)


def test_a_model_without_text_is_refused(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(tmp_path / "v")
    with pytest.raises(InputError, match="no text tower"):
        open_two_tower(str(tmp_path / "v"))


def test_a_data_set_becomes_a_predictions_table_with_concepts(folder, clinic, tmp_path, capsys):
    target = Dataset.open(clinic).card.targets[0].column
    names = sorted(pd.Series(Dataset.open(clinic).labels(target)).dropna().unique())
    prompts = {"classes": {name: [WORDS[6 + i % 5]] for i, name in enumerate(names)}, "concepts": {"ulcer": ["ulcer"]}}
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    out = tmp_path / "table.parquet"
    call = ["zeroshot", str(clinic), "--encoder", str(folder), "--prompts", str(tmp_path / "prompts.yaml")]
    assert main([*call, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    frame = pd.read_parquet(out)
    assert len(frame) == told["n_images"] > 0
    np.testing.assert_allclose(frame[[f"p:{name}" for name in names]].sum(axis=1), 1)
    assert frame["concept:ulcer"].between(0, 1).all()
    assert main(["evaluate", str(out), "--out", str(tmp_path / "evaluation"), "--n_boot", "200"]) == 0
    del prompts["classes"][names[0]]
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    assert main([*call, "--out", str(out)]) == 2
    assert f"has no words for {names[0]}" in capsys.readouterr().err
