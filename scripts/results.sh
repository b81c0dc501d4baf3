#!/usr/bin/env bash
# bash scripts/results.sh --benchmark FILE --experiments FILE: puts tables that commands wrote into docs/results.md, draws docs/experiments.png
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing results "$@"
