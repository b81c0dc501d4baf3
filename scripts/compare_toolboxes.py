"""Trains the same on the `dassl` of two environments, and compares every loss and accuracy.

bash scripts/compare_toolboxes.sh ENVIRONMENT ENVIRONMENT [TRAINER ...] [--opts KEY VALUE ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from scripts.paths import called_from

ROOT = Path(__file__).resolve().parents[1]
TRAINERS = ("CoFT", "UPL", "CoOp")
STEPS = 20  # whose losses have to agree
TOLERANCE = 1e-5

Record = dict[str, Any]


def record(trainer: str, output: str, opts: Sequence[str]) -> Record:
    """Train on the digits with the embedded CLIP, on the `dassl` of this environment.

    Returns:
        `toolbox`: name and version; `losses`: a dict for each step; `accuracies`: by stage and name, percent.
    """
    import train
    import trainers
    from coft.core.experiment import flatten
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed
    from scripts import launch
    from trainers.config import make_cfg
    from trainers.toolbox import dassl_in_use

    words = ["digits", "--backbone", "embedded", "--output-dir", output, *opts]
    arguments = launch.train_arguments(trainer, launch.parse(trainer, words))
    cfg = make_cfg(train.make_parser().parse_args(arguments), trainers.extend_cfg)
    set_random_seed(cfg.SEED)
    built = build_trainer(cfg)
    losses: list[dict[str, float]] = []
    step = built.forward_backward

    def recording_step(batch: Any) -> dict[str, float]:
        losses.append(step(batch))
        return losses[-1]

    built.forward_backward = recording_step
    built.train()
    accuracies = {key: value for key, value in flatten(built.results).items() if "accuracy" in key}
    return {"toolbox": dassl_in_use(), "losses": losses, "accuracies": accuracies}


def record_in(environment: Path, trainer: str, opts: Sequence[str]) -> Record:
    """Run `record` with the Python of another environment.

    Raises:
        SystemExit: If it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "record.json"
        command = [str(environment / "bin" / "python"), "-m", "scripts.compare_toolboxes", trainer, f"{folder}/output"]
        command += ["--record", str(result), "--opts", *opts]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stderr}\nerror: {trainer} failed with {environment}; its message is above")
        return dict(json.loads(result.read_text(encoding="utf-8")))


def compare(trainer: str, first: Record, second: Record) -> dict[str, Any]:
    """A line of the table: how far two records of the same training are apart."""
    apart = [max(abs(a[name] - b[name]) for name in a) for a, b in zip(first["losses"], second["losses"], strict=False)]
    agrees = len(first["losses"]) == len(second["losses"]) and max(apart[:STEPS]) <= TOLERANCE
    return {
        "trainer": trainer,
        "steps": len(apart),
        f"losses apart by, first {STEPS}": f"{max(apart[:STEPS]):.1e}",
        "all": f"{max(apart):.1e}",
        f"accuracy %, {first['toolbox']}": first["accuracies"]["accuracy_test"],
        f"accuracy %, {second['toolbox']}": second["accuracies"]["accuracy_test"],
        "same": agrees and first["accuracies"] == second["accuracies"],
    }


def main(argv: Sequence[str]) -> int:
    """Compare and print the table.

    Returns:
        0 if losses and accuracies agree, else 1.
    """
    parser = argparse.ArgumentParser(prog="scripts/compare_toolboxes.sh", description=__doc__)
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", metavar="ENVIRONMENT ENVIRONMENT TRAINER", help="folders of environments")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="settings of all trainings")
    args = parser.parse_args(argv)
    if args.record:
        args.record.write_text(json.dumps(record(args.words[0], args.words[1], args.opts)), encoding="utf-8")
        return 0
    environments, chosen = [called_from(word) for word in args.words[:2]], args.words[2:] or TRAINERS
    if len(environments) < 2 or not all((folder / "bin" / "python").is_file() for folder in environments):
        parser.error(f"expected the folders of two environments, with bin/python in each, not {args.words[:2]}")
    trainings = tqdm([(folder, name) for name in chosen for folder in environments], "trainings", disable=None)
    records = [record_in(folder, name, args.opts) for folder, name in trainings]
    rows = [compare(name, *pair) for name, *pair in zip(chosen, records[::2], records[1::2], strict=True)]
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".10g"))
    return int(not all(row["same"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
