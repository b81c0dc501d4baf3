"""One entry point for every trainer, with CoOp's flags: `python train.py --help`."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from coft.core.startup import configure_process

configure_process()

import torch  # noqa: E402

import datasets  # noqa: E402, F401
import trainers  # noqa: E402
from coft.core import processes  # noqa: E402
from coft.core.errors import Parser, UserError  # noqa: E402
from coft.core.exit_codes import INTERRUPTED, MISTAKE, as_user_error, guarded  # noqa: E402
from coft.core.experiment import CONFIG, FREE_KEYS, RUN_FILES, check_unclaimed, claim, flatten  # noqa: E402
from coft.core.files import ensure_folder  # noqa: E402
from coft.core.lock import exclusive_lock  # noqa: E402
from coft.core.progress import TqdmHandler, WarningPrefix, user_log  # noqa: E402
from coft.core.untrusted import read_text  # noqa: E402
from coft.core.world import World  # noqa: E402
from coft.engine.run_progress import show_progress  # noqa: E402
from dassl.engine import build_trainer  # noqa: E402
from dassl.utils import set_random_seed, setup_logger  # noqa: E402
from trainers.base import MethodTrainer  # noqa: E402
from trainers.config import make_cfg  # noqa: E402
from trainers.reporting import report_results  # noqa: E402
from trainers.toolbox import dassl_in_use  # noqa: E402

log = logging.getLogger(__name__)
STOPPED = "interrupted; run the same command to resume from the last finished epoch"


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of CoOp's flags."""
    parser = Parser(description="Train or evaluate a trainer on a data set.")
    parser.add_argument("--root", default="", help="folder of all data sets")
    parser.add_argument("--output-dir", default="", help="folder for results and checkpoints")
    parser.add_argument("--resume", default="", help="output folder to resume from")
    parser.add_argument("--seed", type=int, help="random seed; default: a random one")
    parser.add_argument("--source-domains", nargs="+", help="source domains, for domain adaptation")
    parser.add_argument("--target-domains", nargs="+", help="target domains, for domain adaptation")
    parser.add_argument("--transforms", nargs="+", help="data augmentation of labelled images")
    parser.add_argument("--config-file", default="", help="config of the trainer")
    parser.add_argument("--dataset-config-file", default="", help="config of the data set")
    parser.add_argument("--trainer", default="", help="name of the trainer")
    parser.add_argument("--backbone", default="", help="OpenAI's name of a CLIP, a checkpoint's path, or 'embedded'")
    parser.add_argument("--head", default="", help="name of a head")
    parser.add_argument("--eval-only", action="store_true", help="evaluate a checkpoint")
    parser.add_argument("--model-dir", default="", help="with --eval-only: output folder to load from")
    parser.add_argument("--load-epoch", type=int, help="with --eval-only: epoch to load; else the best or the last")
    parser.add_argument("--no-train", action="store_true", help="build the trainer without training it")
    parser.add_argument("--quiet", action="store_true", help="print warnings only; log.txt has everything")
    parser.add_argument("--brief", action="store_true", help="print a short summary; log.txt has everything")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="settings by name")
    return parser


def run(args: argparse.Namespace) -> None:
    """Train or evaluate as the arguments say.

    Raises:
        UserError: If something is wrong that the user can fix. An output folder that this run created, and that has no
            checkpoint yet, is removed first.
    """
    world = processes.world()
    check_flags(args)
    cfg = make_cfg(args, trainers.extend_cfg)
    agree(cfg, world)
    set_random_seed(cfg.SEED)
    with ExitStack() as stack:
        if world.is_main and args.eval_only:
            folder = Path(cfg.OUTPUT_DIR)
            if not any((folder / name).exists() for name in (CONFIG, "log.txt")):  # neither a run nor an evaluation
                check_unclaimed(folder, "--output-dir")
            stack.enter_context(emptied_after_mistakes(folder))
        with processes.main_process_first(world):
            if not args.eval_only:
                stack.enter_context(taken(cfg, world))
        perform(cfg, args)


def check_flags(args: argparse.Namespace) -> None:
    """Check that no given flag would be ignored.

    Raises:
        UserError: If one would; the message names it.
    """
    if args.eval_only and args.resume:
        raise UserError("--resume: is not read with --eval-only; leave it out, --model-dir names what is evaluated")
    for flag, value in {"--model-dir": args.model_dir, "--load-epoch": args.load_epoch}.items():
        if value not in ("", None) and not args.eval_only:
            raise UserError(f"{flag}: is only valid with --eval-only; add that, or leave {flag} out")


def perform(cfg: Any, args: argparse.Namespace) -> None:
    """Run `work`, and restore the standard streams, which Dassl's logger replaces."""
    streams = sys.stdout, sys.stderr
    try:
        work(cfg, args)
    finally:
        sys.stdout, sys.stderr = streams


