"""GRIP: prompts learned in rounds from a growing number of pseudo-labels."""

from __future__ import annotations

import pytest
import torch

from coft.core.table import Table
from coft.labelling.seeds import select_seeds
from coft.rivals.grip import linear_quota
from tests.coft.rivals.making import COUNT, ClipBackbone, make_grip
from tests.coft.toys import assert_resumes, assert_same_bits, pairs, weights


def test_the_number_of_pseudo_labels_grows_to_all_images() -> None:
    assert [linear_quota(i, 10, 1000, 10) for i in range(1, 11)] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert [linear_quota(i, 3, 60, 3) for i in (1, 2, 3)] == [6, 13, 20]
    assert linear_quota(1, 10, 20, 100) == 1


def test_each_round_labels_with_the_prompts_of_the_round_before_and_starts_anew(clip: ClipBackbone) -> None:
    method = make_grip(clip)
    engine, pixels, sizes = method.engine, method.engine.images.pixels, list[int]()
    assert method.epochs == 6 and [method.phase(epoch) for epoch in range(6)] == [1, 1, 2, 2, 3, 3]
    engine.begin()
    for epoch in range(6):
        expected = select_seeds(Table.of(engine.predict(pixels)), linear_quota(method.phase(epoch), 3, COUNT, 3), 3)
        contexts, labels = weights(method), pairs(method.labels["prompt_learner"])
        batches = engine.begin_epoch(epoch)
        first, second = (pairs(each) for each in method.labels.values())
        assert first == second
        if epoch in (2, 4):
            assert len(set(first) & set(pairs(expected))) > 0.9 * len(expected.index)  # near ties may swap
            for name, context in weights(method).items():
                assert not torch.equal(context, contexts[name])
                assert float(context.std()) == pytest.approx(0.02, rel=0.25)
        else:
            assert first == labels
            assert_same_bits(weights(method), contexts)
        if epoch % 2 == 0:
            sizes.append(len(first))
            for optimizer in engine.optimizers.values():
                assert optimizer.phase == method.phase(epoch) and not optimizer.optimizer.state_dict()["state"]
                assert optimizer.param_groups[0]["lr"] == 0.01
        for batch in batches:
            engine.step(batch)
        engine.end_epoch()
    assert sizes[0] <= 6 < sizes[1] <= 12 and sizes[1] < sizes[2] <= 18


def test_a_resumed_run_ends_in_the_same_bits(clip: ClipBackbone) -> None:
    assert_resumes(lambda: make_grip(clip))
