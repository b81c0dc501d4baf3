"""Groups of images to show for each class: the surest ones, those whose label is not kept, and so on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

Select = Callable[[pd.DataFrame], pd.DataFrame]
CLEAN = ["p_clean_a", "p_clean_b"]
SUREST, LEAST_SURE = "surest", "least sure"


@dataclass(frozen=True)
class Group:
    """Group of images of a class.

    Attributes:
        kind: A key of `KINDS`.
        indices: Rows in the table of images, in display order.
    """

    kind: str
    indices: list[int]


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


def groups_by_class(images: pd.DataFrame) -> dict[str, list[Group]]:
    """Return the groups of each class by its name, with the classes at the end of the run. Empty groups are left out.

    Args:
        images: Table of images, as in `RunFolder`. Ties keep the order of the rows.
    """
    groups: dict[str, list[Group]] = {}
    for kind, (needed, select) in KINDS.items():
        if all(column in images for column in needed):
            selected = select(images)  # faster for all classes at once
            for name, positions in selected.groupby("class", sort=False).indices.items():
                groups.setdefault(str(name), []).append(Group(kind, selected.index[positions].tolist()))
    return groups
