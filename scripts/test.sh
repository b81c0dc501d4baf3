#!/usr/bin/env bash
# Static checks and tests; arguments go to pytest.
SETUP_EXTRA=tests/requirements.txt
source "$(dirname "$0")/setup.sh"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy train.py trainers datasets scripts weights compat/dassl/src
exec "$PYTHON" -m pytest "$@"
