"""Entering what a user wrote into a config: each value checked, and its origin remembered for errors."""

from __future__ import annotations

from typing import Any

from coft.core.errors import UserError, did_you_mean
from coft.core.settings import SettingError, checked, join, shown
from coft.core.values import evaluated, unquoted

from .sections import check_sections, known_keys, node_of, section_names

NAME = 80  # letters of an unknown key that an error shows


class Merger:
    """A config that values are entered into.

    Args:
        cfg: The config, with all its defaults; changed in place.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.known = known_keys(cfg)
        self.sections = section_names(cfg)
        self.origins: dict[str, str] = {}

    def enter(self, name: str, value: Any, origin: str = "") -> None:
        """Enter a value.

        Args:
            name: Full name of the key.
            value: What the key shall be; for all keys but those of texts, a text is what Python would read in it.
            origin: The file or flag that it comes from; none for a KEY VALUE pair.

        Raises:
            UserError: If there is no such key, or it does not take the value.
        """
        start = f"{origin}: " if origin else ""
        if name not in self.known:
            raise UserError(start + self._unknown(name))
        key, (section, _, leaf) = self.known[name], name.rpartition(".")
        try:
            settled = checked(key, evaluated(key, value))
        except SettingError as error:
            raise UserError(f"{start}{error}") from error
        node = node_of(self.cfg, section)
        node[leaf] = list(settled) if isinstance(node[leaf], list) else settled
        self.origins[name] = origin

    def enter_tree(self, tree: dict[Any, Any], origin: str, section: str = "") -> None:
        """Enter what a file says.

        Args:
            tree: Its sections and keys; a section that is empty says nothing.
            origin: The file.
            section: What the tree is a section of.

        Raises:
            UserError: See `enter`.
        """
        for key, value in tree.items():
            name = join(section, str(key))
            if "." in str(key) and name in self.known:
                *above, leaf = name.split(".")
                raise UserError(
                    f"{origin}: {name} is not how a file says it; "
                    f"write {': {'.join(above)}: {{{leaf}: ...{'}' * len(above)}"
                )
            if name not in self.sections:
                self.enter(name, value, origin)
            elif isinstance(value, dict):
                self.enter_tree(value, origin, name)
            elif value is not None:
                raise UserError(f"{origin}: {name} is {shown(value)}; {self._as_section(name)}")

    def enter_pairs(self, pairs: list[str]) -> None:
        """Enter KEY VALUE pairs.

        Raises:
            UserError: On a key without a value; else see `enter`.
        """
        if len(pairs) % 2:
            raise UserError(f"{pairs[-1]}: a key without a value; write KEY VALUE pairs after the flags")
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            text = self.known[name].kind is str if name in self.known else False
            self.enter(name, unquoted(value) if text else value)

    def check(self) -> None:
        """Check the config as a whole.

        Raises:
            UserError: Naming the key that does not go with others, and where it was set.
        """
        try:
            check_sections(self.cfg)
        except SettingError as error:
            origin = self.origins.get(error.key)
            raise UserError(f"{origin}: {error}" if origin else str(error)) from error

    def _unknown(self, name: str) -> str:
        if name in self.sections:
            return f"{name} is a section; {self._as_section(name)}"
        short = name if len(name) <= NAME else f"{name[:NAME]}..."
        return f"unknown config key {short!r}; {did_you_mean(short, [*self.known, *self.sections])}"

    def _as_section(self, name: str) -> str:
        """What to write instead of a value for a section."""
        example = next((key for key in self.known if key.startswith(f"{name}.")), name)
        return f"set one of its keys, such as {example}"
