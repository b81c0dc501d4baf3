#!/usr/bin/env bash
# bash scripts/run.sh TRAINER [DATASET] [--backbone NAME] [--seed S] [KEY VALUE ...]: any trainer of the registry
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/launch.py "$@"
