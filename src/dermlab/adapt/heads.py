"""From a word in a config to a head."""

from __future__ import annotations

from collections.abc import Sequence

from dermlab.adapt.base import Head
from dermlab.adapt.config import HeadConfig
from dermlab.adapt.floors import MajorityHead
from dermlab.adapt.fusion import FusionHead
from dermlab.adapt.knn import KNNHead
from dermlab.adapt.linear import LinearHead
from dermlab.adapt.mlp import MLPHead

HEADS: dict[str, type[Head]] = {
    "knn": KNNHead,
    "linear": LinearHead,
    "mlp": MLPHead,
    "fusion": FusionHead,
    # The same classifier on other inputs: the encoded questionnaire.
    "questionnaire": LinearHead,
    "majority": MajorityHead,
}


def make_head(
    config: HeadConfig | str,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    n_embedding: int | None = None,
    blocks: Sequence[int] | None = None,
) -> Head:
    """Return the unfitted head that a config describes.

    Args:
        config: a head's config, or its kind alone.
        seed: of weights, batches and hold-out.
        classes: all classes of the target in order; None: those that occur in training or validation.
        n_embedding: for ``fusion``: how many leading features are the embedding.
        blocks: for ``fusion``: features of each questionnaire column
            (:attr:`dermlab.data.metadata.QuestionnaireEncoder.blocks_`).
    """
    if isinstance(config, str):
        config = HeadConfig(kind=config)  # type: ignore[arg-type]
    settings = config.settings()
    settings.pop("with_questionnaire", None)  # decides on the inputs, not on the head
    if config.kind == "fusion":
        settings |= {"n_embedding": n_embedding, "blocks": blocks}
    return HEADS[config.kind](classes=classes, random_state=seed, **settings)
