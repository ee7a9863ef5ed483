"""Whether encoder names name anything: asked of all of them before hours of work, without loading weights."""

from __future__ import annotations

from collections.abc import Mapping

from dermlab.core.errors import InputError, MissingExtraError
from dermlab.models.names import parse_name

HISTOGRAM = "histogram"


def require_known(names: Mapping[str, str | None]) -> None:
    """Refuse names that name nothing, all of them at once; weights that are not here are no fault of a name.

    Args:
        names: place (``encoders.0``) -> encoder's name, None where there is none.

    Raises:
        InputError: one line with every unknown name, its place and the names near it.
    """
    faults = []
    for place, name in names.items():
        try:
            _check(name)
        except MissingExtraError:
            continue  # whoever builds it says what to install
        except InputError as error:
            faults.append(f"{place}: {error}")
    if faults:
        raise InputError("; ".join(faults))


def _check(name: str | None) -> None:
    if name is None or name == HISTOGRAM:
        return
    parsed = parse_name(name)
    if parsed.architecture is None or parsed.alias is not None:
        return
    if parsed.library == "timm":
        from dermlab.models.towers import timm_sources

        timm_sources(parsed.architecture)
    elif parsed.library == "torchvision":
        from dermlab.models.towers import torchvision_weights

        torchvision_weights(parsed.architecture)
