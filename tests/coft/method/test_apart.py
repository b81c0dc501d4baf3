"""Two peers on two devices: every operation is on one of them, and the run is that of one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from coft.backbones.backbone import ClassBackbone
from coft.method import coft
from coft.method.contrastive import KeyQueue
from coft.method.protocol import Runtime
from tests.conftest import make_clip

from .test_coft_world import METHODS
from .toys import ToyBackbone, ToyImages, assert_same_bits, load, make_plus, saved, train, weights

CPU, OTHER = torch.device("cpu"), torch.device("meta")  # which has no values, and so stands for any second device
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class TwoDevices(TorchDispatchMode):
    """Lets the meta device pass for one that computes: what comes from it has values, which mean nothing.

    An operation on tensors of both devices, other than a copy from one to the other, is an error, as on two GPUs.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        devices = {value.device.type for value in tensors if value.dim()}
        if func is torch.ops.aten._local_scalar_dense.default and tensors[0].device == OTHER:
            return 1.0 if tensors[0].is_floating_point() else 1
        if func not in MOVES:
            assert len(devices) < 2, f"{func} of tensors on {devices}"
            return func(*args, **kwargs)
        if func is torch.ops.aten.copy_.default and args[1].device == OTHER != args[0].device:
            return args[0].fill_(0.5)
        if tensors[0].device == OTHER and torch.device(kwargs.get("device") or OTHER) != OTHER:
            shape, dtype = tensors[0].shape, kwargs.get("dtype") or tensors[0].dtype
            found = torch.rand(shape) if dtype.is_floating_point else torch.zeros(shape)
            return found.to(dtype)
        return func(*args, **kwargs)


class AnyAutocast(torch.autocast):
    """Autocast, which the meta device has none of."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == OTHER.type else device_type, *args, **kwargs)


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "autocast", AnyAutocast)
    fused = torch.optim.AdamW  # which the meta device has no kernel for
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **options: fused(*args, **{**options, "fused": False}))
    # How many places of the queue are filled depends on values.
    monkeypatch.setattr(KeyQueue, "filled", lambda queue: (queue.keys.clone(), queue.index.clone()))
    with TwoDevices():
        yield


def tensors_of(method: Any, name: str) -> list[Tensor]:
    """Weights, averages and moments of a peer."""
    optimizer = method.optimizers[name].optimizer
    moments = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return [*method.models[name].parameters(), *(moment for moment in moments if moment.dim())]


def plus(**parts: Any) -> Any:
    """CoFT+ with all of its parts."""
    text = parts["backbone"].zero_shot_text()
    return make_plus(describe=lambda share: text, **parts)


PAIRS: dict[str, Callable[..., Any]] = {"CoFT": METHODS["CoFT"], "CoFT+": plus, "DeFT": METHODS["DeFT"]}


def build(method: str, runtime: Runtime) -> Any:
    images = ToyImages()
    return PAIRS[method](images=images, backbone=ToyBackbone(images), runtime=runtime)


@pytest.fixture(autouse=True)
def _filters_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coft, "WARMUP_STEPS", 2)


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("method", PAIRS)
def test_no_operation_is_on_both_devices(method: str) -> None:
    own = build(method, Runtime(1, parallel=False, apart=OTHER))
    train(own)
    for name, device in (("peer_a", CPU), ("peer_b", OTHER)):
        tensors = tensors_of(own, name)
        assert {tensor.device for tensor in tensors} == {device} and len(tensors) > 8
    assert own.predict(own.images.pixels).device == CPU


@pytest.mark.usefixtures("two_devices")
def test_a_mistake_would_be_seen() -> None:
    own = build("CoFT", Runtime(1, parallel=False, apart=OTHER))
    own.models["peer_b"].prompts.to(CPU)
    with pytest.raises(AssertionError, match="of tensors on"):
        train(own)


@pytest.mark.parametrize("method", PAIRS)
def test_a_run_on_two_devices_is_that_of_one_and_goes_on_with_one(method: str) -> None:
    runs = [build(method, Runtime(1, apart=apart)) for apart in (None, CPU)]
    losses = [train(run) for run in runs]
    assert losses[0] == losses[1]
    assert_same_bits(*map(weights, runs))
    half = build(method, Runtime(1, apart=CPU))
    train(half, 3)
    rest = build(method, Runtime(1))
    load(rest, saved(half))
    train(rest, start=3)
    assert_same_bits(weights(rest), weights(runs[0]))


def test_the_frozen_clip_is_copied_to_the_other_device() -> None:
    backbone = ClassBackbone(make_clip(vit=True), ["cat", "dog"], ["a photo of a {}."], {}, synonyms={"cat": ["puss"]})
    assert backbone.on(CPU) is backbone
    twin = backbone.on(OTHER)
    assert {p.device for p in twin.clip_model.parameters()} == {OTHER} and backbone.device == CPU
    assert twin.synonyms == backbone.synonyms
