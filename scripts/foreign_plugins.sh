#!/usr/bin/env bash
# bash scripts/foreign_plugins.sh [--keep FOLDER] CHECKOUT ...: others' plugins (CoOp, MaPLe, UPL ...), unmodified, on
# the dassl of this environment: trains, evaluates, kills and resumes each of their trainers; prints a table
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.foreign_plugins "$@"
