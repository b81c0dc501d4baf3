"""The command that writes a finished model in a form that others read."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from coft.runtime.errors import Parser, UserError
from coft.runtime.files import ensure_folder
from coft.use.model import AdaptedModel
from coft.use.predict import guarded
from coft.use.sources import Resolve
from coft.use.store import find_model, load

from . import onnx_file
from .card import card
from .head import with_frozen, write_head
from .merging import AVERAGE, BOTH, PEERS, Exported, parts_of
from .open_clip_folder import write_open_clip
from .sample import agreement, sample

log = logging.getLogger(__name__)
Lines = list[str]
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


def make_parser(program: str, resolve: Resolve = Path) -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = Parser(prog=program, description="Write the model of a finished run in a form that others read.")
    parser.add_argument("run", metavar="RUN", help="output folder of a run, or its model folder")
    parser.add_argument("folder", type=resolve, metavar="DIR", help="a folder that is empty, or not there yet")
    parser.add_argument(
        "--to",
        choices=tuple(USE),
        required=True,
        help="open_clip: a folder that it loads; onnx: images to probabilities; head: vectors of the classes alone",
    )
    parser.add_argument(
        "--peers",
        choices=PEERS,
        help="both (onnx alone, and its default), one of them, or the average of their weights (default else)",
    )
    parser.add_argument("--int8", action="store_true", help="onnx: a second file in int8")
    parser.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="IMAGES",
        help="a folder or files on which the export is compared with the run's model; default: the run's own images",
    )
    parser.add_argument("--backbone", default="", help="where the backbone is, if not where the run had it")
    return parser


def command(argv: Sequence[str], program: str = "coft export", resolve: Resolve = Path) -> int:
    """Do what the flags say.

    Returns:
        The exit code.

    Raises:
        UserError: If something is wrong that the user can mend. Then nothing is written.
    """
    args = make_parser(program, resolve).parse_intermixed_args(argv)
    if args.int8 and args.to != "onnx":
        raise UserError("--int8 goes with --to onnx")
    if args.peers == BOTH and args.to != "onnx":
        raise UserError(f"--peers {BOTH} goes with --to onnx; {args.to} takes one encoder: a, b, or {AVERAGE}")
    if args.to == "onnx":
        onnx_file.require()
    run = resolve(args.run)
    model = load(run, backbone=args.backbone, precision="fp32")
    with emerging(args.folder) as draft, torch.no_grad():
        images = sample(model, find_model(run), args.images, resolve)
        made, compared = WAYS[args.to](model, args, draft, images)
        use = USE[args.to].replace("FOLDER", args.folder.name)
        title = f"{model.about.get('trainer', 'A model')} on {model.about.get('dataset', 'images')}, as {args.to}"
        (draft / "README.md").write_text(card(model, title, made, use, compared), encoding="utf-8")
    for line in compared:
        log.info("%s", line)
    log.info("Exported to %s: %s", args.folder, ", ".join(sorted(path.name for path in args.folder.iterdir())))
    return 0


@contextmanager
def emerging(folder: Path) -> Iterator[Path]:
    """A folder that takes its place once all is written.

    Raises:
        UserError: If there is something in its place, or it cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: is there already, and not an empty folder; choose another")
    ensure_folder(folder.parent, "DIR")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir()
        yield draft
        if folder.is_dir():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); see to the disk") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


# -------------------------------------------------------------------- ways


def to_open_clip(
    model: AdaptedModel, args: argparse.Namespace, draft: Path, images: Tensor | None
) -> tuple[Lines, Lines]:
    """Write a folder of open_clip's."""
    peers = args.peers or AVERAGE
    (part,) = parts_of(model, peers)
    write_open_clip(model, part, draft)
    made = [
        "`open_clip_config.json`, `open_clip_model.safetensors`: the backbone with the adapted image encoder",
        HEAD,
        "`classes.json`: names of the classes, and templates",
    ]
    return made, compared(model, Exported([part]), peers, images)


def to_onnx(model: AdaptedModel, args: argparse.Namespace, draft: Path, images: Tensor | None) -> tuple[Lines, Lines]:
    """Write ONNX files."""
    peers = args.peers or BOTH
    exported = Exported(parts_of(model, peers)).eval()
    difference = onnx_file.write_onnx(model, exported, draft, images)
    lines = [
        *compared(model, exported, peers, images),
        f"onnxruntime's probabilities differ from PyTorch's by {difference:.0e} at most",
    ]
    made = [
        "`model.onnx`: images to probabilities, any number at a time; classes and preprocessing are in its metadata"
    ]
    if args.int8:
        half = None if images is None or len(images) < 2 else len(images) // 2
        way = onnx_file.write_int8(draft, None if half is None or images is None else images[::2])
        made.append(f"`model_int8.onnx`: the same in int8, by {way} quantisation")
        lines.append(of_int8(draft, None if half is None or images is None else images[1::2]))
    return made, lines


def of_int8(draft: Path, images: Tensor | None) -> str:
    """What int8 costs, on images that chose no ranges."""
    sizes = [(draft / name).stat().st_size / 1e6 for name in (onnx_file.FILE, onnx_file.SMALL)]
    words = f"int8: {sizes[1]:.1f} MB instead of {sizes[0]:.1f}"
    if images is None:
        return f"{words}; no images to compare classes on (--images)"
    same = agreement(onnx_file.runner(draft / onnx_file.FILE), onnx_file.runner(draft / onnx_file.SMALL), images)
    return f"{words}; the same class as fp32 for {same:.1f} % of {len(images)} images"


def to_head(model: AdaptedModel, args: argparse.Namespace, draft: Path, images: Tensor | None) -> tuple[Lines, Lines]:
    """Write vectors of the classes."""
    (part,) = parts_of(model, args.peers or AVERAGE)
    write_head(model, part, draft)
    made = [HEAD]
    if images is None:
        return made, [NOT_COMPARED]
    same = agreement(lambda batch: with_frozen(model, part, batch), probabilities_of(model), images)
    return made, [
        f"with the frozen backbone, the same class as the run's model for {same:.1f} % of {len(images)} images"
    ]


WAYS: dict[str, Callable[..., tuple[Lines, Lines]]] = {"open_clip": to_open_clip, "onnx": to_onnx, "head": to_head}
NOT_COMPARED = "the export was not compared with the run's model: there were no images (--images)"


def probabilities_of(model: AdaptedModel) -> Callable[[Tensor], Tensor]:
    """What predicts as the run does."""
    return lambda batch: model.predict(batch).probabilities


def compared(model: AdaptedModel, exported: Exported, peers: str, images: Tensor | None) -> Lines:
    """How often the export gives the class that the run's model gives."""
    what = {AVERAGE: "the average of the peers' weights", BOTH: "both peers"}.get(peers, f"peer {peers.upper()}")
    if len(model.predictor.classifiers) == 1:
        what = "the model"
    if images is None:
        return [f"{what}; {NOT_COMPARED}"]
    same = agreement(exported, probabilities_of(model), images)
    return [f"{what}: the same class as the run's model for {same:.1f} % of {len(images)} images"]


def main(argv: Sequence[str], program: str = "coft export", resolve: Resolve = Path) -> int:
    """Run the command, and turn what can go wrong into one line. Returns the exit code."""
    return guarded(lambda: command(argv, program, resolve))
