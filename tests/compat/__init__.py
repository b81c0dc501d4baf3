"""Conformance of whichever `dassl` is importable, by its public API alone.

DASSL_UNDER_TEST says which one is meant: `ours` (the default) or `upstream`, which is to be first on PYTHONPATH:

    DASSL_UNDER_TEST=upstream PYTHONPATH=<checkout> python -m pytest tests/compat --confcutdir tests/compat

What upstream is known to do wrong is marked with `upstream_fault`, and expected to fail there.
"""
