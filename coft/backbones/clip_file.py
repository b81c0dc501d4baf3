"""Reading and validation of CLIP checkpoints with OpenAI's parameter names."""

from __future__ import annotations

import warnings
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from clip import clip

from coft.backbones.embedded import FORMAT as COMPACT_FORMAT
from coft.backbones.embedded import SCHEMA as COMPACT
from coft.backbones.embedded import VOCABULARY, expand
from coft.core.errors import UserError, in_a_line
from coft.core.schemas import Record, SchemaError
from coft.core.tensors import Array, Tensors, floats, load_saved
from coft.core.untrusted import digest_of, is_archive, open_file

WIDTH, LENGTH, PATCHES = (1, 16_384), 77, (2, 128 * 128 + 1)
METADATA_KEYS = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # scalars of OpenAI's archives, which tensor shapes imply
SCHEMA = Record(
    {
        "text_projection": floats(WIDTH, WIDTH),
        "token_embedding.weight": floats(VOCABULARY, WIDTH),
        "positional_embedding": floats(LENGTH, WIDTH),
        "ln_final.weight": floats(WIDTH),
        "logit_scale": floats(),
        "visual.conv1.weight": floats(WIDTH, (3, 3), (1, 256), (1, 256)),
    },
    others=Array(),
)
POSITIONS = floats(PATCHES, WIDTH)
VIT = Record({"visual.proj": floats(WIDTH, WIDTH), "visual.positional_embedding": POSITIONS}, others=Array())
RESNET = Record({"visual.attnpool.positional_embedding": POSITIONS}, others=Array())


def read_state(path: Path, trust_jit: bool) -> Tensors:
    """Read the tensors of a file. The file read last is cached until it changes.

    Args:
        path: A state dict, a compact checkpoint of this project, or one of OpenAI's archives.
        trust_jit: Whether to read TorchScript archives other than OpenAI's. They can execute code.

    Returns:
        Tensors by name, checked to have the shapes of a CLIP.

    Raises:
        OSError: If the file cannot be read.
        UserError: If the file does not hold a CLIP, or is a TorchScript archive that is not trusted.
    """
    return _read(path, trust_jit, *version_of(path))


def version_of(path: Path) -> tuple[int, int]:
    """Return modification time and size of a file, a cache key that changes with its content."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1)
def _read(path: Path, trust_jit: bool, mtime: int, size: int) -> Tensors:
    try:
        state = _torchscript(path, trust_jit) if _is_torchscript(path) else _state_dict(path)
        SCHEMA.check(state)
        (VIT if "visual.proj" in state else RESNET).check(state)
        side_of(state)
    except ValueError as error:
        raise UserError(f"backbone {path}: {error}; get the file again, or save a CLIP's state_dict()") from error
    return state


def side_of(state: Tensors) -> int:
    """Return the side of the position grid of an OpenAI CLIP, in patches (ViT) or feature map cells (ResNet).

    Raises:
        SchemaError: If the grid is not square.
    """
    name = "visual.positional_embedding" if "visual.proj" in state else "visual.attnpool.positional_embedding"
    patches = len(state[name]) - 1
    if (side := round(patches**0.5)) ** 2 != patches:
        raise SchemaError(f"{name} is of {patches} patches, which make up no square")
    return side


def _state_dict(path: Path) -> Tensors:
    loaded = load_saved(path)
    if not isinstance(loaded, dict):
        raise SchemaError(f"holds {type(loaded).__name__}, no CLIP state dict")
    if loaded.get("format") == COMPACT_FORMAT:
        COMPACT.check(loaded)
        return expand(loaded)
    state = loaded.get("state_dict", loaded)
    if not isinstance(state, dict) or "text_projection" not in state:
        raise SchemaError("holds no CLIP state dict (no 'text_projection')")
    return state


def _is_torchscript(path: Path) -> bool:
    with open_file(path) as file:
        if not is_archive(file):
            return False
        try:
            with zipfile.ZipFile(file) as archive:
                return any(entry.endswith("/constants.pkl") for entry in archive.namelist())
        except zipfile.BadZipFile as error:
            raise ValueError(f"is damaged ({error})") from error


def _torchscript(path: Path, trust_jit: bool) -> Tensors:
    openai_digests = {url.split("/")[-2] for url in clip._MODELS.values()}
    digest = file_sha256(path, *version_of(path))
    if digest not in openai_digests and not trust_jit:
        raise UserError(
            f"backbone {path}: a TorchScript archive can execute code, and this is not one of OpenAI's (SHA-256 "
            f"{digest[:12]}...); save its state_dict(), and name that file (training also takes it with "
            f"MODEL.BACKBONE.TRUST_JIT True, if you trust it)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format of OpenAI's files cannot be changed
        try:
            state: Any = torch.jit.load(str(path), map_location="cpu").state_dict()
        except Exception as error:  # torch raises exceptions of any type on damaged bytes
            raise ValueError(f"a TorchScript archive that cannot be read ({in_a_line(error)})") from error
    return {key: value for key, value in state.items() if key not in METADATA_KEYS}


@lru_cache(maxsize=4)
def file_sha256(path: Path, mtime: int, size: int) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Time and size are cache keys, so a changed file is read again."""
    return digest_of(path)
