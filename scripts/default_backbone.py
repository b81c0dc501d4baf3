"""Which CLIP a data set is run with when nobody names one."""

from __future__ import annotations

import sys
from functools import cache
from http.client import HTTPException
from urllib.request import Request, urlopen

BEST = "ViT-B/16"
EMBEDDED_SETS = {"digits", "mnist", "fashion_mnist", "icons", "emoji"}  # drawings: the embedded CLIP is their default
LABELS_SEEN = {"imagenet", "imagenetv2", "imageneta", "imagenetr", "imagenetsketch", "stl10"}  # by photo's image tower
PATIENCE = 10.0  # seconds to wait for an answer


def default_backbone(dataset: str) -> str:
    """Choose the CLIP for a data set, and say so in a line if it is not the paper's.

    Drawings get the embedded one. Photographs get OpenAI's ViT-B/16. The small `photo` takes its place for a user's
    own images on a machine without a GPU, and where OpenAI's weights are not on disk and cannot be had; but not for
    ImageNet, its variants and STL-10, whose images it has seen with labels.
    """
    import torch  # here: --help need not wait for it

    from coft.backbones.load import openai_file, openai_url

    if dataset in EMBEDDED_SETS:
        return "embedded"
    if dataset.lower().replace("_", "") in LABELS_SEEN:
        return BEST
    if dataset == "folder" and not torch.cuda.is_available():
        _say(f"no GPU, so the small CLIP of photographs: --backbone photo; larger, and slow: --backbone {BEST}")
        return "photo"
    if can_be_had(BEST):
        return BEST
    _say(
        f"OpenAI's {BEST} is not on disk and cannot be downloaded, so the small CLIP of photographs: --backbone photo; "
        f"for the larger one put {openai_url(BEST)} at {openai_file(BEST)}"
    )
    return "photo"


@cache
def can_be_had(name: str) -> bool:
    """Whether one of OpenAI's CLIPs is on disk, or its server answers."""
    from coft.backbones.load import openai_file, openai_url

    if openai_file(name).is_file():
        return True
    try:
        with urlopen(Request(openai_url(name), method="HEAD"), timeout=PATIENCE):
            return True
    except (HTTPException, OSError):
        return False


@cache
def _say(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)
