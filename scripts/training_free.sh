#!/usr/bin/env bash
# bash scripts/training_free.sh [DATASET] [--backbone NAME] [--seed S] [KEY VALUE ...]
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/launch.py TrainingFree "$@"
