"""UCF101: middle frames of videos of human actions (Soomro et al. 2012), 101 classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from coft.core.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import Row
from .benchmark import SplitDataset, read_lines
from .splits import Split, hold_out


@DATASET_REGISTRY.register()
class UCF101(SplitDataset):
    """Layout: `<root>/ucf101/UCF-101-midframes/<Action_Name>/*.jpg`. A split is made from the first official one."""

    name = "ucf101"
    dataset_dir = "ucf101"
    image_dirs = ("UCF-101-midframes",)
    split = "split_zhou_UCF101.json"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images of the training part of the first split."""
        label_of = {name: label for label, name in enumerate(names)}

        def rows(file: str) -> list[Row]:
            path = self.annotation(root, f"ucfTrainTestlist/{file}", file)
            videos = [line[0].split("/") for line in read_lines(path)]
            named_videos = [(spaced(action), video) for action, video in videos]
            unknown = [action for action, _ in named_videos if action not in label_of]
            if unknown:
                raise UserError(f"{path}: {unknown[0]!r} is no action of UCF101; fetch it again")
            return [(f"{action}/{Path(video).stem}.jpg", label_of[action], action) for action, video in named_videos]

        return hold_out(rows("trainlist01.txt"), rows("testlist01.txt"))


def spaced(action: str) -> str:
    """The name of an action with underscores between its words: ApplyEyeMakeup becomes Apply_Eye_Makeup."""
    return "_".join(re.findall("[A-Z][^A-Z]*", action))
