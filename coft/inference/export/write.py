"""A finished model in a form that others read: a folder that is written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from coft.core.errors import UserError
from coft.core.files import check_free, ensure_folder
from coft.core.words import counted
from coft.inference.model import AdaptedModel

from . import onnx_file
from .card import card
from .comparing import Lines, compared, known_accuracy, which_peers, words_for
from .export_options import Wanted
from .head import with_frozen, write_head
from .merging import Exported, parts_of
from .open_clip_folder import require_plain, write_open_clip
from .sample import Sample, agreement

HEAD = "`head.safetensors`: vectors of the classes (`weight`), and of the clean log-odds (`clean`) if there are any"

USE = {
    "open_clip": """
import open_clip, torch
from safetensors import safe_open

model, preprocess = open_clip.create_model_from_pretrained("local-dir:FOLDER")
model.eval()
with safe_open("FOLDER/head.safetensors", "pt") as head:
    weight, scale = head.get_tensor("weight"), float(head.metadata()["logit_scale"])
features = torch.nn.functional.normalize(model.encode_image(images), dim=-1)
probabilities = (scale * features @ weight.T).softmax(dim=1)
""",
    "onnx": """
import json, onnxruntime

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
words = session.get_modelmeta().custom_metadata_map
classes, preprocessing = json.loads(words["classes"]), json.loads(words["preprocessing"])
probabilities, = session.run(None, {"images": images})  # float32, (n, 3, size, size)
""",
    "head": """
from safetensors import safe_open

with safe_open("FOLDER/head.safetensors", "pt") as head:
    weight, scale = head.get_tensor("weight"), float(head.metadata()["logit_scale"])
probabilities = (scale * features @ weight.T).softmax(dim=1)  # features: of the backbone, unit length
""",
}


@torch.no_grad()
def export(model: AdaptedModel, folder: Path, wanted: Wanted, sample: Callable[[], Sample]) -> Lines:
    """Write a model, with a card.

    Args:
        model: On the CPU, in fp32.
        folder: Empty, or not there yet.
        wanted: How.
        sample: Gives the images on which it is compared.

    Returns:
        What was measured.

    Raises:
        UserError: If there is something in the folder, a package is missing, or the disk is full. Then nothing is
            written.
    """
    if wanted.to == "onnx":
        onnx_file.require()
    with emerging(folder) as draft:
        made, measured = WAYS[wanted.to](model, wanted, draft, sample())
        use = USE[wanted.to].replace("FOLDER", folder.name)
        title = f"{model.about.get('trainer', 'A model')} on {model.about.get('dataset', 'images')}, as {wanted.to}"
        (draft / "README.md").write_text(card(model, title, made, use, measured), encoding="utf-8")
    return measured


@contextmanager
def emerging(folder: Path) -> Iterator[Path]:
    """A folder that takes its place once all is written.

    Raises:
        UserError: If there is something in its place, or it cannot be written.
    """
    check_free(folder)
    ensure_folder(folder.parent, "DIR")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir()
        yield draft
        if folder.is_dir():
            folder.rmdir()
        draft.rename(folder)
    except (OSError, SafetensorError) as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder}: another command has written to it meanwhile; choose another") from error
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}: cannot be written ({reason}); see to the disk") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def to_open_clip(model: AdaptedModel, wanted: Wanted, draft: Path, found: Sample) -> tuple[Lines, Lines]:
    """Write a folder of open_clip's."""
    require_plain(model)
    peers, rest, lines = which_peers(model, wanted, found)
    (part,) = parts_of(model, peers)
    write_open_clip(model, part, draft)
    made = [
        "`open_clip_config.json`, `open_clip_model.safetensors`: the backbone with the adapted image encoder",
        HEAD,
        "`classes.json`: names of the classes, and templates",
    ]
    return made, [*lines, *compared(model, Exported([part]), words_for(model, peers), rest)]


def to_onnx(model: AdaptedModel, wanted: Wanted, draft: Path, found: Sample) -> tuple[Lines, Lines]:
    """Write ONNX files."""
    peers, rest, lines = which_peers(model, wanted, found)
    exported, images = Exported(parts_of(model, peers)).eval(), found.images
    difference = onnx_file.write_onnx(model, exported, draft, images)
    lines += [
        *compared(model, exported, words_for(model, peers), rest),
        f"onnxruntime's probabilities differ from PyTorch's by {difference:.0e} at most",
    ]
    made = [
        "`model.onnx`: images to probabilities, any number at a time; classes and preprocessing are in its metadata"
    ]
    if wanted.int8:
        halves = found.halves() if images is not None and len(images) > 1 else (Sample(), Sample())
        way = onnx_file.write_int8(draft, halves[0].images)
        made.append(f"`model_int8.onnx`: the same in int8, by {way} quantisation")
        lines += of_int8(draft, replace(halves[1], tested=found.tested, labels=found.labels))
    return made, lines


def of_int8(draft: Path, found: Sample) -> Lines:
    """What int8 costs, on images that chose no ranges."""
    sizes = [(draft / name).stat().st_size / 1e6 for name in (onnx_file.FILE, onnx_file.SMALL)]
    whole, small = (onnx_file.runner(draft / name) for name in (onnx_file.FILE, onnx_file.SMALL))
    words = f"int8: {sizes[1]:.1f} MB instead of {sizes[0]:.1f}"
    if found.images is None:
        same = "no images to compare classes on (--images)"
    else:
        share = agreement(whole, small, found.images)
        same = f"the same class as fp32 for {share:.1f} % of {counted(len(found.images), 'image')}"
    return [f"{words}; {same}", *known_accuracy("int8", small, "fp32", whole, found)]


def to_head(model: AdaptedModel, wanted: Wanted, draft: Path, found: Sample) -> tuple[Lines, Lines]:
    """Write vectors of the classes."""
    peers, rest, lines = which_peers(model, wanted, found, with_frozen)
    (part,) = parts_of(model, peers)
    write_head(model, part, draft)
    words = f"{words_for(model, peers)}, with the frozen backbone"
    return [HEAD], [*lines, *compared(model, lambda batch: with_frozen(model, part, batch), words, rest)]


WAYS: dict[str, Callable[..., tuple[Lines, Lines]]] = {"open_clip": to_open_clip, "onnx": to_onnx, "head": to_head}
