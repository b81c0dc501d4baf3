"""Loading of backbones: CLIPs of OpenAI, open_clip or this project, and local files."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
from clip import clip
from clip.model import CLIP, build_model
from torch import nn

from coft.backbones.architecture import CLIP_MEAN as CLIP_MEAN  # re-exported for users' scripts
from coft.backbones.architecture import CLIP_STD as CLIP_STD
from coft.backbones.architecture import STRIDE, Architecture, common_architecture
from coft.backbones.clip_file import file_sha256, read_state, side_of, version_of
from coft.backbones.joint import JointClip
from coft.backbones.members import member_names
from coft.backbones.open_clip_names import ALIASES, WEIGHTS, is_open_clip_name
from coft.core.errors import UserError, did_you_mean, first_line
from coft.core.finite import check_finite
from coft.core.network import reachable
from coft.core.paths import expanded
from coft.core.tensors import Tensors

log = logging.getLogger(__name__)

EMBEDDED = {"embedded": WEIGHTS / "embedded.pt", "embedded-vit": WEIGHTS / "embedded-vit.pt"}
OPENAI_RESOLUTION = {"RN50x4": 288, "RN50x16": 384, "RN50x64": 448, "ViT-L/14@336px": 336}
DAMAGED = "get the file again, or use another backbone"


def backbone_names() -> list[str]:
    """Return the names that `load_clip` takes, besides paths of local files and names of open_clip's models."""
    bundled = [name for name, path in {**EMBEDDED, **ALIASES}.items() if path.exists()]
    return [*bundled, *clip.available_models()]


def architecture(name: str, trust_jit: bool = False) -> Architecture:
    """Return the architecture of a backbone. Nothing is downloaded for names of OpenAI's or open_clip's models.

    Args:
        name: A name or path that `load_clip` takes.
        trust_jit: Whether to read TorchScript archives other than OpenAI's. They can execute code.

    Raises:
        UserError: If the name is unknown, or the file is missing or does not hold a CLIP.
    """
    if len(names := member_names(name)) > 1:
        return common_architecture(name, [architecture(each, trust_jit) for each in names])
    if is_open_clip_name(name):
        from coft.backbones.open_clip_models import open_clip_architecture

        return open_clip_architecture(name)
    if name in clip.available_models():
        return Architecture(OPENAI_RESOLUTION.get(name, 224), name.startswith("ViT"))
    state = _read_state(name, trust_jit)
    is_vit = "visual.proj" in state
    return Architecture(side_of(state) * (state["visual.conv1.weight"].shape[-1] if is_vit else STRIDE), is_vit)


def load_clip(name: str, trust_jit: bool = False) -> nn.Module:
    """Load a CLIP, frozen, in evaluation mode, fp32, on the CPU.

    Args:
        name: A name of OpenAI ("ViT-B/16") or of this project ("embedded", "photo"), the path of a state dict or of
            one of OpenAI's archives, or "open_clip:" followed by a model, folder or file (see `open_clip_names`). Two
            of these can be joined by "+".
        trust_jit: Whether to read TorchScript archives other than OpenAI's. They can execute code.

    Returns:
        A new `clip.model.CLIP`, a new model of open_clip, or a `JointClip`.

    Raises:
        UserError: If the name is unknown, or the file is missing or does not hold a CLIP.
    """
    if len(names := member_names(name)) > 1:
        return JointClip([load_clip(each, trust_jit) for each in names]).eval()
    if is_open_clip_name(name):
        from coft.backbones.open_clip_models import load_open_clip

        other: nn.Module = load_open_clip(name)
        check_finite(dict(other.state_dict()), f"backbone {name}", DAMAGED)
        return other
    state = _read_state(name, trust_jit)
    try:
        model = _build(state)
    except Exception as error:  # build_model raises exceptions of any type on wrong shapes and names
        raise UserError(
            f"backbone {name}: its tensors do not make up a CLIP ({first_line(error)}); use a CLIP state dict"
        ) from error
    check_finite(dict(model.state_dict()), f"backbone {name}", DAMAGED)
    return model.eval().requires_grad_(False)


