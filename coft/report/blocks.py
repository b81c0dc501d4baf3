"""Picture blocks of the page: for a class, a group of images, or duplicates; and the groups of images of a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from .formatting import common_folder, number, percent, short

Select = Callable[[pd.DataFrame], pd.DataFrame]
CLEAN = ["p_clean_a", "p_clean_b"]
SUREST, LEAST_SURE = "surest", "least sure"


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


def _kept_out(images: pd.DataFrame) -> pd.DataFrame:
    """Select images whose pseudo-label the filter kept for neither peer, the lowest p_clean first."""
    kept_out = images[(images["kept_for"] == "") & (images["pseudo_label"] != "")]
    return kept_out.assign(clean=kept_out[CLEAN].min(axis=1)).sort_values("clean", kind="stable")


def _disagreed(images: pd.DataFrame) -> pd.DataFrame:
    """Select images for which the peers predict different classes, the surest first: at least one peer is wrong."""
    both_known = (images["peer_a"] != "") & (images["peer_b"] != "")
    return images[both_known & (images["peer_a"] != images["peer_b"])].sort_values(
        "confidence", ascending=False, kind="stable"
    )


def _changed(images: pd.DataFrame) -> pd.DataFrame:
    """Select images whose final class differs from zero-shot CLIP's, the surest first."""
    changed = images[(images["zero_shot"] != "") & (images["zero_shot"] != images["class"])]
    return changed.sort_values("confidence", ascending=False, kind="stable")


KINDS: dict[str, tuple[tuple[str, ...], Select]] = {  # required columns and selection of each kind
    SUREST: (("confidence",), lambda table: table.sort_values("confidence", ascending=False, kind="stable")),
    LEAST_SURE: (("confidence",), lambda table: table.sort_values("confidence", kind="stable")),
    "not kept by the filter": (("kept_for", "pseudo_label", *CLEAN), _kept_out),
    "peers disagree": (("peer_a", "peer_b"), _disagreed),
    "changed since zero-shot": (("zero_shot",), _changed),
}


def groups_by_class(images: pd.DataFrame) -> dict[str, dict[str, list[int]]]:
    """Return the groups of each class by its name, with the classes at the end of the run. Empty groups are left out.

    A group is a list of rows in the table of images, in display order, by its kind, a key of `KINDS`.

    Args:
        images: Table of images, as in `RunFolder`. Ties keep the order of the rows.
    """
    groups: dict[str, dict[str, list[int]]] = {}
    for kind, (needed, select) in KINDS.items():
        if all(column in images for column in needed):
            selected = select(images)  # faster for all classes at once
            for name, positions in selected.groupby("class", sort=False).indices.items():
                groups.setdefault(str(name), {})[kind] = selected.index[positions].tolist()
    return groups


def strips_of(groups: Mapping[str, Sequence[int]], limit: int, pictures: Pictures) -> list[Strip]:
    """Return the groups of a class as rows of pictures. No image is shown among both the surest and the least sure.

    Args:
        groups: Groups of one class, by kind.
        limit: Maximum number of pictures per group.
        pictures: Factory of the pictures.
    """
    shown: set[int] = set()
    strips = []
    for kind, group in groups.items():
        indices = [index for index in group if kind != LEAST_SURE or index not in shown][:limit]
        shown |= set(indices) if kind == SUREST else set()
        if indices:
            strips.append(Strip(kind, [pictures.of_image(index, kind) for index in indices], len(group)))
    return strips
