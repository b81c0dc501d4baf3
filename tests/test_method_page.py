"""docs/method.md names every key with the value that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from coft.runtime.experiment import flatten
from dassl.config import get_cfg_default
from trainers import extend_cfg

PAGE = Path(__file__).parents[1] / "docs" / "method.md"


def listed_keys() -> dict[str, str]:
    """Keys of the page's table with their values, as it writes them; of OPTIM and DATALOADER none."""
    section = PAGE.read_text(encoding="utf-8").split("## Keys and values")[1]
    found: dict[str, str] = {}
    for line in [line for line in section.splitlines() if line.startswith("|")][2:]:
        keys, values = (cell.strip() for cell in line.strip("| ").split(" | "))
        names = re.findall(r"`([A-Z0-9_.]+)`", keys)
        if "section `OPTIM`" in keys or names[0].startswith("DATALOADER"):
            continue
        prefix = names[0].rpartition(".")[0]
        full = [names[0], *(f"{prefix}.{name}".lstrip(".") for name in names[1:])]
        values = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", values)  # links
        plain = re.sub(r" *\([^()]*\)|`| *•", "", values).split(", ")
        found |= dict(zip(full, plain, strict=True))
    return found


def test_the_page_has_every_key_and_its_value() -> None:
    cfg = get_cfg_default()
    extend_cfg(cfg)
    own: dict[str, Any] = flatten(cfg.TRAINER.COFTPLUS)
    listed = listed_keys()
    assert listed.keys() == own.keys()
    for key, text in listed.items():
        value = own[key] or "none" if isinstance(own[key], str) else own[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        assert (float(text) == value) if number else (text == str(value)), key


def test_keys_of_both_methods_are_the_same_but_for_coft_plus_own() -> None:
    cfg = get_cfg_default()
    extend_cfg(cfg)
    coft, plus = flatten(cfg.TRAINER.COFT), flatten(cfg.TRAINER.COFTPLUS)
    own = {key for key in plus if key.split(".")[0] in ("ROUNDS", "WARM_START", "CONTRAST", "DESCRIPTIONS")}
    assert coft == {key: value for key, value in plus.items() if key not in own}
