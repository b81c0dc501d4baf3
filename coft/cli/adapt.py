"""`coft adapt`: `coft.adapt` as a command."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from coft.core.errors import Parser, UserError
from coft.core.files import check_exists, given_path
from coft.core.progress import TqdmHandler

METHODS = ("coft", "coft+")
EXAMPLE = """examples:
  coft adapt photos --classes "tabby cat, golden retriever"
  coft adapt photos --classes classes.txt --output run2 phase1__epochs=2 input__size="(224, 224)"

Stop it whenever you like: the same command goes on from the last finished epoch."""


def make_parser() -> Parser:
    """Build the argument parser of the command."""
    parser = Parser(
        prog="coft adapt",
        description="Fine-tune a CLIP to a folder of unlabeled images, and predict the class of each image.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="?", metavar="IMAGES", help="folder of images, flat or nested; required")
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help="required: class names separated by commas, or a file with one class a line; there 'sofa | couch' adds a "
        "synonym, and sentences after tabs describe the class",
    )
    parser.add_argument("--output", default="adapted", metavar="DIR", help="output folder; default: adapted")
    parser.add_argument("--backbone", default="photo", metavar="NAME", help="name or path of a CLIP; default: photo")
    parser.add_argument("--method", default="coft", choices=METHODS, help="default: coft")
    parser.add_argument("--seed", type=int, default=1, help="random seed; default: 1")
    parser.add_argument("--quiet", action="store_true", help="print warnings only; log.txt has everything")
    parser.add_argument("--verbose", action="store_true", help="print everything that goes to log.txt, epoch by epoch")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="NAME=VALUE",
        help="settings, for example phase1__epochs=2; coft settings lists them",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Adapt a CLIP model, and print the path of the labels.

    Args:
        argv: Command-line arguments.

    Returns:
        The exit code.

    Raises:
        UserError: If an argument or a file is wrong.
    """
    args = make_parser().parse_intermixed_args(argv)
    # Not left to argparse, which names --classes alone if both are missing.
    if missing := [name for name, value in (("IMAGES", args.images), ("--classes", args.classes)) if value is None]:
        is_missing = "are" if len(missing) > 1 else "is"
        raise UserError(f"{' and '.join(missing)} {is_missing} missing; coft adapt --help lists what is available")
    check_exists(given_path(args.images, "IMAGES"))  # before importing torch, which takes seconds
    from coft.api import adapt
    from coft.engine.config import parse, spec_of

    spec, settings = spec_of(args.method), {}
    for word in args.settings:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is no setting; write NAME=VALUE, such as phase1__epochs=2")
        if name in settings:
            raise UserError(f"{word!r}: {name} is given twice; leave one out")
        settings[name] = parse(spec, name, text)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(handlers=[TqdmHandler()], level=level, format="%(message)s", force=True)
    arguments = args.images, args.classes, args.backbone, args.output, args.seed
    adapt(*arguments, not args.quiet, method=args.method, **settings)
    print(given_path(args.output, "--output") / "labels.csv")
    return 0
