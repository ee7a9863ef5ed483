"""Sentences and photos in one space, with toy text towers: each family's own logits are the oracle."""

import json

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import transformers
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from dermlab.cli import main
from dermlab.core.device import resolve
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.models import create_encoder, towers
from dermlab.models.inference import for_inference
from dermlab.models.prompt_sets import find_prompts, prompt_sets, read_concepts
from dermlab.models.two_tower import (
    class_probabilities,
    concept_scores,
    label_probabilities,
    open_two_tower,
    partner_ranks,
    prompt_vectors,
)

WORDS = ["[PAD]", "[END]", "[UNK]", "a", "photo", "of", "mole", "naevus", "melanoma", "skin", "ulcer"]
TINY = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
SENTENCES = ["a photo of melanoma", "a mole", "skin of a naevus, ulcer"]


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def save_tokenizer(folder) -> None:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", eos_token="[END]", unk_token="[UNK]"
    ).save_pretrained(folder)


def transformers_folder(folder, kind: str):
    text = TINY | {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    text |= {"max_position_embeddings": 8, "projection_size": 16}
    vision = TINY | {"image_size": 32, "patch_size": 8}
    with towers.seeded(3):
        if kind == "clip":
            config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=12)
            model = transformers.CLIPModel(config)
            processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
        else:
            model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
            processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
            with torch.no_grad():
                model.logit_bias.fill_(-3.5)
                model.logit_scale.fill_(2.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_tokenizer(folder)
    return model.eval()


@pytest.fixture(params=["clip", "siglip"])
def folder(request, tmp_path):
    transformers_folder(tmp_path / "model", request.param)
    return tmp_path / "model"


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def embedded(folder, tower, n: int = 4) -> np.ndarray:
    with torch.no_grad():
        return tower.images(create_encoder(str(folder))[0](images(n)).numpy())


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_scaled_similarities_are_the_models_own_logits(tmp_path, kind):
    model = transformers_folder(tmp_path / "model", kind)
    tower = open_two_tower(str(tmp_path / "model"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    tokens = tokenizer(SENTENCES, padding="max_length" if kind == "siglip" else True, max_length=8, return_tensors="pt")
    given = {"input_ids": tokens["input_ids"], "pixel_values": images()}
    if kind == "clip":
        given["attention_mask"] = tokens["attention_mask"]
    with torch.inference_mode():
        expected = model(**given).logits_per_image
    photos, texts = embedded(tmp_path / "model", tower), tower.texts(SENTENCES)
    np.testing.assert_allclose(tower.scale * photos @ texts.T + tower.bias, expected.numpy(), atol=1e-4)
    probabilities = class_probabilities(tower, photos, texts)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    if kind == "clip":
        np.testing.assert_allclose(probabilities, torch.softmax(expected, 1), atol=1e-5)
        with pytest.raises(InputError, match="cannot say of one label alone"):
            label_probabilities(tower, photos, texts)
    else:
        sigmoids = torch.sigmoid(expected)
        np.testing.assert_allclose(probabilities, sigmoids / sigmoids.sum(1, keepdim=True), atol=1e-5)
        np.testing.assert_allclose(label_probabilities(tower, photos, texts), sigmoids, atol=1e-5)


def test_siglip_2_reads_small_letters(tmp_path):
    transformers_folder(tmp_path / "model", "siglip")
    tower = open_two_tower(str(tmp_path / "model"))
    np.testing.assert_array_equal(tower.texts(["A Photo of MELANOMA"]), tower.texts(["a photo of melanoma"]))
    assert not np.allclose(tower.texts(["a photo of melanoma"]), tower.texts(["a photo of mole"]))


# ---------------------------------------------------------------- open_clip

VISION = {"image_size": 32, "patch_size": 8, "width": 24, "head_width": 8, "layers": 2, "mlp_ratio": 2.0}
PREPROCESS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic", "resize_mode": "shortest"}


def drawn(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("logit_"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def open_clip_folder(folder, config: dict, model: torch.nn.Module, **told) -> None:
    folder.mkdir()
    written = {"model_cfg": config | told, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


def bert(folder, **changed):
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=8,
        **changed,
    )
    config.save_pretrained(folder)
    return str(folder)


def own_logits(model, sentences, tokenizer) -> np.ndarray:
    with torch.no_grad():
        return model.get_logits(images(), tokenizer(sentences))[0].numpy()


def test_dermlips_plain_clip_reads_with_open_clips_own_tokenizer(tmp_path):
    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 20, "vision_cfg": VISION, "text_cfg": text}
    model = drawn(open_clip.model.CLIP(**config))
    open_clip_folder(tmp_path / "dermlip", config, model)
    tower = open_two_tower(str(tmp_path / "dermlip"))
    expected = own_logits(model, SENTENCES, open_clip.SimpleTokenizer(context_length=12))
    photos = embedded(tmp_path / "dermlip", tower)
    np.testing.assert_allclose(tower.scale * photos @ tower.texts(SENTENCES).T, expected, atol=1e-4)
    assert not tower.is_sigmoid


@pytest.mark.parametrize("pooler", ["cls_last_hidden_state_pooler", "mean_pooler"])
@pytest.mark.parametrize("has_config", [True, False])
def test_biomedclips_sentences_are_read_by_its_bert_without_a_network(tmp_path, pooler, has_config):
    text = {"hf_model_name": bert(tmp_path / "bert"), "hf_tokenizer_name": "owner/bert", "context_length": 8}
    text |= {"hf_pooler_type": pooler, "hf_proj_type": "mlp", "hf_model_pretrained": False}
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    config = {"embed_dim": 20, "vision_cfg": vision, "text_cfg": text}
    model = drawn(open_clip.model.CustomTextCLIP(**config))
    folder = tmp_path / "biomedclip"
    open_clip_folder(folder, config, model, text_cfg=text | {"hf_model_name": "owner/bert"})
    save_tokenizer(folder)
    if has_config:
        bert(folder)
    tower = open_two_tower(str(folder))
    tokens = open_clip.tokenizer.HFTokenizer(str(folder), context_length=8)
    larger = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.get_logits(larger, tokens(SENTENCES))[0].numpy()
        photos = tower.images(create_encoder(str(folder))[0](larger).numpy())
    np.testing.assert_allclose(tower.scale * photos @ tower.texts(SENTENCES).T, expected, atol=1e-4)


def test_a_siglip_of_open_clip_keeps_its_bias(tmp_path):
    text = {"context_length": 8, "vocab_size": len(WORDS), "width": 16, "heads": 2, "layers": 1, "pool_type": "last"}
    text |= {"no_causal_mask": True, "proj_bias": True, "hf_tokenizer_name": "owner/tokenizer"}
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "mlp", "image_size": 160}
    config = {"embed_dim": 20, "vision_cfg": vision, "text_cfg": text, "init_logit_bias": -4.0}
    model = drawn(open_clip.model.CustomTextCLIP(**config))
    open_clip_folder(tmp_path / "siglip", config, model)
    save_tokenizer(tmp_path / "siglip")
    tower = open_two_tower(str(tmp_path / "siglip"))
    assert (tower.is_sigmoid, tower.bias) == (True, -4.0)
    tokens = open_clip.tokenizer.HFTokenizer(str(tmp_path / "siglip"), context_length=8)
    larger = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.get_logits(larger, tokens(SENTENCES))[0].numpy()
        photos = tower.images(create_encoder(str(tmp_path / "siglip"))[0](larger).numpy())
    np.testing.assert_allclose(tower.scale * photos @ tower.texts(SENTENCES).T + tower.bias, expected, atol=1e-4)


def test_what_is_missing_beside_an_open_clip_model_is_one_line(tmp_path):
    text = {"hf_model_name": bert(tmp_path / "bert"), "hf_tokenizer_name": "owner/bert", "context_length": 8}
    text |= {"hf_pooler_type": "mean_pooler", "hf_proj_type": "mlp", "hf_model_pretrained": False}
    config = {"embed_dim": 20, "vision_cfg": VISION, "text_cfg": text}
    model = drawn(open_clip.model.CustomTextCLIP(**config))
    folder = tmp_path / "model"
    open_clip_folder(folder, config, model)
    with pytest.raises(InputError, match=r"no tokenizer that can be read .*copy the checkpoint's own") as caught:
        open_two_tower(str(folder))
    assert "\n" not in str(caught.value)
    save_tokenizer(folder)
    state = {key: value for key, value in model.state_dict().items() if "encoder.layer.1" not in key}
    bert(folder)
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(InputError, match=r"text tower.: these weights belong to another network: \d+ tensors are"):
        open_two_tower(str(folder))
    save_file(
        {key: value for key, value in state.items() if key.startswith("visual.")},
        folder / "open_clip_model.safetensors",
    )
    with pytest.raises(InputError, match="an image tower alone"):
        open_two_tower(str(folder))


# ---------------------------------------------------------------- classes, concepts, captions


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


def test_concept_scores_are_monets(folder):
    tower = open_two_tower(str(folder))
    photos = embedded(folder, tower)
    templates = {"a photo of {}": "a photo", "{} skin": "skin"}
    scores = concept_scores(tower, photos, {"mole": ["mole", "naevus"], "nothing": ["[PAD]"]}, templates)
    expected = []  # as its authors' notebook: mean over words, softmax with the reference, mean over templates
    for sentences, reference in ((["a photo of mole", "a photo of naevus"], "a photo"), (["mole skin"] * 2, "skin")):
        sentences = sentences if "photo" in reference else ["mole skin", "naevus skin"]
        target = (tower.texts(sentences) @ photos.T).mean(0) * tower.scale
        plain = (tower.texts([reference]) @ photos.T)[0] * tower.scale
        expected.append(torch.softmax(torch.tensor(np.stack([target, plain])), 0)[0])
    np.testing.assert_allclose(scores[:, 0], torch.stack(expected).mean(0), atol=1e-5)
    same = concept_scores(tower, photos, {"x": ["skin"]}, {"{}": "skin"})
    np.testing.assert_allclose(same, 0.5, atol=1e-6)


def test_a_partner_stands_last_among_equals():
    axes = np.eye(4, dtype=np.float32)
    assert partner_ranks(axes, axes).tolist() == [1, 1, 1, 1]
    assert partner_ranks(axes, axes[[1, 0, 2, 3]]).tolist() == [4, 4, 1, 1]
    assert partner_ranks(np.ones((4, 2)), np.ones((4, 2))).tolist() == [4, 4, 4, 4]


def test_captions_of_one_photo_are_no_rivals():
    photos = np.array([[1.0, 0.0], [0.0, 1.0]])
    texts = np.array([[0.9, 0.1], [1.0, 0.0], [0.1, 0.9]])
    own = np.array([[True, False, False], [False, True, True]])
    assert partner_ranks(photos, texts, own).tolist() == [2, 1]
    assert partner_ranks(texts, photos, own.T).tolist() == [1, 2, 1]


def test_a_model_without_text_is_refused(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(tmp_path / "v")
    with pytest.raises(InputError, match="no text tower"):
        open_two_tower(str(tmp_path / "v"))
    with pytest.raises(InputError, match="has no text tower; those that have one: medsiglip"):
        open_two_tower("timm:test_vit+random")


def test_a_data_set_becomes_a_predictions_table(folder, clinic, tmp_path, capsys):
    target = Dataset.open(clinic).card.target(None)
    prompts = {"classes": {name: [WORDS[6 + i % 5]] for i, name in enumerate(target.classes)}}
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    out = tmp_path / "table.parquet"
    call = ["zeroshot", str(clinic), "--encoder", str(folder), "--prompts", str(tmp_path / "prompts.yaml")]
    assert main([*call, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    frame = pd.read_parquet(out)
    assert len(frame) == told["n_images"] > 0
    np.testing.assert_allclose(frame[[f"p:{name}" for name in target.classes]].sum(axis=1), 1)
    assert "skin_type" in frame
    assert main(["triage", str(out), "--json"]) == 1  # a folder without a card: nobody knows its terms
    (verdict,) = json.loads(capsys.readouterr().out)
    assert (verdict["id"], verdict["verdict"]) == (str(folder), "unknown")
    assert main(["evaluate", str(out), "--out", str(tmp_path / "evaluation"), "--n_boot", "200"]) == 0
    capsys.readouterr()
    del prompts["classes"][target.classes[0]]
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    assert main([*call, "--out", str(out)]) == 2
    assert f"has no words for {target.classes[0]}" in capsys.readouterr().err


def test_captions_find_photos_by_the_command(folder, clinic, tmp_path, capsys):
    ids = Dataset.open(clinic).image_ids[:9]
    captions = pd.DataFrame({"image_id": [*ids, "nobody"], "caption": [f"a {w}" for w in WORDS[3:] * 2][:10]})
    captions.to_csv(tmp_path / "captions.csv", index=False)
    call = ["retrieval", str(clinic), "--encoder", str(folder), "--captions", str(tmp_path / "captions.csv")]
    assert main([*call, "--k", "1,3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["way"], row["k"]) for row in told["rows"]][:2] == [("text of a photo", 1), ("text of a photo", 3)]
    assert told["n_captions"] == 8
    assert all(row["low"] <= row["value"] <= row["high"] for row in told["rows"])
    assert told["rows"][1]["chance"] == pytest.approx(3 / 8)
    assert "1 caption of photos that the data set has not" in told["warnings"][0]
    assert main([*call, "--caption", "text"]) == 2
    assert "name it with --caption" in capsys.readouterr().err


# ---------------------------------------------------------------- prompt sets


def test_every_set_has_a_word_for_each_class_and_says_where_it_is_from():
    sets = prompt_sets()
    assert {"ham10000", "pad_ufes_20", "fitzpatrick17k_three", "fitzpatrick17k_nine", "ddi", "derm7pt"} <= sets.keys()
    assert {"melanoma", "ph2", "isic2019", "snu", "sd128"} <= sets.keys()
    for name, one in sets.items():
        assert one.title, name
        assert one.source, name
        assert all("{}" in template for template in one.templates), name
        assert len(one.words_for(list(one.classes))) == len(one.classes), name
        assert set(one.codes.values()) <= set(one.classes), name
    assert (len(sets["snu"].classes), len(sets["sd128"].classes)) == (134, 128)
    concepts = read_concepts()
    assert all("{}" in sentence and "{}" not in plain for sentence, plain in concepts.templates.items())
    assert {"ink", "ruler", "hair", "bubbles"} <= concepts.chosen(["artefact"], source="").keys()


@pytest.mark.parametrize(
    ("classes", "data_set", "found"),
    [
        (["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"], "ham10000", "ham10000"),
        (["ACK", "BCC", "MEL", "NEV", "SCC", "SEK"], "clinic", "pad_ufes_20"),
        (["False", "True"], "ddi", "ddi"),
        (["0", "1"], "isic2020", "melanoma"),
        (["Common Nevus", "Atypical Nevus", "Melanoma"], "mine", "ph2"),
        (["melanoma", "naevus"], "med-node", "melanoma"),
    ],
)
def test_prompts_are_found_by_the_classes(classes, data_set, found):
    name, prompts = find_prompts(None, classes, data_set=data_set)
    assert name == found
    assert list(prompts.words_for(classes)) == classes


def test_prompts_that_do_not_fit_are_one_line():
    with pytest.raises(InputError, match=r"prompts ham10000: classes: has no words for wart; it has akiec, bcc"):
        find_prompts("ham10000", ["mel", "wart"])
    with pytest.raises(InputError, match="ddi and melanoma know the classes 0, 1; say which"):
        find_prompts(None, ["0", "1"])
    with pytest.raises(InputError, match=r"no set of dermlab's knows all of the classes cat, dog; write the words"):
        find_prompts(None, ["cat", "dog"])
    with pytest.raises(InputError, match=r"'ham': no such file, and none of the sets ddi, derm7pt"):
        find_prompts("ham", ["mel"])
    with pytest.raises(InputError, match=r"no concept 'rulr'; it has .* in the groups clinical, dermoscopic, artefact"):
        read_concepts().chosen(["rulr"], source="concepts")


def test_concepts_become_columns_that_checks_and_subgroups_use(folder, clinic, tmp_path, capsys):
    out = tmp_path / "concepts.csv"
    call = ["concepts", str(clinic), "--encoder", str(folder), "--out", str(out), "--concepts", "ulcer,artefact"]
    assert main([*call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    frame = pd.read_csv(out)
    assert list(frame.columns[:3]) == ["image_id", "concept:ulcer", "concept:ink"]
    assert len(frame) == told["n_images"]
    assert frame.iloc[:, 1:].apply(lambda column: column.between(0, 1).all()).all()
    assert len(told["associations"]) == 5
    assert all(one["low"] <= one["auroc"] <= one["high"] for one in told["associations"])
    assert main(["triage", str(out), "--json"]) == 1
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == [str(folder)]


def test_a_concept_that_predicts_the_label_is_told_by_the_check(clinic, tmp_path, capsys):
    dataset = Dataset.open(clinic)
    labels = pd.Series(dataset.labels())
    is_it = (labels == dataset.card.target(None).classes[0]).to_numpy()
    noise = np.random.default_rng(0).uniform(0, 0.4, len(labels))
    table = pd.DataFrame({"image_id": dataset.image_ids, "concept:ruler": np.where(is_it, 0.5, 0.1) + noise / 2})
    table.to_parquet(tmp_path / "concepts.parquet")
    call = ["data", "check", str(clinic), "--no_closely", "--join", str(tmp_path / "concepts.parquet"), "--json"]
    main(call)
    findings = json.loads(capsys.readouterr().out)
    assert "proxy:concept:ruler" in [one["code"] for one in findings]
    table.to_csv(tmp_path / "concepts.csv", index=False)  # where numbers are text
    main([*call[:-2], str(tmp_path / "concepts.csv"), "--json"])
    codes = [one["code"] for one in json.loads(capsys.readouterr().out)]
    assert "proxy:concept:ruler" in codes
    assert codes == [one["code"] for one in findings]
    table.assign(image_id="nobody").iloc[:1].to_csv(tmp_path / "other.csv", index=False)
    assert main([*call[:-2], str(tmp_path / "other.csv")]) == 2
    assert "no image of it is in" in capsys.readouterr().err


def test_concepts_joined_to_a_table_make_its_subgroups(clinic, tmp_path, capsys):
    dataset = Dataset.open(clinic)
    target = dataset.card.target(None)
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(len(target.classes)), len(dataset))
    frame = pd.DataFrame({"image_id": dataset.image_ids, "label": dataset.labels(), "group": dataset.groups()})
    frame[[f"p:{name}" for name in target.classes]] = probabilities
    scores = pd.DataFrame({"image_id": dataset.image_ids, "concept:hair": random.uniform(size=len(dataset))})
    frame.to_csv(tmp_path / "table.csv", index=False)
    scores.sample(frac=1, random_state=0).to_csv(tmp_path / "concepts.csv", index=False)
    call = ["evaluate", str(tmp_path / "table.csv"), "--join", str(tmp_path / "concepts.csv"), "--n_boot", "100"]
    assert main([*call, "--subgroups", "concept:hair", "--out", str(tmp_path / "out")]) == 0
    column = json.loads((tmp_path / "out" / "subgroups.json").read_text())["columns"]["concept:hair"]
    joined = frame.merge(scores, on="image_id")["concept:hair"]
    found = {level["level"]: level["n"] for level in column["levels"]}
    assert sum(found.values()) == len(joined)
    assert len(found) > 1


# ---------------------------------------------------------------- half precision


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_towers_of_transformers_run_in_half_precision(tmp_path, kind):
    transformers_folder(tmp_path / "model", kind)
    encoder, _ = create_encoder(str(tmp_path / "model"))
    runtime = resolve("cpu", "bf16")
    with torch.no_grad(), runtime.autocast():
        half = for_inference(encoder, runtime, 32)(images()).float()
    expected = encoder(images())
    assert torch.cosine_similarity(half, expected).min() > 0.999
