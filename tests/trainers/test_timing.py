"""Every second counts for one part; a few steps are recorded if asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coft.method.peer import Classifier
from coft.runtime import timing
from coft.runtime.errors import UserError
from coft.runtime.timing import STEPS, WAITING, Stopwatch, Waited, profiled
from tests.coft.backbones.test_text_tower import EXACT, double_clip
from tests.conftest import make_clip
from tests.trainers.conftest import assert_same_bits, weights


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that goes on when it is told to."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def test_a_part_within_another_is_counted_once(clock: Callable[[float], None]) -> None:
    watch = Stopwatch("rest")
    clock(1)
    with watch.part(STEPS):
        clock(10)
        with watch.part("saving"):
            clock(4)
        clock(100)
        with pytest.raises(ValueError), watch.part("saving"):
            clock(1)
            raise ValueError
    clock(1000)
    assert watch.split() == {"rest": 1001, STEPS: 110, "saving": 5}
    assert list(watch.split()) == ["rest", STEPS, "saving"]


def test_batches_are_waited_for_and_used_by_different_parts(clock: Callable[[float], None]) -> None:
    def slow() -> Any:
        for number in range(3):
            clock(2)
            yield number

    class Loader:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            clock(0.5)  # as workers start
            return slow()

    watch = Stopwatch("rest")
    loader, seen = Waited(Loader(), watch), []
    with watch.part(STEPS):
        for batch in loader:
            clock(6)
            seen.append(batch)
    assert seen == [0, 1, 2] and len(loader) == 3
    assert watch.split() == {STEPS: 18, WAITING: 6.5, "rest": 0}
    assert "(27 % of training is waiting for images)" in watch.in_words()


def test_some_steps_are_recorded_and_all_are_made() -> None:
    tables: list[str] = []
    step = profiled(lambda batch: float((batch @ batch).sum()), "Phase 7", tables.append)
    results = [step(torch.full((2, 2), float(number))) for number in range(8)]
    assert results == [8.0 * number**2 for number in range(8)]
    assert len(tables) == 1 and tables[0].startswith("Phase 7, 3 steps") and "aten::mm" in tables[0]


def test_a_run_says_where_its_time_went(run: Callable[..., Any]) -> None:
    built = run("CoFT", train=False, TRAINER__COFT__PHASE1__MIN_STEPS=12, DATALOADER__TRAIN_X__BATCH_SIZE=4)
    began, built.profile = time.monotonic(), True
    built.train()
    summary = json.loads((Path(built.output_dir) / "summary.json").read_text())
    parts = summary["seconds_by_part"]
    assert {STEPS, WAITING, "labelling", "evaluation", "saving"} <= parts.keys()
    assert sum(parts.values()) == pytest.approx(summary["seconds"], abs=1.0) and built.started <= began
    text = (Path(built.output_dir) / "profile.txt").read_text()
    assert text.count("Phase 1, 3 steps") == text.count("Phase 2, 3 steps") == 1
    assert built.forward_backward == type(built).forward_backward.__get__(built)
    assert not isinstance(built.train_loader_x, Waited)


def kept_bytes(work: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """Run something; how many bytes of activations it keeps for the gradients."""
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    return result, total


@pytest.mark.parametrize("vit", [False, True])
def test_micro_batches_change_the_memory_and_nothing_else(vit: bool) -> None:
    encoder = (double_clip(vision_layers=4) if vit else make_clip(False, 0)).visual.double().eval()
    source = torch.Generator().manual_seed(0)
    heads = [nn.functional.normalize(torch.randn(3, encoder.output_dim, generator=source).double()) for _ in range(2)]
    images = torch.randn(7, 3, 32, 32, generator=source).double()
    results, memory = [], []
    for size in (0, 3):
        encoder.requires_grad_(True).zero_grad()
        classifier = Classifier(encoder, heads[0], heads[1], 10.0, micro_batch=size)
        (logits, odds), kept = kept_bytes(lambda c=classifier: c(images))  # type: ignore[misc]
        (logits.logsumexp(dim=1).sum() + odds.sigmoid().sum()).backward()
        results.append([logits, odds, *(p.grad.clone() for p in encoder.parameters())])
        memory.append(kept)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert memory[1] < memory[0] / 10


def test_a_negative_micro_batch_is_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="MICRO_BATCH is -1"):
        run("CoFT", train=False, TRAINER__COFT__MICRO_BATCH=-1)


def test_a_run_whose_activations_are_computed_again_learns_the_same(run: Callable[..., Any]) -> None:
    plain, again = (weights(run("CoFT", out=str(size), TRAINER__COFT__MICRO_BATCH=size)) for size in (0, 1000))
    assert_same_bits(plain, again)


def test_a_compiled_encoder_has_the_same_names_and_learns_the_same(run: Callable[..., Any]) -> None:
    plain, compiled = (run("CoFT", out=name or "plain", TRAINER__COFT__PHASE2__COMPILE=name) for name in ("", "eager"))
    assert compiled.peers["peer_a"].student.encoder._compiled_call_impl is not None
    assert_same_bits(weights(plain), weights(compiled))


def test_an_unknown_compiler_is_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"COMPILE is 'inductr'.*inductor"):
        run("CoFT", train=False, TRAINER__COFT__PHASE2__COMPILE="inductr")
