"""The command `coft review`. Large modules are imported only after its arguments are checked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from coft.core.errors import Parser, UserError
from coft.core.experiment import require_finished
from coft.core.paths import expanded


def make_parser(program: str, resolve: Callable[[str], Path]) -> Parser:
    """Build the parser of the command.

    Args:
        program: Name of the command in help and messages.
        resolve: Turns a path argument into a path.
    """
    parser = Parser(
        prog=program,
        description="Correct the classes of a finished run on your own images, on a local web page.",
    )
    parser.add_argument("run", type=resolve, metavar="RUN", help="output folder of a finished run of CoFT or CoFT+")
    parser.add_argument("--port", type=_port, default=0, help="port of the page; default: a free one")
    parser.add_argument("--no-browser", action="store_true", help="print the address and do not open a browser")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


def main(argv: Sequence[str], program: str = "coft review", resolve: Callable[[str], Path] = expanded) -> int:
    """Serve the page until the user ends the review.

    Args:
        argv: Arguments of the command.
        program: Name of the command in help and messages.
        resolve: Turns a path argument into a path.

    Returns:
        The exit code.

    Raises:
        UserError: If an argument is wrong, the run cannot be reviewed, or the port is taken.
    """
    args = make_parser(program, resolve).parse_args(argv)
    require_finished(args.run)
    if not os.access(args.run, os.W_OK):
        raise UserError(f"{args.run}: the classes cannot be saved in this folder; copy the run to another place")
    from .server import serve

    return serve(args.run, args.port, browser=not args.no_browser)
