"""The benchmark's numbers as a table and as JSON."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from coft.core.errors import UserError
from coft.core.experiment import write_json
from coft.core.files import replacing

from .measure import Measured, clock_of

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "asimd", "sve", "bf16")  # that decide how fast it is
TITLES = (
    "geometry",
    "classes",
    "way",
    "seconds",
    "min to max",
    "plain's / its",
    "cut's / its",
    "peak GB",
    "plain's GB / its",
    "TFLOP",
    "of matmul rate",
    "difference",
)
ALIGN = ("left", "right", "left", *["right"] * (len(TITLES) - 3))
GIGA, TERA = 1e9, 1e12


def machine(device: str, threads: int) -> dict[str, Any]:
    """What the numbers depend on, of the machine."""
    facts: dict[str, Any] = {"torch": torch.__version__, "device": device}
    if device == "cuda":
        return facts | {"GPU": torch.cuda.get_device_name()}
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    known = fields.get("flags", fields.get("Features", "")).split()
    return facts | {
        "CPU": fields.get("model name", platform.machine()),
        "flags": [flag for flag in FLAGS if flag in known],
        "cores": os.cpu_count(),
        "threads": threads,
        "load before": round(os.getloadavg()[0], 1),
    }


class Report:
    """Rows that are found one after another.

    Args:
        path: The table's file; its neighbour of the same name, .json, has all numbers.
        facts: See `machine`.
        command: What was run.
        repeats: Number of timed steps.
    """

    def __init__(self, path: Path, facts: dict[str, Any], command: str, repeats: int) -> None:
        self.path, self.facts, self.command, self.repeats = path, facts, command, repeats
        self.rows: list[Measured] = []

    def add(self, rows: Sequence[Measured]) -> None:
        """Add rows, in the place of those of the same settings, and write all.

        Raises:
            UserError: If that cannot be.
        """
        known = {row.setting: row for row in [*self.rows, *rows]}
        self.rows = list(known.values())
        facts = self.facts | ({"load after": round(os.getloadavg()[0], 1)} if "load before" in self.facts else {})
        content = {"command": self.command, "machine": facts, "rows": [_plain(row) for row in self.rows]}
        try:
            with replacing(self.path) as draft:
                draft.write_text(self.markdown(facts), encoding="utf-8")
            write_json(self.path.with_suffix(".json"), content)
        except OSError as error:
            raise UserError(f"--out {self.path}: cannot be written ({error}); choose another") from error

    def markdown(self, facts: dict[str, Any]) -> str:
        """The table with what it was measured with."""
        said = "; ".join(f"{k}: {' '.join(v) if isinstance(v, list) else v}" for k, v in facts.items())
        return f"```bash\n{self.command}\n```\n\n{self.table('github')}\n\n{said}; {self.repeats} repeats.\n"

    def table(self, style: str) -> str:
        """All rows as a table in a style of the package tabulate."""
        cells = [self._cells(row) for row in self.rows]
        return tabulate(cells, TITLES, tablefmt=style, disable_numparse=True, colalign=ALIGN)

    def _cells(self, row: Measured) -> list[str]:
        setting = row.setting
        others = {other.setting.way: other for other in self.rows if other.setting.but(way=setting.way) == setting}
        plain, cut = others.get("plain"), others.get("cut")
        return [
            setting.geometry,
            f"{setting.classes:,}",
            setting.way + (" (extrapolated)" if row.extrapolated else ""),
            number(row.median),
            f"{number(min(row.seconds))} to {number(max(row.seconds))}",
            _ratio(plain.median if plain else None, row.median),
            _ratio(cut.median if cut else None, row.median),
            f"{row.peak / GIGA:.1f}",
            _ratio(plain.peak if plain else None, row.peak),
            f"{row.flops / TERA:.2f}",
            "" if math.isnan(row.rate_share) else f"{row.rate_share:.0%}",
            "" if row.error is None or setting.way == row.against else f"{row.error:.0e}",
        ]


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(other: float | None, own: float) -> str:
    return "" if not other else f"{other / own:.2f}"


def _plain(row: Measured) -> dict[str, Any]:
    share = None if math.isnan(row.rate_share) else row.rate_share
    return asdict(row) | {"median": row.median, "rate_share": share, "clock": clock_of(row.setting)}
