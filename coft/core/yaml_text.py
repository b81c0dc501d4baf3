"""Safe parsing of YAML: no tags that construct objects, no duplicate keys, no content inflated by aliases."""

from __future__ import annotations

from typing import Any

import yaml

from .settings import shown

MAX_PARTS = 1_000_000  # maximum number of nodes of a file


class NamedOnce(yaml.constructor.BaseConstructor):
    """Mixin for loaders that rejects duplicate keys, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        """Construct a dict from a mapping node.

        Raises:
            yaml.MarkedYAMLError: If a key is duplicated.
        """
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.MarkedYAMLError(
                        problem=f"{shown(key.value)} is listed twice", problem_mark=key.start_mark
                    )
                names.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Loader(NamedOnce, yaml.SafeLoader):
    """Loader with PyYAML's parser in Python."""


class _FastLoader(NamedOnce, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loader with libyaml, where PyYAML was built with it."""


def parse_yaml(text: str) -> Any:
    """Parse YAML.

    Raises:
        ValueError: If it is invalid, nested too deeply, has a duplicate key, or is inflated by aliases.
    """
    try:
        try:
            content = yaml.load(text, _FastLoader)
        except yaml.YAMLError:  # libyaml rejects lone surrogates, which file names may have
            content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {reason(error)}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check_aliases(content)
    return content


def reason(error: yaml.YAMLError) -> str:
    """Return the problem of a YAML error, at most 160 characters, and its line number."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    return " ".join(problem.split())[:160] + (f" in line {mark.line + 1}" if mark else "")


def check_aliases(content: Any) -> None:
    """Check that nested aliases do not inflate a few lines of YAML to a content too large to process.

    Raises:
        ValueError: If it has more than `MAX_PARTS` nodes, each alias counted.
    """
    waiting, count = [content], 0
    while waiting:
        part, count = waiting.pop(), count + 1
        if count > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS:,} parts, each alias counted")
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part
