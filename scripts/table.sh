#!/usr/bin/env bash
# bash scripts/table.sh [FOLDER or runs.csv ...]: mean and standard deviation over seeds of all finished runs (default: output)
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing.compare table "$@"
