#!/usr/bin/env bash
# bash scripts/table.sh [FOLDER or runs.csv ...]: tabulate all finished runs: means over seeds with 95 % intervals (default: output)
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing table "$@"
