#!/usr/bin/env bash
# bash scripts/data.sh [list | all | NAME ...]: download and prepare data sets in $DATA (default: data)
SETUP_EXTRA=
case " $* " in *" icons "* | *" emoji "* | *" all "*) SETUP_EXTRA=weights/pretrain/requirements.txt ;; esac
case " $* " in *[a-z]*) [[ " $* " = *" list "* ]] || SETUP_EXTRA="$SETUP_EXTRA scripts/getting/requirements.txt" ;; esac
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.get_data "$@"
