"""Images that are unlike all others, such as a screenshot among photographs: they may be of none of the classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from coft.labelling.neighbours import nearest

from .run_folder import RunFolder

NEIGHBOURS = 20  # with fewer, a few such images count as neighbours of each other


def unlike_the_rest(run: RunFolder, count: int) -> pd.DataFrame:
    """Return the images that are least like others, by features of the frozen CLIP.

    Args:
        run: The run.
        count: Number of images.

    Returns:
        Rows of `RunFolder.images`, the least alike first, with the column `likeness`: the mean cosine similarity with
        the 20 nearest images. Only images whose features the run stored are compared. Empty if it stored none.
    """
    evidence = run.evidence
    if evidence is None or len(evidence.sample) < 2:
        return run.images.iloc[:0].assign(likeness=[])
    features = F.normalize(torch.from_numpy(evidence.features.astype(np.float32)), dim=1)
    number = torch.arange(len(features))
    cosine, _ = nearest(features, features, min(NEIGHBOURS, len(features) - 1), number)
    rows = run.images.iloc[evidence.sample].assign(likeness=cosine.mean(dim=1).numpy())
    return rows.nsmallest(count, "likeness")
