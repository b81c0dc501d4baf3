"""Choice of the encoder to export, and comparison of the export's predictions with those of the run's model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from coft.core.errors import UserError
from coft.core.words import counted
from coft.inference.model import AdaptedModel

from .export_options import AVERAGE, BOTH, DEFAULTS, ExportOptions
from .merging import Exported, Part, parts_of
from .sample import Predict, Sample, accuracy, agreement

Lines = list[str]
PredictPart = Callable[[AdaptedModel, Part, Tensor], Tensor]


def predict_with_part(model: AdaptedModel, part: Part, images: Tensor) -> Tensor:
    """Compute the class probabilities of one exported classifier with its own encoder. Shape (n, C)."""
    return Exported([part])(images)


def choose_peers(
    model: AdaptedModel, options: ExportOptions, sample: Sample, predict: PredictPart = predict_with_part
) -> tuple[str, Sample, Lines]:
    """Choose the peers to export: those of the options or, with `single`, the encoder that agrees most with the model.

    Args:
        model: The model.
        options: The options of the export.
        sample: Images of the run. Half of them (every other one) serve the choice, the rest the comparison.
        predict: Function that computes the probabilities of an exported classifier.

    Returns:
        One of `PEERS`, the images that are left for the comparison, and lines about how the peers were chosen.

    Raises:
        UserError: If a choice is needed and there are no images for it.
    """
    if not options.single or len(model.predictor.classifiers) < 2:
        return options.peers or DEFAULTS[options.to], sample, []
    selection, rest = sample.halves()
    if selection.images is None:
        raise UserError("--single: the run's images were not found; give images with --images")
    shares = {}
    averages = () if model.two_checkpoints else (AVERAGE,)
    for peers in (*averages, "a", "b"):  # the first one wins a tie: the average is more robust to other kinds of images
        (part,) = parts_of(model, peers)
        predict_part = partial(predict, model.of_peer(peers), part)
        shares[peers] = agreement(predict_part, probabilities_of(model), selection.images)
    shares_text = ", ".join(f"{peers_phrase(model, peers)} {share:.1f} %" for peers, share in shares.items())
    best = max(shares, key=lambda peers: shares[peers])
    count = counted(len(selection.images), "image")
    return best, rest, [f"chosen by the class of the run's model on {count}: {shares_text}"]


def probabilities_of(model: AdaptedModel) -> Predict:
    """Return a function that predicts the run's model's probabilities."""
    return lambda batch: model.predict(batch).probabilities


def peers_phrase(model: AdaptedModel, peers: str) -> str:
    """Return a phrase that names the exported peers."""
    if len(model.predictor.classifiers) == 1:
        return "the model"
    return {AVERAGE: "the average of the peers' weights", BOTH: "both peers"}.get(peers, f"peer {peers.upper()}")


def describe_agreement(model: AdaptedModel, exported: Predict, title: str, sample: Sample) -> Lines:
    """Return lines about the export's agreement with the run's model, and about the accuracy of both if it is known.

    Args:
        model: The run's model.
        exported: Prediction function of the export.
        title: Phrase that names the exported peers.
        sample: Images for the comparison.
    """
    if sample.images is None:
        lines = [f"{title}; the export was not compared with the run's model: there were no images (--images)"]
    else:
        share = agreement(exported, probabilities_of(model), sample.images)
        count = counted(len(sample.images), "image")
        lines = [f"{title}: the same class as the run's model for {share:.1f} % of {count}"]
    return [*lines, *describe_accuracy("the export", exported, "the run's model", probabilities_of(model), sample)]


def describe_accuracy(name: str, predict: Predict, other_name: str, other_predict: Predict, sample: Sample) -> Lines:
    """Return a line with the accuracy of an export and of the model that it was made from; no line without test images.

    Args:
        name: Phrase that names the export.
        predict: Prediction function of the export.
        other_name: Phrase that names the model that the export was made from.
        other_predict: Prediction function of that model.
        sample: Sample with the test images and their labels.
    """
    if sample.tested is None or sample.labels is None:
        return []
    percents = [accuracy(model, sample.tested, sample.labels) for model in (predict, other_predict)]
    count = counted(len(sample.labels), "labelled test image")
    return [f"accuracy of {name} {percents[0]:.1f} %, of {other_name} {percents[1]:.1f} %, on {count}"]
