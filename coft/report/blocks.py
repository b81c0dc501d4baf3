"""Picture blocks of the page: for a class, a group of images, or duplicates."""

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
    """Thumbnail of an image.

    Attributes:
        path: Path of the image file.
        href: URL of the image file, relative to the page.
        shown: Path to display, relative to the common folder of all images.
        note: Caption.
        uri: Thumbnail as a data URI; empty if the file cannot be read, None if the page has no room for it.
    """

    path: str
    href: str
    shown: str
    note: str
    uri: str | None = None


@dataclass
class Strip:
    """Row of pictures.

    Attributes:
        title: Property that the images have in common.
        pictures: Pictures of some of the images.
        count: Number of all images with this property.
    """

    title: str
    pictures: list[Picture]
    count: int

    @property
    def visible(self) -> list[Picture]:
        """Pictures that the page has room for."""
        return [picture for picture in self.pictures if picture.uri is not None]


@dataclass
class Block:
    """Block of pictures, for a class, a group of images, or duplicates.

    Attributes:
        title: Heading.
        anchor: HTML id.
        strips: Rows of pictures.
        reasons: Reasons why the block is shown: pairs of a name and a sentence.
        count: Number of images that the block stands for.
    """

    title: str
    anchor: str
    strips: list[Strip]
    reasons: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0


class Pictures:
    """Factory of pictures for the images of a run.

    Args:
        images: Table of images, as in `RunFolder`.
        page: Folder of the page.
    """

    def __init__(self, images: pd.DataFrame, page: Path) -> None:
        self.images, self.folder, self.page = images, common_folder(list(images["path"])), page

    def of_image(self, index: int, kind: str = "") -> Picture:
        """Return the picture of an image.

        Args:
            index: Row in the table of images.
            kind: Kind of the group that the image is shown in, which determines the caption.
        """
        row = self.images.loc[index]
        return self.of_file(row["path"], NOTES.get(kind, _confidence)(row))

    def of_file(self, path: str, note: str) -> Picture:
        """Return the picture of a file, with a caption."""
        return Picture(path, address(path, self.page), short(path.removeprefix(self.folder), 80), note)


def address(path: str, page: Path) -> str:
    """Return the URL of a file, relative to the page's folder, so that both can be moved together."""
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
    """Return the groups of a class as rows of pictures. No image is shown among both the surest and the least sure.

    Args:
        groups: Groups of one class.
        limit: Maximum number of pictures per group.
        pictures: Factory of the pictures.
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
