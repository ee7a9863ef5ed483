"""Models with an image and a text tower: classes from prompts, concepts as scores, texts that belong to photos.

Photos are embedded as everywhere else (``dermlab.features``, kept in the feature store); what is here turns those
vectors and sentences into unit vectors of one space. Two families are read:

- transformers: CLIP (MONET), SigLIP, SigLIP 2 of fixed size, MedSigLIP: a folder with config.json and a tokenizer;
- open_clip: CLIP and SigLIP as open_clip writes them, BiomedCLIP (a BERT reads the sentences), DermLIP: a folder with
  open_clip_config.json.

DermLIP's PanDerm variant: its text tower is a BERT that reads 256 tokens and is pooled by the mean (SiyuanYan1/MAKE,
src/open_clip/model_configs/PanDerm-base-w-PubMed-256.json); its image tower norms twice (the same repository,
src/CAE/models/modeling_finetune.py, which SiyuanYan1/Derm1M, src/open_clip/utils.py, builds it from). BiomedCLIP's text
tower is a BERT too, pooled by its class token, behind an MLP (its open_clip_config.json, quoted in public code).
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from dermlab.core.errors import InputError, MissingExtraError, first_line
from dermlab.core.files import read_json
from dermlab.models import encoders, towers
from dermlab.models.weights import State, load_strictly, read_state

SENTENCES_AT_ONCE = 64


class TwoTower(abc.ABC):
    """A text tower, and the projection that takes its image tower's vectors into the same space.

    Attributes:
        name: as asked for; ``dermlab.features.embed`` takes it for the photos.
        scale: the model's own factor of similarities, learned in its pretraining (already exponentiated).
        bias: what its sigmoids add, 0 where it has none.
        is_sigmoid: trained with sigmoids (SigLIP), each class for itself, not with a softmax over classes (CLIP).
    """

    name: str
    scale: float
    bias: float
    is_sigmoid: bool

    def images(self, features: np.ndarray) -> np.ndarray:
        """Return unit vectors (N, D) float32 of what the model's encoder gave for photos, (N, dim)."""
        with torch.inference_mode():
            return _unit(self._project(torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))))

    def texts(self, sentences: Sequence[str]) -> np.ndarray:
        """Return unit vectors (N, D) float32 of sentences, which are cut where they are longer than the model reads."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(sentences), SENTENCES_AT_ONCE):
                parts.append(_unit(self._read(list(sentences[start : start + SENTENCES_AT_ONCE]))))
        return np.concatenate(parts)

    @abc.abstractmethod
    def _project(self, features: torch.Tensor) -> torch.Tensor:
        """Take the encoder's vectors (N, dim) to the common space."""

    @abc.abstractmethod
    def _read(self, sentences: list[str]) -> torch.Tensor:
        """Take sentences to the common space."""


def _unit(vectors: torch.Tensor) -> np.ndarray:
    return normalize(vectors.float(), dim=-1).numpy()


def open_two_tower(name: str) -> TwoTower:
    """Open the text tower of a model, and its projection of photos.

    Args:
        name: an alias or ``hf:…`` of a model with two towers (``medsiglip``, ``monet``, ``biomedclip``), or its folder.

    Raises:
        InputError: it has no text tower, or no tokenizer beside it.
        MissingWeightsError: it is not here and cannot be fetched.
        MissingExtraError: transformers or open_clip is not installed.
    """
    library, folder, file = encoders.locate_model(name)
    if folder is not None and library == "transformers":
        return TransformersTowers(name, folder)
    if folder is not None and file is not None and library == "open_clip":
        return OpenClipTowers(name, folder, file)
    raise InputError(
        f"encoder {name}: has no text tower; those that have one: medsiglip, siglip2_vit_b16, monet, biomedclip, "
        "dermlip_vit_b16, dermlip_panderm, or the folder of another CLIP or SigLIP of transformers or open_clip"
    )


# ---------------------------------------------------------------- transformers


