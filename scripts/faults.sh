#!/usr/bin/env bash
# bash scripts/faults.sh [--quick] [--only CATEGORY ...] [--verbose]: bad inputs and faults, and what comes of them
SETUP_EXTRA=scripts/describing/requirements.txt
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.faults "$@"
