"""Steps of the engine: sums of losses, micro-batches, parallel peers and precision."""

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
    begin_at,
    make_coft,
    make_method,
    make_plus,
    train,
    weights,
)
from tests.worlds import double_precision

SHORTER = {"phase2": Phase2(epochs=1, lr=1e-3)}


class Pull(Method):
    """Pulls one parameter of each model to the weighted mean of the pixels, and another one to 0."""

    epochs = 2

    def __init__(self, engine: Engine, weight: Tensor | None = None) -> None:
        super().__init__(engine)
        self.models = {name: nn.ParameterList([torch.ones(2)]).double() for name in ("model_1", "model_2")}
        weight = torch.linspace(0.1, 1, COUNT) if weight is None else weight
        self.labels = {name: PseudoLabels.of_pool(engine.images.truth, weight) for name in self.models}
        self.step_log: list[tuple[str, list[int], Any]] = []

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
        self.step_log.append((name, index.tolist(), kept))


def sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.1)


def test_a_step_follows_the_weighted_sum_of_mean_losses() -> None:
    method = make_method(Pull, make_light=sgd)
    batch = begin_at(method)[0]
    reported = method.engine.step(batch)
    for n, (name, drawn) in enumerate(batch.items(), start=1):
        weight = method.labels[name].weight[drawn.index]
        means = drawn.views.flatten(1).mean(dim=1)
        distances = [(1 - float(x)) * float(w) for x, w in zip(means, weight, strict=True)]
        total = max(1.0, float(weight.sum()))  # small weights do not make large steps
        first, second = method.models[name][0].tolist()
        assert first == pytest.approx(1 - 0.1 * 2 * sum(distances) / total)
        assert second == pytest.approx(1 - 0.1 * 2 * 0.3)
        squares = [(1 - float(x)) ** 2 * float(w) for x, w in zip(means, weight, strict=True)]
        assert reported[f"pull_{n}"] == pytest.approx(sum(squares) / total)
        assert (reported[f"shrink_{n}"], reported[f"size_{n}"]) == (1, len(drawn.index))  # without coefficients
    assert list(reported) == [f"{key}_{n}" for n in (1, 2) for key in ("pull", "shrink", "size")]


@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_micro_batches_equal_whole_batches_in_float64(make: Callable[..., Any]) -> None:
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


def test_micro_batches_need_less_memory() -> None:
    """Activations are kept for one micro-batch at a time."""
    peaks = []
    for size in (0, 4):
        method = make_coft(runtime=Runtime(1, micro_batch=size, parallel=False), images=ToyImages(batch_size=24))
        batches = begin_at(method, 2)
        with peak_of_saved_tensors() as peak:
            method.engine.step(batches[0])
        peaks.append(peak[0])
    assert peaks[1] < peaks[0] / 2


class OutOfMemoryError(RuntimeError):
    """Like torch's, whose place depends on the version."""


def limit_memory(method: Any, most: int) -> None:
    """Let the loss of more than `most` images fail."""
    loss = method.loss

    def limited_loss(name: str, batch: Any) -> Any:
        if len(batch.views) > most:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss(name, batch)

    method.loss = limited_loss


def test_out_of_memory_shrinks_micro_batches_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    trained, losses = [], []
    for most, size in ((3, 0), (99, 3)):
        runtime = Runtime(1, micro_batch=size, parallel=False)
        method = make_coft(runtime=runtime, images=ToyImages(batch_size=12))
        limit_memory(method, most)
        losses.append(train(method))
        trained.append(weights(method))
        assert method.engine.runtime.micro_batch == 3
    assert losses[0] == losses[1]
    for key, value in trained[0].items():
        assert torch.equal(trained[1][key], value), key
    (line,) = (record.message for record in caplog.records if record.levelno >= logging.WARNING)
    assert "micro-batches of 6 images; continuing with 3" in line and "TRAIN.MICRO_BATCH 3" in line


def test_out_of_memory_with_one_image_fails() -> None:
    method = make_coft(images=ToyImages())
    limit_memory(method, 0)
    with pytest.raises(OutOfMemoryError):
        train(method)


@contextmanager
def peak_of_saved_tensors() -> Iterator[list[int]]:
    """The largest number of values that are kept for gradients at a time."""
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


def test_a_batch_with_zero_weights_makes_no_step() -> None:
    method = make_method(Pull, make_light=sgd)
    batch = begin_at(method)[0]
    method.labels = {name: labels.with_weights(torch.zeros(COUNT)) for name, labels in method.labels.items()}
    reported = method.engine.step(batch)
    assert reported["pull_1"] == 0 and all(model[0][0].item() == 1 for model in method.models.values())


def test_a_nan_loss_is_an_error_that_names_the_model() -> None:
    method = make_coft(make_light=lambda parameters: torch.optim.SGD(list(parameters), lr=float("inf")))
    batches = begin_at(method)
    method.engine.step(batches[0])
    with pytest.raises(FloatingPointError, match="peer_a: the loss is nan"):
        method.engine.step(batches[1])


# -------------------------------------------------------------------- execution


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("make", [make_coft, make_plus])
def test_parallel_peers_train_the_same_bits(make: Any) -> None:
    trained = []
    for parallel in (True, False):
        method = make(SHORTER, runtime=Runtime(1, parallel=parallel))
        assert method.engine.parallel.threads == 1
        train(method)
        trained.append(weights(method))
    assert_same_bits(*trained)


def test_compilation_changes_no_bit() -> None:
    trained = []
    for options in ({}, {"compiler": "eager"}):
        method: Any = make_coft(SHORTER, runtime=Runtime(1, **options))
        train(method)
        trained.append(weights(method))
        compiled = getattr(method.peers["peer_a"].student.model.encoder, "_compiled_call_impl", None)
        assert (compiled is not None) == ("compiler" in options)
    assert_same_bits(*trained)


def test_bf16_trains_fp32_weights_and_has_fp32_logits() -> None:
    """In bf16 a logit of 25 would be off by up to 1/16, and so would a log-odds near 0."""
    exact, method = make_coft(SHORTER), make_coft(SHORTER, runtime=Runtime(1, dtype=torch.bfloat16))
    train(exact), train(method)
    assert {value.dtype for value in weights(method).values() if value.is_floating_point()} == {torch.float32}
    assert any(not torch.equal(a, weights(exact)[key]) for key, a in weights(method).items())
    with torch.no_grad(), method.engine.autocast():
        scores = method.peers["peer_a"].learner()(method.engine.images.pixels)
    for values in scores:
        assert values.dtype == torch.float32 and not torch.equal(values, values.bfloat16().float())
