#!/usr/bin/env bash
# bash scripts/table.sh [FOLDER ...]: mean and standard deviation over seeds of all finished runs (default: output)
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/tabulate_runs.py "$@"
