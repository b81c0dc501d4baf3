"""The command `coft predict`: predict images with a finished model and, on request, sort them into folders."""

from __future__ import annotations

import argparse
import io
import logging
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from coft.core.errors import Parser, UserError
from coft.core.exit_codes import guarded, silence
from coft.core.files import check_suffix, replacing
from coft.core.paths import expanded
from coft.core.sanitize import escaped, one_line, some_of
from coft.core.words import counted

from .locate_model import find_model
from .rows import UNSURE, WRITERS, Row, row_of
from .sorting import Sorter
from .sources import LIST, Resolve, Sources
from .undo_journal import find_journal, undo

if TYPE_CHECKING:
    from .model import AdaptedModel

log = logging.getLogger(__name__)
TABLES = (".csv", ".jsonl", ".txt")  # suffixes of output files
MAX_DIGITS = 18  # upper bound of the digits of a number
EVEN = 0.5  # below this calibrated confidence a predicted class is wrong more often than right


def make_parser(program: str, resolve: Resolve = expanded) -> argparse.ArgumentParser:
    """Build the parser of the command.

    Args:
        program: Name of the command in help and messages.
        resolve: Turns a path argument into a path.
    """

    def place(text: str) -> Path:
        return resolve(check_path(text))

    parser = Parser(prog=program, description="Predict the classes of images with the model of a finished run.")
    parser.add_argument("run", nargs="?", metavar="RUN", help="output folder of a run, or its model folder")
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGES",
        help=f"files, folders, patterns in quotes, or {LIST} for a list of files on standard input",
    )
    parser.add_argument(
        "--format",
        choices=tuple(WRITERS),
        help="output format, csv or JSON lines; default: that of --output's suffix, else csv",
    )
    parser.add_argument(
        "--top", type=positive_integer, default=2, metavar="K", help="number of likeliest classes to report; default: 2"
    )
    parser.add_argument(
        "--unsure",
        type=share,
        nargs="?",
        const=EVEN,
        default=0.0,
        metavar="BELOW",
        help=f"class {UNSURE!r} for predictions below this confidence (0 to 1); without a number {EVEN}: below it, "
        "they are more likely wrong than right",
    )
    parser.add_argument("--output", type=place, metavar="FILE", help="file to write to; default: standard output")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--move", type=place, metavar="DIR", help="move the files into one folder per class in DIR")
    action.add_argument(
        "--link", type=place, metavar="DIR", help="like --move, but link to the files and leave them in place"
    )
    action.add_argument(
        "--undo", type=place, metavar="JOURNAL", help="undo an earlier --move or --link, given its journal or DIR"
    )
    parser.add_argument("--backbone", default="", help="path of the backbone, if it has moved since the run")
    return parser


