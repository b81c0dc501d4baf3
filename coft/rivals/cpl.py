"""CPL (Zhang et al., ICML 2024): prompts learned in rounds from sets of candidate labels (our reconstruction)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.core.errors import UserError
from coft.core.settings import share
from coft.core.table import Table
from coft.labelling.first_labels import likeliest
from coft.labelling.losses import Term
from coft.labelling.protocol import Batch, Engine, Observer
from coft.labelling.pseudo_labels import PseudoLabels
from coft.labelling.seeds import top_per_class

from .grip import GRIP, GRIPSettings

COLUMNS = 8  # classes whose quantiles are computed at a time; older releases of torch: 16 million values


@dataclass(frozen=True)
class CPLSettings(GRIPSettings):
    """Settings of CPL."""

    within: float = share(0.6, "quantile of the pool's confidences that the candidates of an image reach in sum")
    across: float = share(0.9, "quantile of a class's probabilities that an image reaches to be a candidate")


def candidates_of(probability: Table, within: float, across: float) -> Table:
    """Select the candidate classes of each image by two conditions.

    Within an image, candidates are the likeliest classes until their probabilities add up to more than a quantile of
    the pool's confidences. Across images, the probability of a class must be at least a quantile of its column.

    Args:
        probability: Class probabilities. Shape (N, C).
        within: Level of the quantile within images.
        across: Level of the quantile across images.

    Returns:
        Mask of the classes that meet both conditions; an image may have none. Shape (N, C), bool.
    """
    bound = torch.quantile(probability.map(lambda rows: rows.max(dim=1).values).all(), within)
    classes = probability.at(torch.zeros(1, dtype=torch.long)).shape[1]
    columns = torch.arange(classes).split(COLUMNS)
    parts = (probability.map(lambda rows, c=part: rows[:, c]).all() for part in columns)
    class_bounds = torch.cat([torch.quantile(part, across, dim=0) for part in parts])

    def candidates(rows: Tensor) -> Tensor:
        ordered, order = rows.sort(dim=1, descending=True, stable=True)
        before = F.pad(ordered.cumsum(dim=1)[:, :-1], (1, 0))  # sum over likelier classes
        return torch.zeros_like(rows, dtype=torch.bool).scatter(1, order, before <= bound) & (rows >= class_bounds)

    return probability.map(candidates)


class CPL(GRIP):
    """GRIP with sets of candidate labels: a step minimises -log of the probability of an image's set.

    A round takes as many images of each class as one of GRIP. An image's class is its likeliest candidate, and images
    with the highest probability come first.

    Unlike the published method: the quantiles are the same for all data sets, and the differences listed in `GRIP`.
    """

    random_key = "CPL"
    settings: CPLSettings

    def __init__(self, engine: Engine, settings: CPLSettings, epochs: int, observer: Observer | None = None) -> None:
        super().__init__(engine, settings, epochs, observer)
        # candidates of the images that have a label, in the order of `labels`; shape (n, C)
        self.candidates = torch.zeros(0, len(engine.clip.classnames), dtype=torch.bool)

    def learn_from(self, logits: Table, per_class: int | Tensor) -> None:
        """Take the most probable images of each class among those with a candidate."""
        settings, classes = self.settings, len(self.engine.clip.classnames)
        probability = logits.map(lambda rows: rows.softmax(dim=1))
        candidates = candidates_of(probability, settings.within, settings.across)
        likely = probability.map(lambda rows, mask: rows * mask, candidates)
        sure, label = likely.map(lambda rows: rows.amax(dim=1)).all(), likeliest(likely)
        some = torch.nonzero(candidates.map(lambda mask: mask.any(dim=1)).all()).flatten()
        if not len(some):
            raise UserError("TRAINER.CPL.ACROSS: no image has a candidate label; choose a lower one")
        most = torch.as_tensor(per_class).expand(classes)
        chosen, _ = top_per_class(sure[some], label[some], most)
        index = some[chosen].sort().values
        self.candidates = candidates.all()[index]  # of the rows that were chosen: others may round differently
        labels = PseudoLabels.unweighted(index, label[index])
        self.labels = dict.fromkeys(self.learners, labels)
        self.observer.seeds_chosen(labels, likeliest(logits), most)

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute -log of the probability of the candidates and, for the log, the accuracy in percent."""
        logits = self.logits(name, batch)
        place = torch.searchsorted(self.labels[name].index, batch.labels.index)
        others = ~self.candidates[place].to(logits.device)
        each = logits.logsumexp(dim=1) - logits.masked_fill(others, -torch.inf).logsumexp(dim=1)
        return {"loss": Term(each.sum(), len(batch.whole.index)), "acc": self.accuracy(logits, batch)}

    def state_dict(self) -> dict[str, Any]:
        """Return the labels and their candidates."""
        return super().state_dict() | {"candidates": self.candidates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`."""
        super().load_state_dict(state)
        self.candidates = state["candidates"]
