"""What the peers of a finished run of CoFT know about their labels, when Phase II begins and at the end.

An analysis for people: it reads the labels of the unlabeled images, and trains nothing that a run uses.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import train
import trainers
from coft.core.table import Table
from coft.engine.diagnostics import Diagnostics
from coft.labelling.neighbours import NeighbourGraph, nearest
from coft.labelling.predictor import linear
from coft.labelling.prior import correct_prior
from coft.labelling.protocol import Observer
from coft.labelling.pseudo_labels import Predictions, PseudoLabels, at_label
from coft.method.coft import PARTNERS
from coft.method.negative_prompt import FIT_RATE, FIT_STEPS
from coft.method.two_phases import NAMES
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from trainers.config import make_cfg

from .plan import Run

STAGES = ("first", "last")
NEAR = 10  # neighbours that say in what neighbourhood an image is
SCORES = ("p_clean", "softmax", "margin", "second linear head", "neighbours' vote")


class Seen(Observer):
    """Keeps what a labelling says."""

    predictions: dict[str, Predictions]

    def labelled(self, predictions: Any, labels: Any, sources: Any) -> None:
        """Keep it."""
        self.predictions = dict(predictions)


def witness(run: Run) -> dict[str, Any]:
    """Measure a finished run; see `measure`."""
    return measure(_built(run), run.folder)


def measure(trainer: Any, folder: Path) -> dict[str, Any]:
    """Measure what a trainer's peers know, with the weights that a run of the same settings has left.

    Args:
        trainer: Of two peers; its weights are replaced.
        folder: Of the run.

    Returns:
        For each of `STAGES`, AUROCs by name of score, `alike` (see `same_errors`), `accuracy`; and in `survival` what
        becomes of the first wrong labels (see `survival`).
    """
    method, truth = trainer.method, trainer.diagnostics
    frozen = trainer.engine.clip_features(method.settings.label_views).all()
    found: dict[str, Any] = {}
    labels = {}
    for stage, epoch in zip(STAGES, (method.phase1_epochs, method.epochs), strict=True):
        trainer.load_model(str(folder), epoch=epoch)
        predictions, features = _relabelled(method, epoch)
        graph = method.neighbours
        scores = label_scores(predictions) | {
            "second linear head": _second_head(method, predictions, features, graph if stage == "first" else None),
            "neighbours' vote": _vote(predictions, graph, method.num_classes),
        }
        labels[stage] = predictions[NAMES[0]].label
        found[stage] = {name: _mean_auroc(truth, predictions, score) for name, score in scores.items()}
        first, second = (truth.wrong(own.label) for own in predictions.values())
        found[stage]["alike"] = same_errors(first, second, predictions)
        found[stage]["accuracy"] = truth.accuracy(torch.arange(len(frozen)), labels[stage])
    found["survival"] = survival(truth, labels, frozen)
    return found


def _built(run: Run) -> Any:
    cfg = make_cfg(train.make_parser().parse_args(list(run.arguments)), trainers.extend_cfg)
    cfg.defrost()
    cfg.OUTPUT_DIR = tempfile.mkdtemp()
    set_random_seed(cfg.SEED)
    return build_trainer(cfg)


def _relabelled(method: Any, epoch: int) -> tuple[dict[str, Predictions], dict[str, Table]]:
    """Predictions of a labelling at an epoch, as training makes it, and the features that it is made of."""
    method.observer, method.epoch = Seen(), epoch
    method.enter(2)
    method.engine.set_mode(training=False)
    method.labels = method.label_all()
    return method.observer.predictions, method.engine.encode(method.teacher_encoders, method.settings.label_views)


def label_scores(predictions: dict[str, Predictions]) -> dict[str, dict[str, Tensor]]:
    """Scores of each peer's labels that may tell right from wrong ones: the mean of both peers', shape (N,) each."""
    own = list(predictions.values())
    margin = {n: torch.stack([_margin(p, predictions[n].label) for p in own]).mean(dim=0) for n in predictions}
    return {
        "p_clean": {n: torch.stack([p.p_clean(predictions[n].label) for p in own]).mean(dim=0) for n in predictions},
        "softmax": {
            n: torch.stack([p.probability_of(predictions[n].label) for p in own]).mean(dim=0) for n in predictions
        },
        "margin": margin,
    }


def _margin(prediction: Predictions, label: Tensor) -> Tensor:
    return replace(prediction, label=label).margin


def _second_head(
    method: Any, predictions: dict[str, Predictions], features: dict[str, Table], graph: NeighbourGraph | None
) -> dict[str, Tensor]:
    """The softmax of a linear head that is fitted as the negative vectors are: the control of their capacity."""
    tables = {}
    for name, partner in PARTNERS.items():
        teacher = method.peers[name].teacher()
        label = predictions[partner].label
        believed = torch.minimum(predictions[name].probability_of(label), predictions[partner].probability_of(label))
        head = fit_head(features[name].all(), PseudoLabels.of_pool(label, believed), teacher.positive, teacher.scale)
        logits = linear(features[name], head, teacher.scale).map(Tensor.double)
        probability = correct_prior(logits, method.settings.prior_tau).map(lambda rows: rows.softmax(dim=1))
        tables[name] = probability if graph is None else graph.smooth(probability)
    return {
        n: torch.stack([at_label(table, predictions[n].label) for table in tables.values()]).mean(dim=0)
        for n in predictions
    }


def fit_head(features: Tensor, labels: PseudoLabels, start: Tensor, scale: float) -> Tensor:
    """Fit one vector a class by cross-entropy, with the steps and rate of `fit_negative`. Shape (C, embed_dim)."""
    features = features.float()
    vectors = F.normalize(start.detach().float(), dim=-1).requires_grad_(True)
    optimizer = torch.optim.Adam([vectors], lr=FIT_RATE)
    for _ in range(FIT_STEPS):
        loss = F.cross_entropy(scale * features @ F.normalize(vectors, dim=-1).t(), labels.label, reduction="none")
        optimizer.zero_grad()
        ((loss * labels.weight).sum() / labels.weight.sum()).backward()
        optimizer.step()
    return F.normalize(vectors.detach(), dim=-1)


def _vote(predictions: dict[str, Predictions], graph: NeighbourGraph, classes: int) -> dict[str, Tensor]:
    votes = {}
    for name, own in predictions.items():
        spread = graph.smooth(Table.of(F.one_hot(own.label, classes).double()))
        votes[name] = at_label(spread, own.label)
    return votes


def _mean_auroc(truth: Diagnostics, predictions: dict[str, Predictions], score: dict[str, Tensor]) -> float:
    each = [truth.auroc(score[name], own.label) for name, own in predictions.items()]
    return sum(each) / len(each)


def same_errors(first: Tensor, second: Tensor, predictions: dict[str, Predictions]) -> float:
    """Share of a peer's wrong labels that the other peer gives, too.

    Args:
        first: Which labels of the one are wrong. Shape (N,), bool.
        second: Likewise, of the other.
        predictions: Of both.
    """
    one, other = (own.label for own in predictions.values())
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & (one == other)).sum()) / total if total else float("nan")


def survival(truth: Diagnostics, labels: dict[str, Tensor], frozen: Tensor) -> dict[str, float]:
    """What becomes of the first wrong labels, by their neighbourhood in the frozen CLIP's features.

    A wrong label is alone where at least half of the nearest images have right ones, else it is among wrong ones.

    Returns:
        Their numbers as shares of all wrong labels, and the shares of each kind that are right in the end.
    """
    features = F.normalize(frozen.float() - frozen.float().mean(dim=0), dim=1)
    index = nearest(features, features, NEAR, torch.arange(len(features)))[1]
    wrong = truth.wrong(labels["first"])
    alone = wrong & ((~wrong)[index].float().mean(dim=1) >= 0.5)
    among, right = wrong & ~alone, ~truth.wrong(labels["last"])
    return {
        "alone": float(alone.sum() / wrong.sum()),
        "alone, right in the end": float(right[alone].float().mean()),
        "among wrong ones": float(among.sum() / wrong.sum()),
        "among wrong ones, right in the end": float(right[among].float().mean()),
        "right ones, wrong in the end": float((~right)[~wrong].float().mean()),
    }
