"""Which encoder is exported, and how often the export gives the class that the run's model gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from coft.runtime.errors import UserError, did_you_mean
from coft.use.model import AdaptedModel

from .merging import AVERAGE, BOTH, PEERS, Exported, Part, parts_of
from .sample import Predict, Sample, accuracy, agreement

DEFAULTS = {"open_clip": AVERAGE, "onnx": BOTH, "head": AVERAGE}  # which encoder, by way of exporting
Lines = list[str]
PredictPart = Callable[[AdaptedModel, Part, Tensor], Tensor]


@dataclass(frozen=True)
class Wanted:
    """What a user wants of an export.

    Attributes:
        to: A name of `WAYS`.
        peers: A name of `PEERS`; "" for the way's default.
        single: Whether the encoder that gives the run's classes most often is taken.
        int8: Whether there is a second ONNX file in int8.

    Raises:
        UserError: If these do not go together.
    """

    to: str
    peers: str = ""
    single: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        for name, known in (("to", tuple(DEFAULTS)), ("peers", ("", *PEERS))):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}; {did_you_mean(str(getattr(self, name)), known)}")
        if self.int8 and self.to != "onnx":
            raise UserError("--int8 goes with --to onnx")
        if self.peers == BOTH and self.to != "onnx":
            raise UserError(f"--peers {BOTH} goes with --to onnx; {self.to} takes one encoder: a, b, or {AVERAGE}")
        if self.peers and self.single:
            raise UserError("--single chooses the encoder, and --peers names it; leave one of them out")


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
    return best, rest, [f"chosen by the class of the run's model on {len(chosen_by.images)} images: {listed}"]


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
        lines = [f"{what}: the same class as the run's model for {same:.1f} % of {len(found.images)} images"]
    return [*lines, *known_accuracy("the export", exported, "the run's model", probabilities_of(model), found)]


def known_accuracy(what: str, exported: Predict, other: str, whole: Predict, found: Sample) -> Lines:
    """Accuracies of an export and of what it was made from, on images whose class is known."""
    if found.tested is None or found.labels is None:
        return []
    own, before = (accuracy(predict, found.tested, found.labels) for predict in (exported, whole))
    return [f"accuracy of {what} {own:.1f} %, of {other} {before:.1f} %, on {len(found.labels)} labelled test images"]
