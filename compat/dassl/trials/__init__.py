"""Trials of unmodified third-party plugins on the `dassl` of this environment."""
