"""What a run leaves: an encoder folder with its preprocessing and its lineage."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dermlab.licensing.card import Evidence, LicenceCard
from dermlab.models.encoders import Encoder, fingerprint, save_encoder

if TYPE_CHECKING:
    from dermlab.data.dataset import Dataset


def export_encoder(
    encoder: Encoder, folder: str | Path, *, name: str, made_from: Sequence[str], cautions: Sequence[str], told: str
) -> Path:
    """Write an encoder folder that every command takes and, for a timm network, plain timm loads.

    Args:
        encoder: with its trained weights.
        folder: to write.
        name: what people call it.
        made_from: licence cards of data, first weights and teacher.
        cautions: what to know of it, such as which test photos were left out.
        told: one line on how it was trained.
    """
    identity = encoder.identity
    identity = replace(
        identity,
        name=str(folder),
        fingerprint=fingerprint(encoder.network, identity.library, identity.architecture, identity.arguments),
        licence_card=None,
        lineage=tuple(made_from),
    )
    card = LicenceCard(
        id=f"pretrained:{identity.fingerprint[:12]}",
        kind="model",
        name=name,
        licence="own work",
        commercial_use="yes",
        clinical_use="yes",
        derivatives="yes",
        redistribution="yes",
        evidence=(
            Evidence(
                quote="trained here; what it was made from decides",
                address="config.yaml",
                seen=datetime.datetime.now(datetime.UTC).date(),
            ),
        ),
        trained_on=tuple(dict.fromkeys(made_from)),
        framework="torch",
        n_parameters=identity.n_parameters,
        size_px=identity.preprocess.size_px,
        fit=identity.preprocess.fit,
        cautions=tuple(cautions),
        notes=told,
    )
    return save_encoder(Encoder(encoder.network, identity), folder, card=card)


def data_cards(datasets: Sequence[Dataset]) -> list[str]:
    """Return the licence cards of data sets; one without a card stands by its name."""
    return [one.card.licence_card or one.card.name for one in datasets]
