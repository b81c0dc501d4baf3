"""Write a finished CLIP as a folder that open_clip loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from coft.core.files import replacing

CONFIG, TENSORS = "open_clip_config.json", "open_clip_model.safetensors"
EIGHT_BITS = ("token_embedding.weight",)  # 12.6 million values, stored in one byte each
SIZE = 128  # side of the input in pixels, small enough for two CPU cores


def vision_config(architecture: str) -> dict[str, Any]:
    """Return the `vision_cfg` of open_clip for the image tower."""
    return {
        "timm_model_name": architecture,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": SIZE,
    }


def take_image_tower(model: Any, tower: nn.Module, mean: Tensor, projection: Tensor) -> None:
    """Load an image tower into a CLIP, whose image features become (f - mean) P for features f of the tower.

    Args:
        model: CLIP to modify.
        tower: Image tower with its classifier.
        mean: Mean of the tower's features. Shape (channels,).
        projection: Projection P. Shape (channels, dimensions).
    """
    model.visual.trunk.load_state_dict(
        {key: value for key, value in tower.state_dict().items() if not key.startswith("classifier.")}
    )
    with torch.no_grad():
        model.visual.head.proj.weight.copy_(projection.t())
        model.visual.head.proj.bias.copy_(-mean @ projection)


def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert floats to 16 bits, and the token embedding to 8 bits. Batch norms and scalars keep their dtype."""
    return {
        key: value.to(_stored_dtype(key, value)).contiguous() if value.is_floating_point() else value
        for key, value in state.items()
    }


def _stored_dtype(key: str, value: Tensor) -> torch.dtype:
    if key in EIGHT_BITS:
        return torch.float8_e4m3fn
    is_norm = ".bn" in key or "running" in key
    return value.dtype if is_norm or value.ndim == 0 else torch.float16


def save(
    model: Any, vision: Mapping[str, Any], text: Mapping[str, int], facts: Mapping[str, str], folder: Path
) -> None:
    """Write the folder of a CLIP. Both files are complete before either gets its name.

    Args:
        model: CLIP to write.
        vision: `vision_cfg` of open_clip.
        text: `text_cfg` of open_clip.
        facts: Metadata of the file of tensors.
        folder: Path of the folder.
    """
    config = {
        "model_cfg": {"embed_dim": model.text_projection.shape[1], "vision_cfg": dict(vision), "text_cfg": dict(text)},
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    with replacing(folder / TENSORS) as tensors_draft, replacing(folder / CONFIG) as config_draft:
        save_file(compact(model.state_dict()), tensors_draft, metadata=dict(facts))
        tensors_draft.chmod(0o644)  # safetensors creates files that other users cannot read
        config_draft.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
