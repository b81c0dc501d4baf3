"""Which images of each class are worth a look: places in the table of images (`RunFolder.images`), best first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

Choose = Callable[[pd.DataFrame], pd.DataFrame]
CLEAN = ["p_clean_a", "p_clean_b"]
SUREST, LEAST_SURE = "surest", "least sure"


@dataclass(frozen=True)
class Group:
    """Some images of a class.

    Attributes:
        kind: A name of `KINDS`.
        places: In the table of images, best first; as many as there are.
    """

    kind: str
    places: list[int]


def _kept_out(images: pd.DataFrame) -> pd.DataFrame:
    """Those whose label the filter kept from both peers, the least clean first."""
    out = images[(images["kept_for"] == "") & (images["pseudo_label"] != "")]
    return out.assign(clean=out[CLEAN].min(axis=1)).sort_values("clean", kind="stable")


def _disagreed(images: pd.DataFrame) -> pd.DataFrame:
    """Those to which the two peers give different classes, the surest first: there at least one is wrong."""
    known = (images["peer_a"] != "") & (images["peer_b"] != "")
    return images[known & (images["peer_a"] != images["peer_b"])].sort_values(
        "confidence", ascending=False, kind="stable"
    )


def _changed(images: pd.DataFrame) -> pd.DataFrame:
    """Those that zero-shot CLIP takes for another class than the run does in the end, the surest first."""
    moved = images[(images["zero_shot"] != "") & (images["zero_shot"] != images["class"])]
    return moved.sort_values("confidence", ascending=False, kind="stable")


KINDS: dict[str, tuple[tuple[str, ...], Choose]] = {  # columns that it needs, and which images it has
    SUREST: (("confidence",), lambda table: table.sort_values("confidence", ascending=False, kind="stable")),
    LEAST_SURE: (("confidence",), lambda table: table.sort_values("confidence", kind="stable")),
    "kept out by the filter": (("kept_for", "pseudo_label", *CLEAN), _kept_out),
    "peers disagree": (("peer_a", "peer_b"), _disagreed),
    "changed since zero-shot": (("zero_shot",), _changed),
}


def groups_by_class(images: pd.DataFrame) -> dict[str, list[Group]]:
    """The groups of each class in the end, those without an image left out; ties go to the earlier line.

    Args:
        images: See `RunFolder.images`.
    """
    found: dict[str, list[Group]] = {}
    for kind, (needed, choose) in KINDS.items():
        if all(column in images for column in needed):
            chosen = choose(images)  # of all classes at once, which is faster
            for name, rows in chosen.groupby("class", sort=False).indices.items():
                found.setdefault(str(name), []).append(Group(kind, chosen.index[rows].tolist()))
    return found


def moves(before: pd.Series, after: pd.Series) -> pd.DataFrame:
    """How many images went from which class to which other.

    Args:
        before: Names of classes; "" is unknown. Shape (N,).
        after: Likewise.

    Returns:
        Columns before, after, images; the most frequent first.
    """
    pairs = pd.DataFrame({"before": before.to_numpy(), "after": after.to_numpy()})
    pairs = pairs[(pairs["before"] != "") & (pairs["after"] != "") & (pairs["before"] != pairs["after"])]
    counted = pairs.value_counts(["before", "after"]).rename("images").reset_index()
    return counted.sort_values(["images", "before", "after"], ascending=[False, True, True], ignore_index=True)


def confusion(before: pd.Series, after: pd.Series, classes: list[str]) -> np.ndarray:
    """Images by class before (rows) and after (columns); unknown classes are left out. Shape (C, C)."""
    number = {name: place for place, name in enumerate(classes)}
    rows, columns = (series.map(number).to_numpy(dtype=float, na_value=np.nan) for series in (before, after))
    known = ~(np.isnan(rows) | np.isnan(columns))
    flat = (rows[known] * len(classes) + columns[known]).astype(int)
    return np.bincount(flat, minlength=len(classes) ** 2).reshape(len(classes), len(classes))
