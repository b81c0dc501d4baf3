"""`coft review`: opens the page of a review, and waits until the person is done."""

from __future__ import annotations

import argparse
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from coft.runtime.errors import Parser, UserError
from coft.use.model import Origin
from coft.use.store import description_of, find_model, load_origin

from .again import command_with
from .app import Review
from .draft import ClassesFile
from .reviewed import Reviewed, read_reviewed
from .server import Server
from .zero_shot import ZeroShot

LAST_SECONDS = 0.5  # for the last answer to reach the page


def make_parser(program: str, resolve: Callable[[str], Path]) -> Parser:
    """Build the parser of its arguments."""
    parser = Parser(
        prog=program,
        description="Mend the classes of a finished run on your own images, on a page that this machine alone serves.",
    )
    parser.add_argument("run", type=resolve, metavar="RUN", help="output folder of a finished run of CoFT or CoFT+")
    parser.add_argument("--port", type=_port, default=0, help="of the page; default: one that is free")
    parser.add_argument("--no-browser", action="store_true", help="say the address, and open no browser")
    parser.add_argument(
        "--to", type=resolve, metavar="FILE", help="where the classes are written; default: RUN/classes-2.txt"
    )
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


def main(argv: Sequence[str], program: str = "coft review", resolve: Callable[[str], Path] = Path) -> int:
    """Serve the page until the person is done.

    Returns:
        The exit code.

    Raises:
        UserError: If the run cannot be reviewed, or the port is taken.
    """
    args = make_parser(program, resolve).parse_args(argv)
    reviewed = read_reviewed(args.run)
    command_with(reviewed, args.run)  # what cannot be trained again is not reviewed
    file = ClassesFile(args.run, args.to)
    zero_shot = zero_shot_of(reviewed)
    server = open_server(args.port)
    server.review = Review(reviewed, zero_shot, file, threading.Timer(LAST_SECONDS, server.shutdown).start)
    print(f"The page of the review: {server.url}\nOnly this machine can open it. Ctrl-C or “Done” ends it.", flush=True)
    if not args.no_browser:
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    if server.review.command:
        print(f"Classes: {file.path}\nTrain anew with them:\n  {server.review.command}")
    else:
        print("Nothing was saved.")
    return 0


def zero_shot_of(reviewed: Reviewed) -> ZeroShot:
    """Zero-shot CLIP on the images of a run, by the backbone that it had.

    Raises:
        UserError: If the run's model is damaged, of another version, or the backbone is another one.
    """
    folder = find_model(reviewed.run.folder)
    content = description_of(folder)
    try:
        origin, templates = Origin(**content["backbone"]), [str(own) for own in content["templates"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}: its description of the model is damaged; run again") from error
    clip_model = load_origin(origin, trust_jit=bool(reviewed.config.get("MODEL.BACKBONE.TRUST_JIT")))
    return ZeroShot(reviewed.evidence, reviewed.classes, clip_model, templates)


def open_server(port: int) -> Server:
    """Take a port.

    Raises:
        UserError: If it cannot be had.
    """
    try:
        return Server(port)
    except OSError as error:
        raise UserError(f"--port {port}: cannot be had ({error.strerror}); give another one") from error
