"""Run the same training on the `dassl` of two environments, and compare all losses and accuracies.

bash compat/dassl/toolboxes.sh ENVIRONMENT ENVIRONMENT [TRAINER ...] [--opts KEY VALUE ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

RECORD = Path(__file__).resolve().with_name("record.py")
SCRIPT = (RECORD.parent / "../../../scripts/launch.py").resolve()  # of CoFT, the project that contains this package
TRAINERS = ("CoFT", "UPL", "CoOp")
STEPS = 20  # number of first steps whose losses must agree
TOLERANCE = 1e-5

Record = dict[str, Any]


def record(environment: Path, trainer: str, opts: Sequence[str]) -> Record:
    """Train on the digits with the embedded CLIP, using the Python of an environment.

    Returns:
        `toolbox`: name and version of the distribution of `dassl`; `losses`: a dict for each step; `accuracies`:
        percent, by stage and name.

    Raises:
        SystemExit: If the training fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        losses, output = Path(folder) / "losses.json", Path(folder) / "output"
        command = [str(environment / "bin" / "python"), str(RECORD), str(losses), str(SCRIPT), trainer, "digits"]
        command += ["--backbone", "embedded", "--output-dir", str(output), *opts]
        done = subprocess.run(command, cwd=SCRIPT.parents[1], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stderr}\nerror: {trainer} failed with {environment}; its message is above")
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        return {
            "toolbox": summary["versions"]["dassl"],
            "losses": json.loads(losses.read_text(encoding="utf-8")),
            "accuracies": dict(accuracies(summary["results"])),
        }


def accuracies(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield name and value of the accuracies among a run's results, in which stages are nested dicts."""
    for name, value in results.items():
        if isinstance(value, Mapping):
            yield from accuracies(value, f"{prefix}{name}.")
        elif "accuracy" in f"{prefix}{name}":
            yield f"{prefix}{name}", value


def compare(trainer: str, first: Record, second: Record) -> dict[str, Any]:
    """Return a row of the table: the differences between two records of the same training."""
    apart = [max(abs(a[name] - b[name]) for name in a) for a, b in zip(first["losses"], second["losses"], strict=False)]
    agrees = len(first["losses"]) == len(second["losses"]) and max(apart[:STEPS]) <= TOLERANCE
    return {
        "trainer": trainer,
        "steps": len(apart),
        f"difference of losses, first {STEPS}": f"{max(apart[:STEPS]):.1e}",
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
    parser = argparse.ArgumentParser(prog="compat/dassl/toolboxes.sh", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="ENVIRONMENT ENVIRONMENT TRAINER", help="folders of environments")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="settings of all trainings")
    args = parser.parse_args(argv)
    place = Path(os.environ.get("CALLED_FROM", "")).absolute()  # base of relative paths
    environments, chosen = [place / Path(word).expanduser() for word in args.words[:2]], args.words[2:] or TRAINERS
    if len(environments) < 2 or not all((folder / "bin" / "python").is_file() for folder in environments):
        parser.error(f"expected the folders of two environments, with bin/python in each, not {args.words[:2]}")
    if not SCRIPT.is_file():
        parser.error(f"{SCRIPT} is not there, which trains; take this folder as a part of CoFT for Dassl")
    trainings = tqdm([(folder, name) for name in chosen for folder in environments], "trainings", disable=None)
    records = [record(folder, name, args.opts) for folder, name in trainings]
    rows = [compare(name, *pair) for name, *pair in zip(chosen, records[::2], records[1::2], strict=True)]
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".10g"))
    return int(not all(row["same"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
