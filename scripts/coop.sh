#!/usr/bin/env bash
# bash scripts/coop.sh [DATASET] [--backbone NAME] [--seed S] [--shots K] [KEY VALUE ...]
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/launch.py CoOp "$@"
