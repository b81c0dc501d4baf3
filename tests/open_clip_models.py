"""Tiny random models of open_clip, in folders as open_clip writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}


def config_of(vision: dict[str, Any], text: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A model_cfg."""
    return {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT | (text or {}), **more}


CNN = {"timm_model_name": "test_efficientnet", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": config_of({"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}),
    "quick-vit": config_of(
        {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32, "ls_init_value": 0.5},
        {"ls_init_value": 0.5},
        quick_gelu=True,
        custom_text=True,
    ),
    "resnet": config_of({"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}),
    "cnn": config_of(CNN),
}


def make_model(config: dict[str, Any], seed: int = 0) -> Any:
    """open_clip's model with random weights far from their start, in evaluation mode."""
    import open_clip

    config = json.loads(json.dumps(config))
    torch.manual_seed(seed)
    custom = config.pop("custom_text", False)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    for parameter in model.parameters():
        if parameter.dim() == 1 and parameter.std() == 0:  # norms, biases and scales that start at 0 or 1 hide mistakes
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.1)
    side = config["vision_cfg"]["image_size"]
    with torch.no_grad():  # without statistics of their own, random layers give all images the same features
        for _ in range(20):
            model.train().visual(torch.randn(8, 3, side, side) + torch.randn(8, 3, 1, 1))
    return model.eval().requires_grad_(False)


def write_model(folder: Path, config: dict[str, Any], preprocess: dict[str, Any] = HALF, seed: int = 0) -> Path:
    """Write a random model as open_clip does."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    state = {key: value.contiguous() for key, value in make_model(config, seed).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
