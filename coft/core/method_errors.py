"""The error of a method that its user can mend."""

from __future__ import annotations


class MethodError(ValueError):
    """The message names what is wrong, and what to do. Everything else that a method raises is a mistake of its own."""
