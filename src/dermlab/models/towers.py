"""The networks themselves: torchvision, timm and transformers models without their classifiers, loaded strictly."""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dermlab.core.errors import InputError, MissingExtraError, first_line
from dermlab.core.files import read_json
from dermlab.models.converters import from_transformers as from_transformers_names
from dermlab.models.converters import is_from_transformers, to_clip, without_text
from dermlab.models.preprocess import Preprocess, from_open_clip, from_timm, from_torchvision, from_transformers
from dermlab.models.surgery import shrink_stem
from dermlab.models.weights import (
    State,
    check_is_weights,
    load_strictly,
    mismatch,
    read_state,
    tensor_names,
    weights_in_folder,
)


@dataclass(frozen=True)
class Tower:
    """A network that pools, and what the library says about it.

    Attributes:
        network: the library's own module in evaluation mode; ``arguments`` build it again.
        architecture: the library's name of it.
        arguments: keyword arguments beyond the architecture.
        dim: length of the pooled vector.
        has_tokens: whether it has one vector for each patch.
        preprocess: the library's preprocessing for these weights.
        library: whose network it is, where that is another than the name's.
    """

    network: nn.Module
    architecture: str
    arguments: dict[str, Any]
    dim: int
    has_tokens: bool
    preprocess: Preprocess
    library: str | None = None


