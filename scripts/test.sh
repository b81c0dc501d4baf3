#!/usr/bin/env bash
# Static checks and tests; arguments are passed to pytest, which runs one process per core (-n 0: a single one, for --pdb).
SETUP_EXTRA=tests/requirements.txt
source "$(dirname "$0")/setup.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a process a core already; more threads would only wait for each other
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# Types are checked on one core while the tests begin.
"$PYTHON" -m mypy train.py coft trainers datasets scripts weights compat >&2 &
types=$!
"$PYTHON" -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal "$@" && failed=0 || failed=$?
wait "$types" || { echo "error: mypy found wrong types; its lines stand before or between those of the tests" >&2 && exit 1; }
exit "$failed"
