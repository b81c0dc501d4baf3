"""CPL: sets of candidate labels, and their loss."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from coft.core.errors import UserError
from coft.core.table import Table
from coft.rivals.cpl import candidates_of
from coft.rivals.grip import linear_quota
from tests.coft.rivals.making import COUNT, ClipBackbone, make_cpl
from tests.coft.toys import assert_resumes, whole_batch

CLASSES = 3


def quantile(values: list[float], share: float) -> float:
    """Quantile with linear interpolation."""
    ordered, position = sorted(values), share * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


@pytest.mark.parametrize(("within", "across"), [(0.0, 0.0), (0.6, 0.9), (1.0, 0.5), (0.3, 1.0)])
def test_candidates_equal_a_naive_loop(within: float, across: float) -> None:
    p = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double().softmax(dim=1)
    rows = p.tolist()
    bound = quantile([max(row) for row in rows], within)
    class_bounds = [quantile([row[c] for row in rows], across) for c in range(5)]
    expected = []
    for row in rows:
        total, likeliest = 0.0, set()
        for c in sorted(range(5), key=lambda c: -row[c]):
            if total <= bound:
                likeliest.add(c)
            total += row[c]
        expected.append([c in likeliest and row[c] >= class_bounds[c] for c in range(5)])
    assert candidates_of(Table.of(p), within, across).all().tolist() == expected


def test_a_round_selects_the_most_confident_images_and_has_the_loss_of_their_candidates(clip: ClipBackbone) -> None:
    method = make_cpl(clip)
    method.engine.begin()
    logits = method.zero_shot_logits().all()
    p = logits.softmax(dim=1)
    candidates = candidates_of(Table.of(p), 0.6, 0.5).all()
    selected = dict(zip(*(x.tolist() for x in (method.labels["prompt_learner"].index, method.candidates)), strict=True))
    for c in range(CLASSES):
        best = [i for i in range(COUNT) if candidates[i].any() and int((p[i] * candidates[i]).argmax()) == c]
        best = sorted(best, key=lambda i: -float((p[i] * candidates[i]).max()))[: linear_quota(1, 3, COUNT, CLASSES)]
        assert {i for i in selected if int((p[i] * candidates[i]).argmax()) == c} == set(best)
    assert all(candidates[i].tolist() == row for i, row in selected.items())
    batch = next(iter(method.engine.begin_epoch(0)))
    part = whole_batch(method, "prompt_learner", batch)
    features = F.normalize(clip.clip_model.encode_image(part.views), dim=-1)
    q = (clip.scale * features @ method.text("prompt_learner").t()).softmax(dim=1)
    losses = [-math.log(float(q[n][candidates[i]].sum())) for n, i in enumerate(part.labels.index.tolist())]
    loss = method.loss("prompt_learner", part)["loss"]
    assert float(loss.total / loss.divisor) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_resumed_run_ends_in_the_same_bits(clip: ClipBackbone) -> None:
    assert_resumes(lambda: make_cpl(clip))


def test_each_selected_image_has_a_candidate(clip: ClipBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded_otherwise_in_parts(p: Table, *_: float) -> Table:
        return p.map(lambda rows: torch.full_like(rows, len(rows) == COUNT, dtype=torch.bool))

    monkeypatch.setattr("coft.rivals.cpl.candidates_of", rounded_otherwise_in_parts)
    method = make_cpl(clip)
    method.engine.begin()
    assert len(method.candidates) < COUNT and method.candidates.any(dim=1).all()


def test_an_empty_set_of_candidates_is_an_error(clip: ClipBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coft.rivals.cpl.candidates_of", lambda p, *_: p.map(lambda rows: rows > 1))
    with pytest.raises(UserError, match=r"TRAINER\.CPL\.ACROSS: no image has a candidate label"):
        make_cpl(clip).engine.begin()
