"""Icons and emoji of sets and vendors held out from the training of the embedded CLIPs, built by scripts/data.sh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coft.core.untrusted import read_json
from dassl.data.datasets import DATASET_REGISTRY

from .base import DeclaredDataset, dataset_root, read_split, require

DECLARED = Path(__file__).resolve().parents[1] / "weights" / "pretrain" / "heldout.json"


class Drawings(DeclaredDataset):
    """Drawings below `<root>/<name>`, with a fixed split into an unlabeled training part and a test part."""

    dataset_dir = ""

    def __init__(self, cfg: Any) -> None:
        name = self.dataset_dir
        root = dataset_root(cfg) / name
        self.dataset_dir = str(root)
        split = require(root / f"split_{name}.json", type(self).__name__, f"run: bash scripts/data.sh {name}")
        classnames = read_json(DECLARED)[name]
        train, val, test = read_split(split, root)
        super().__init__(cfg, classnames=classnames, train=train, val=val, test=test)


@DATASET_REGISTRY.register()
class Icons(Drawings):
    """Interface icons: 80 concepts, 1,182 unlabeled and 786 test drawings, outline and filled, of 23 icon sets."""

    dataset_dir = "icons"


@DATASET_REGISTRY.register()
class Emoji(Drawings):
    """Emoji: 129 concepts, 560 unlabeled and 407 test drawings, of 7 sets."""

    dataset_dir = "emoji"
