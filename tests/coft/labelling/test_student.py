"""A student and its EMA teacher against a naive loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coft.labelling.classifier import Classifier
from coft.labelling.student import Student, trainable_copy


def make_student(decay: float = 0.99) -> Student:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    heads = [nn.Parameter(torch.randn(3, 5)) for _ in range(2)]
    return Student(Classifier(trainable_copy(encoder), heads[0], heads[1], 10.0), decay)


def perturb(module: nn.Module, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=source) * 0.05)


@pytest.mark.parametrize("decay", [0.2, 0.99])
def test_the_ema_equals_a_naive_loop(decay: float) -> None:
    student = make_student(decay)
    averages: dict[str, torch.Tensor] = {}
    for step in range(4):
        perturb(student.model, step)
        student.update()
        for name, value in student.model.named_parameters():
            effective = min(decay, (1 + step) / (10 + step)) if step else 0.0
            averages[name] = effective * averages.get(name, 0.0) + (1 - effective) * value.detach()
    for name, value in student.teacher.named_parameters():
        torch.testing.assert_close(value, averages[name])
        assert not value.requires_grad


def test_batch_norm_statistics_never_change() -> None:
    student = make_student().train()
    before = {name: value.clone() for name, value in student.named_buffers()}
    student.model(torch.randn(4, 3, 8, 8) * 5)
    assert all(torch.equal(before[name], value) for name, value in student.named_buffers())
    assert student.model.training and len(before) > 3


def test_a_trainable_copy_keeps_stays_frozen() -> None:
    encoder = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).requires_grad_(False)
    encoder.stays_frozen = {"0.weight"}
    copy = trainable_copy(encoder)
    assert {name for name, p in copy.named_parameters() if not p.requires_grad} == {"0.weight"}
    assert not any(p.requires_grad for p in encoder.parameters())
    for a, b in zip(encoder.parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()
