"""``python -m weights.pretrain``: rebuild the embedded CLIPs from packages; see weights/README.md."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.exit_codes import guarded
from scripts.paths import called_from, pretraining_cache
from weights.pretrain.card_tables import closing_tasks, coverage_table, description_texts, markdown, report
from weights.pretrain.run import RECIPES, Pretraining

ROOT = Path(__file__).resolve().parents[2]
STEPS = [*RECIPES, "report"]


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="scripts/pretrain.sh", description="Rebuild the embedded CLIPs.")
    parser.add_argument("what", nargs="*", default=STEPS, help="steps, in order")
    parser.add_argument("--out", type=called_from, default=ROOT / "weights", help="where checkpoints and records go")
    parser.add_argument("--steps", type=int, help="train this many steps instead of the recipe's")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--fashion", type=called_from, help="folder of Fashion-MNIST's idx files, for the report")
    parser.add_argument("--eurosat", type=called_from, help="folder of EuroSAT in CoOp's layout, for the report")
    return parser.parse_args(argv)


def write_report(args: argparse.Namespace, cache_dir: Path) -> None:
    """Evaluate the checkpoints and write the tables of the card."""
    checkpoints = [path for name in RECIPES if (path := args.out / f"{name}.pt").is_file()]
    tasks = list(closing_tasks(cache_dir, args.fashion, args.eurosat))
    names = {task.name: task.classnames for task in tasks if "," not in task.name}
    names |= description_texts(ROOT / "datasets" / "descriptions")
    tables = [markdown(report(checkpoints, tasks)), markdown(coverage_table(checkpoints[0], names))]
    (args.out / "results.md").write_text("\n".join(tables))


def main(argv: Sequence[str]) -> int:
    """Run the steps that the arguments name. Returns the exit code."""
    return guarded(lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    args = _arguments(argv)
    if unknown := [name for name in args.what if name not in STEPS]:
        raise UserError(f"unknown step {unknown[0]!r}; {did_you_mean(unknown[0], STEPS)}")
    if args.steps and args.out.resolve() == (ROOT / "weights").resolve():
        raise UserError("--steps: would replace the CLIP of the recipe by one of a try; give another --out")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    cache_dir = pretraining_cache()
    trained = [name for name in args.what if name in RECIPES]
    if trained:
        pretraining = Pretraining.from_packages(cache_dir, args.out)
        for name in trained:
            recipe = RECIPES[name]
            pretraining.train(name, replace(recipe, steps=args.steps) if args.steps else recipe)
    if "report" in args.what:
        write_report(args, cache_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
