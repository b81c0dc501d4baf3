"""Tiny random open_clip models, in the folder format of open_clip."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}
SIGLIP = {
    "context_length": 48,
    "vocab_size": 400,
    "hf_tokenizer_name": "in the folder",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}
WORLDWIDE = {"context_length": 48, "vocab_size": 400, "hf_tokenizer_name": "in the folder", "pool_type": "eos"}


def config_of(vision: dict[str, Any], text: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A model_cfg."""
    return {"embed_dim": 64, "vision_cfg": vision, "text_cfg": TEXT | (text or {}), **more}


def timm_config(name: str, size: int = 32, pool: str = "", proj: str = "linear") -> dict[str, Any]:
    """A vision_cfg with one of timm's models."""
    return {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": size}


CONFIGS: dict[str, dict[str, Any]] = {  # trainers are tested on these
    "vit": config_of(VIT),
    "resnet": config_of({"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}),
    "timm-cnn": config_of(timm_config("test_efficientnet", 64)),
    "timm-vit": config_of(timm_config("test_vit"), custom_text=True),
    "siglip": config_of(timm_config("test_vit", pool="map", proj="none"), SIGLIP, custom_text=True, init_logit_bias=-9),
}
MORE_CONFIGS: dict[str, dict[str, Any]] = {
    "vit-quick-scales": config_of(
        VIT | {"ls_init_value": 0.5}, {"ls_init_value": 0.5}, quick_gelu=True, custom_text=True
    ),
    "vit-avg-custom-blocks": config_of(VIT | {"pool_type": "avg", "qk_norm": True}, {"qk_norm": True}),
    "coca": config_of(
        VIT | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        {"context_length": 76, "embed_cls": True, "output_tokens": True},
        multimodal_cfg={"context_length": 76, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
        custom_text=True,
    ),
    "timm-resnet-bidirectional": config_of(timm_config("test_resnet", 64), {"no_causal_mask": True}, custom_text=True),
    "convnext-no-projection": config_of(timm_config("test_convnext", 64, proj="mlp"), {"proj_type": "none"}),
    "timm-eva": config_of(timm_config("tiny_eva_of_tests")),
    "timm-vit-registers-worldwide": config_of(timm_config("test_vit2"), WORLDWIDE, custom_text=True),
}
ALL_CONFIGS = CONFIGS | MORE_CONFIGS


@cache
def register_eva() -> None:
    """Register a tiny Eva with timm, which has none."""
    from timm.models import register_model
    from timm.models.eva import Eva

    @register_model
    def tiny_eva_of_tests(pretrained: bool = False, **options: Any) -> Eva:
        shape = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}
        model: Any = Eva(**shape, use_rot_pos_emb=True, qkv_fused=False, swiglu_mlp=True, scale_mlp=True)
        model.default_cfg = {}
        return model


def make_model(config: dict[str, Any], seed: int = 0) -> Any:
    """An open_clip model with random weights, in evaluation mode."""
    import open_clip
    from open_clip.coca_model import CoCa

    register_eva()
    config = copy.deepcopy(config)
    torch.manual_seed(seed)
    kinds = {True: open_clip.CustomTextCLIP, False: open_clip.CLIP}
    model = (CoCa if "multimodal_cfg" in config else kinds[config.pop("custom_text", False)])(
        **{key: value for key, value in config.items() if key != "custom_text"}
    )
    for parameter in model.parameters():
        if parameter.dim() == 1 and parameter.std() == 0:  # constant norms, biases and scales hide mistakes
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.1)
    side = config["vision_cfg"]["image_size"]
    with torch.no_grad():  # without fitted statistics all images have the same features
        for _ in range(20):
            model.train().visual(torch.randn(8, 3, side, side) + torch.randn(8, 3, 1, 1))
    return model.eval().requires_grad_(False)


def write_model(folder: Path, config: dict[str, Any], preprocess: dict[str, Any] = HALF, seed: int = 0) -> Path:
    """Write a random model in open_clip's format, with a tokenizer unless it uses CLIP's."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    state = {key: value.contiguous() for key, value in make_model(config, seed).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    if "hf_tokenizer_name" in config["text_cfg"]:
        write_tokenizer(folder, starts=config["text_cfg"]["pool_type"] == "eos")
    return folder


def write_tokenizer(folder: Path, starts: bool) -> None:
    """Write a Hugging Face tokenizer: like T5's, or (`starts`) with a start token and pieces like Gemma's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never" if starts else "always")
    letters = "abcdefghijklmnopqrstuvwxyzX.,"
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=[*letters, "▁"],
        show_progress=False,
    )
    bpe.train_from_iterator(["a photo of a cat.", "a photo of the dog, a type of pet.", "red circle"] * 9, trainer)
    template = "<s> $A </s>" if starts else "$A </s>"
    bpe.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
