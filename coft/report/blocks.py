"""What a page shows as pictures: of a class, of a group of images, of duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from .groups import LEAST_SURE, SUREST, Group
from .words import common_folder, number, percent, short


@dataclass
class Picture:
    """A picture of an image.

    Attributes:
        path: The file.
        shown: Its path below the folder that all are in.
        note: What is said below it.
        uri: The picture; empty if the file cannot be read, None if there is no room for it.
    """

    path: str
    shown: str
    note: str
    uri: str | None = None


@dataclass
class Strip:
    """Pictures in a row.

    Attributes:
        title: What they have in common.
        pictures: Some of them.
        count: How many images there are.
    """

    title: str
    pictures: list[Picture]
    count: int

    @property
    def visible(self) -> list[Picture]:
        """Those that there is room for."""
        return [picture for picture in self.pictures if picture.uri is not None]


@dataclass
class Block:
    """What is shown of a class, or of duplicates.

    Attributes:
        title: A name.
        anchor: Of the page.
        strips: Pictures.
        reasons: Why it is shown, each a name and a sentence.
        count: How many images there are.
    """

    title: str
    anchor: str
    strips: list[Strip]
    reasons: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0


class Pictures:
    """Makes pictures of the images of a run.

    Args:
        images: See `RunFolder.images`.
    """

    def __init__(self, images: pd.DataFrame) -> None:
        self.images, self.folder = images, common_folder(list(images["path"]))

    def of(self, place: int, kind: str = "") -> Picture:
        """The picture of an image.

        Args:
            place: In the table of images.
            kind: The kind of its group, which says what the caption is.
        """
        row = self.images.loc[place]
        return self.named(row["path"], NOTES.get(kind, _confidence)(row))

    def named(self, path: str, note: str) -> Picture:
        """The picture of a file."""
        return Picture(path, short(path.removeprefix(self.folder), 80), note)


def _confidence(row: pd.Series) -> str:
    return percent(row["confidence"])


def _clean(row: pd.Series) -> str:
    return f"p_clean {number(min(row['p_clean_a'], row['p_clean_b']))}, labelled {short(row['pseudo_label'], 30)}"


NOTES = {
    "kept out by the filter": _clean,
    "peers disagree": lambda row: f"A: {short(row['peer_a'], 30)}, B: {short(row['peer_b'], 30)}",
    "changed since zero-shot": lambda row: f"was {short(row['zero_shot'], 30)}",
}


def strips_of(groups: Sequence[Group], most: int, pictures: Pictures) -> list[Strip]:
    """The groups of a class as rows of pictures. The least sure images are not shown again that are the surest, too.

    Args:
        groups: Of one class.
        most: Pictures of a group, at most.
        pictures: Makes them.
    """
    shown: set[int] = set()
    strips = []
    for own in groups:
        places = [place for place in own.places if own.kind != LEAST_SURE or place not in shown][:most]
        shown |= set(places) if own.kind == SUREST else set()
        if places:
            strips.append(Strip(own.kind, [pictures.of(place, own.kind) for place in places], len(own.places)))
    return strips
