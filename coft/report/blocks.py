"""Blocks of pictures on the page: of a class, of a group of images, of duplicates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from .formatting import common_folder, number, percent, short
from .groups import LEAST_SURE, SUREST, Group


@dataclass
class Picture:
    """A small picture of an image.

    Attributes:
        path: The image file.
        href: Its address, as seen from the page.
        shown: The path as the page shows it, below the folder that all images share.
        note: The caption.
        uri: The picture as a data URI; empty if the file cannot be read, None if there is no room for it.
    """

    path: str
    href: str
    shown: str
    note: str
    uri: str | None = None


@dataclass
class Strip:
    """Pictures in a row.

    Attributes:
        title: What the images have in common.
        pictures: Pictures of some of the images.
        count: Number of images.
    """

    title: str
    pictures: list[Picture]
    count: int

    @property
    def visible(self) -> list[Picture]:
        """The pictures that the page has room for."""
        return [picture for picture in self.pictures if picture.uri is not None]


@dataclass
class Block:
    """The pictures of a class, or of duplicates.

    Attributes:
        title: The heading.
        anchor: The HTML id.
        strips: Rows of pictures.
        reasons: Why the block is shown: pairs of a name and a sentence.
        count: Number of images.
    """

    title: str
    anchor: str
    strips: list[Strip]
    reasons: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0


class Pictures:
    """Makes pictures of the images of a run.

    Args:
        images: The table of images, as in `RunFolder`.
        page: Folder of the page.
    """

    def __init__(self, images: pd.DataFrame, page: Path) -> None:
        self.images, self.folder, self.page = images, common_folder(list(images["path"])), page

    def of_image(self, index: int, kind: str = "") -> Picture:
        """The picture of an image.

        Args:
            index: Row in the table of images.
            kind: Kind of the group that it is shown in. The caption depends on it.
        """
        row = self.images.loc[index]
        return self.of_file(row["path"], NOTES.get(kind, _confidence)(row))

    def of_file(self, path: str, note: str) -> Picture:
        """The picture of a file, with a caption."""
        return Picture(path, address(path, self.page), short(path.removeprefix(self.folder), 80), note)


def address(path: str, page: Path) -> str:
    """The address of a file in a page: from the page's folder, so that both may move together."""
    return quote(os.fsencode(os.path.relpath(path, page)))


def _confidence(row: pd.Series) -> str:
    return percent(row["confidence"])


def _clean(row: pd.Series) -> str:
    return f"p_clean {number(min(row['p_clean_a'], row['p_clean_b']))}, labelled {short(row['pseudo_label'], 30)}"


NOTES = {
    "not kept by the filter": _clean,
    "peers disagree": lambda row: f"A: {short(row['peer_a'], 30)}, B: {short(row['peer_b'], 30)}",
    "changed since zero-shot": lambda row: f"was {short(row['zero_shot'], 30)}",
}


def strips_of(groups: Sequence[Group], limit: int, pictures: Pictures) -> list[Strip]:
    """The groups of a class as rows of pictures. No image is among both the surest and the least sure.

    Args:
        groups: The groups of one class.
        limit: Most pictures of a group.
        pictures: Makes the pictures.
    """
    shown: set[int] = set()
    strips = []
    for group in groups:
        indices = [index for index in group.indices if group.kind != LEAST_SURE or index not in shown][:limit]
        shown |= set(indices) if group.kind == SUREST else set()
        if indices:
            shown_pictures = [pictures.of_image(index, group.kind) for index in indices]
            strips.append(Strip(group.kind, shown_pictures, len(group.indices)))
    return strips
