"""What metrics.csv reports is what docs/method.md explains."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coft.runtime.diagnostics import Diagnostics
from tests.trainers.conftest import drawn_opinion

PAGE = Path(__file__).parents[2] / "docs" / "method.md"


@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus"])
def test_the_page_explains_every_column(run: Callable[..., Any], trainer: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## What a run reports") :].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    explained = [name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    with (Path(run(trainer).output_dir) / "metrics.csv").open(newline="") as file:
        reported = next(csv.reader(file))
    assert sorted(reported) == sorted([*explained, "epoch", "stage"])


@pytest.mark.parametrize("rule", ["both", "self"])
def test_aurocs_are_of_the_peer_that_labels_and_of_both(run: Callable[..., Any], rule: str) -> None:
    trainer = run("CoFT", train=False, TRAINER__COFT__FILTER=rule)
    trainer.before_train()
    trainer.epoch = trainer.phase1_epochs
    opinions = {name: drawn_opinion(seed) for seed, name in enumerate(trainer.peers)}
    trainer.opinions_of = lambda views: opinions
    truth = [rank % 3 for rank in range(60)]  # the random CLIP's peers agree, and have hardly a label right
    trainer.diagnostics = Diagnostics(truth)
    trainer.before_epoch()
    found: dict[str, list[float]] = {}
    for name, partner in trainer.partners.items():
        teacher = opinions[name if rule == "self" else partner]
        labels = teacher.labels.tolist()
        right = [a == b for a, b in zip(labels, truth, strict=True)]
        p = [[opinion.probabilities[i, c].item() for i, c in enumerate(labels)] for opinion in opinions.values()]
        clean = [[opinion.clean[i, c].item() for i, c in enumerate(labels)] for opinion in opinions.values()]
        mine = list(opinions).index(name if rule == "self" else partner)
        rows = teacher.probabilities.tolist()
        lead = [row[c] - max(x for k, x in enumerate(row) if k != c) for row, c in zip(rows, labels, strict=True)]
        scores = {"p_clean": clean[mine], "confidence": p[mine], "margin": lead}
        scores |= {"p_clean_both": [sum(x) for x in zip(*clean, strict=True)]}
        scores |= {"confidence_both": [sum(x) for x in zip(*p, strict=True)]}
        for key, score in scores.items():
            found.setdefault(key, []).append(pairs_in_order(score, right))
    for key, values in found.items():
        assert trainer.numbers[f"auroc_{key}"] == pytest.approx(sum(values) / 2, abs=1e-6), key


def pairs_in_order(score: list[float], right: list[bool]) -> float:
    """Share of all pairs of a right and a wrong label of which the right one scores higher; equal ones count half."""
    pairs = [(a, b) for a, x in zip(score, right, strict=True) for b, y in zip(score, right, strict=True) if x > y]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)
