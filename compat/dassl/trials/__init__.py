"""Runs other people's plugins, as they are, on the `dassl` of this environment."""
