"""Measure how often the report is right about names: `python -m scripts.name_signals DATASET [flags of coft.sh]`.

It trains nothing. The classes are those from which CoFT chooses its seeds: zero-shot probabilities of the unlabeled
images, smoothed among neighbours. A name is wrong if most images of the class belong to another one. It reads labels,
for people to look at.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

import train
import trainers
from coft.core.exit_codes import guarded
from coft.labelling.first_labels import first_scores, likeliest, zero_shot_logits
from coft.labelling.neighbours import centred
from coft.report.names import AT_LEAST, FIT, REASONS, TAKEN, measure
from dassl.engine import build_trainer
from scripts.launch import parse, train_arguments
from trainers.config import make_cfg
from trainers.data import labels_of, unlabeled_data


def main(argv: Sequence[str]) -> int:
    """Print the signals of a data set, and how often they are right. Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = train_arguments("CoFT", parse("CoFT", [*argv, "--output-dir", folder]))
        trainer = build_trainer(make_cfg(train.make_parser().parse_args(arguments), trainers.extend_cfg))
        method, scale = trainer.method, trainer.engine.clip.scale
        features, text = trainer.engine.clip_features(method.settings.label_views), method.zero_shot_text()
        scores = first_scores(features, text, scale, method.settings.prior_tau, method.neighbours)
        final, zero_shot = (likeliest(table).numpy() for table in (scores, zero_shot_logits(features, text, scale)))
        truth = labels_of(trainer.images, unlabeled_data(trainer.cfg, trainer.dm.dataset, "CoFT")).numpy()
    signals = measure(centred(features.all(), features.mean()), text.cpu().numpy(), final, zero_shot)
    labels = [label for label, class_signals in enumerate(signals) if class_signals.images >= AT_LEAST]
    right = {label: int(np.bincount(truth[final == label]).argmax()) for label in labels}
    wrong = np.array([right[label] != label for label in labels])
    print(f"classes {len(signals)}, with {AT_LEAST} images or more {len(labels)}, of them wrong names {wrong.sum()}")
    for reason, holds in REASONS.items():
        suspicious = [label for label in labels if holds(signals[label])]
        hits = [label for label in suspicious if right[label] != label]
        print(f"{reason}: {len(suspicious)} classes, of them wrong {len(hits)}")
        print(f"  the other name is right: {sum(right[c] in (signals[c].rival, signals[c].source) for c in hits)}")
    if wrong.any() and not wrong.all():
        fit, taken = ([getattr(signals[label], name) for label in labels] for name in ("fit", "taken"))
        print(f"AUROC of name fit {roc_auc_score(~wrong, fit):.2f}, of taken {roc_auc_score(wrong, taken):.2f}")
    print(f"limits: name fit below {FIT}, taken {TAKEN} or more")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
