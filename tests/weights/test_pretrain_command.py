"""Command that rebuilds the CLIPs of drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coft.core.paths import cache_folder
from weights.pretrain import __main__ as command


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["embeded"], "unknown step 'embeded'; did you mean 'embedded'?"),
        (["--steps", "few"], "argument --steps: invalid int value: 'few'"),
        (["embedded", "--steps", "5"], "--steps: would replace the CLIP of the recipe by one of a try"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected}")


@pytest.mark.parametrize("variable", ["cache", ""])
def test_paths_are_relative_to_the_callers_folder(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    monkeypatch.setenv("COFT_CACHE", variable)
    arguments: list[Any] = []
    monkeypatch.setattr(command, "write_report", lambda *args: arguments.extend(args))
    flags = ["--out", "out", "--fashion", "fashion", "--eurosat", "eurosat", "--threads", "1"]
    assert command.main(["report", *flags]) == 0
    args, cache = arguments
    assert [args.out, args.fashion, args.eurosat] == [tmp_path / name for name in ("out", "fashion", "eurosat")]
    assert cache == (tmp_path / variable if variable else cache_folder() / "pretrain")
