#!/usr/bin/env bash
# bash scripts/faults.sh [--quick | --write] [--only CATEGORY ...] [--keep DIR] [--verbose]: bad inputs and faults, and what comes of them
SETUP_EXTRA=tests/requirements.txt
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m tests.faults "$@"
