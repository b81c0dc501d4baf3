"""``python -m weights.photographs``: rebuild the CLIPs of photographs from packages; see weights/photographs.md."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from coft.runtime.errors import Parser, UserError
from weights.photographs.build import MODELS, Builder
from weights.photographs.report import report

ROOT = Path(__file__).resolve().parents[2]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="scripts/pretrain.sh", description="Rebuild the CLIPs of photographs.")
    parser.add_argument(
        "what", nargs="+", choices=[*MODELS, "report"], help="what to build; and the tables of the card"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "weights", help="where the folders of the CLIPs go")
    parser.add_argument("--steps", type=int, help="train the text tower for so many steps instead of the recipe's")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", type=Path, help="folder of all data sets, for accuracies in the report")
    return parser


def main(argv: Sequence[str]) -> int:
    """Build what was asked for. Returns the exit code."""
    try:
        args = _parser().parse_args(argv)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)
        torch.set_num_threads(args.threads)
        cache = Path(os.environ.get("COFT_CACHE", ROOT / "cache/pretrain")) / "photographs"
        builder = Builder(cache, args.out)
        for name in filter(MODELS.__contains__, args.what):
            started = time.monotonic()
            folder = builder.build(name, args.steps)
            logging.info("%s is ready, after %.0f minutes", folder, (time.monotonic() - started) / 60)
        if "report" in args.what:
            names = [name for name in MODELS if (args.out / name).is_dir()]
            (args.out / "photographs-report.md").write_text(report(builder, names, args.data), encoding="utf-8")
    except UserError as error:
        print(f"error: {error.line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
