"""YAML from outside: no tags that make objects, no key twice, nothing that is large through aliases."""

from __future__ import annotations

from typing import Any

import yaml

from .settings import shown

MOST_PARTS = 1_000_000  # of a file


class NamedOnce(yaml.constructor.BaseConstructor):
    """Mixin for loaders, by which a key that stands twice is a mistake. YAML itself would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        """Make a dict of a section's keys and values.

        Raises:
            yaml.MarkedYAMLError: If a key stands there twice.
        """
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.MarkedYAMLError(problem=f"{shown(key.value)} stands twice", problem_mark=key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Loader(NamedOnce, yaml.SafeLoader):
    """Reads what PyYAML's own parser reads."""


class _FastLoader(NamedOnce, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads by libyaml, where PyYAML has it."""


def parse_yaml(text: str) -> Any:
    """What YAML says.

    Raises:
        ValueError: If it is none, nested too deeply, names a key twice, or is large through aliases.
    """
    try:
        try:
            content = yaml.load(text, _FastLoader)
        except yaml.YAMLError:  # libyaml knows no half characters, which names of files may have
            content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {reason(error)}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check_aliases(content)
    return content


def reason(error: yaml.YAMLError) -> str:
    """What is wrong with YAML, and in which line, in at most 180 characters."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    return " ".join(problem.split())[:160] + (f" in line {mark.line + 1}" if mark else "")


def check_aliases(content: Any) -> None:
    """Refuse what a few lines of YAML make so large, by aliases of aliases, that nobody can go through it.

    Raises:
        ValueError: If it has more than `MOST_PARTS` parts.
    """
    waiting, count = [content], 0
    while waiting:
        part, count = waiting.pop(), count + 1
        if count > MOST_PARTS:
            raise ValueError(f"more than {MOST_PARTS:,} parts, each alias counted")
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part