class TransformersTowers(TwoTower):
    """A CLIP or SigLIP of transformers."""

    def __init__(self, name: str, folder: Path) -> None:
        """Load the model strictly and its tokenizer, on the CPU."""
        try:
            from transformers import AutoConfig, AutoTokenizer, CLIPModel, SiglipModel
        except ImportError:
            raise MissingExtraError(f"encoder {name}", "transformers", "hf") from None

        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        with towers.quiet_transformers():
            try:
                kind = AutoConfig.from_pretrained(folder, **local).model_type
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{folder}: transformers cannot read its config.json ({first_line(error)})") from None
            if kind not in ("clip", "siglip"):
                raise InputError(f"encoder {name}: a {kind} model has no text tower that dermlab knows")
            network: Any = towers.load_transformers(CLIPModel if kind == "clip" else SiglipModel, folder, {})
            self._tokenizer: Any = _tokenizer(lambda: AutoTokenizer.from_pretrained(folder, **local), folder)
        del network.vision_model  # the photos are embedded by the encoder of the same name
        self._network = network.eval()
        self.name, self.is_sigmoid = name, kind == "siglip"
        self.scale = float(network.logit_scale.detach().exp())
        self.bias = float(network.logit_bias.detach()) if self.is_sigmoid else 0.0

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        return features if self.is_sigmoid else self._network.visual_projection(features)

    def _read(self, sentences: list[str]) -> torch.Tensor:
        if self.is_sigmoid:
            # big_vision lower-cases what SigLIP and SigLIP 2 read; SigLIP 2's Gemma tokenizer would not by itself.
            sentences = [sentence.lower() for sentence in sentences]
        # SigLIP was trained on texts filled up to the full length, and gives others for shorter ones.
        tokens = self._tokenizer(
            sentences,
            padding="max_length" if self.is_sigmoid else True,
            truncation=True,
            max_length=self._network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        given = {"input_ids": tokens["input_ids"]}
        if not self.is_sigmoid:
            given["attention_mask"] = tokens["attention_mask"]
        output = self._network.get_text_features(**given)
        return output if isinstance(output, torch.Tensor) else output.pooler_output


def _tokenizer(build: Any, folder: Path) -> Any:
    try:
        return build()
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise InputError(
            f"{folder}: has no tokenizer that can be read ({first_line(error)}); copy the checkpoint's own "
            "tokenizer.json and tokenizer_config.json there"
        ) from None


# ---------------------------------------------------------------- open_clip

# What a CLIP that open_clip wrote before it had text towers of its own calls the parts of its text tower.
_OLD_TEXT = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")
# transformers kept this counter among BERT's tensors until 4.31.
_OLD_COUNTER = "transformer.embeddings.position_ids"
BERT_HEAD_DIM = 64


class OpenClipTowers(TwoTower):
    """A CLIP or SigLIP that open_clip wrote, its sentences read by open_clip's own tower or by a BERT."""

    def __init__(self, name: str, folder: Path, file: Path) -> None:
        """Load the text tower strictly, the image tower's projection, and the tokenizer, on the CPU."""
        try:
            import open_clip
        except ImportError:
            raise MissingExtraError(f"the sentences of encoder {name}", "open_clip_torch", "openclip") from None

        where = folder / towers.OPEN_CLIP_CONFIG
        try:
            model = read_json(where)["model_cfg"]
            text_cfg, embed_dim = dict(model["text_cfg"]), int(model["embed_dim"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: is no config of open_clip's (no {error})") from None
        state = read_state(file)
        if "logit_scale" not in state:
            raise InputError(f"{file}: has an image tower alone (no logit_scale); sentences need the whole model")
        words = _text_state(state)
        with towers.quiet_transformers(), towers.initialisation(None):
            self._text: Any = _text_tower(text_cfg, embed_dim, bool(model.get("quick_gelu")), folder, words, where)
            load_strictly(self._text, words, f"{file} (text tower)")
            self._tokenizer: Any = _tokenizer(
                lambda: open_clip.get_tokenizer(f"local-dir:{folder}", context_length=text_cfg.get("context_length")),
                folder,
            )
        self._text.eval()
        self._projection = _projection(state, str(file)).eval()
        self.name = name
        self.scale = float(state["logit_scale"].float().exp())
        self.is_sigmoid = "logit_bias" in state
        self.bias = float(state["logit_bias"].float()) if self.is_sigmoid else 0.0

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        return self._projection(features)

    def _read(self, sentences: list[str]) -> torch.Tensor:
        return self._text(self._tokenizer(sentences))


def _text_state(state: State) -> State:
    """Return the text tower's tensors without its prefix."""
    if "text_projection" in state or "positional_embedding" in state:
        return {key: value for key, value in state.items() if key.startswith(_OLD_TEXT)}
    words = {key.removeprefix("text."): value for key, value in state.items() if key.startswith("text.")}
    words.pop(_OLD_COUNTER, None)
    return words


def _text_tower(
    text_cfg: dict[str, Any], embed_dim: int, quick_gelu: bool, folder: Path, words: State, where: Path
) -> nn.Module:
    from open_clip.hf_model import HFTextEncoder
    from open_clip.model import CLIPTextCfg, _build_text_tower

    try:
        config = CLIPTextCfg(**text_cfg)
        if not config.hf_model_name:
            return _build_text_tower(embed_dim, config, quick_gelu)
        # Asked by its name, open_clip would fetch the BERT's config from the hub, where there may be no network.
        tower = HFTextEncoder(
            config.hf_model_name,
            output_dim=embed_dim,
            config=_bert_config(config.hf_model_name, folder, words),
            pooler_type=config.hf_pooler_type,
            proj_type=config.hf_proj_type,
        )
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise InputError(f"{where}: text_cfg describes no text tower of open_clip's ({first_line(error)})") from None
    if not any(key.startswith("transformer.pooler.") for key in words):
        tower.transformer.pooler = None
    return tower


def _bert_config(name: str, folder: Path, words: State) -> Any:
    """Return the config of the transformer that reads the sentences: the folder's, the hub cache's, or a BERT's.

    A BERT's config follows from its tensors' shapes, but for the number of heads, which are of 64 dimensions in every
    published one.
    """
    from transformers import AutoConfig, BertConfig

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    for source in (folder, name):
        try:
            found = AutoConfig.from_pretrained(source, **local)
        except (OSError, ValueError, KeyError):
            continue
        if hasattr(found, "vocab_size"):
            return found
    try:
        embeddings = {
            part: words[f"transformer.embeddings.{part}_embeddings.weight"]
            for part in ("word", "position", "token_type")
        }
        wide = words["transformer.encoder.layer.0.intermediate.dense.weight"].shape[0]
    except KeyError:
        embeddings, wide = {}, 0
    if not embeddings or len(embeddings["token_type"]) != 2:  # a RoBERTa has one type of token, and counts from 2
        raise InputError(
            f"{folder}: its text tower is {name}, whose config.json is not here; copy it to {folder / 'config.json'}"
        )
    layers = {key.split(".")[3] for key in words if key.startswith("transformer.encoder.layer.")}
    vocab_size, hidden_size = embeddings["word"].shape
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, hidden_size // BERT_HEAD_DIM),
        intermediate_size=wide,
        max_position_embeddings=len(embeddings["position"]),
        type_vocab_size=2,
    )


def _projection(state: State, source: str) -> nn.Module:
    """Return the image tower's last layer, which the encoder of the same file leaves off."""
    if "visual.proj" in state:
        return _linear(state["visual.proj"].T, None)
    for name in ("visual.head.proj", "visual.head", "visual.trunk.head"):
        if f"{name}.weight" in state:
            return _linear(state[f"{name}.weight"], state.get(f"{name}.bias"))
    if "visual.head.mlp.fc1.weight" in state:
        layers = [
            _linear(state[f"visual.head.mlp.{name}.weight"], state.get(f"visual.head.mlp.{name}.bias"))
            for name in ("fc1", "fc2")
        ]
        return nn.Sequential(layers[0], nn.GELU(), layers[1])
    if any(key.startswith("visual.head.") for key in state):
        raise InputError(f"{source}: its image tower ends in a layer that dermlab does not know")
    return nn.Identity()  # open_clip's SigLIP: the attention pooling is the last word


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({"bias": bias} if bias is not None else {}))
    return layer.float()


# ---------------------------------------------------------------- classes


def prompt_vectors(model: TwoTower, classes: Mapping[str, Sequence[str]], templates: Sequence[str]) -> np.ndarray:
    """Return one unit vector a class (C, D): the mean over its words in every template (CLIP, section 3.1.4).

    Args:
        model: whose text tower reads them.
        classes: class → the words for it.
        templates: sentences with ``{}`` where the word goes.

    Raises:
        InputError: a class has no word, or a template no place for it.
    """
    _check(classes, templates, "classes")
    sentences = [template.replace("{}", word) for words in classes.values() for word in words for template in templates]
    vectors = model.texts(sentences)
    ends = np.cumsum([len(words) * len(templates) for words in classes.values()])
    means = np.stack([part.mean(0) for part in np.split(vectors, ends[:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def _check(words: Mapping[str, Sequence[str]], templates: Sequence[str], what: str) -> None:
    if not templates or any("{}" not in template for template in templates):
        raise InputError("templates: each needs a {} where the word goes")
    empty = [name for name, some in words.items() if not some]
    if empty:
        raise InputError(f"{what}.{empty[0]}: needs at least one word")


def class_probabilities(model: TwoTower, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return probabilities (N, C) float64 that sum to 1.

    A CLIP's are the softmax of the scaled similarities, as it was trained. A SigLIP's are its sigmoids (scale and bias
    its own), each an answer for one class alone, divided by their sum.

    Args:
        model: for its scale, bias and family.
        images: (N, D) unit vectors.
        classes: (C, D) unit vectors.
    """
    logits = _logits(model, images, classes)
    if model.is_sigmoid:
        logits = -np.logaddexp(0.0, -logits)  # the logarithm of the sigmoid: their ratios survive where they underflow
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def label_probabilities(model: TwoTower, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a SigLIP's own sigmoids (N, C) float64, each for one label alone, as several may be true of a photo.

    Args:
        model: a SigLIP.
        images: (N, D) unit vectors.
        labels: (C, D) unit vectors.

    Raises:
        InputError: a CLIP, whose similarities say only which of several sentences fits better.
    """
    if not model.is_sigmoid:
        raise InputError(
            f"encoder {model.name}: a CLIP compares sentences and cannot say of one label alone whether it is there; "
            "take a SigLIP (medsiglip), or its concepts (dermlab concepts)"
        )
    logits = _logits(model, images, labels)
    return np.exp(-np.logaddexp(0.0, -logits))


def _logits(model: TwoTower, images: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    return model.scale * (images.astype(np.float64) @ sentences.T.astype(np.float64)) + model.bias


# ---------------------------------------------------------------- concepts


def concept_scores(
    model: TwoTower, images: np.ndarray, concepts: Mapping[str, Sequence[str]], templates: Mapping[str, str]
) -> np.ndarray:
    """Return how much each photo shows each concept, (N, K) float64 between 0 and 1; .5 where no more than any photo.

    As MONET does it (Kim et al., Nature Medicine 30:1154, 2024, Methods; suinleelab/MONET,
    tutorial/automatic_concept_annotation.ipynb): in each template, the similarities to the concept's words are averaged
    and held against that of the same sentence without any word, by a softmax of both scaled similarities; the scores of
    the templates are averaged. The bias of a SigLIP falls out.

    Args:
        model: whose text tower reads the sentences.
        images: (N, D) unit vectors.
        concepts: concept → the words for it.
        templates: sentence with ``{}`` where the word goes → the same sentence that says nothing.

    Raises:
        InputError: a concept has no word, or a template no place for it.
    """
    _check(concepts, list(templates), "concepts")
    images = images.astype(np.float64)
    ends = np.cumsum([len(words) for words in concepts.values()])
    words = [word for some in concepts.values() for word in some]
    total = np.zeros((len(images), len(concepts)))
    for template, reference in templates.items():
        vectors = model.texts([*(template.replace("{}", word) for word in words), reference])
        means = np.stack([part.mean(0) for part in np.split(vectors[:-1], ends[:-1])])
        difference = model.scale * (images @ (means - vectors[-1]).T)
        total += 0.5 * (1 + np.tanh(difference / 2))  # the softmax of two, without overflow
    return total / len(templates)


# ---------------------------------------------------------------- texts and photos


QUERIES_AT_ONCE = 1024  # similarities of so many with all candidates are in memory together


def partner_ranks(queries: np.ndarray, candidates: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Return at which place each query's nearest partner stands among the candidates, int64 (N,), the first being 1.

    Of equal similarities the partner counts as the last, so a model that gives all photos one vector earns nothing.
    Further partners of the same query are no rivals.

    Args:
        queries: (N, D) unit vectors: photos, or texts.
        candidates: (M, D) unit vectors of the other kind.
        own: (N, M) bool, which candidates belong to which query, at least one to each; None: row i to row i.
    """
    own = np.eye(len(queries), dtype=bool) if own is None else own
    ranks = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        block = slice(start, start + QUERIES_AT_ONCE)
        similarity = queries[block] @ candidates.T
        best = np.where(own[block], similarity, -np.inf).max(1, keepdims=True)
        ranks.append(((similarity >= best) & ~own[block]).sum(1) + 1)
    return np.concatenate(ranks)
