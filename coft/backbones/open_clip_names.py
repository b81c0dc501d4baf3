"""Names of open_clip's models. Each name resolves to a config, a preprocessing and a weights file.

open_clip:ViT-B-16/laion2b_s34b_b88k    model and tag of open_clip's registry
open_clip:FOLDER                        folder in open_clip's layout
open_clip:FILE                          file in such a folder, or one with a .json config of the same name beside it
photo                                   folder of this project
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from coft.core.errors import UserError, did_you_mean, first_line
from coft.core.network import hub
from coft.core.paths import HOME, expanded
from coft.core.schemas import (
    Anything,
    Either,
    Flag,
    List,
    Nothing,
    Number,
    Record,
    SchemaError,
    Text,
    mapping,
    maybe,
    numbers,
    whole,
)
from coft.core.untrusted import read_json

log = logging.getLogger(__name__)

PREFIX = "open_clip:"
WEIGHTS = HOME / "weights"
ALIASES = {"photo": WEIGHTS / "photo", "photo-lite1": WEIGHTS / "photo-lite1"}
FROZEN_STAGES = {"photo": 5, "photo-lite1": 5}  # faster at the same accuracy, see docs/performance.md
CONFIG = "open_clip_config.json"
FILES = (  # in open_clip's order of preference
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")

# Schema of a config. Values that determine sizes have bounds; open_clip itself rejects unknown names.
PLAIN = Either((Nothing(), Flag(), Number(-100_000, 100_000), Text(200)))
OPTION = Either((PLAIN, List(PLAIN, most=16), mapping(PLAIN, 32)))
SIDE, WIDTH, LAYERS, HEADS, RATIO = whole(1, 1024), whole(1, 32_768), whole(1, 256), whole(1, 1024), Number(0.01, 64)
NAME, OPTIONS = maybe(Text(200)), maybe(mapping(OPTION, 32))
SIZES = {"width": WIDTH, "mlp_ratio": RATIO, "act_kwargs": OPTIONS, "norm_kwargs": OPTIONS}
VISION = Record(
    optional={
        **SIZES,
        "image_size": Either((SIDE, List(SIDE, 2, 2))),
        "patch_size": maybe(SIDE),
        "layers": Either((LAYERS, List(LAYERS, 4, 4))),
        "head_width": WIDTH,
        "attn_pooler_queries": WIDTH,
        "attn_pooler_heads": HEADS,
        "timm_model_name": NAME,
    },
    others=OPTION,
)
TEXT = Record(
    optional={
        **SIZES,
        "context_length": whole(4, 4096),
        "vocab_size": whole(1, 10_000_000),
        "heads": HEADS,
        "layers": LAYERS,
        "hf_model_name": NAME,
        "hf_tokenizer_name": NAME,
        "tokenizer_kwargs": OPTIONS,
        "pad_id": whole(0, 10_000_000),
        "eos_id": whole(0, 10_000_000),
    },
    others=OPTION,
)
MODEL = Record({"embed_dim": WIDTH, "vision_cfg": VISION, "text_cfg": TEXT}, {"custom_text": Flag()}, others=OPTION)
PREPROCESSING = Record(
    optional={"mean": maybe(numbers(0, 1, 3)), "std": maybe(numbers(0.001, 10, 3)), "interpolation": NAME},
    others=OPTION,
)
SCHEMA = Record({"model_cfg": MODEL}, {"preprocess_cfg": maybe(PREPROCESSING)}, others=Anything())
MAX_BYTES = 1 << 24  # largest config file, in bytes


@dataclass(frozen=True)
class Source:
    """Config and weights of a model.

    Attributes:
        name: Name as the user wrote it.
        config: open_clip's model_cfg.
        preprocess: open_clip's preprocess_cfg.
        weights: Function that finds or downloads the weights file.
        folder: Folder of a local model; None for a model of the registry.
    """

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Callable[[], Path]
    folder: Path | None = None


def is_open_clip_name(name: str) -> bool:
    """Return whether a backbone name refers to an open_clip model."""
    return name.startswith(PREFIX) or name in ALIASES


def local_path(name: str) -> Path | None:
    """Return the folder or file that a name refers to; None for a name of open_clip's registry."""
    if name in ALIASES:
        return ALIASES[name]
    written = name.removeprefix(PREFIX)
    path = expanded(written)
    looks_like_path = written.startswith((".", "/", "~")) or path.suffix in SUFFIXES
    return path if looks_like_path or path.exists() else None


