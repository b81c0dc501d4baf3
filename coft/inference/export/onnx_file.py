"""Export to ONNX, from images to probabilities, with a check against PyTorch and an optional second file in int8."""

from __future__ import annotations

import inspect
import json
import logging
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from coft.core.errors import UserError
from coft.inference.model import AdaptedModel

from .sample import SIZE, Predict

FILE, INT8_FILE = "model.onnx", "model_int8.onnx"
OPSET = 17
TOLERANCE = 1e-4  # largest absolute difference between onnxruntime's and PyTorch's probabilities
HINT = f"install them: {shlex.quote(sys.executable)} -m pip install onnx onnxruntime"


def require_packages() -> None:
    """Check that the packages for ONNX are installed.

    Raises:
        UserError: If onnx or onnxruntime is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"--to onnx needs the packages onnx and onnxruntime ({error}); {HINT}") from error


def write_onnx(model: AdaptedModel, exported: nn.Module, folder: Path, images: Tensor | None) -> float:
    """Write `model.onnx`, with a dynamic batch size.

    Args:
        model: The model, for its classes and preprocessing.
        exported: Module to export, from images (n, 3, size, size) to probabilities (n, C).
        folder: Folder of the export.
        images: Images on which the file is compared with PyTorch, in addition to noise; the first `SIZE` are used.
            Shape (n, 3, size, size).

    Returns:
        The largest absolute difference between onnxruntime's and PyTorch's probabilities.

    Raises:
        UserError: If the difference is above `TOLERANCE`.
    """
    size = model.inputs.size
    noise = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    has_dynamo = "dynamo" in inspect.signature(torch.onnx.export).parameters  # the newer exporter needs more packages
    options: dict[str, Any] = {"dynamo": False} if has_dynamo else {}
    with warnings.catch_warnings(), no_fast_attention():
        warnings.simplefilter("ignore")  # torch recommends the newer exporter
        torch.onnx.export(
            exported,
            (noise[:2],),
            str(folder / FILE),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_axes={"images": {0: "n"}, "probabilities": {0: "n"}},
            opset_version=OPSET,
            **options,
        )
    describe(folder / FILE, metadata(model))
    run = runner(folder / FILE)
    batches = [noise, noise[:1], *(() if images is None else images[:SIZE].split(SIZE // 2))]
    difference = max(float((run(batch) - exported(batch)).abs().max()) for batch in batches)
    if not difference <= TOLERANCE:
        raise UserError(f"--to onnx: onnxruntime differs from PyTorch by {difference:.1e}; nothing is exported")
    return difference


@contextmanager
def no_fast_attention() -> Iterator[None]:
    """Context without the fused attention of `nn.MultiheadAttention`, which ONNX has no operator for."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def metadata(model: AdaptedModel) -> dict[str, str]:
    """Return the metadata of the file: classes, preprocessing and backbone."""
    inputs = model.inputs
    steps = {
        "color": "RGB, upright by EXIF, transparency on white",
        "resize_shorter_side": inputs.size,
        "interpolation": f"{inputs.interpolation}, antialiased (Pillow)",
        "center_crop": [inputs.size, inputs.size],
        "scale": 1 / 255,
        "mean": list(inputs.mean),
        "std": list(inputs.std),
        "layout": "NCHW",
    }
    return {
        "classes": json.dumps(model.classes),
        "preprocessing": json.dumps(steps),
        "backbone": model.backbone.name,
        "backbone_fingerprint": model.backbone.fingerprint,
    }


def describe(path: Path, properties: dict[str, str]) -> None:
    """Add metadata to a file, and make the exporter's negative Transpose axes positive, since no runtime reads them."""
    import onnx

    content = onnx.load(path)
    for attribute in (a for node in content.graph.node if node.op_type == "Transpose" for a in node.attribute):
        attribute.ints[:] = [axis % len(attribute.ints) for axis in attribute.ints]
    onnx.helper.set_model_props(content, properties)
    onnx.save(content, path)


def runner(path: Path) -> Predict:
    """Return a function that runs a file in onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def write_int8(folder: Path, images: Tensor | None) -> str:
    """Write `model_int8.onnx` from `model.onnx`.

    Args:
        folder: Folder of both files.
        images: Images to calibrate the ranges of activations, shape (n, 3, size, size). Without them, quantisation is
            dynamic, and only matrix products become int8.

    Returns:
        The kind of quantisation: "static" or "dynamic".
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready, disabled = folder / ".ready.onnx", logging.root.manager.disable
    logging.disable(logging.WARNING)  # onnxruntime warns about scales that it corrects itself
    try:
        quant_pre_process(str(folder / FILE), str(ready), skip_symbolic_shape=True)
        if images is None:
            quantize_dynamic(str(ready), str(folder / INT8_FILE), weight_type=QuantType.QInt8)
            return "dynamic"
        batches = ({"images": batch.numpy()} for batch in images.split(SIZE))
        quantize_static(
            str(ready),
            str(folder / INT8_FILE),
            SimpleNamespace(get_next=lambda: next(batches, None)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return "static"
    finally:
        logging.disable(disabled)
        ready.unlink(missing_ok=True)
