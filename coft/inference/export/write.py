"""Export of a finished model to the formats of other libraries. The folder is written completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError

from coft.core.errors import UserError, remedy
from coft.core.files import check_free, ensure_folder
from coft.core.words import counted
from coft.inference.model import AdaptedModel

from . import onnx_file
from .card import card
from .export_options import ExportOptions
from .merging import Exported, parts_of, predict_with_frozen_encoder, write_head
from .open_clip_folder import require_plain, write_open_clip
from .sample import Lines, Sample, agreement, choose_peers, describe_accuracy, describe_agreement, peers_phrase

HEAD = "`head.safetensors`: vectors of the classes (`weight`), and of the clean log-odds (`clean`) if there are any"

READ = """
def read(path):  # as in the run: upright, RGB, transparency on white
    image = Image.open(path)
    if max(image.size) > 100 * min(image.size):
        raise ValueError(f"{path}: a side is more than 100 times the other")
    DRAFT
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):  # floats, and integers of 16 or 32 bits
        values = numpy.asarray(image, "float64")
        highest = values[numpy.isfinite(values)].max(initial=0)
        whites = {"F": [1, 255, 65535, highest], "I": [255, 65535, highest]}.get(image.mode, [65535])
        white = next(white for white in whites if highest <= 1.1 * white)
        scaled = numpy.nan_to_num(values.clip(0, white) * (255 / white))
        image = Image.fromarray(scaled.round().astype("uint8"))
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
"""
USE = {
    "open_clip": f"""
import numpy, open_clip, torch
from PIL import Image, ImageOps
from safetensors import safe_open
{READ}
model, preprocess = open_clip.create_model_from_pretrained("local-dir:FOLDER")
model.eval()
with safe_open("FOLDER/head.safetensors", "pt") as head:
    weight, scale = head.get_tensor("weight"), float(head.metadata()["logit_scale"])
images = torch.stack([preprocess(read(path)) for path in ["cat.jpg"]])
features = torch.nn.functional.normalize(model.encode_image(images), dim=-1)
probabilities = (scale * features @ weight.T).softmax(dim=1)
""",
    "onnx": f"""
import json, numpy, onnxruntime
from PIL import Image, ImageOps
{READ}
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
words = session.get_modelmeta().custom_metadata_map
classes, steps = json.loads(words["classes"]), json.loads(words["preprocessing"])

def pixels(path):
    image, size = read(path), steps["resize_shorter_side"]
    kind = Image.Resampling[steps["interpolation"].split(",")[0].upper()]
    image = image.resize([size * side // min(image.size) for side in image.size], kind)
    left, top = (round((side - size) / 2) for side in image.size)
    image = numpy.asarray(image.crop((left, top, left + size, top + size)))
    return ((image / 255 - steps["mean"]) / steps["std"]).transpose(2, 0, 1)

images = numpy.stack([pixels(path) for path in ["cat.jpg"]]).astype("float32")
probabilities, = session.run(None, {{"images": images}})
""",
    "head": """
from safetensors import safe_open

with safe_open("FOLDER/head.safetensors", "pt") as head:
    weight, scale = head.get_tensor("weight"), float(head.metadata()["logit_scale"])
probabilities = (scale * features @ weight.T).softmax(dim=1)  # features: unit length
# (features of the frozen backbone: coft.backbones.load.load_clip(NAME).encode_image, or a file of that CLIP)
""",
}


@torch.no_grad()
def export(model: AdaptedModel, folder: Path, options: ExportOptions, take_sample: Callable[[], Sample]) -> Lines:
    """Export a model, with a model card.

    Args:
        model: The model, on the CPU in fp32.
        folder: A folder that is empty or does not exist.
        options: Format and peers.
        take_sample: Function that reads the images on which the export is compared with the model.

    Returns:
        One line for each measurement.

    Raises:
        UserError: If the folder is not empty, a package is missing, the export computes other outputs or the disk is
            full. In that case nothing is written.
    """
    if options.to == "onnx":
        onnx_file.require_packages()
    with new_folder(folder) as draft:
        file_lines, measured_lines = EXPORTERS[options.to](model, options, draft, take_sample())
        enough = model.decoding.enough
        draft_line = f"    image.draft(None, ({enough}, {enough}))  # large JPEGs at reduced size\n" if enough else ""
        name = json.dumps(folder.name, ensure_ascii=False)[1:-1]  # within quotes in the code
        use = USE[options.to].replace("FOLDER", name).replace("    DRAFT\n", draft_line)
        dataset = model.about.get("dataset", "images")
        images = "your images" if dataset == "Folder" else dataset
        title = f"{model.about.get('trainer', 'A model')} on {images}, as {options.to}"
        of_peer = model.of_peer(options.peers)
        (draft / "README.md").write_text(card(of_peer, title, file_lines, use, measured_lines), encoding="utf-8")
    return measured_lines


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Provide a temporary folder beside `folder`, and rename it to that once everything is written.

    Raises:
        UserError: If the folder exists and is not empty, or cannot be written.
    """
    folder = folder.resolve()
    check_free(folder)
    new_parents = [parent for parent in folder.parents if not parent.exists()]
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        ensure_folder(folder.parent, "DIR")
        draft.mkdir()
        yield draft
        if folder.is_dir():
            folder.rmdir()
        draft.rename(folder)
    except (OSError, SafetensorError) as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder}: another command has written to it meanwhile; choose another") from error
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}: cannot be written ({reason}); {remedy(error)}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):  # after a success, they hold the folder
            for parent in new_parents:
                parent.rmdir()


