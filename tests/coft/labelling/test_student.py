"""A student and its moving average, against a naive loop."""

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


def shake(module: nn.Module, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=source) * 0.05)


@pytest.mark.parametrize("decay", [0.2, 0.99])
def test_the_moving_average_equals_a_naive_loop(decay: float) -> None:
    student = make_student(decay)
    averages: dict[str, torch.Tensor] = {}
    for step in range(4):
        shake(student.model, step)
        student.update()
        for name, value in student.model.named_parameters():
            share = min(decay, (1 + step) / (10 + step))  # of what was there
            averages[name] = share * averages[name] + (1 - share) * value.detach() if step else value.detach().clone()
    for name, value in student.teacher.named_parameters():
        torch.testing.assert_close(value, averages[name])
        assert not value.requires_grad


def test_batch_norm_statistics_never_move() -> None:
    student = make_student().train()
    before = {name: value.clone() for name, value in student.named_buffers()}
    student.model(torch.randn(4, 3, 8, 8) * 5)
    assert all(torch.equal(before[name], value) for name, value in student.named_buffers())
    assert student.model.training and len(before) > 3


def test_a_trainable_copy_trains_but_for_what_stays_frozen() -> None:
    encoder = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).requires_grad_(False)
    encoder.stays_frozen = {"0.weight"}
    twin = trainable_copy(encoder)
    assert {name for name, p in twin.named_parameters() if not p.requires_grad} == {"0.weight"}
    assert not any(p.requires_grad for p in encoder.parameters())
    for a, b in zip(encoder.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()
