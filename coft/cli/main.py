"""The command `coft` and its subcommands. Modules of a subcommand are imported only when it is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coft
from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.exit_codes import guarded
from coft.core.experiment import require_finished
from coft.core.paths import HOME, INSTALLED, expanded
from coft.core.startup import configure_process

from .adapt import main as adapt

Command = Callable[..., int]
OVERVIEW = """usage: coft COMMAND ...

Fine-tune CLIP to your images without a single label.

  coft adapt photos --classes "tabby cat, golden retriever"

commands:
{commands}

coft COMMAND --help shows the options of a command, coft --version the version."""


def _checkout_command(name: str) -> Command:
    """Make a subcommand that runs a script of a checkout: it needs data sets and trainers that the package lacks."""

    def call(argv: Sequence[str]) -> int:
        if INSTALLED:
            raise UserError(f"coft {name}: needs a checkout of the project; there it is: bash scripts/{name}.sh")
        return subprocess.call(["bash", str(HOME / "scripts" / f"{name}.sh"), *argv])

    return call


def _predict(argv: Sequence[str], *options: Any) -> int:
    from coft.inference.predict import main

    return main(argv, *options)


def _export(argv: Sequence[str], *options: Any) -> int:
    from coft.inference.export.command import main

    return main(argv, *options)


def _review(argv: Sequence[str], *options: Any) -> int:
    from coft.review.command import main

    return main(argv, *options)


def report(argv: Sequence[str], program: str = "coft report", resolve: Callable[[str], Path] = expanded) -> int:
    """Write the report of a finished run.

    Args:
        argv: Command-line arguments.
        program: Name of the command in help and messages.
        resolve: Function that resolves a path argument.

    Returns:
        The exit code.
    """
    parser = Parser(prog=program, description="Write the report of a finished run: report.html, a single page.")
    parser.add_argument("run", type=resolve, metavar="RUN", help="output folder of a finished run")
    run = parser.parse_args(argv).run
    require_finished(run)
    from coft.report.write import write_report

    print(f"  {write_report(run)}")
    return 0


def settings(argv: Sequence[str]) -> int:
    """Print the settings of a method in the form that `coft adapt` takes: name, value for a backbone, meaning."""
    from coft.core.settings import flatten
    from coft.engine.config import METHODS, build_config, keys_by_python_name, spec_of

    parser = Parser(prog="coft settings", description="List the settings of coft adapt, which it takes as NAME=VALUE.")
    parser.add_argument(
        "word", nargs="?", default="", metavar="WORD", help="list only settings whose line contains this word"
    )
    parser.add_argument("--method", default="coft", choices=METHODS, help="default: coft")
    parser.add_argument("--backbone", default="photo", help="backbone whose default values are shown; default: photo")
    args = parser.parse_args(argv)
    spec = spec_of(args.method)
    values = flatten(build_config(spec, args.backbone, 1, "", {}).tree())
    lines = [f"{name}={values[key.name]!r}  {key.help}" for name, key in keys_by_python_name(spec).items()]
    if not (matching := [line for line in lines if args.word.lower() in line.lower()]):
        raise UserError(f"no setting has {args.word!r} in its name or meaning; coft settings lists all")
    print("\n".join(matching))
    return 0


# Scripts call these as well, and pass their own name and a function that resolves paths from the caller's folder.
RUN_COMMANDS: dict[str, Command] = {"predict": _predict, "export": _export, "report": report, "review": _review}
COMMANDS: dict[str, tuple[Command, str]] = {
    "adapt": (adapt, "fine-tune a CLIP to a folder of images, and label them"),
    "predict": (_predict, "classes of images by a finished run, as CSV or JSON lines; sorts them into folders"),
    "export": (_export, "the model of a finished run for open_clip, ONNX, or as vectors of the classes"),
    "report": (report, "write report.html of a finished run again"),
    "review": (_review, "correct the classes of a finished run on a local page: rename, merge, split, synonyms"),
    "settings": (settings, "list the settings of coft adapt (NAME=VALUE) with their defaults"),
    "run": (_checkout_command("run"), "any trainer on a data set of Dassl's registry (needs a checkout)"),
    "compare": (_checkout_command("compare"), "methods side by side on benchmarks (needs a checkout)"),
    "data": (_checkout_command("data"), "get the data sets of the benchmarks (needs a checkout)"),
}


def overview() -> str:
    """Return the text of `coft --help`."""
    width = max(map(len, COMMANDS))
    return OVERVIEW.format(commands="\n".join(f"  {name:{width}}  {help}" for name, (_, help) in COMMANDS.items()))


def main(argv: Sequence[str]) -> int:
    """Run a subcommand, and report a user error as one line on standard error.

    Args:
        argv: The subcommand and its arguments.

    Returns:
        The exit code: that of the subcommand (0 on success), 2 for a user error, 130 for an interrupt.
    """
    return guarded(
        lambda: call_command(argv), "interrupted; run the same command to resume from the last finished epoch"
    )


def call_command(argv: Sequence[str]) -> int:
    """Call the subcommand that the first argument names, or print the overview of all subcommands.

    Raises:
        UserError: If the subcommand is unknown.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        print(f"coft {coft.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        raise UserError(f"unknown command {argv[0]!r}; {did_you_mean(argv[0], COMMANDS)}")
    return COMMANDS[argv[0]][0](argv[1:])


def run() -> None:
    """Entry point of the command `coft`: runs it and exits."""
    configure_process()
    sys.exit(main(sys.argv[1:]))
