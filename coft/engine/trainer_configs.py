"""Choice of the config file for a trainer and a backbone."""

from __future__ import annotations

import re
from pathlib import Path

from coft.backbones.members import member_names
from coft.backbones.open_clip_names import ALIASES, PREFIX, local_path, stem
from coft.core.paths import HOME

CONFIGS = HOME / "configs"


def trainer_config(trainer: str, backbone: str, trust_jit: bool = False) -> Path | None:
    """Return the trainer's config file for a backbone: its own, that of its family, or the default; None if none.

    For each of these, `NAME.yaml` takes precedence over `NAME_ep50.yaml`.
    """
    folder = CONFIGS / "trainers" / trainer
    stems = [slug(backbone), *families(backbone, trust_jit), "default"]
    choices = [folder / f"{stem}{epochs}.yaml" for stem in stems for epochs in ("", "_ep50")]
    return next((path for path in choices if path.is_file()), None)


def families(backbone: str, trust_jit: bool = False) -> list[str]:
    """Return the families of a backbone, nearest first.

    They follow from its architecture and not from timings, so that results stay bit-identical.
    """
    backbone = member_names(backbone)[0]
    if backbone in ALIASES:
        return ["photo"]
    from coft.backbones.load import architecture  # here, so that --help of a command does not wait for torch

    network = architecture(backbone, trust_jit)
    if network.light:
        return ["photo"]
    small = network.resolution < 128 and not backbone.startswith(PREFIX)
    return ["embedded" if small else "vit_b16" if network.is_vit else "rn50"]


def is_checkpoint(backbone: str) -> bool:
    """Return whether a backbone is given as the file of a CLIP in OpenAI's format, not as a name."""
    return backbone.endswith((".pt", ".pth")) and not backbone.startswith(PREFIX)


def slug(backbone: str) -> str:
    """Return a backbone's name as part of a file name: vit_b16 for ViT-B/16, the stem of the file for a path."""
    name = backbone.replace("/", "")
    if is_checkpoint(backbone):
        name = Path(backbone).stem
    elif backbone.startswith(PREFIX):
        path = local_path(backbone)
        name = PREFIX + (stem(path.resolve()) if path else name.removeprefix(PREFIX))
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
