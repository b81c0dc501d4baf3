"""`python -m weights.photographs`: rebuild the CLIPs of photographs from packages; see weights/photographs.md."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from coft.core.errors import Parser, UserError
from coft.core.exit_codes import guarded
from coft.core.files import replacing
from scripts.paths import called_from, pretraining_cache
from weights.photographs.build import MODELS, Builder
from weights.photographs.card_tables import report

ROOT = Path(__file__).resolve().parents[2]
REPORT = "photo-report"


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="scripts/pretrain.sh", description="Rebuild the CLIPs of photographs.")
    parser.add_argument("what", nargs="+", choices=[*MODELS, REPORT], help="what to build; and the tables of the card")
    parser.add_argument("--out", type=called_from, default=ROOT / "weights", help="where the folders of the CLIPs go")
    parser.add_argument("--steps", type=_count, help="of the text tower's training, for a try; with --out")
    parser.add_argument("--threads", type=_count, default=os.cpu_count())
    parser.add_argument("--data", type=called_from, help="folder of all data sets, for accuracies in the report")
    return parser


def main(argv: Sequence[str]) -> int:
    """Build the CLIPs and tables that the arguments name. Returns the exit code."""
    return guarded(lambda: _build(argv))


def _build(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.steps and args.out.resolve() == (ROOT / "weights").resolve():
        raise UserError("--steps: would replace the CLIP of the recipe by one of a try; give another --out")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    torch.set_num_threads(args.threads)
    builder = Builder(pretraining_cache() / "photographs", args.out)
    for name in filter(MODELS.__contains__, args.what):
        start = time.monotonic()
        folder = builder.build(name, args.steps)
        logging.info("%s is ready, after %.0f minutes", folder, (time.monotonic() - start) / 60)
    if REPORT in args.what:
        _write_report(builder, args.data)
    return 0


def _write_report(builder: Builder, data: Path | None) -> None:
    names = [name for name in MODELS if (builder.out / name).is_dir()]
    if not names:
        raise UserError(f"--out {builder.out}: has none of {', '.join(MODELS)}; build one first")
    if data and not data.is_dir():
        raise UserError(f"--data {data}: no such folder; give the folder of all data sets")
    with replacing(builder.out / "photographs-report.md") as draft:
        draft.write_text(report(builder, names, data), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
