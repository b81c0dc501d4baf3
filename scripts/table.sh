#!/usr/bin/env bash
# bash scripts/table.sh [FOLDER or runs.csv ...]: means over seeds of all finished runs, with 95 % intervals (default: output)
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing table "$@"