def missing(folder: Path) -> list[Path]:
    """Return the paths among a folder and its parents that do not exist."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def run_files(folder: Path) -> set[Path]:
    """Return the files and folders in an output folder whose names are those that a run writes."""
    return {folder / name for name in RUN_FILES if os.path.lexists(folder / name)}


@contextmanager
def emptied_after_mistakes(folder: Path, new: Sequence[Path] | None = None) -> Iterator[None]:
    """Context of a run that removes what it wrote to its output folder if it fails before its first checkpoint.

    Args:
        folder: The output folder.
        new: Folders created for the run: the output folder and its parents. Default: those that do not exist on entry.
    """
    new = missing(folder) if new is None else new
    before = run_files(folder)
    try:
        yield
    except Exception:
        if not any(place for pattern in ("*.pth.tar*", "*/*.pth.tar*") for place in folder.glob(pattern)):
            for path in run_files(folder) - before:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            for place in new:
                with suppress(OSError):  # not empty if somebody else has written to it
                    place.rmdir()
        raise


def agree(cfg: Any, world: World) -> None:
    """Check that all processes have the same settings, and give all of them the seed of rank 0, which may be drawn.

    Raises:
        UserError: If settings differ, or the installed Dassl does not support several processes.
    """
    if world.is_single:
        return
    if not dassl_in_use().startswith("dassl-compat"):
        raise UserError(
            f"several processes need the dassl of compat/dassl, and this environment has {dassl_in_use()}; start one "
            f"process, or use the environment that scripts/setup.sh makes"
        )
    cfg.defrost()
    cfg.SEED = int(world.gather_text(str(cfg.SEED))[0])
    cfg.freeze()
    settings = {k: v for k, v in flatten(cfg).items() if k not in FREE_KEYS}
    processes.check_same(world, settings, "start all of them with the same command")


@contextmanager
def taken(cfg: Any, world: World) -> Iterator[None]:
    """Context in which the run owns the output folder; the main process locks and claims it for all processes.

    Raises:
        UserError: If the folder cannot be claimed, or another process does not see it.
    """
    folder = Path(cfg.OUTPUT_DIR)
    if world.is_main:
        new = missing(folder)
        ensure_folder(folder, "--output-dir")
        # Within the lock: a process that had to wait for another run must not remove the files of that run.
        with exclusive_lock(folder), emptied_after_mistakes(folder, new):
            claim(cfg)
            yield
        return
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"output folder {cfg.OUTPUT_DIR} of rank 0 is not visible to this process; choose an --output-dir on "
            f"a disk that all machines share"
        )
    yield


def work(cfg: Any, args: argparse.Namespace) -> None:
    """Build the trainer and use it, logging to the output folder. Ranks other than the main one print nothing."""
    terminal, world = sys.stderr, processes.world()
    if not world.is_main:
        os.environ["DASSL_PROGRESS"] = "0"
        sys.stdout = sys.stderr = terminal = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    begin_log(Path(cfg.OUTPUT_DIR, "log.txt" if world.is_main else f"log-rank{world.rank}.txt"))
    logging.disable(logging.NOTSET)  # upstream Dassl switches all logging off when it is imported
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, force=True)
    if args.quiet or args.brief:
        hush(terminal, args.quiet)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(WarningPrefix())
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it logs its caches at INFO
    torch.backends.cudnn.benchmark = torch.cuda.is_available() and cfg.USE_CUDA
    print(f"Toolbox: {dassl_in_use()}\nSeed: {cfg.SEED}")
    if not world.is_single:
        print(f"Processes: {world.size}")
    trainer = build_trainer(cfg)
    # After the build, so that the one-line error of a mistake is easy to find. CoOp's tools parse the config in logs.
    print(f"** Config **\n{cfg}\n", file=getattr(sys.stdout, "file", None) or sys.stdout, flush=True)
    try:
        use(trainer, args)
    finally:
        trainer.close_writer()  # else its thread keeps writing, even if the folder has been removed


def use(trainer: Any, args: argparse.Namespace) -> None:
    """Train or evaluate with a trainer."""
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    elif not args.no_train:
        if not isinstance(trainer, MethodTrainer):  # a trainer of Dassl or of another plugin
            trainer.train()
            return
        with show_progress(trainer.session.progress, trainer.spec.trainer) if args.brief else nullcontext():
            trainer.train()
        report_results(trainer)


def begin_log(path: Path) -> None:
    """Copy printed output to a log file, and keep the log of an earlier part of the run as its beginning.

    Dassl's `setup_logger` would write another file if this one exists. It is given the file instead of the folder
    because it would take a folder whose name ends in ".txt" for a file.
    """
    earlier = path.with_name(f"{path.stem}-earlier.txt")
    if path.exists():
        path.replace(earlier)
    setup_logger(str(path))
    if earlier.exists():
        cast(Any, sys.stdout).file.write(read_text(earlier, errors="backslashreplace"))
        earlier.unlink()


def hush(terminal: TextIO, quiet: bool) -> None:
    """Restrict the terminal to warnings and, unless `quiet`, messages to the user; the log file has everything."""
    os.environ["DASSL_PROGRESS"] = "0"
    cast(Any, sys.stdout).console = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    seen = TqdmHandler(terminal)
    seen.addFilter(lambda record: record.levelno >= logging.WARNING or (record.name == user_log.name and not quiet))
    logging.getLogger().addHandler(seen)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and report errors in one line.

    Returns:
        The exit code: 0, 2 after a mistake of the user, 130 after an interrupt.
    """

    def work() -> int:
        try:
            processes.join()
            run(make_parser().parse_args(argv))
            processes.leave()
        except KeyboardInterrupt as error:
            processes.fail(error, STOPPED, INTERRUPTED)
            raise
        except Exception as error:
            mistake = as_user_error(error)
            log.debug("ends", exc_info=True)
            words = mistake.line if mistake else f"{type(error).__name__}: {error}".splitlines()[0]
            processes.fail(error, words, MISTAKE if mistake else 1)
            raise
        return 0

    return guarded(work, STOPPED)


if __name__ == "__main__":
    sys.exit(main())
