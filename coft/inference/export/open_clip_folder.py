"""Export to a folder that open_clip loads: CLIP with the adapted image encoder, plus the classes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from clip.model import CLIP
from safetensors.torch import save_file
from torch import nn

from coft.backbones.open_clip_names import CONFIG, FILES, source_of
from coft.core.errors import UserError
from coft.inference.encoders import PLAIN, module_of
from coft.inference.model import AdaptedModel

from .merging import Part, merge_low_rank, write_head

TOLERANCE = 1e-4  # largest absolute difference between entries of unit-length features


def require_plain(model: AdaptedModel) -> None:
    """Check that open_clip's format can represent the model's encoders.

    Raises:
        UserError: If there are two checkpoints, or if a light module remains after low-rank updates are merged.
    """
    visual = model.clip_model.visual
    if model.two_checkpoints:
        raise UserError(
            "--to open_clip: the format holds one checkpoint, and the model predicts by two; export to onnx"
        )
    if any(module_of(merge_low_rank(encoder, visual), visual) != PLAIN for encoder in model.predictor.encoders):
        raise UserError(
            "--to open_clip: a ViT with visual prompts (VISUAL vpt-deep) has no place in open_clip's format; export to "
            "onnx, or train with VISUAL lora or norms-and-biases"
        )


def write_open_clip(model: AdaptedModel, part: Part, folder: Path) -> None:
    """Write config, weights, `head.safetensors` and `classes.json`, and check the features that open_clip computes.

    Args:
        model: The model.
        part: The classifier to export.
        folder: Folder of the export.

    Raises:
        UserError: If open_clip's features differ.
    """
    clip_model = copy.deepcopy(model.clip_model)
    clip_model.visual.load_state_dict(part.encoder.state_dict())
    tensors = {name: value.contiguous().clone() for name, value in clip_model.state_dict().items()}
    save_file(tensors, folder / FILES[0], metadata={"format": "pt"})
    (folder / FILES[0]).chmod(0o644)
    inputs = model.inputs
    preprocessing = {
        "size": [inputs.size, inputs.size],
        "mean": list(inputs.mean),
        "std": list(inputs.std),
        "interpolation": inputs.interpolation,
        "resize_mode": "shortest",
    }
    if isinstance(clip_model, CLIP):
        model_config = openai_config(clip_model)
    else:
        model_config = copy.deepcopy(source_of(model.backbone.name).config)
        model_config["vision_cfg"]["image_size"] = inputs.size
    config = {"model_cfg": model_config, "preprocess_cfg": preprocessing}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_head(model, part, folder)
    content = {"classes": model.classes, "templates": model.templates}
    (folder / "classes.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    check(clip_model, folder, inputs.size)


def openai_config(clip_model: Any) -> dict[str, Any]:
    """Return the `model_cfg` of open_clip for a CLIP of OpenAI's code, from the shapes of its weights."""
    visual, text = clip_model.visual, clip_model.transformer
    vision: dict[str, Any] = {"image_size": visual.input_resolution}
    if hasattr(visual, "transformer"):
        width = visual.conv1.out_channels
        heads = visual.transformer.resblocks[0].attn.num_heads
        vision |= {"layers": visual.transformer.layers, "width": width, "head_width": width // heads}
        vision |= {"patch_size": visual.conv1.kernel_size[0]}
    else:
        width = visual.layer1[0].conv1.in_channels
        stages = [len(getattr(visual, f"layer{number}")) for number in range(1, 5)]
        heads = visual.attnpool.num_heads
        vision |= {"layers": stages, "width": width, "head_width": 32 * width // heads}
    return {
        "embed_dim": clip_model.text_projection.shape[1],
        "quick_gelu": True,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": clip_model.context_length,
            "vocab_size": clip_model.vocab_size,
            "width": text.width,
            "heads": text.resblocks[0].attn.num_heads,
            "layers": text.layers,
        },
    }


@torch.no_grad()
def check(clip_model: nn.Module, folder: Path, size: int) -> None:
    """Load the folder as a user of open_clip would, and compare the features of images and texts.

    Args:
        clip_model: The CLIP that was written to the folder.
        folder: Folder of the export.
        size: Height and width of input images in pixels.

    Raises:
        UserError: If the features differ by more than `TOLERANCE`.
    """
    import open_clip

    loaded, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokens = open_clip.tokenize(["a photo of a cat", "a sign"], context_length=clip_model.context_length)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for name, batch in (("encode_image", images), ("encode_text", tokens)):
        outputs = (getattr(encoder, name)(batch).float() for encoder in (clip_model, loaded.eval()))
        expected, actual = (nn.functional.normalize(features, dim=-1) for features in outputs)
        difference = float((expected - actual).abs().max())
        if not difference <= TOLERANCE:
            raise UserError(
                f"--to open_clip: this version of open_clip computes other features ({name} differs by "
                f"{difference:.1e}); take another one, or another --to"
            )
