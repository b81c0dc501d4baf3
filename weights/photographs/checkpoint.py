"""The finished CLIP as a folder that open_clip itself loads."""

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
EIGHT_BITS = ("token_embedding.weight",)  # a number of the table's 12.6 million is not worth two bytes
SIZE = 128  # side of the input in pixels, for two cores


def vision_config(architecture: str) -> dict[str, Any]:
    """open_clip's `vision_cfg` of the image tower."""
    return {
        "timm_model_name": architecture,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": SIZE,
    }


def take_image_tower(model: Any, tower: nn.Module, mean: Tensor, projection: Tensor) -> None:
    """Give a CLIP an image tower: features f become (f - mean) P."""
    model.visual.trunk.load_state_dict(
        {key: value for key, value in tower.state_dict().items() if not key.startswith("classifier.")}
    )
    with torch.no_grad():
        model.visual.head.proj.weight.copy_(projection.t())
        model.visual.head.proj.bias.copy_(-mean @ projection)


def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store numbers in 16 bits, those of the token embedding in 8, those of batch norms as they are."""
    result = {}
    for key, value in state.items():
        norms = ".bn" in key or "running" in key
        dtype = torch.float8_e4m3fn if key in EIGHT_BITS else value.dtype if norms or value.ndim == 0 else torch.float16
        result[key] = value.to(dtype).contiguous() if value.is_floating_point() else value
    return result


def save(
    model: Any, vision: Mapping[str, Any], text: Mapping[str, int], facts: Mapping[str, str], folder: Path
) -> None:
    """Write the folder; both files are complete before either is renamed."""
    config = {
        "model_cfg": {"embed_dim": model.text_projection.shape[1], "vision_cfg": dict(vision), "text_cfg": dict(text)},
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    with replacing(folder / TENSORS) as tensors, replacing(folder / CONFIG) as written:
        save_file(compact(model.state_dict()), tensors, metadata=dict(facts))
        tensors.chmod(0o644)  # safetensors lets nobody else read it
        written.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
