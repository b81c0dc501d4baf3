from __future__ import annotations

import copy

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from coft.method.phases import Built, PhasedOptimizer, PhasedScheduler


def build(parameter: torch.nn.Parameter) -> PhasedOptimizer:
    def make(phase: int) -> Built:
        kind = torch.optim.SGD if phase == 1 else torch.optim.AdamW
        optimizer = kind([parameter], lr=0.1 if phase == 1 else 0.01)
        return optimizer, CosineAnnealingLR(optimizer, T_max=10)

    return PhasedOptimizer(make)


def steps(optimizer: PhasedOptimizer, parameter: torch.nn.Parameter, count: int) -> None:
    scheduler = PhasedScheduler(optimizer)
    for _ in range(count):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
        scheduler.step()


def test_restored_state_continues_to_the_same_bits() -> None:
    one, two = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    optimizer = build(one)
    steps(optimizer, one, 3)
    optimizer.enter(2)
    assert isinstance(optimizer.optimizer, torch.optim.AdamW) and optimizer.param_groups[0]["lr"] == 0.01
    steps(optimizer, one, 4)
    two.data.copy_(one.data)
    restored = build(two)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    PhasedScheduler(restored).load_state_dict(PhasedScheduler(optimizer).state_dict())
    steps(optimizer, one, 3)
    steps(restored, two, 3)
    assert restored.phase == 2 and torch.equal(one, two)
    assert PhasedScheduler(restored).get_last_lr() == PhasedScheduler(optimizer).get_last_lr()
