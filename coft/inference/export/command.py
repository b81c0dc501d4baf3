"""The command that writes a finished model in a form that others read."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from coft.core.errors import Parser
from coft.core.files import check_free
from coft.inference.locate_model import find_model
from coft.inference.predict import said
from coft.inference.sources import Resolve, Sources

from .export_options import DEFAULTS, PEERS, Wanted

log = logging.getLogger(__name__)


def make_parser(program: str, resolve: Resolve = Path) -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = Parser(prog=program, description="Write the model of a finished run in a form that others read.")
    parser.add_argument("run", metavar="RUN", help="output folder of a run, or its model folder")
    parser.add_argument("folder", type=resolve, metavar="DIR", help="a folder that is empty, or not there yet")
    parser.add_argument(
        "--to",
        choices=tuple(DEFAULTS),
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
    wanted = Wanted(args.to, args.peers or "", args.single, args.int8)
    run = find_model(resolve(args.run))
    Sources(args.images, resolve)  # a wrong path is to be known before torch is imported, which takes seconds
    check_free(args.folder)
    from coft.inference.store import load

    from .sample import sample
    from .write import export

    model = load(run, backbone=args.backbone, precision="fp32")
    for line in export(model, args.folder, wanted, lambda: sample(model, run, args.images, resolve)):
        log.info("%s", line)
    log.info("Exported to %s: %s", args.folder, ", ".join(sorted(path.name for path in args.folder.iterdir())))
    return 0


def main(argv: Sequence[str], program: str = "coft export", resolve: Resolve = Path) -> int:
    """Run the command, and turn what can go wrong into one line. Returns the exit code."""
    return said(lambda: command(argv, program, resolve))
