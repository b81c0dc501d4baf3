#!/usr/bin/env bash
# bash scripts/results.sh --benchmark FILE: copy the tables of compare.sh --benchmark full into docs/results.md
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing results "$@"
