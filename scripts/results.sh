#!/usr/bin/env bash
# bash scripts/results.sh [--check]: writes the tables of docs/results.md, and docs/gain.png, from docs/runs.csv and docs/summaries.csv
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing.page "$@"
