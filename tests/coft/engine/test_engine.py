"""What the engine does with a method: losses are added and stepped, in parts, in parallel, in what precision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coft.engine.runtime import Runtime
from coft.labelling.losses import Term
from coft.labelling.protocol import Batch, Engine, Method, Tuning
from coft.labelling.pseudo_labels import PseudoLabels
from coft.method.coft_settings import Phase2
from tests.coft.toys import (
    COUNT,
    ToyBackbone,
    ToyImages,
    assert_same_bits,
    begun,
    make_coft,
    make_plus,
    on_toys,
    train,
    weights,
)
from tests.worlds import double_precision

SHORTER = {"phase2": Phase2(epochs=1, lr=1e-3)}


class Pull(Method):
    """Pulls a number of each model to the mean of what it sees, weighted, and another one to 0."""

    epochs = 2

    def __init__(self, engine: Engine, weight: Tensor | None = None) -> None:
        super().__init__(engine)
        self.models = {name: nn.ParameterList([torch.ones(2)]).double() for name in ("model_1", "model_2")}
        weight = torch.linspace(0.1, 1, COUNT) if weight is None else weight
        self.labels = {name: PseudoLabels.of_pool(engine.images.truth, weight) for name in self.models}
        self.steps_made: list[tuple[str, list[int], Any]] = []

    def tuning(self, phase: int) -> Tuning:
        return Tuning(self.epochs * self.steps(1))

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        number = self.models[name][0]
        distance = (number[0] - batch.views.double().flatten(1).mean(dim=1)).square() * batch.labels.weight.double()
        batch.keep(batch.labels.index.unsqueeze(1))
        return {
            "pull": Term(distance.sum(), float(batch.whole.weight.sum())),
            "shrink": Term(number[1].square() * len(batch.position), len(batch.whole.index), 0.3),
            "size": Term(torch.tensor(float(len(batch.position))), 1.0, 0.0),
        }

    def keeps_rows(self, phase: int) -> bool:
        return True

    def after_step(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        self.steps_made.append((name, index.tolist(), kept))


def sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.1)


def test_a_step_is_that_of_the_sum_of_the_means_by_their_factors() -> None:
    method = on_toys(Pull, make_light=sgd)
    batch = begun(method)[0]
    reported = method.engine.step(batch)
    for n, (name, drawn) in enumerate(batch.items(), start=1):
        weight = method.labels[name].weight[drawn.index]
        means = drawn.views.flatten(1).mean(dim=1)
        apart = [(1 - float(x)) * float(w) for x, w in zip(means, weight, strict=True)]
        least = max(1.0, float(weight.sum()))  # few weights cannot make a large step
        first, second = method.models[name][0].tolist()
        assert first == pytest.approx(1 - 0.1 * 2 * sum(apart) / least)
        assert second == pytest.approx(1 - 0.1 * 2 * 0.3)
        squares = [(1 - float(x)) ** 2 * float(w) for x, w in zip(means, weight, strict=True)]
        assert reported[f"pull_{n}"] == pytest.approx(sum(squares) / least)
        assert (reported[f"shrink_{n}"], reported[f"size_{n}"]) == (1, len(drawn.index))  # without the factors
    assert list(reported) == [f"{key}_{n}" for n in (1, 2) for key in ("pull", "shrink", "size")]


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_micro_batches_of_coft_change_nothing_but_rounding(make: Callable[..., Any]) -> None:
    with double_precision():
        trained, losses = [], []
        for size in (0, 3):
            images = ToyImages()
            backbone = ToyBackbone(images, dtype=torch.float64)
            method = make(SHORTER, images=images, backbone=backbone, runtime=Runtime(1, micro_batch=size))
            losses.append(train(method))
            trained.append(weights(method))
    for key, value in trained[0].items():
        torch.testing.assert_close(trained[1][key], value, rtol=1e-9, atol=1e-11)
    for whole, parts in zip(*losses, strict=True):
        assert [pytest.approx(step) for step in whole] == parts


def test_micro_batches_save_memory() -> None:
    """Of activations that are kept for the gradients there are those of a micro-batch at a time."""
    kept = []
    for size in (0, 4):
        method = make_coft(runtime=Runtime(1, micro_batch=size, parallel=False), images=ToyImages(batch_size=24))
        batches = begun(method, 2)
        with most_saved() as peak:
            method.engine.step(batches[0])
        kept.append(peak[0])
    assert kept[1] < kept[0] / 2


class OutOfMemoryError(RuntimeError):
    """As torch's, which older versions have elsewhere."""


