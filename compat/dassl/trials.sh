#!/usr/bin/env bash
# bash compat/dassl/trials.sh [--keep FOLDER] CHECKOUT ...: others' plugins (CoOp, MaPLe, UPL ...), unmodified, on the
# dassl of this environment: trains, evaluates, kills and resumes each of their trainers; prints a table
source "$(dirname "$0")/../../scripts/setup.sh" && exec "$PYTHON" -m compat.dassl.trials "$@"
