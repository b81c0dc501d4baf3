#!/usr/bin/env bash
# Static checks and tests; arguments go to pytest, which runs a process a core ("-n 0": one, as for --pdb).
SETUP_EXTRA=tests/requirements.txt
source "$(dirname "$0")/setup.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a process a core already; more threads would only wait for each other
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy train.py coft trainers datasets scripts weights compat/dassl/src
exec "$PYTHON" -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal "$@"
