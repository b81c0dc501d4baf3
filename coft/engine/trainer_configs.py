"""Which file of settings suits a trainer and a backbone."""

from __future__ import annotations

import re
from pathlib import Path

from coft.backbones.members import member_names
from coft.backbones.open_clip_names import ALIASES, PREFIX, local_path, stem
from coft.core.paths import HOME

CONFIGS = HOME / "configs"


def trainer_config(trainer: str, backbone: str, trust_jit: bool = False) -> Path | None:
    """The trainer's config for a backbone: its own, or that of a family. None where it has none."""
    folder = CONFIGS / "trainers" / trainer
    stems = [slug(backbone), *families(backbone, trust_jit), "default"]
    choices = [folder / f"{stem}{epochs}.yaml" for stem in stems for epochs in ("", "_ep50")]
    return next((path for path in choices if path.is_file()), None)


def families(backbone: str, trust_jit: bool = False) -> list[str]:
    """Kinds of backbones that one is of, the nearest first: by what it is, not by a clock, so that bits stay."""
    backbone = member_names(backbone)[0]
    if backbone in ALIASES:
        return ["photo"]
    from coft.backbones.load import architecture  # here: a command's --help need not wait for torch

    network = architecture(backbone, trust_jit)
    if network.light:
        return ["photo"]
    small = network.resolution < 128 and not backbone.startswith(PREFIX)
    return ["embedded" if small else "vit_b16" if network.is_vit else "rn50"]


def is_checkpoint(backbone: str) -> bool:
    """Whether a backbone is a file with a CLIP of OpenAI's kind, not a name."""
    return backbone.endswith((".pt", ".pth")) and not backbone.startswith(PREFIX)


def slug(backbone: str) -> str:
    """A backbone as part of a file name: ViT-B/16 is vit_b16, a path its last part."""
    name = backbone.replace("/", "")
    if is_checkpoint(backbone):
        name = Path(backbone).stem
    elif backbone.startswith(PREFIX):
        path = local_path(backbone)
        name = PREFIX + (stem(path.resolve()) if path else name.removeprefix(PREFIX))
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
