"""How often the report is right about names: `python -m scripts.name_signals DATASET [flags of scripts/coft.sh]`.

It trains nothing. The classes are those from which CoFT chooses its seeds: zero-shot probabilities of the unlabeled
images, spread among neighbours. A name is wrong if most images of the class are of another one. It reads labels: it is
for people.
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
from coft.labelling.neighbours import centred
from coft.method.labeller import first_features, first_logits
from coft.report.names import AT_LEAST, FIT, REASONS, TAKEN, measure
from dassl.engine import build_trainer
from scripts.launch import parse, train_arguments
from trainers.config import make_cfg
from trainers.data import labels_of, unlabeled_data


def main(argv: Sequence[str]) -> int:
    """Print what the signals say of a data set, and how often that is right. Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        words = train_arguments("CoFT", parse("CoFT", [*argv, "--output-dir", folder]))
        trainer = build_trainer(make_cfg(train.make_parser().parse_args(words), trainers.extend_cfg))
        args = trainer.images, trainer.method.backbone, trainer.runtime, trainer.own.label_views
        features = first_features(*args)
        text = trainer.method.zero_shot_text()
        logits = first_logits(*args[:2], text, *args[2:], trainer.own.prior_tau)
        truth = labels_of(trainer.images, unlabeled_data(trainer.cfg, trainer.dm.dataset, "CoFT")).numpy()
    final, zero_shot = logits.argmax(dim=1).numpy(), (features @ text.cpu().t()).argmax(dim=1).numpy()
    signals = measure(centred(features, features.mean(dim=0)), text.cpu().numpy(), final, zero_shot)
    known = [label for label, own in enumerate(signals) if own.images >= AT_LEAST]
    right = {label: int(np.bincount(truth[final == label]).argmax()) for label in known}
    wrong = np.array([right[label] != label for label in known])
    print(f"classes {len(signals)}, with {AT_LEAST} images or more {len(known)}, of them wrong names {wrong.sum()}")
    for reason, holds in REASONS.items():
        named = [label for label in known if holds(signals[label])]
        hits = [label for label in named if right[label] != label]
        print(f"{reason}: {len(named)} classes, of them wrong {len(hits)}")
        print(f"  the other name is right: {sum(right[c] in (signals[c].rival, signals[c].source) for c in hits)}")
    if wrong.any() and not wrong.all():
        fit, taken = ([getattr(signals[label], name) for label in known] for name in ("fit", "taken"))
        print(f"AUROC of name fit {roc_auc_score(~wrong, fit):.2f}, of taken {roc_auc_score(wrong, taken):.2f}")
    print(f"limits: name fit below {FIT}, taken {TAKEN} or more")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
