"""How a predictions table that another tool wrote names its columns: options of ``evaluate`` and ``compare``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dermlab.core.config import Config


class Columns(Config):
    """How a table that another tool wrote names its columns; tables of dermlab need none of this."""

    id: str = Field("image_id", description="column with the image's id")
    label: str = Field("label", description="column with the true class")
    prediction: str = Field("prediction", description="column with the predicted class, for tables of hard labels")
    probability_prefix: str = Field(
        "p:", description="how the columns of class probabilities begin: the rest of the name is the class"
    )
    probability: str | None = Field(
        None, description="single column with the probability of the second of two classes (the positive one)"
    )
    scores: Literal["probabilities", "logits"] = Field(
        "probabilities", description="what the score columns hold; logits go through a softmax"
    )
    classes: tuple[str, ...] = Field(
        (), description="the classes in order; also the names of probability columns that have no prefix"
    )
    group: str | None = Field(None, description="column of the patient or lesion that intervals are computed over")
    unit: str | None = Field(None, description="column of the lesion or patient that is scored as one")
    split_column: str | None = Field(
        None, description="column of the split (train, val, test); without one all rows are test"
    )
