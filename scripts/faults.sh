#!/usr/bin/env bash
# bash scripts/faults.sh [--quick] [--only CATEGORY ...] [--seed N] [--verbose]: test bad inputs and faults
SETUP_EXTRA=tests/requirements.txt
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m tests.faults "$@"
