"""ONNX: images to probabilities, compared with PyTorch before it is kept; on request a second file in int8."""

from __future__ import annotations

import inspect
import json
import logging
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coft.core.errors import UserError
from coft.inference.model import AdaptedModel

from .sample import SIZE, Predict

FILE, SMALL = "model.onnx", "model_int8.onnx"
OPSET = 17
TOLERANCE = 1e-4
HINT = f"install them: {shlex.quote(sys.executable)} -m pip install onnx onnxruntime"


def require() -> None:
    """Say what is missing.

    Raises:
        UserError: If onnx or onnxruntime is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"--to onnx needs the packages onnx and onnxruntime ({error}); {HINT}") from error


def write_onnx(model: AdaptedModel, exported: nn.Module, folder: Path, images: Tensor | None) -> float:
    """Write `model.onnx`, which takes any number of images.

    Args:
        model: Says what images are.
        exported: Images (n, 3, size, size) to probabilities (n, C).
        folder: Where.
        images: On which both are compared, beside noise.

    Returns:
        The largest difference of a probability to PyTorch's.

    Raises:
        UserError: If it is above `TOLERANCE`.
    """
    size = model.inputs.size
    noise = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    older: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that newer exporters exist, which need more packages and minutes
        torch.onnx.export(
            exported,
            (noise[:2],),
            str(folder / FILE),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_axes={"images": {0: "n"}, "probabilities": {0: "n"}},
            opset_version=OPSET,
            **older,
        )
    describe(folder / FILE, metadata(model))
    run = runner(folder / FILE)
    given = [noise, noise[:1], *(() if images is None else images[:SIZE].split(SIZE // 2))]
    difference = max(float((run(batch) - exported(batch)).abs().max()) for batch in given)
    if not difference <= TOLERANCE:
        raise UserError(f"--to onnx: onnxruntime differs from PyTorch by {difference:.1e}; nothing is exported")
    return difference


def metadata(model: AdaptedModel) -> dict[str, str]:
    """What a reader of the file needs: classes, and how an image becomes numbers."""
    own = model.inputs
    steps = {
        "color": "RGB, upright by EXIF, transparency on white",
        "resize_shorter_side": own.size,
        "interpolation": f"{own.interpolation}, antialiased (Pillow)",
        "center_crop": [own.size, own.size],
        "scale": 1 / 255,
        "mean": list(own.mean),
        "std": list(own.std),
        "layout": "NCHW",
    }
    return {
        "classes": json.dumps(model.classes),
        "preprocessing": json.dumps(steps),
        "backbone": model.origin.name,
        "backbone_fingerprint": model.origin.fingerprint,
    }


def describe(path: Path, words: dict[str, str]) -> None:
    """Put metadata into a file, and count axes from the front: the exporter writes some that no runtime reads."""
    import onnx

    content = onnx.load(path)
    for attribute in (a for node in content.graph.node if node.op_type == "Transpose" for a in node.attribute):
        attribute.ints[:] = [axis % len(attribute.ints) for axis in attribute.ints]
    onnx.helper.set_model_props(content, words)
    onnx.save(content, path)


def runner(path: Path) -> Predict:
    """What runs a file in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


class Batches:
    """Images for onnxruntime's calibration, a few at a time.

    Args:
        images: Shape (n, 3, size, size).
    """

    def __init__(self, images: Tensor) -> None:
        self.batches: Iterator[Tensor] = iter(images.split(SIZE))

    def get_next(self) -> dict[str, Any] | None:
        """The next ones; None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch.numpy()}


def write_int8(folder: Path, images: Tensor | None) -> str:
    """Write `model_int8.onnx` from `model.onnx`.

    Args:
        folder: Where both are.
        images: By which ranges of activations are chosen. Without them only matrix products become int8.

    Returns:
        Which way of quantisation it was.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = folder / ".ready.onnx"
    logging.disable(logging.WARNING)  # of scales that it mends by itself
    try:
        quant_pre_process(str(folder / FILE), str(ready), skip_symbolic_shape=True)
        if images is None:
            quantize_dynamic(str(ready), str(folder / SMALL), weight_type=QuantType.QInt8)
            return "dynamic"
        quantize_static(
            str(ready),
            str(folder / SMALL),
            Batches(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return "static"
    finally:
        logging.disable(logging.NOTSET)
        ready.unlink(missing_ok=True)
