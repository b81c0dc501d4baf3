#!/usr/bin/env bash
# Static checks and tests; arguments go to pytest, which runs a process a core ("-n 0": one, as for --pdb).
SETUP_EXTRA=tests/requirements.txt
source "$(dirname "$0")/setup.sh"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy train.py coft trainers datasets scripts weights compat/dassl/src
exec "$PYTHON" -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal "$@"