def _build(state: Tensors) -> CLIP:
    """Build a CLIP with fp32 tensors. It is built on the meta device first, to skip the random initialisation."""
    with torch.device("meta"):
        model = build_model({name: value.to("meta") for name, value in state.items()})
    kinds = {name: value.is_floating_point() for name, value in model.state_dict().items()}
    if wrong := [name for name, value in state.items() if kinds.get(name) not in (None, value.is_floating_point())]:
        raise ValueError(f"{wrong[0]} is of {state[wrong[0]].dtype}")
    tensors = {name: _full_precision(value) for name, value in state.items() if name in kinds}
    model.load_state_dict(tensors, assign=True)
    for block in model.transformer.resblocks:  # the mask is not part of the state dict
        block.attn_mask = model.build_attention_mask()
    return model


def _full_precision(value: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy, with floating-point tensors converted to fp32."""
    full = value.float() if value.is_floating_point() else value
    return full.clone(memory_format=torch.contiguous_format)


def fingerprint(model: Any) -> str:
    """Hash all tensors of a CLIP. The hash identifies its weights.

    Args:
        model: A CLIP of any family.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def _read_state(name: str, trust_jit: bool) -> Tensors:
    path = _locate(name)
    try:
        return read_state(path, trust_jit)
    except OSError as error:
        raise UserError(f"backbone {name}: cannot read {path} ({error.strerror or error}); see to the file") from error


def _locate(name: str) -> Path:
    if name in EMBEDDED:
        if not EMBEDDED[name].is_file():
            raise UserError(f"backbone {name}: {EMBEDDED[name]} is missing; check the file out again")
        return EMBEDDED[name]
    if name in clip.available_models():
        return fetch_openai(name)
    path = expanded(name)
    if path.is_file():
        return path
    if path.suffix in {".pt", ".pth"} or path.is_absolute():
        raise UserError(f"backbone {name}: no such file; give the path of a CLIP checkpoint or a known name")
    raise UserError(f"unknown backbone {name!r}; {did_you_mean(name, backbone_names())}")


def openai_url(name: str) -> str:
    """Return the URL of an OpenAI CLIP."""
    return str(clip._MODELS[name])


def openai_file(name: str) -> Path:
    """Return the path at which the package `clip` stores an OpenAI CLIP. The file may not exist."""
    return expanded("~/.cache/clip") / openai_url(name).split("/")[-1]


def fetch_openai(name: str) -> Path:
    """Download an OpenAI CLIP unless its file exists. Returns the path of the file.

    Raises:
        UserError: If the download fails, or an existing file does not have the expected hash.
    """
    url, target = openai_url(name), openai_file(name)
    if target.is_file():
        check_openai(name)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    log.info("Downloading %s to %s", name, target)
    try:
        if not reachable(url):
            raise URLError(f"no answer from {urlsplit(url).netloc}")
        torch.hub.download_url_to_file(url, str(target), hash_prefix=url.split("/")[-2])
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"backbone {name}: could not be downloaded ({error}); put {url} at {target} by hand, "
            f"or use a CLIP that comes with the project: --backbone photo, or embedded for drawings"
        ) from error
    return target


def check_openai(name: str) -> None:
    """Check the SHA-256 of a downloaded OpenAI CLIP.

    Raises:
        UserError: If it differs from the hash in the URL.
    """
    url, target = openai_url(name), openai_file(name)
    digest = url.split("/")[-2]
    actual = file_sha256(target, *version_of(target))
    if actual != digest:
        raise UserError(
            f"backbone {target}: does not match OpenAI's file (SHA-256 {actual[:12]}..., expected {digest[:12]}...); "
            f"remove it, and it is downloaded again from {url}"
        )
