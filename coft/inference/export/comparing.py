"""Choose the encoder to export, and compare the classes that the export and the run's model give."""

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
    """Probabilities by the classifier with its own encoder. Shape (n, C)."""
    return Exported([part])(images)


def choose_peers(
    model: AdaptedModel, options: ExportOptions, sample: Sample, predict: PredictPart = predict_with_part
) -> tuple[str, Sample, Lines]:
    """Choose the peers to export: those of the options or, with `single`, the encoder that agrees most with the run.

    Args:
        model: The model.
        options: The options of the export.
        sample: Images of the run. Every other image serves the choice, and the rest the comparison.
        predict: Computes the probabilities of an exported classifier.

    Returns:
        One of `PEERS`, the images for the comparison, and lines about how it was chosen.

    Raises:
        UserError: If there are no images to choose by.
    """
    if not options.single or len(model.predictor.classifiers) < 2:
        return options.peers or DEFAULTS[options.to], sample, []
    selection, rest = sample.halves()
    if selection.images is None:
        raise UserError("--single: the run's own images are not there to choose by; name some with --images")
    shares = {}
    averages = () if model.two_checkpoints else (AVERAGE,)
    for peers in (*averages, "a", "b"):  # the first of equals wins: an average errs less on images of another kind
        (part,) = parts_of(model, peers)
        predict_part = partial(predict, model.alone(peers), part)
        shares[peers] = agreement(predict_part, probabilities_of(model), selection.images)
    shares_text = ", ".join(f"{words_for(model, peers)} {share:.1f} %" for peers, share in shares.items())
    best = max(shares, key=lambda peers: shares[peers])
    count = counted(len(selection.images), "image")
    return best, rest, [f"chosen by the class of the run's model on {count}: {shares_text}"]


def probabilities_of(model: AdaptedModel) -> Predict:
    """A function that predicts as the run's model does."""
    return lambda batch: model.predict(batch).probabilities


def words_for(model: AdaptedModel, peers: str) -> str:
    """A phrase for the exported peers."""
    if len(model.predictor.classifiers) == 1:
        return "the model"
    return {AVERAGE: "the average of the peers' weights", BOTH: "both peers"}.get(peers, f"peer {peers.upper()}")


def describe_agreement(model: AdaptedModel, exported: Predict, title: str, sample: Sample) -> Lines:
    """Lines about how often the export gives the class of the run's model, and about both accuracies if known.

    Args:
        model: The run's model.
        exported: Predicts as the export does.
        title: A phrase for the exported peers.
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
    """A line about the accuracy of an export and of the model that it was made from; none without test images.

    Args:
        name: A phrase for the export.
        predict: Predicts as the export does.
        other_name: A phrase for the model that it was made from.
        other_predict: Predicts as that model does.
        sample: The test images.
    """
    if sample.tested is None or sample.labels is None:
        return []
    percents = [accuracy(model, sample.tested, sample.labels) for model in (predict, other_predict)]
    count = counted(len(sample.labels), "labelled test image")
    return [f"accuracy of {name} {percents[0]:.1f} %, of {other_name} {percents[1]:.1f} %, on {count}"]
