"""Which encoder is exported, and how often the export gives the class that the run's model gives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from coft.core.errors import UserError
from coft.core.words import counted
from coft.inference.model import AdaptedModel

from .export_options import AVERAGE, BOTH, DEFAULTS, Wanted
from .merging import Exported, Part, parts_of
from .sample import Predict, Sample, accuracy, agreement

Lines = list[str]
PredictPart = Callable[[AdaptedModel, Part, Tensor], Tensor]


def by_itself(model: AdaptedModel, part: Part, images: Tensor) -> Tensor:
    """Probabilities by a part's own encoder. Shape (n, C)."""
    return Exported([part])(images)


def which_peers(
    model: AdaptedModel, wanted: Wanted, found: Sample, predict: PredictPart = by_itself
) -> tuple[str, Sample, Lines]:
    """What is exported: what the user says, or with `single` what gives the run's classes most often.

    Args:
        model: What is exported.
        wanted: What the user says.
        found: Images of the run. By every other one is chosen.
        predict: What an export of a part computes.

    Returns:
        A name of `PEERS`, the images on which it is compared, and how it was chosen.

    Raises:
        UserError: If there is nothing to choose by.
    """
    if not wanted.single or len(model.predictor.classifiers) < 2:
        return wanted.peers or DEFAULTS[wanted.to], found, []
    chosen_by, rest = found.halves()
    if chosen_by.images is None:
        raise UserError("--single: the run's own images are not there to choose by; name some with --images")
    shares = {}
    for peers in (AVERAGE, "a", "b"):  # of equals the first: an average errs less on images of another kind
        (part,) = parts_of(model, peers)
        own = partial(predict, model, part)
        shares[peers] = agreement(own, probabilities_of(model), chosen_by.images)
    listed = ", ".join(f"{words_for(model, peers)} {share:.1f} %" for peers, share in shares.items())
    best = max(shares, key=lambda peers: shares[peers])
    count = counted(len(chosen_by.images), "image")
    return best, rest, [f"chosen by the class of the run's model on {count}: {listed}"]


def probabilities_of(model: AdaptedModel) -> Predict:
    """What predicts as the run does."""
    return lambda batch: model.predict(batch).probabilities


def words_for(model: AdaptedModel, peers: str) -> str:
    """What is exported, in words."""
    if len(model.predictor.classifiers) == 1:
        return "the model"
    return {AVERAGE: "the average of the peers' weights", BOTH: "both peers"}.get(peers, f"peer {peers.upper()}")


def compared(model: AdaptedModel, exported: Predict, what: str, found: Sample) -> Lines:
    """How often the export gives the class that the run's model gives, and what that costs where classes are known."""
    if found.images is None:
        lines = [f"{what}; the export was not compared with the run's model: there were no images (--images)"]
    else:
        same = agreement(exported, probabilities_of(model), found.images)
        lines = [f"{what}: the same class as the run's model for {same:.1f} % of {counted(len(found.images), 'image')}"]
    return [*lines, *known_accuracy("the export", exported, "the run's model", probabilities_of(model), found)]


def known_accuracy(what: str, exported: Predict, other: str, whole: Predict, found: Sample) -> Lines:
    """Accuracies of an export and of what it was made from, on images whose class is known."""
    if found.tested is None or found.labels is None:
        return []
    own, before = (accuracy(predict, found.tested, found.labels) for predict in (exported, whole))
    count = counted(len(found.labels), "labelled test image")
    return [f"accuracy of {what} {own:.1f} %, of {other} {before:.1f} %, on {count}"]
