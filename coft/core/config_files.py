"""Reading config files: YAML and nothing else, and what is wrong with one in a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from coft.core.errors import UserError, did_you_mean
from coft.core.settings import shown

SUFFIXES = (".yaml", ".yml")
LARGEST = 1 << 20  # bytes; no config has as many
# YAML 1.1 takes 010 for eight and 1:30 for ninety: here such texts stay what they are.
ODD_NUMBER = re.compile(r"[-+]?0[0-9_]+$|.*:")


class Loader(yaml.SafeLoader):
    """Plain YAML, in which a key that stands twice is a mistake, and 010 is not eight."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        """Refuse a key that stands twice, of which YAML would take the last."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.MarkedYAMLError(problem=f"{shown(name)} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)


def _number(loader: Any, node: yaml.ScalarNode) -> Any:
    plain = str(node.value)
    if ODD_NUMBER.match(plain):
        return plain
    construct = loader.construct_yaml_int if node.tag.endswith(":int") else loader.construct_yaml_float
    return construct(node)


for _tag in ("int", "float"):
    Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


def read_config(flag: str, path: str) -> dict[Any, Any]:
    """Read a config file.

    Args:
        flag: What named it, for errors.
        path: The file.

    Returns:
        What it says, nested; empty if it says nothing.

    Raises:
        UserError: If it cannot be read, or is no mapping in YAML.
    """
    try:
        content = yaml.load(_text(flag, Path(path)), Loader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(
            f"{path}: no YAML that can be read ({error.problem or error.context}{line}); mend it"
        ) from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: no YAML that can be read ({reason}); mend it") from error
    except RecursionError as error:
        raise UserError(
            f"{path}: nested too deeply; a config has sections and keys, such as OPTIM: {{LR: 0.1}}"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {shown(content)}; expected sections with keys, such as OPTIM: {{LR: 0.1}}")
    return content


def _text(flag: str, file: Path) -> str:
    """Read a file as text.

    Raises:
        UserError: If it is missing, no file, no YAML by its name, too large, or no text.
    """
    try:
        if file.is_dir():
            raise UserError(f"{flag} {file}: is a folder; give a {SUFFIXES[0]} file in it")
        if not file.exists():
            names = [str(p) for suffix in SUFFIXES for p in file.parent.glob(f"*{suffix}")]
            raise UserError(
                f"{flag} {file}: no such file; {did_you_mean(str(file), names) if names else 'check the path'}"
            )
        if file.suffix not in SUFFIXES:
            raise UserError(f"{flag} {file}: a config is YAML and its name ends in {' or '.join(SUFFIXES)}; rename it")
        if not file.is_file():
            raise UserError(f"{flag} {file}: is no plain file; give a {SUFFIXES[0]} file")
        if file.stat().st_size > LARGEST:
            raise UserError(f"{flag} {file}: too large for a config ({file.stat().st_size} bytes); check the path")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {file}: is no text in UTF-8; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{flag} {file}: cannot be read ({reason}); see to the path and its permissions") from error
