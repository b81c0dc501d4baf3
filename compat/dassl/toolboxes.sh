#!/usr/bin/env bash
# bash compat/dassl/toolboxes.sh ENVIRONMENT ENVIRONMENT [TRAINER ...] [--opts KEY VALUE ...]: trains CoFT, UPL and CoOp
# on the digits in two environments with a dassl each, and compares every loss and accuracy
source "$(dirname "$0")/../../scripts/setup.sh" && exec "$PYTHON" -m compat.dassl.toolboxes.compare "$@"
