"""The default CLIP of each data set."""

from __future__ import annotations

import sys
from functools import cache
from http.client import HTTPException
from urllib.request import Request, urlopen

BEST = "ViT-B/16"
EMBEDDED_SETS = {"digits", "mnist", "fashion_mnist", "icons", "emoji"}  # drawings, for the embedded CLIP
LABELS_SEEN = {"imagenet", "imagenetv2", "imageneta", "imagenetr", "imagenetsketch", "stl10"}  # with labels, by `photo`
TIMEOUT = 10.0  # timeout of the check for OpenAI's server, in seconds


def default_backbone(dataset: str) -> str:
    """Choose the CLIP for a data set, and print a note if `photo` takes the place of the paper's ViT-B/16.

    Drawings get the embedded CLIP, and photographs OpenAI's ViT-B/16. The small `photo` replaces ViT-B/16 for a user's
    own images on a machine without a GPU, and where OpenAI's weights are neither on disk nor available. ImageNet, its
    variants and STL-10 always get ViT-B/16, because `photo` has seen their images with labels.

    Args:
        dataset: Name of the data set, as the scripts take it.

    Returns:
        Name of the backbone.
    """
    import torch  # imported here, so that --help is fast

    from coft.backbones.load import openai_file, openai_url

    if dataset in EMBEDDED_SETS:
        return "embedded"
    if dataset.lower().replace("_", "") in LABELS_SEEN:
        return BEST
    if dataset == "folder" and not torch.cuda.is_available():
        _say(f"no GPU here, so this runs photo, a small CLIP of photographs; --backbone {BEST} is slow on a CPU")
        return "photo"
    if can_download(BEST):
        return BEST
    _say(
        f"OpenAI's {BEST} is not on disk and cannot be downloaded, so the small CLIP of photographs: --backbone photo; "
        f"for the larger one put {openai_url(BEST)} at {openai_file(BEST)}"
    )
    return "photo"


@cache
def can_download(name: str) -> bool:
    """Return whether one of OpenAI's CLIPs is on disk, or can be downloaded."""
    from coft.backbones.load import openai_file, openai_url

    if openai_file(name).is_file():
        return True
    try:
        with urlopen(Request(openai_url(name), method="HEAD"), timeout=TIMEOUT):
            return True
    except (HTTPException, OSError):
        return False


@cache
def _say(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)
