"""The command that writes a finished model in a form that others read."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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
from .merging import AVERAGE, BOTH, PEERS, Exported, Part, parts_of
from .open_clip_folder import require_plain, write_open_clip
from .sample import Predict, Sample, accuracy, agreement, sample

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
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--peers",
        choices=PEERS,
        help="both (onnx alone, and its default), one of them, or the average of their weights (default else)",
    )
    which.add_argument(
        "--single",
        action="store_true",
        help="one encoder: that of peer A, of peer B, or their average, whichever gives the run's classes most often",
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
        found = sample(model, find_model(run), args.images, resolve)
        made, compared = WAYS[args.to](model, args, draft, found)
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


def to_open_clip(model: AdaptedModel, args: argparse.Namespace, draft: Path, found: Sample) -> tuple[Lines, Lines]:
    """Write a folder of open_clip's."""
    require_plain(model)
    peers, rest, lines = which_peers(model, args, AVERAGE, found)
    (part,) = parts_of(model, peers)
    write_open_clip(model, part, draft)
    made = [
        "`open_clip_config.json`, `open_clip_model.safetensors`: the backbone with the adapted image encoder",
        HEAD,
        "`classes.json`: names of the classes, and templates",
    ]
    return made, [*lines, *compared(model, Exported([part]), words_for(model, peers), rest)]


def to_onnx(model: AdaptedModel, args: argparse.Namespace, draft: Path, found: Sample) -> tuple[Lines, Lines]:
    """Write ONNX files."""
    peers, rest, lines = which_peers(model, args, BOTH, found)
    exported, images = Exported(parts_of(model, peers)).eval(), found.images
    difference = onnx_file.write_onnx(model, exported, draft, images)
    lines += [
        *compared(model, exported, words_for(model, peers), rest),
        f"onnxruntime's probabilities differ from PyTorch's by {difference:.0e} at most",
    ]
    made = [
        "`model.onnx`: images to probabilities, any number at a time; classes and preprocessing are in its metadata"
    ]
    if args.int8:
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
        same = f"the same class as fp32 for {share:.1f} % of {len(found.images)} images"
    return [f"{words}; {same}", *known_accuracy("int8", small, "fp32", whole, found)]


def to_head(model: AdaptedModel, args: argparse.Namespace, draft: Path, found: Sample) -> tuple[Lines, Lines]:
    """Write vectors of the classes."""
    peers, rest, lines = which_peers(model, args, AVERAGE, found, with_frozen)
    (part,) = parts_of(model, peers)
    write_head(model, part, draft)
    words = f"{words_for(model, peers)}, with the frozen backbone"
    return [HEAD], [*lines, *compared(model, lambda batch: with_frozen(model, part, batch), words, rest)]


WAYS: dict[str, Callable[..., tuple[Lines, Lines]]] = {"open_clip": to_open_clip, "onnx": to_onnx, "head": to_head}


# -------------------------------------------------------------------- comparing


def which_peers(
    model: AdaptedModel,
    args: argparse.Namespace,
    default: str,
    found: Sample,
    predict: Callable[[AdaptedModel, Part, Tensor], Tensor] = lambda model, part, batch: Exported([part])(batch),
) -> tuple[str, Sample, Lines]:
    """What is exported: what the flags say, or with `--single` what gives the run's classes most often.

    Args:
        model: What is exported.
        args: The flags.
        default: What is taken without flags.
        found: Images of the run. By every other one is chosen.
        predict: What an export of a part computes.

    Returns:
        A name of `PEERS`, the images on which it is compared, and how it was chosen.

    Raises:
        UserError: If there is nothing to choose by.
    """
    if not args.single or len(model.predictor.classifiers) < 2:
        return args.peers or default, found, []
    chosen_by, rest = found.halves()
    if chosen_by.images is None:
        raise UserError("--single: the run's own images are not there to choose by; name some with --images")
    shares = {}
    for peers in (AVERAGE, "a", "b"):  # of equals the first: an average errs less on images of another kind
        (part,) = parts_of(model, peers)
        own = partial(predict, model, part)
        shares[peers] = agreement(own, probabilities_of(model), chosen_by.images)
    listed = ", ".join(f"{words_for(model, peers)} {share:.1f} %" for peers, share in shares.items())
    best = max(shares, key=lambda peers: shares[peers])
    return best, rest, [f"chosen by the class of the run's model on {len(chosen_by.images)} images: {listed}"]


def probabilities_of(model: AdaptedModel) -> Predict:
    """What predicts as the run does."""
    return lambda batch: model.predict(batch).probabilities


def words_for(model: AdaptedModel, peers: str) -> str:
    """What is exported, in words."""
    if len(model.predictor.classifiers) == 1:
        return "the model"
    return {AVERAGE: "the average of the peers' weights", BOTH: "both peers"}.get(peers, f"peer {peers.upper()}")


def compared(model: AdaptedModel, exported: Predict, what: str, found: Sample) -> Lines:
    """How often the export gives the class that the run's model gives, and what that costs where classes are known."""
    if found.images is None:
        lines = [f"{what}; the export was not compared with the run's model: there were no images (--images)"]
    else:
        same = agreement(exported, probabilities_of(model), found.images)
        lines = [f"{what}: the same class as the run's model for {same:.1f} % of {len(found.images)} images"]
    return [*lines, *known_accuracy("the export", exported, "the run's model", probabilities_of(model), found)]


def known_accuracy(what: str, exported: Predict, other: str, whole: Predict, found: Sample) -> Lines:
    """Accuracies of an export and of what it was made from, on images whose class is known."""
    if found.tested is None or found.labels is None:
        return []
    own, before = (accuracy(predict, found.tested, found.labels) for predict in (exported, whole))
    return [f"accuracy of {what} {own:.1f} %, of {other} {before:.1f} %, on {len(found.labels)} labelled test images"]


def main(argv: Sequence[str], program: str = "coft export", resolve: Resolve = Path) -> int:
    """Run the command, and turn what can go wrong into one line. Returns the exit code."""
    return guarded(lambda: command(argv, program, resolve))