def stem(path: Path) -> str:
    """Return a short name of a local model: its folder's if the file has a standard name, otherwise the file's."""
    return path.parent.name if path.name in FILES else path.stem if path.suffix in SUFFIXES else path.name


def source_of(name: str) -> Source:
    """Resolve a backbone name to its config and weights. Nothing is downloaded.

    Args:
        name: Backbone name for which `is_open_clip_name` is true.

    Raises:
        UserError: If the model, tag, folder or file does not exist, or its config cannot be read.
    """
    path = local_path(name)
    return _from_registry(name) if path is None else _from_disk(name, path)


# -------------------------------------------------------------------- local


def _from_disk(name: str, path: Path) -> Source:
    if not path.exists():
        hint = "restore it from the repository" if name in ALIASES else "give a folder as open_clip writes it"
        raise UserError(f"backbone {name}: {path} is not there; {hint}")
    folder = path if path.is_dir() else path.parent
    beside = path.with_suffix(".json") if path.is_file() else path
    content = _read_config(name, beside if beside.is_file() else folder / CONFIG)
    weights = partial(_weights_in, name, folder) if path.is_dir() else partial(Path, path)
    return Source(name, content["model_cfg"], content.get("preprocess_cfg") or {}, weights, folder)


def _read_config(name: str, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"backbone {name}: there is no {path}; open_clip writes one with model_cfg and preprocess_cfg")
    try:
        content: dict[str, Any] = read_json(path, MAX_BYTES)
        SCHEMA.check(content)
    except SchemaError as error:
        raise UserError(f"backbone {name}: {path}: {error}; expected a config as open_clip writes it") from error
    except (OSError, ValueError) as error:
        raise UserError(f"backbone {name}: {path} cannot be read ({error}); copy it again") from error
    return content


def _weights_in(name: str, folder: Path) -> Path:
    standard = [folder / file for file in FILES if (folder / file).is_file()]
    others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    others.sort(key=lambda path: path.suffix != ".safetensors")
    if not (standard or others):
        raise UserError(f"backbone {name}: no weights in {folder}; open_clip calls them {FILES[0]}")
    return (standard or others)[0]


# -------------------------------------------------------------------- open_clip's registry


def _from_registry(name: str) -> Source:
    import open_clip  # the import takes seconds, so it is deferred

    model, _, tag = name.removeprefix(PREFIX).partition("/")
    if model not in open_clip.list_models():
        hint = did_you_mean(model, open_clip.list_models())
        raise UserError(f"backbone {name}: open_clip has no model {model!r}, and there is no such folder; {hint}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tags:
        raise UserError(f"backbone {name}: open_clip has no weights for {model}; give a folder: {PREFIX}FOLDER")
    if not tag:
        raise UserError(
            f"backbone {name}: no weights are named; write {PREFIX}{model}/{tags[0]}; available are {', '.join(tags)}"
        )
    pretrained = open_clip.get_pretrained_cfg(model, tag)
    if not pretrained:
        raise UserError(f"backbone {name}: open_clip has no weights {tag!r} for {model}; {did_you_mean(tag, tags)}")
    config = open_clip.get_model_config(model)
    config["quick_gelu"] = bool(config.get("quick_gelu") or pretrained.get("quick_gelu"))  # the weights may need it
    return Source(name, config, pretrained, partial(_download, name, pretrained))


def _download(name: str, pretrained: dict[str, Any]) -> Path:
    import open_clip

    try:
        with hub():
            return Path(open_clip.download_pretrained(pretrained))
    except Exception as error:  # from urllib, requests, httpx, huggingface_hub or the disk
        raise UserError(
            f"backbone {name}: its weights could not be downloaded ({first_line(error)}); go online, or copy a folder "
            f"that open_clip wrote and give {PREFIX}FOLDER, or use a CLIP that comes with the project: "
            f"--backbone photo"
        ) from error