def positive_integer(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not (text.isdecimal() and len(text) < MAX_DIGITS and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text[:40]!r}")
    return int(text)


def check_path(text: str) -> str:
    """Refuse an empty path, which an unset shell variable expands to: it would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, not an empty text")
    return text


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, not {text!r}")
    return value


def reported(command: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command: its log goes to standard error, where every error is reported as one line."""

    @wraps(command)
    def main(*args: Any) -> int:
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
        logging.getLogger("coft").setLevel(logging.INFO)
        return guarded(lambda: command(*args), "interrupted")

    return main


@reported
def main(argv: Sequence[str], program: str = "coft predict", resolve: Resolve = expanded) -> int:
    """Run the command.

    Args:
        argv: Arguments of the command.
        program: Name of the command in help and messages.
        resolve: Turns a path argument into a path.

    Returns:
        The exit code: 0; 1 if files could not be moved, linked or put back; 2 for a mistake of the user; 130 for an
        interrupt.
    """
    args = make_parser(program, resolve).parse_intermixed_args(argv)
    if args.undo:
        return _undo_sorting(args)
    if not args.images:
        missing = f"no IMAGES for RUN {args.run}" if args.run else "RUN and IMAGES are required"
        raise UserError(f"{missing}; {program} --help lists what is available")
    if not args.run:
        raise UserError("RUN is empty; give the output folder of a run")
    check_suffix("--output", args.output, TABLES)
    args.format = _format_of(args.format, args.output)
    folder = find_model(resolve(args.run))
    if isinstance(sys.stdin, io.TextIOWrapper):  # file names in a list may not be valid text
        sys.stdin.reconfigure(errors="surrogateescape", newline="\n")
    sources = Sources(args.images, resolve, sys.stdin, exclude=args.move or args.link)
    import torch  # only here: wrong arguments are refused sooner

    from .store import load

    model = load(folder, "cuda" if torch.cuda.is_available() else "cpu", args.backbone)
    if args.unsure and UNSURE in model.classes:
        raise UserError(f"--unsure: a class of the model is called {UNSURE!r} itself; leave it out")
    with ExitStack() as stack:
        file = stack.enter_context(open_output(args.output))
        sorter = stack.enter_context(open_sorter(args, model, program)) if args.move or args.link else None
        failed = run(model, sources, args, file, sorter)
    return 1 if failed else 0


def _undo_sorting(args: argparse.Namespace) -> int:
    """Undo the entries of a journal, and return the exit code."""
    if args.run:
        raise UserError("--undo takes a journal alone; leave the rest out")
    done, failed = undo(find_journal(args.undo))
    left = f"; {failed:,} could not be, and the journal stays" if failed else ""
    log.info("Undone: %s%s", counted(done, "file"), left)
    return 1 if failed else 0


class TerminalLines(io.TextIOBase):
    """Standard output on a terminal. Control characters, such as those of file names, are escaped."""

    def write(self, text: str) -> int:
        """Write lines with control characters escaped, above a progress bar."""
        with tqdm.external_write_mode(file=sys.stdout):
            return sys.stdout.write("\n".join(escaped(line) for line in text.split("\n")))


@contextmanager
def open_output(path: Path | None) -> Iterator[TextIO]:
    """Open the output for predictions: standard output, or a new file that is renamed to `path` once it is complete."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # file names may not be valid text
        yield cast(TextIO, TerminalLines()) if sys.stdout.isatty() else sys.stdout
        return
    try:
        with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield file
    except OSError as error:
        raise UserError(
            f"--output {path}: cannot be written ({error.strerror or error}); choose another file"
        ) from error


@contextmanager
def open_sorter(args: argparse.Namespace, model: AdaptedModel, program: str) -> Iterator[Sorter]:
    """Open the sorter of files into class folders. On exit, the command that undoes the sorting is logged."""
    sorter = Sorter(args.move or args.link, [*model.classes, *([UNSURE] if args.unsure else [])], bool(args.link))
    try:
        yield sorter
    finally:
        if sorter.close():
            shell = "bash " if program.endswith(".sh") else ""
            log.info("To undo this: %s%s --undo %s", shell, program, shlex.quote(str(sorter.journal)))


def run(
    model: AdaptedModel, sources: Sources, args: argparse.Namespace, file: TextIO, sorter: Sorter | None = None
) -> int:
    """Predict images, write a row for each, and put each file into its class folder if there is a sorter.

    While files are sorted, a terminal shows no rows.

    Args:
        model: The model.
        sources: The images.
        args: Parsed arguments of the command.
        file: Output file of the rows.
        sorter: Sorter that moves or links the files, if any.

    Returns:
        Number of files that could not be put into a folder.

    Raises:
        UserError: If there is no image, or if none can be read and there is no sorter.
    """
    from .stream import predict_all

    write_row, counts = WRITERS[args.format](), Counter[str]()
    shows_rows = not (sorter and isinstance(file, TerminalLines))
    start, done, skipped, failed, unsure = time.monotonic(), 0, 0, 0, 0
    with logging_redirect_tqdm(), tqdm(total=sources.count(), unit="image", disable=None, leave=False) as bar:
        for outcome in predict_all(model, sources):
            bar.update()
            if outcome.problem:
                skipped += 1
                log.warning("skipped %s: %s", one_line(outcome.source.shown), outcome.problem)
                continue
            row = row_of(outcome, model.classes, args.top, args.unsure)
            unsure += bool(args.unsure) and row["class"] == UNSURE
            if sorter:
                row = _put_into_folder(sorter, outcome.source.path, row)
                failed += not row[sorter.done]
                counts.update([sorter.names[row["class"]]] if row[sorter.done] else [])
            try:
                if shows_rows:
                    write_row(file, row)
            except BrokenPipeError:
                if sorter is None:
                    raise
                silence()  # the reader, such as `head`, has closed the pipe, but the files must still be sorted
            done += 1
    if sources.unsupported:
        suffixes = ", ".join(f"{suffix} {count}" for suffix, count in sources.unsupported.most_common())
        log.warning("Images of unsupported formats are skipped: %s; convert them to JPEG or PNG", suffixes)
    _check_any(done, skipped, sorter)
    seconds = time.monotonic() - start
    predicted = f"Predicted {counted(done, 'image')} in {seconds:.1f} s, {done / seconds:.0f} a second"
    not_placed = f"; not {'moved' if args.move else 'linked'}: {failed:,}" if failed else ""
    of_unsure = f"; {UNSURE}: {unsure:,}" if args.unsure else ""
    log.info("%s; skipped: %d%s%s", predicted, skipped, of_unsure, not_placed)
    if sorter and counts:
        log.info("In folders of %s: %s", sorter.folder, some_of([f"{name} {n:,}" for name, n in counts.most_common()]))
    return failed


def _format_of(named: str | None, output: Path | None) -> str:
    """Return the format of the rows: the one that is named, else that of the output file's suffix, else csv."""
    suffix = output.suffix.lower().removeprefix(".") if output else ""
    if named and suffix in WRITERS and suffix != named:
        raise UserError(f"--output {output} is no file of --format {named}; leave out --format, or change the suffix")
    return named or (suffix if suffix in WRITERS else "csv")


def _check_any(done: int, skipped: int, sorter: Sorter | None) -> None:
    """Check that an image was predicted. With a sorter, an earlier command may have sorted all readable files."""
    if not done + skipped:
        aside = ", outside the folder that they are put into" if sorter else ""
        raise UserError(f"there is no image among what you named; give files, folders, or patterns in quotes{aside}")
    if not done and sorter is None:
        raise UserError(f"{counted(skipped, 'file')}, and none is an image that can be read; give others")


def _put_into_folder(sorter: Sorter, path: Path, row: Row) -> Row:
    """Put a file into its class folder and add its new path to the row, or "" if the file cannot be put there."""
    try:
        target = str(sorter.put(path, row["class"]))
    except UserError as error:
        log.warning("%s", error.line)
        target = ""
    top = row.pop("top")  # "top" stays last, since its values are the last columns of the CSV
    return row | {sorter.done: target, "top": top}