def out_of_memory(method: Any, most: int) -> None:
    """Let the loss of more images at a time fail."""
    loss = method.loss

    def scarce(name: str, batch: Any) -> Any:
        if len(batch.views) > most:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss(name, batch)

    method.loss = scarce


def test_where_memory_runs_out_micro_batches_shrink_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    trained, losses = [], []
    for most, size in ((3, 0), (99, 3)):
        runtime = Runtime(1, micro_batch=size, parallel=False)
        method = make_coft(runtime=runtime, images=ToyImages(batch_size=12))
        out_of_memory(method, most)
        losses.append(train(method))
        trained.append(weights(method))
        assert method.engine.runtime.micro_batch == 3
    assert losses[0] == losses[1]
    for key, value in trained[0].items():
        assert torch.equal(trained[1][key], value), key
    (line,) = (record.message for record in caplog.records if record.levelno >= logging.WARNING)
    assert "micro-batches of 6 images; continuing with 3" in line and "TRAIN.MICRO_BATCH 3" in line


def test_what_one_image_is_too_much_for_fails() -> None:
    method = make_coft(images=ToyImages())
    out_of_memory(method, 0)
    with pytest.raises(OutOfMemoryError):
        train(method)


@contextmanager
def most_saved() -> Iterator[list[int]]:
    """The most numbers that were kept for gradients at a time."""
    peak, present = [0], [0]

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            present[0] += tensor.numel()
            peak[0] = max(peak[0], present[0])

        def __del__(self) -> None:
            present[0] -= self.tensor.numel()

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        yield peak


def test_a_batch_without_a_weight_makes_no_step() -> None:
    method = on_toys(Pull, make_light=sgd)
    batch = begun(method)[0]
    method.labels = {name: labels.with_weights(torch.zeros(COUNT)) for name, labels in method.labels.items()}
    reported = method.engine.step(batch)
    assert reported["pull_1"] == 0 and all(model[0][0].item() == 1 for model in method.models.values())


def test_a_loss_that_is_no_number_is_named() -> None:
    method = make_coft(make_light=lambda parameters: torch.optim.SGD(list(parameters), lr=float("inf")))
    batches = begun(method)
    method.engine.step(batches[0])
    with pytest.raises(FloatingPointError, match="peer_a: the loss is nan"):
        method.engine.step(batches[1])


# -------------------------------------------------------------------- in what way it computes


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_peers_that_step_at_the_same_time_do_what_they_do_in_turn(make: Any) -> None:
    trained = []
    for together in (True, False):
        method = make(SHORTER, runtime=Runtime(1, parallel=together))
        assert method.engine.parallel.threads == 1
        train(method)
        trained.append(weights(method))
    assert_same_bits(*trained)


def test_a_compiler_changes_no_bit() -> None:
    trained = []
    for options in ({}, {"compiler": "eager"}):
        method: Any = make_coft(SHORTER, runtime=Runtime(1, **options))
        train(method)
        trained.append(weights(method))
        compiled = getattr(method.peers["peer_a"].student.model.encoder, "_compiled_call_impl", None)  # torch's own
        assert (compiled is not None) == ("compiler" in options)
    assert_same_bits(*trained)


def test_bf16_trains_fp32_weights_and_logits_are_no_coarser_than_the_features() -> None:
    """In bf16 a logit of 25 would be off by up to 1/16, and so would a log-odds near 0."""
    exact, method = make_coft(SHORTER), make_coft(SHORTER, runtime=Runtime(1, dtype=torch.bfloat16))
    train(exact), train(method)
    assert {value.dtype for value in weights(method).values() if value.is_floating_point()} == {torch.float32}
    assert any(not torch.equal(a, weights(exact)[key]) for key, a in weights(method).items())
    with torch.no_grad(), method.engine.autocast():
        scores = method.peers["peer_a"].learner()(method.engine.images.pixels)
    for values in scores:
        assert values.dtype == torch.float32 and not torch.equal(values, values.bfloat16().float())
