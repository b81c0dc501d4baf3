from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coft.core.errors import UserError
from coft.core.experiment import CONFIG, saved_config
from coft.core.yaml_text import parse_yaml

BOMB = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{{', '.join(f'k{m}: *{chr(97 + n)}' for m in range(9))}}}\n" for n in range(12)
)


@pytest.mark.parametrize(
    "text", [BOMB, "a: &a [*a]", "[" * 5000, "a: [", "a: 1\nb: {c: 1, c: 2}", "a: !!python/object/apply:os.getcwd []"]
)
def test_bad_yaml_and_yaml_bombs_are_value_errors(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_yaml(text)
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(UserError, match="no settings of a run"):
        saved_config(tmp_path)


def test_merged_sections_can_be_overridden() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}


def test_aliases_and_surrogate_characters_are_accepted() -> None:
    assert parse_yaml("a: &a [1]\nb: *a") == {"a": [1], "b": [1]}
    assert parse_yaml(yaml.safe_dump({"name": "caf\udce9"})) == {"name": "caf\udce9"}


def test_a_repeated_key_is_refused_by_both_parsers() -> None:
    for name in ("b", r"caf\udce9"):  # libyaml does not read surrogates
        with pytest.raises(ValueError, match="'a' is listed twice in line 3"):
            parse_yaml(f"a: 1\n\"{name}\": 2\n'a': 3\n")
