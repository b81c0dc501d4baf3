"""Models of open_clip, built from their configs. Weights files are read as data and never executed."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coft.backbones.architecture import (
    CLIP_MEAN,
    CLIP_STD,
    Architecture,
    is_light,
    is_vit,
    reads_any_size,
)
from coft.backbones.open_clip_names import FROZEN_STAGES, Source, source_of
from coft.backbones.open_clip_text import check_text, tokenizer_of
from coft.core.errors import UserError, first_line
from coft.core.run_settings import INTERPOLATIONS
from coft.core.tensors import FLOATS, WHOLE, Array, load_safetensors, load_saved

DROPOUT_RATE_ATTRIBUTES = (
    "p",
    "prob",
    "drop_prob",
    "drop_rate",
    "drop_path_rate",
)
FLOAT8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
WEIGHT = Array(dtypes=(*FLOATS, *FLOAT8_DTYPES, *WHOLE, torch.bool))
State = dict[str, Tensor]


def open_clip_architecture(name: str) -> Architecture:
    """Return the architecture of a model, determined from its config alone.

    Args:
        name: A name or path in the format of `open_clip_names`.

    Raises:
        UserError: If the model does not exist or is not supported.
    """
    source = source_of(name)
    resolution, vit, any_size, light = _kind(source.name, json.dumps(source.config))
    preprocess = source.preprocess
    mean, std = tuple(preprocess.get("mean") or CLIP_MEAN), tuple(preprocess.get("std") or CLIP_STD)
    interpolation = preprocess.get("interpolation")
    interpolation = interpolation if interpolation in INTERPOLATIONS else "bicubic"
    frozen = FROZEN_STAGES.get(name, 0)
    return Architecture(resolution, vit, any_size, mean, std, interpolation, frozen, light)


@lru_cache
def _kind(name: str, config: str) -> tuple[int, bool, bool, bool]:
    """Return (resolution, is_vit, any_size, light) of a model, without allocating its weights."""
    visual = _without_weights(name, config).visual
    size = json.loads(config)["vision_cfg"].get("image_size", 224)
    sides = set(size if isinstance(size, list) else [size])
    if len(sides) > 1:
        raise UserError(f"backbone {name}: reads images of {size} pixels; use a model that reads squares")
    kinds = (is_vit(visual), reads_any_size(visual), is_light(visual))
    return int(sides.pop()), *kinds


@lru_cache(maxsize=2)
def _without_weights(name: str, config: str) -> Any:
    """Build a model on the meta device, with names and shapes alone. It is cached, so callers must not modify it."""
    return build(name, json.loads(config), "meta")


def load_open_clip(name: str) -> nn.Module:
    """Load a model of open_clip, frozen, in evaluation mode, fp32, on the CPU.

    Args:
        name: A name or path in the format of `open_clip_names`.

    Returns:
        A new `CLIP` or `CustomTextCLIP` of open_clip. `model.visual(images)` returns projected features.
        `model.tokenizer` is set if its tokenizer is not CLIP's. SigLIP's logit bias is loaded but not used: it is the
        same for all classes, so it does not change a softmax.

    Raises:
        UserError: If the model cannot be loaded, or its parts do not fit together.
    """
    source = source_of(name)
    # The file is compared with a meta model first, so that a config it does not fit allocates no memory.
    state = _fitting_weights(_without_weights(source.name, json.dumps(source.config)), source)
    model: Any = build(name, source.config, "cpu")
    model.load_state_dict(state)
    tokenizer = tokenizer_of(source)
    if tokenizer is not None:
        model.tokenizer = tokenizer
    check_text(name, model)
    return model.eval().requires_grad_(False)


def build(name: str, config: dict[str, Any], device: str) -> Any:
    """Build a model with random weights and without dropout.

    Args:
        name: Name of the backbone, for error messages.
        config: model_cfg of open_clip.
        device: "cpu", or "meta" for a model without allocated weights.

    Raises:
        UserError: If open_clip cannot build the config, or the text encoder is a Hugging Face model.
    """
    import open_clip

    config = copy.deepcopy(config)
    if config["text_cfg"].get("hf_model_name"):
        raise UserError(
            f"backbone {name}: its text encoder is {config['text_cfg']['hf_model_name']} of Hugging Face, which is not "
            f"supported; use a model whose text_cfg has no hf_model_name, such as ViT-B-16/laion2b_s34b_b88k"
        )
    is_coca = config.pop("multimodal_cfg", None) is not None  # without its caption decoder
    has_text_module = config.pop("custom_text", False) or is_coca
    timm_name = str(config["vision_cfg"].get("timm_model_name") or "")
    if ":" in timm_name:
        raise UserError(f"backbone {name}: timm_model_name is {timm_name!r}; expected the name of an architecture")
    config["vision_cfg"]["timm_model_pretrained"] = False
    for part in ("vision_cfg", "text_cfg"):
        config[part]["output_tokens"] = False
    try:
        with torch.device(device):
            model: Any = (open_clip.CustomTextCLIP if has_text_module else open_clip.CLIP)(**config)
    except Exception as error:  # open_clip and timm raise exceptions of any type on wrong values
        raise UserError(
            f"backbone {name}: open_clip cannot build its model_cfg ({first_line(error)}); correct it, or upgrade "
            f"open_clip"
        ) from error
    _disable_dropout(model)
    return model


def _disable_dropout(model: nn.Module) -> None:
    """Disable dropout, drop-path and patch dropout, so that features are the same in training and evaluation."""
    for module in model.modules():
        for name in DROPOUT_RATE_ATTRIBUTES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


# -------------------------------------------------------------------- weights


def _fitting_weights(model: Any, source: Source) -> State:
    """Read the weights of a source, and check that their names and shapes are those of a model.

    Raises:
        UserError: If a name or shape does not match.
    """
    path = source.weights()
    try:
        state = _convert_names(model, read_tensors(source.name, path))
    except (RuntimeError, AssertionError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"backbone {source.name}: tensors of {path.name} are of other shapes than a CLIP's ({first_line(error)}); "
            f"give the config that the weights were saved with"
        ) from error
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    conflicts = [key for key, shape in shapes.items() if key not in state or state[key].shape != shape]
    conflicts += [key for key in state if key not in shapes]
    if conflicts:
        raise UserError(
            f"backbone {source.name}: {len(conflicts)} tensors of {path.name} do not fit its model_cfg, the first is "
            f"{conflicts[0]}; give the config that the weights were saved with"
        )
    return state


def _convert_names(model: Any, state: State) -> State:
    """Convert weights of any release or library to open_clip's current names, and resize position embeddings."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = convert_state_dict(model, state)
    if not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    state = {key: value for key, value in state.items() if not key.startswith("text_decoder.")}
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    if model.logit_bias is not None:
        bias = state.get("logit_bias", torch.zeros(()))
        state["logit_bias"] = bias.reshape(model.logit_bias.shape)
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    return state


def read_tensors(name: str, path: Path) -> State:
    """Read a file of tensors as data. Nothing in it is executed.

    Args:
        name: Name of the backbone, for error messages.
        path: A file in safetensors format or written by `torch.save`.

    Returns:
        Tensors by name. Floating-point tensors are converted to fp32; other entries are ignored.

    Raises:
        UserError: If the file cannot be read as data, or holds no tensors, or tensors of an unsupported dtype.
    """
    try:
        loaded = load_safetensors(path)[0] if path.suffix == ".safetensors" else load_saved(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"backbone {name}: {path} is no file of tensors alone ({reason}); save model.state_dict()"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    state = state if isinstance(state, dict) else {}
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if wrong := [key for key, value in tensors.items() if not WEIGHT.matches(value)]:
        raise UserError(f"backbone {name}: {path}: {wrong[0]} is of {tensors[wrong[0]].dtype}; save it as floats")
    if not tensors:
        raise UserError(f"backbone {name}: {path} has no tensors by name; save model.state_dict()")
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
