"""Models with an image and a text tower: classes from prompts, concepts as scores, texts that belong to photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from dermlab.core.errors import InputError, MissingExtraError, first_line
from dermlab.models import encoders, towers
from dermlab.models.preprocess import Preprocess, from_transformers


class TwoTower:
    """A CLIP or SigLIP of transformers: photos and sentences become unit vectors of one space.

    ``scale`` and ``bias`` are the model's own, learned in its pretraining (bias: SigLIP's, else 0).
    """

    def __init__(self, name: str, folder: Path) -> None:
        """Load both towers and the tokenizer of a model folder, strictly, on the CPU."""
        try:
            from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel, SiglipModel
        except ImportError:
            raise MissingExtraError(f"encoder {name}", "transformers", "hf") from None

        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with towers.quiet_transformers():
                kind = AutoConfig.from_pretrained(folder, **local).model_type
                if kind not in ("clip", "siglip"):
                    raise InputError(f"encoder {name}: a {kind} model has no text tower that dermlab knows")
                self.network: Any = towers.load_transformers(CLIPModel if kind == "clip" else SiglipModel, folder, {})
                self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
                self.preprocess: Preprocess = from_transformers(AutoImageProcessor.from_pretrained(folder, **local))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder}: cannot be read as a two-tower model ({first_line(error)})") from None
        self.network.eval()
        self.name, self.is_sigmoid = name, kind == "siglip"
        self.scale = float(self.network.logit_scale.detach().exp())
        self.bias = float(self.network.logit_bias.detach()) if self.is_sigmoid else 0.0

    def images(self, images: torch.Tensor) -> np.ndarray:
        """Return unit vectors (B, D) float32 of normalised images (B, 3, H, W)."""
        with torch.inference_mode():
            return _unit(self.network.get_image_features(pixel_values=images))

    def texts(self, sentences: Sequence[str]) -> np.ndarray:
        """Return unit vectors (N, D) float32 of sentences, which are cut where they are longer than the model reads."""
        length = self.network.config.text_config.max_position_embeddings
        # SigLIP was trained on texts filled up to the full length, and gives others for shorter ones.
        padding = "max_length" if self.is_sigmoid else True
        tokens = self.tokenizer(
            list(sentences), padding=padding, truncation=True, max_length=length, return_tensors="pt"
        )
        taken = {"input_ids": tokens["input_ids"]}
        if not self.is_sigmoid:
            taken["attention_mask"] = tokens["attention_mask"]
        with torch.inference_mode():
            return _unit(self.network.get_text_features(**taken))


def _unit(output: Any) -> np.ndarray:
    vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
    return normalize(vectors.float(), dim=-1).numpy()


def open_two_tower(name: str) -> TwoTower:
    """Open both towers of a model.

    Args:
        name: an alias or ``hf:…`` of a transformers CLIP or SigLIP (``medsiglip``, ``monet``), or its folder.

    Raises:
        InputError: it has no text tower, or no tokenizer beside it.
        MissingWeightsError: it is not here and cannot be fetched.
    """
    found = encoders.locate_weights(name)
    folder = found.parent if found is not None and found.is_file() else found
    if folder is None or not (folder / "config.json").is_file():
        raise InputError(f"encoder {name}: is no model folder of transformers with two towers")
    return TwoTower(name, folder)


def prompt_vectors(model: TwoTower, classes: Mapping[str, Sequence[str]], templates: Sequence[str]) -> np.ndarray:
    """Return one unit vector a class (C, D): the mean over its words in every template (CLIP, section 3.1.4).

    Args:
        model: whose text tower reads them.
        classes: class → the words for it.
        templates: sentences with ``{}`` where the word goes.

    Raises:
        InputError: a class has no word, or a template no place for it.
    """
    if not templates or any("{}" not in template for template in templates):
        raise InputError("templates: each needs a {} where the word goes")
    empty = [name for name, words in classes.items() if not words]
    if empty:
        raise InputError(f"classes.{empty[0]}: needs at least one word")
    vectors = []
    for words in classes.values():
        mean = model.texts([template.replace("{}", word) for word in words for template in templates]).mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    return np.stack(vectors)


def class_probabilities(model: TwoTower, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return probabilities (N, C) float64 that sum to 1: the softmax of the scaled similarities.

    SigLIP's sigmoids answer for each class alone; its softmax orders the classes in the same way.
    """
    logits = model.scale * (images.astype(np.float64) @ classes.T)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def concept_scores(model: TwoTower, images: np.ndarray, concepts: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return how much each photo shows each concept (N, K), between 0 and 1.

    The concept's sentence is held against one that says nothing (MONET, Kim et al. 2024, methods): the softmax of both
    scaled similarities.

    Args:
        model: for its scale.
        images: (N, D) unit vectors.
        concepts: (K, D) unit vectors.
        reference: (D,) unit vector of the sentence that says nothing.
    """
    difference = model.scale * (images.astype(np.float64) @ (concepts - reference).T)
    return 0.5 * (1 + np.tanh(difference / 2))


def recall_at(images: np.ndarray, texts: np.ndarray, k: int) -> tuple[float, float]:
    """Return recall@k of texts for photos and of photos for texts; row i of both belongs together.

    Of equal similarities the partner counts as the last, so a model that gives all photos one vector earns nothing.

    Args:
        images: (N, D) unit vectors.
        texts: (N, D) unit vectors.
        k: how many may be looked at, 1 to N - 1.
    """
    if images.shape != texts.shape or not 1 <= k < len(images):
        raise InputError(f"recall@{k}: wants as many texts as photos, more than {k}")
    similarity = images @ texts.T
    own = np.diag(similarity)
    text_rank = (similarity >= own[:, None]).sum(1)
    image_rank = (similarity >= own[None, :]).sum(0)
    return float((text_rank <= k).mean()), float((image_rank <= k).mean())
