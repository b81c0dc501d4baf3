"""The command `coft export`, which exports a finished model to the formats of other libraries."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from coft.core.errors import Parser, UserError
from coft.core.files import check_free
from coft.core.paths import expanded
from coft.inference.locate_model import find_model
from coft.inference.predict import reported
from coft.inference.sources import LIST, Resolve, Sources

from .export_options import DEFAULTS, PEERS, ExportOptions

log = logging.getLogger(__name__)


def make_parser(program: str, resolve: Resolve = expanded) -> argparse.ArgumentParser:
    """Build the parser of the command.

    Args:
        program: Name of the command in help and messages.
        resolve: Turns a path argument into a path.
    """
    parser = Parser(prog=program, description="Export the model of a finished run for other software.")
    parser.add_argument("run", metavar="RUN", help="output folder of a run, or its model folder")
    parser.add_argument("folder", type=resolve, metavar="DIR", help="output folder; must be empty or not exist")
    parser.add_argument(
        "--to",
        choices=tuple(DEFAULTS),
        required=True,
        help="open_clip: a folder that open_clip loads; onnx: a graph from images to probabilities; head: class "
        "vectors only",
    )
    encoder_choice = parser.add_mutually_exclusive_group()
    encoder_choice.add_argument(
        "--peers",
        choices=PEERS,
        help="peers to export: both (onnx only, its default), one, or the average of their weights (default otherwise)",
    )
    encoder_choice.add_argument(
        "--single",
        action="store_true",
        help="export one encoder: peer A, peer B or their average, whichever agrees best with the run",
    )
    parser.add_argument("--int8", action="store_true", help="onnx: also write an int8 model")
    parser.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="IMAGES",
        help="images on which the export is checked against the run's model; default: the run's images",
    )
    parser.add_argument("--backbone", default="", help="path of the backbone, if it has moved since the run")
    return parser


@reported
def main(argv: Sequence[str], program: str = "coft export", resolve: Resolve = expanded) -> int:
    """Run the command. After an error nothing is exported.

    Args:
        argv: Arguments of the command.
        program: Name of the command in help and messages.
        resolve: Turns a path argument into a path.

    Returns:
        The exit code.
    """
    args = make_parser(program, resolve).parse_intermixed_args(argv)
    options = ExportOptions(args.to, args.peers or "", args.single, args.int8)
    run = find_model(resolve(args.run))
    if LIST in args.images:
        raise UserError(f"--images {LIST}: no list is read from standard input; give files, folders or patterns")
    Sources(args.images, resolve)  # refuse a wrong path before torch is imported, which takes seconds
    check_free(args.folder)
    from coft.inference.store import load

    from .sample import sample
    from .write import export

    model = load(run, backbone=args.backbone, precision="fp32")
    for line in export(model, args.folder, options, lambda: sample(model, run, args.images, resolve)):
        log.info("%s", line)
    log.info("Exported to %s: %s", args.folder, ", ".join(sorted(path.name for path in args.folder.iterdir())))
    return 0
