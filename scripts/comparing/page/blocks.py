"""All tables of docs/results.md by name."""

from __future__ import annotations

import pandas as pd

from .cells import BACKBONES, DATASETS
from .from_means import (
    changed_parts,
    description_shares,
    filter_of_one_peer,
    filter_quality,
    renewed_seeds,
    rounds_of_plus,
    wrong_names,
)
from .from_runs import accuracies, differences, differences_by_pair, photographs


def all_blocks(runs: pd.DataFrame, kept: pd.DataFrame, of_photographs: pd.DataFrame) -> dict[str, str]:
    """All tables by the names that the page calls them by."""
    now, before = kept[kept["version"] == "now"], kept[kept["version"] != "now"]
    resnet, vit = ([(dataset, backbone) for dataset in DATASETS] for backbone in BACKBONES)
    return {
        "accuracies-resnet": accuracies(runs, "embedded"),
        "accuracies-vit": accuracies(runs, "embedded-vit"),
        "photographs": photographs(of_photographs),
        "differences": differences(runs),
        "differences-by-pair": differences_by_pair(runs),
        "filter": filter_quality(runs, kept),
        "filter-one-peer": filter_of_one_peer(kept),
        "wrong-names": wrong_names(kept),
        "parts": changed_parts(now, "parts", [resnet[2]], "CoFT"),
        "parts-before": changed_parts(before, "parts", [resnet[1]], "CoFT"),
        "oracle": changed_parts(kept, "oracle", [resnet[1], resnet[2]], "CoFT"),
        "oracle-vit": changed_parts(kept, "oracle", [vit[3]], "CoFT"),
        "renewed": renewed_seeds(runs, kept),
        "rounds": rounds_of_plus(runs, kept),
        "parts-plus": changed_parts(now, "parts_plus", [resnet[2]], "CoFT+"),
        "parts-plus-before": changed_parts(before, "parts_plus", [vit[1]], "CoFT+"),
        "descriptions": description_shares(kept),
    }
