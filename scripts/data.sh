#!/usr/bin/env bash
# bash scripts/data.sh [list | NAME ...]: gets data sets ready under $DATA (default: data)
case " $* " in *" icons "* | *" emoji "*) SETUP_EXTRA=weights/pretrain/requirements.txt ;; esac
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/get_data.py "$@"
