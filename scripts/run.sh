#!/usr/bin/env bash
# bash scripts/run.sh TRAINER [DATASET] [--backbone NAME] [--seed S] [KEY VALUE ...]: run any registered trainer
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/launch.py "$@"
