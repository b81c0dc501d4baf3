"""Run a script that trains with Dassl, and record the numbers that each step reports.

python record.py LOSSES SCRIPT [argument ...]
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

from dassl import engine


def main(losses: str, script: str, *arguments: str) -> None:
    """Run the script as `python` would, then write a JSON list with a dict of numbers for each step."""
    steps: list[dict[str, float]] = []
    build_trainer = engine.build_trainer

    def build_recorded(cfg: Any) -> Any:
        trainer = build_trainer(cfg)
        forward_backward = trainer.forward_backward

        def step(*batch: Any) -> Any:
            steps.append(forward_backward(*batch))
            return steps[-1]

        trainer.forward_backward = step
        return trainer

    engine.build_trainer = build_recorded
    sys.path[0], sys.argv = str(Path(script).parent), [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    Path(losses).write_text(json.dumps(steps), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
