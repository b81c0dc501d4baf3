#!/usr/bin/env bash
# bash scripts/grip.sh [DATASET] [--backbone NAME] [--seed S] [KEY VALUE ...]
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/launch.py GRIP "$@"
