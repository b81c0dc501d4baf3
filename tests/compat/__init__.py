"""Conformance of whichever `dassl` is importable, by its public API alone.

DASSL_UNDER_TEST says which one is meant: `ours` (the default) or `upstream`, which is to be first on PYTHONPATH:

    DASSL_UNDER_TEST=upstream PYTHONPATH=<checkout> python -m pytest tests/compat --confcutdir tests/compat

What upstream is known to do wrong is marked with `upstream_fault`, and expected to fail there. `warmup_fault` marks
what is mended in an environment made by `bash scripts/setup.sh --dassl upstream=<checkout>`, which needs no PYTHONPATH.
"""