class _WithoutInitialisation(TorchFunctionMode):
    """Skip the drawing of initial weights, which takes longer than reading the real ones that replace all of them."""

    DRAWS = frozenset(
        {
            torch.Tensor.uniform_,
            torch.Tensor.normal_,
            torch.Tensor.erfinv_,
            nn.init.uniform_,
            nn.init.normal_,
            nn.init.trunc_normal_,
            nn.init.kaiming_uniform_,
            nn.init.kaiming_normal_,
            nn.init.xavier_uniform_,
            nn.init.xavier_normal_,
        }
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor as it is where it would be drawn."""
        kwargs = kwargs or {}
        if func in self.DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def initialisation(seed: int | None) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a network is built: weights drawn from ``seed``, or left undrawn for None."""
    return _WithoutInitialisation() if seed is None else seeded(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from ``seed`` and leave the caller's randomness as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which sets the GPUs' generators too
        yield


# ---------------------------------------------------------------- torchvision


def torchvision_weights(architecture: str) -> tuple[str, Any]:
    """Return a torchvision architecture's name and its weights entry (the default one, or the one after the dot).

    Raises:
        InputError: torchvision has no such classification model or weights.
    """
    from torchvision import models

    name, _, tag = architecture.partition(".")
    if name not in models.list_models(module=models):
        raise InputError(f"torchvision:{architecture}: torchvision has no classification model {name!r}")
    entries = models.get_model_weights(name)
    if not tag:
        return name, entries.DEFAULT
    known = {entry.name: entry for entry in entries}
    if tag not in known:
        raise InputError(f"torchvision:{architecture}: {name} has the weights {', '.join(known)}, not {tag}")
    return name, known[tag]


def build_torchvision(
    architecture: str, state: State | None, *, seed: int, size_px: int | None, source: str, device: str = "cpu"
) -> Tower:
    """Build a torchvision classifier whose last linear layer is taken away, so that it returns what enters that layer.

    Args:
        architecture: ``resnet50`` or ``resnet50.IMAGENET1K_V1``.
        state: tensors by name with or without the classifier's; None draws random weights from ``seed``.
        seed: of the random weights.
        size_px: an input size other than the weights' own.
        source: what the state was read from, for errors.
        device: ``"meta"`` builds the shapes only.
    """
    from torchvision import models

    name, weights = torchvision_weights(architecture)
    chosen = from_torchvision(weights.transforms())
    with initialisation(seed if state is None else None), torch.device(device):
        network = models.get_model(name, weights=None)
    head = classifier_name(network)
    if head is None:
        raise InputError(f"torchvision:{architecture}: its last layer is not linear, so it has no pooled vector")
    if size_px is not None and isinstance(network, models.VisionTransformer) and network.image_size != size_px:
        raise InputError(
            f"torchvision:{architecture}: takes {network.image_size} px only; timm's transformers take other sizes"
        )
    linear = network.get_submodule(head)
    network.set_submodule(head, nn.Identity())
    if state is not None:
        load_strictly(network, without(state, [head]), source)
    return Tower(
        network=network.eval(),
        architecture=architecture,
        arguments={},
        dim=int(linear.in_features),
        has_tokens=isinstance(network, models.VisionTransformer),
        preprocess=chosen.changed(size_px=size_px),
    )


def classifier_name(network: nn.Module) -> str | None:
    """Return the name of a torchvision classifier's last linear layer, or None where it ends otherwise."""
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    linear = [(name, module) for name, module in leaves if isinstance(module, nn.Linear)]
    named = [name for name, _ in linear if name.split(".")[0] in ("fc", "classifier", "heads", "head")]
    return named[-1] if named else None


def torchvision_tokens(network: Any, images: torch.Tensor) -> torch.Tensor:
    """Return the patch tokens (B, N, D) of a torchvision VisionTransformer, after its last norm."""
    patches = network._process_input(images)
    tokens = torch.cat([network.class_token.expand(len(patches), -1, -1), patches], dim=1)
    return network.encoder(tokens)[:, 1:]


# ---------------------------------------------------------------- timm

SECOND_NORM = "second_norm"
"""Argument of ours: norm the mean of the normed patches once more, which no timm model does (DermLIP's PanDerm)."""

SMALL_STEM = "small_stem"
"""Key of a random ResNet whose stem is one 3×3 convolution of stride 1, for photos under 64 px; timm has none."""


def build_timm(
    architecture: str,
    state: State | None,
    *,
    seed: int,
    size_px: int | None,
    source: str,
    folder: Path | None = None,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
) -> Tower:
    """Build a timm model without classifier: ``timm.create_model(architecture, num_classes=0)``, loaded strictly.

    Args:
        architecture: ``resnet18`` or ``resnet18.a1_in1k``.
        state: tensors by name, timm's or those of the model's first publication (timm translates them), with or
            without a classifier; None draws random weights from ``seed``.
        seed: of the random weights.
        size_px: an input size other than the weights' own; position embeddings are resampled to it, and
            transformers then take any size (``dynamic_img_size``).
        source: what the state was read from, for errors.
        folder: a model folder whose config.json describes the architecture, instead of its name.
        device: ``"meta"`` builds the shapes only.
        options: keyword arguments beyond the architecture's own.
    """
    import timm
    from timm.data import resolve_model_data_config
    from timm.models._hub import load_model_config_from_path

    name = f"local-dir:{folder}" if folder is not None else architecture
    arguments: dict[str, Any] = dict(options or {})
    second_norm = bool(arguments.pop(SECOND_NORM, False))
    small_stem = bool(arguments.pop(SMALL_STEM, False))
    if folder is None:
        config = _timm_config(architecture)
        fixed = bool(config is not None and config.fixed_input_size)
    else:
        saved, _, arguments = load_model_config_from_path(folder)
        second_norm = bool(read_json(folder / "config.json").get(SECOND_NORM))
        small_stem = bool(read_json(folder / "config.json").get(SMALL_STEM))
        fixed = bool(saved.get("fixed_input_size") or arguments.get("dynamic_img_size"))
    if size_px is not None and fixed:
        arguments = {**arguments, "img_size": size_px, "dynamic_img_size": True}

    def create(**extra: Any) -> Any:
        with initialisation(seed if state is None else None), torch.device(device):
            built = timm.create_model(name, pretrained=False, num_classes=0, **extra)
            if small_stem:
                shrink_stem(built, architecture)
            return built

    try:
        try:
            network = create(**arguments)
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
            # Swin and its kin have windows of fixed number: they take a size when built, not any size afterwards.
            arguments.pop("dynamic_img_size")
            network = create(**arguments)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise InputError(f"timm:{architecture}: timm cannot build it ({first_line(error)})") from None
    if second_norm:
        network.fc_norm = copy.deepcopy(network.norm)
        arguments[SECOND_NORM] = True
    if small_stem:
        arguments[SMALL_STEM] = True
    if state is not None:
        state = _timm_native(network, state)
        classifier = network.pretrained_cfg.get("classifier") or ()
        heads = [classifier] if isinstance(classifier, str) else list(classifier)
        load_strictly(network, without(state, heads), source)
    chosen = from_timm(resolve_model_data_config(network))
    return Tower(
        network=network.eval(),
        architecture=architecture,
        arguments=arguments,
        dim=int(getattr(network, "head_hidden_size", None) or network.num_features),
        has_tokens=hasattr(network, "num_prefix_tokens"),
        preprocess=chosen.changed(size_px=size_px),
    )


def _timm_config(architecture: str) -> Any:
    """Return timm's record of a checkpoint. Raises :class:`InputError` naming the nearest where there is none."""
    import difflib

    import timm

    name, _, tag = architecture.partition(".")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise InputError(
            f"timm:{architecture}: timm {timm.__version__} has no model {name!r}"
            + (f"; near it: {', '.join(near)}" if near else "")
        )
    try:
        config = timm.models.get_pretrained_cfg(architecture)
    except RuntimeError:
        config = None
    if tag and config is None:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
        raise InputError(
            f"timm:{architecture}: {name} has the weights {', '.join(tags) or 'of no publication'}, not {tag}"
        )
    return config


def timm_input_size(architecture: str) -> int:
    """Return the input side in pixels that timm states for a checkpoint."""
    config = _timm_config(architecture)
    return int(config.input_size[-1]) if config is not None else 224


def timm_sources(architecture: str) -> tuple[str | None, tuple[str, ...], str | None]:
    """Return where timm's weights are published: hub repository, file names there, plain address.

    Raises:
        InputError: timm has no such model or weights.
    """
    config = _timm_config(architecture)
    if config is None:
        return None, (), None
    names = ("model.safetensors", "pytorch_model.bin")
    if config.hf_hub_filename:
        stem = config.hf_hub_filename.removesuffix(".bin")
        names = (stem.replace("pytorch_model", "model") + ".safetensors", config.hf_hub_filename)
    url = config.url if config.url and not config.url.endswith(".npz") else None
    return config.hf_hub_id or None, names, url or None


def timm_name(architecture: str) -> str:
    """Return a timm architecture with its tag: ``resnet18`` is ``resnet18.a1_in1k``."""
    config = _timm_config(architecture)
    return f"{config.architecture}.{config.tag}" if config is not None and config.tag else architecture


def _timm_native(network: nn.Module, state: State) -> State:
    """Translate a state of a model's first publication to timm's names by timm's own function for that family.

    Transformers' names, which timm does not know, are ours to translate.
    """
    if is_from_transformers(state):
        return from_transformers_names(state)
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    parameters = inspect.signature(translate).parameters
    state = translate(dict(state), network) if len(parameters) > 1 else translate(dict(state))
    return dict(state)


def without(state: Mapping[str, torch.Tensor], modules: list[str]) -> State:
    """Return the state without the tensors of these modules."""
    prefixes = tuple(f"{name}." for name in modules)
    return {key: tensor for key, tensor in state.items() if not key.startswith(prefixes or "\0")}


def timm_tokens(network: Any, images: torch.Tensor) -> torch.Tensor:
    """Return the patch tokens (B, N, D) of a timm transformer, after its last norm, class and register tokens off."""
    return network.forward_features(images)[:, network.num_prefix_tokens :]


# ---------------------------------------------------------------- transformers

VISION_TOWERS = {"clip": "CLIPVisionModel", "clip_vision_model": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
# These models' checkpoints often have no pooler, or one that was trained for something else: the class token is theirs.
WITHOUT_POOLER = ("vit", "deit", "beit", "vit_mae", "vit_msn")


def build_transformers(
    folder: Path, preprocess: Preprocess | None, *, random: bool, seed: int, size_px: int | None
) -> Tower:
    """Build the vision tower of a transformers model folder.

    Two-tower models give their image tower only. The pooled vector is the model's own ``pooler_output``: for CLIP the
    normed class token before the projection, for SigLIP the attention pooling, for DINOv2 the normed class token; for
    ViT and its kin the normed class token (never the tanh pooler, which many checkpoints lack).

    Args:
        folder: holds config.json, preprocessor_config.json and, unless ``random``, the weights.
        preprocess: what to use instead of preprocessor_config.json.
        random: draw the weights from ``seed``.
        seed: of the random weights.
        size_px: an input size other than the model's own; position embeddings are interpolated.

    Raises:
        InputError: the folder is no vision model, misses tensors, or cannot be read.
        MissingExtraError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError(f"{folder}", "transformers", "hf") from None
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    with quiet_transformers():
        try:
            # Said outright, or transformers asks at the keyboard whether to run the Python that a checkpoint brings.
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (ValueError, OSError, KeyError) as error:
            raise InputError(f"{folder}: transformers cannot read its config.json ({first_line(error)})") from None
        kind = config.model_type
        if kind == "siglip2":
            raise InputError(
                f"{folder}: a SigLIP 2 of any aspect (NaFlex) takes patches, not squares; use the fixed-size checkpoint"
            )
        extra: dict[str, Any] = {"add_pooling_layer": False} if kind in WITHOUT_POOLER else {}
        model_class: Any = getattr(transformers, VISION_TOWERS[kind]) if kind in VISION_TOWERS else AutoModel
        if model_class is AutoModel:
            extra["trust_remote_code"] = False
        if random:
            vision = getattr(config, "vision_config", config)
            with seeded(seed):
                network = model_class(vision) if kind in VISION_TOWERS else AutoModel.from_config(vision, **extra)
        else:
            network = load_transformers(model_class, folder, extra)
        if preprocess is None:
            try:
                processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
                preprocess = from_transformers(processor)
            except (ValueError, OSError, KeyError, TypeError) as error:
                raise InputError(
                    f"{folder}: has no preprocessor_config.json that transformers can read ({first_line(error)}); "
                    "copy the checkpoint's own beside its config.json"
                ) from None
    if "pixel_values" not in inspect.signature(network.forward).parameters:
        raise InputError(f"{folder}: a {kind} model takes no images")
    dim = getattr(network.config, "hidden_size", None) or network.config.hidden_sizes[-1]
    return Tower(
        network=network.eval(),
        architecture=kind,
        arguments={},
        dim=int(dim),
        has_tokens=isinstance(getattr(network.config, "patch_size", None), int) and kind not in ("swin", "swinv2"),
        preprocess=preprocess.changed(size_px=size_px),
    )


def load_transformers(model_class: Any, folder: Path, extra: dict[str, Any]) -> Any:
    """Load a transformers model from its folder; missing or misshapen tensors are one :class:`InputError` line."""
    weights = weights_in_folder(folder)
    if weights is None:
        raise InputError(f"{folder}: has a config.json but no weights (model.safetensors)")
    check_is_weights(weights)
    if model_class.__name__ == VISION_TOWERS["clip"] and "patch_embed.proj.weight" in tensor_names(weights):
        return _clip_of_timm(model_class, folder, weights)
    try:
        network, report = model_class.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            use_safetensors="safetensors" in weights.name,
            **extra,
        )
    except Exception as error:  # safetensors, pickle, json and torch each have their own; all mean the same here
        raise InputError(
            f"{weights}: truncated or not this model's weights ({first_line(error)}); copy it here again"
        ) from None
    missing = sorted(str(key) for key in report["missing_keys"])
    wrong = [f"{key} is {tuple(a)}, not {tuple(b)}" for key, a, b in report["mismatched_keys"]]
    if missing or wrong:
        raise mismatch(str(weights), missing, (), wrong)
    return network


def _clip_of_timm(model_class: Any, folder: Path, weights: Path) -> Any:
    """Load a CLIP vision tower that stands under transformers' config, but with timm's names of its tensors."""
    with initialisation(None):
        network = model_class(model_class.config_class.from_pretrained(folder, local_files_only=True))
    load_strictly(network, to_clip(read_state(weights)), str(weights))
    return network


def transformers_pooled(network: Any, images: torch.Tensor, *, interpolate: bool) -> torch.Tensor:
    """Return the pooled vectors (B, D) of a transformers vision tower."""
    output = _transformers_output(network, images, interpolate)
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


def transformers_tokens(network: Any, images: torch.Tensor, *, interpolate: bool) -> torch.Tensor:
    """Return the patch tokens (B, N, D) of a transformers vision tower, after its last norm."""
    patch = network.config.patch_size
    n_patches = (images.shape[-2] // patch) * (images.shape[-1] // patch)
    tokens = _transformers_output(network, images, interpolate).last_hidden_state[:, -n_patches:]
    norm = getattr(network, "post_layernorm", None)
    # CLIP norms its class token only; SigLIP's last_hidden_state is normed already.
    return norm(tokens) if norm is not None and network.config.model_type == "clip_vision_model" else tokens


def _transformers_output(network: Any, images: torch.Tensor, interpolate: bool) -> Any:
    if interpolate and "interpolate_pos_encoding" in inspect.signature(network.forward).parameters:
        return network(pixel_values=images, interpolate_pos_encoding=True)
    return network(pixel_values=images)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' load reports and bars off the screen: dermlab says itself what is missing."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


# ---------------------------------------------------------------- open_clip

OPEN_CLIP_CONFIG = "open_clip_config.json"
# What a vision tower of open_clip may say without being another network than CLIP's.
OPEN_CLIP_PLAIN = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout"}


def build_open_clip(
    folder: Path, file: Path | None, preprocess: Preprocess | None, *, seed: int, size_px: int | None
) -> Tower:
    """Build the vision tower of an open_clip folder (open_clip_config.json and weights) as a timm network.

    Neither open_clip nor the text tower is needed for it (BiomedCLIP's would ask the hub for its own config). The
    pooled vector is what enters the projection, as for CLIP of timm and transformers.

    Args:
        folder: holds open_clip_config.json.
        file: the weights; None draws them from ``seed``.
        preprocess: what to use instead of the config's.
        seed: of random weights.
        size_px: another input size; position embeddings are resampled to it.

    Raises:
        InputError: the config is none of open_clip's, describes a tower that timm has not, or the weights are not it.
    """
    from dermlab.models import published

    where = folder / OPEN_CLIP_CONFIG
    config = read_json(where)
    try:
        model = config["model_cfg"]
        vision = dict(model["vision_cfg"])
        chosen = preprocess or from_open_clip(config.get("preprocess_cfg") or {}, vision)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{where}: is no config of open_clip's (no {error})") from None
    state = without_text(read_state(file)) if file is not None else None
    if state is not None and "visual.blocks.0.attn.q_bias" in state:  # DermLIP's PanDerm tower
        bare = {key.removeprefix("visual."): value for key, value in state.items()}
        tower = published.build("dermlip_panderm_tower", bare, seed=seed, size_px=size_px, source=str(file))
        return replace(tower, preprocess=chosen.changed(size_px=size_px))
    if vision.get("timm_model_name"):
        architecture, pool = str(vision["timm_model_name"]), vision.get("timm_pool")
        arguments: dict[str, Any] = {"global_pool": pool} if pool else {}
    else:
        odd = sorted(key for key, value in vision.items() if key not in OPEN_CLIP_PLAIN and value)
        if odd or not isinstance(vision.get("layers"), int):
            raise InputError(f"{where}: vision_cfg is no plain CLIP transformer ({', '.join(odd) or 'layers'})")
        architecture = f"vit_base_patch16_clip_{'quickgelu_' if model.get('quick_gelu') else ''}224"
        arguments = {
            "embed_dim": vision["width"],
            "depth": vision["layers"],
            "num_heads": vision["width"] // vision.get("head_width", 64),
            "mlp_ratio": vision.get("mlp_ratio", 4.0),
            "patch_size": vision.get("patch_size", 16),
            "img_size": vision.get("image_size", 224),
        }
    tower = build_timm(architecture, state, seed=seed, size_px=size_px, source=str(file), options=arguments)
    return replace(tower, library="timm", preprocess=chosen.changed(size_px=size_px))
