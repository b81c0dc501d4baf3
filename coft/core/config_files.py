"""Config files and command-line values: read as text first, then converted by the declared type of each key."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError, did_you_mean
from .settings import Key, shown
from .untrusted import read_text
from .yaml_text import NamedOnce, check_aliases, reason

SUFFIXES = (".yaml", ".yml")
LARGEST = 1 << 20  # bytes; upper bound of the size of a config file
PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str")}
NOTHING = ("", "~", "null", "Null", "NULL")
BOOLS = {"true": True, "false": False}  # spelling of YAML
QUOTED = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*""", re.S)
EXAMPLE = "expected sections with keys, such as OPTIM: {LR: 0.1}"


class Loader(NamedOnce, yaml.BaseLoader):
    """YAML loader that returns all scalars as strings, and rejects duplicate keys and tags."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct the value of a node; None for an empty or null scalar."""
        if node.tag not in PLAIN:
            raise yaml.MarkedYAMLError(problem=f"{shown(node.tag)} is a tag", problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode) and node.style is None and node.value in NOTHING:
            return None
        return super().construct_object(node, deep=True)


def read_config(flag: str, path: str) -> dict[Any, Any]:
    """Read a config file.

    Args:
        flag: Option that named the file, for error messages.
        path: The file.

    Returns:
        Its content, nested, with strings as values; empty for an empty file.

    Raises:
        UserError: If the file cannot be read, or does not hold a YAML mapping.
    """
    try:
        content = yaml.load(_text(flag, Path(path)), Loader)
        check_aliases(content)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no YAML that can be read ({reason(error)}); correct it") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply; {EXAMPLE}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; {EXAMPLE}") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} holds {shown(content)}; {EXAMPLE}")
    return content or {}


def _text(flag: str, file: Path) -> str:
    if file.suffix not in SUFFIXES:
        raise UserError(f"{flag} {file}: a config is YAML and its name ends in {' or '.join(SUFFIXES)}; rename it")
    if not file.is_file():
        names = [str(path) for suffix in SUFFIXES for path in file.parent.glob(f"*{suffix}") if path.is_file()]
        raise UserError(f"{flag} {file}: no such file; {did_you_mean(str(file), names) if names else 'check the path'}")
    if file.stat().st_size > LARGEST:
        raise UserError(f"{flag} {file}: too large for a config ({file.stat().st_size} bytes); check the path")
    try:
        return read_text(file, LARGEST, "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {file}: is no text in UTF-8; check the path") from error


def literal(text: str) -> Any:
    """Evaluate a text as a Python literal (or a boolean of YAML); return the text itself if it is neither."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return BOOLS.get(text, text)


def evaluated(key: Key, value: Any) -> Any:
    """Evaluate the text given for a key, and text entries of a list, unless the key's type is text."""
    if isinstance(value, str) and (key.is_list or key.kind is not str):
        value = literal(value)
    if isinstance(value, (list, tuple)) and key.kind is not str:
        return [literal(entry) if isinstance(entry, str) else entry for entry in value]
    return value


def unquoted(text: str) -> Any:
    """Remove the quotes around a text from the command line. A text that begins with a bracket is evaluated."""
    return literal(text.strip()) if QUOTED.fullmatch(text) or text.startswith(("[", "(", "{")) else text
