"""UCF101: middle frames of videos of human actions (Soomro et al. 2012), 101 classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import read_lines, read_rows
from .base import Row
from .benchmark import SplitDataset
from .splits import Split, hold_out


@DATASET_REGISTRY.register()
class UCF101(SplitDataset):
    """Layout: `<root>/ucf101/UCF-101-midframes/<Action_Name>/*.jpg`. A split is made from the first official one."""

    name = "ucf101"
    dataset_dir = "ucf101"
    image_dirs = ("UCF-101-midframes",)
    split = "split_zhou_UCF101.json"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images from the training part of the first split."""

        def rows(file: str) -> list[Row]:
            path = self.annotation(root, f"ucfTrainTestlist/{file}", file)
            videos = ((spaced(of), Path(video).stem) for of, video in (line[0].split("/") for line in read_lines(path)))
            return read_rows(path, names, lambda: ((f"{action}/{video}.jpg", action) for action, video in videos))

        return hold_out(rows("trainlist01.txt"), rows("testlist01.txt"))


def spaced(action: str) -> str:
    """Put underscores between the words of an action's name: ApplyEyeMakeup becomes Apply_Eye_Makeup."""
    return "_".join(re.findall("[A-Z][^A-Z]*", action))