def to_open_clip(model: AdaptedModel, options: ExportOptions, draft: Path, sample: Sample) -> tuple[Lines, Lines]:
    """Export to open_clip. Returns lines about the files, and lines with the measurements."""
    peers, held_out, lines = choose_peers(model, options, sample)
    (part,), source = parts_of(model, peers), model.of_peer(peers)
    require_plain(source)
    write_open_clip(source, part, draft)
    file_lines = [
        "`open_clip_config.json`, `open_clip_model.safetensors`: the backbone with the adapted image encoder",
        HEAD,
        "`classes.json`: names of the classes, and templates",
    ]
    return file_lines, [*lines, *describe_agreement(model, Exported([part]), peers_phrase(model, peers), held_out)]


def to_onnx(model: AdaptedModel, options: ExportOptions, draft: Path, sample: Sample) -> tuple[Lines, Lines]:
    """Export to ONNX. Returns lines about the files, and lines with the measurements."""
    peers, held_out, lines = choose_peers(model, options, sample)
    exported, images = Exported(parts_of(model, peers), model.predictor.temperature).eval(), sample.images
    difference = onnx_file.write_onnx(model, exported, draft, images)
    lines += [
        *describe_agreement(model, exported, peers_phrase(model, peers), held_out),
        f"onnxruntime's probabilities differ from PyTorch's by {difference:.0e} at most",
    ]
    file_lines = [
        "`model.onnx`: images to probabilities, any number at a time; classes and preprocessing are in its metadata"
    ]
    if options.int8:
        calibration, rest = sample.halves()
        way = onnx_file.write_int8(draft, calibration.images)
        file_lines.append(f"`model_int8.onnx`: the same in int8, by {way} quantisation")
        lines += describe_int8(draft, rest)
    return file_lines, lines


def describe_int8(draft: Path, sample: Sample) -> Lines:
    """Return lines about the int8 file: its size, and its agreement with fp32 on images that did not calibrate it."""
    sizes = [(draft / name).stat().st_size / 1e6 for name in (onnx_file.FILE, onnx_file.INT8_FILE)]
    whole, small = (onnx_file.runner(draft / name) for name in (onnx_file.FILE, onnx_file.INT8_FILE))
    size_text = f"int8: {sizes[1]:.1f} MB instead of {sizes[0]:.1f}"
    if sample.images is None:
        comparison = "no images to compare classes on (--images)"
    else:
        share = agreement(whole, small, sample.images)
        comparison = f"the same class as fp32 for {share:.1f} % of {counted(len(sample.images), 'image')}"
    return [f"{size_text}; {comparison}", *describe_accuracy("int8", small, "fp32", whole, sample)]


def to_head(model: AdaptedModel, options: ExportOptions, draft: Path, sample: Sample) -> tuple[Lines, Lines]:
    """Export the class vectors alone. Returns lines about the file, and lines with the measurements."""
    peers, held_out, lines = choose_peers(model, options, sample, predict_with_frozen_encoder)
    (part,), source = parts_of(model, peers), model.of_peer(peers)
    write_head(source, part, draft)
    title = f"{peers_phrase(model, peers)}, with the frozen backbone"
    predict = partial(predict_with_frozen_encoder, source, part)
    return [HEAD], [*lines, *describe_agreement(model, predict, title, held_out)]


EXPORTERS: dict[str, Callable[..., tuple[Lines, Lines]]] = {"open_clip": to_open_clip, "onnx": to_onnx, "head": to_head}
