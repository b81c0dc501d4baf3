"""The command that predicts images with a finished model, and sorts them into folders if asked to."""

from __future__ import annotations

import argparse
import io
import logging
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from coft.core.errors import Parser, UserError
from coft.core.exit_codes import guarded, silence
from coft.core.files import replacing
from coft.core.words import counted

from .locate_model import find_model
from .rows import UNSURE, WRITERS, Line, Reader
from .sorting import Sorter, find_journal, undo
from .sources import LIST, Resolve, Sources

if TYPE_CHECKING:
    from .model import AdaptedModel

log = logging.getLogger(__name__)


def make_parser(program: str, resolve: Resolve = Path) -> argparse.ArgumentParser:
    """Build the parser of the command.

    Args:
        program: What the user calls it.
        resolve: Says where a path of the user's is.
    """
    parser = Parser(prog=program, description="Predict the classes of images with the model of a finished run.")
    parser.add_argument("run", nargs="?", metavar="RUN", help="output folder of a run, or its model folder")
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGES",
        help=f"files, folders, patterns in quotes, or {LIST} for a list of files on standard input",
    )
    parser.add_argument("--format", choices=tuple(WRITERS), default="csv", help="default: csv; jsonl: JSON lines")
    parser.add_argument(
        "--top", type=at_least_one, default=2, metavar="K", help="name the K likeliest classes; default: 2"
    )
    parser.add_argument(
        "--unsure", type=a_share, default=0.0, metavar="BELOW", help=f"class {UNSURE!r} below this confidence, 0 to 1"
    )
    parser.add_argument("--output", type=resolve, metavar="FILE", help="default: standard output")
    sorting = parser.add_mutually_exclusive_group()
    sorting.add_argument("--move", type=resolve, metavar="DIR", help="move the files into folders of classes in DIR")
    sorting.add_argument(
        "--link", type=resolve, metavar="DIR", help="the same with links; the files stay where they are"
    )
    sorting.add_argument("--undo", type=resolve, metavar="JOURNAL", help="undo what --move or --link did; DIR will do")
    parser.add_argument("--backbone", default="", help="where the backbone is, if not where the run had it")
    return parser


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def a_share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, not {text!r}")
    return value


def command(argv: Sequence[str], program: str = "coft predict", resolve: Resolve = Path) -> int:
    """Do what the flags say.

    Args:
        argv: The flags.
        program: What the user calls it.
        resolve: Says where a path of the user's is.

    Returns:
        The exit code.

    Raises:
        UserError: If something is wrong that the user can mend.
    """
    args = make_parser(program, resolve).parse_intermixed_args(argv)
    if args.undo:
        return undone(args)
    if not args.run or not args.images:
        raise UserError(f"give a run and images; {program} --help says what there is")
    folder = find_model(resolve(args.run))
    sources = Sources(args.images, resolve, sys.stdin, but=args.move or args.link)
    model = loaded(folder, args.backbone)
    if args.unsure and UNSURE in model.classes:
        raise UserError(f"--unsure: a class of the model is called {UNSURE!r} itself; leave it out")
    with ExitStack() as stack:
        file = stack.enter_context(written(args.output))
        sorter = stack.enter_context(sorting(args, model, program)) if args.move or args.link else None
        stayed = run(model, sources, args, file, sorter)
    return 1 if stayed else 0


def loaded(folder: Path, backbone: str) -> AdaptedModel:
    """Load a model to where it is fastest. torch is imported here: wrong arguments need not wait for it."""
    import torch

    from .store import load

    return load(folder, "cuda" if torch.cuda.is_available() else "cpu", backbone)


def undone(args: argparse.Namespace) -> int:
    """Undo what a journal says."""
    if args.run:
        raise UserError("--undo takes a journal alone; leave the rest out")
    done, failed = undo(find_journal(args.undo))
    left = f"; {failed:,} could not be, and the journal stays" if failed else ""
    log.info("Undone: %s%s", counted(done, "file"), left)
    return 1 if failed else 0


@contextmanager
def written(path: Path | None) -> Iterator[TextIO]:
    """The file that lines go to; standard output without a path."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # a file's name may be no text
        yield sys.stdout
        return
    try:
        with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield file
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror}); choose another file") from error


@contextmanager
def sorting(args: argparse.Namespace, model: AdaptedModel, program: str) -> Iterator[Sorter]:
    """What puts files into folders of classes; at the end it says how to undo that."""
    sorter = Sorter(args.move or args.link, [*model.classes, *([UNSURE] if args.unsure else [])], bool(args.link))
    try:
        yield sorter
    finally:
        sorter.close()
        shell = "bash " if program.endswith(".sh") else ""
        log.info("To undo this: %s%s --undo %s", shell, program, shlex.quote(str(sorter.journal)))


def run(
    model: AdaptedModel, sources: Sources, args: argparse.Namespace, file: TextIO, sorter: Sorter | None = None
) -> int:
    """Predict images, write a line for each, and put its file into a folder.

    Returns:
        How many files could not be put into a folder.

    Raises:
        UserError: If there is no image.
    """
    from .stream import predict_all

    reader, write = Reader(model.classes, args.top, args.unsure), WRITERS[args.format]()
    started, done, skipped, stayed = time.monotonic(), 0, 0, 0
    with logging_redirect_tqdm(), tqdm(total=sources.count(), unit="image", disable=None, leave=False) as bar:
        for outcome in predict_all(model, sources):
            bar.update()
            if outcome.problem:
                skipped += 1
                log.warning("skipped %s: %s", in_a_line(outcome.source.shown), outcome.problem)
                continue
            line = reader.line(outcome)
            if sorter:
                line = placed(sorter, outcome.source.path, line)
                stayed += not line[sorter.done]
            try:
                write(file, line)
            except BrokenPipeError:
                if sorter is None:
                    raise
                silence()  # `head` has seen enough, and the files are to be moved all the same
            done += 1
    if not done + skipped:
        raise UserError("there is no image among what you named; give files, folders, or patterns in quotes")
    seconds = time.monotonic() - started
    left = f"; not {'moved' if args.move else 'linked'}: {stayed:,}" if stayed else ""
    log.info(
        "Predicted %s in %.1f s, %.0f a second; skipped: %d%s",
        counted(done, "image"),
        seconds,
        done / seconds,
        skipped,
        left,
    )
    return stayed


def in_a_line(name: str) -> str:
    """A file's name as it is, or quoted if it would break a line or a terminal."""
    return name if name.isprintable() else repr(name)


def placed(sorter: Sorter, path: Path, line: Line) -> Line:
    """Put a file into its folder. The line gets the place; an empty one, and a warning, if the file cannot be there."""
    try:
        to = str(sorter.put(path, line["class"]))
    except UserError as error:
        log.warning("%s", error.line)
        to = ""
    top = line.pop("top")  # last in a line of CSV, whose columns they are
    return line | {sorter.done: to, "top": top}


def main(argv: Sequence[str], program: str = "coft predict", resolve: Resolve = Path) -> int:
    """Run the command, and turn what can go wrong into one line.

    Returns:
        The exit code: 0, 1 for files that could not be moved, linked or put back, 2 for a mistake of the user's,
        130 for an interrupt.
    """
    return said(lambda: command(argv, program, resolve))


def said(work: Callable[[], int]) -> int:
    """Do something, with messages on standard error, and turn what can go wrong into one line."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("coft").setLevel(logging.INFO)
    return guarded(work, "interrupted")
