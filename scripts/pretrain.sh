#!/usr/bin/env bash
# Rebuilds the embedded CLIPs in weights/ from npm packages; two hours at most on two cores.
#   bash scripts/pretrain.sh [embedded] [embedded-vit] [report] [--out DIR] [--fashion DIR] [--eurosat DIR]
# Goes on where it was stopped. COFT_CACHE says where packages, drawings and the state of runs are kept
# (default: cache/pretrain).
SETUP_EXTRA=weights/pretrain/requirements.txt
source "$(dirname "$0")/setup.sh"
# The default allocator gives pages back and faults them in again all the time; tcmalloc doesn't. Used when present.
for tcmalloc in /usr/lib/*/libtcmalloc_minimal.so.4 /usr/lib*/libtcmalloc_minimal.so.4; do
  if [ -e "$tcmalloc" ]; then
    export LD_PRELOAD="$tcmalloc${LD_PRELOAD:+:$LD_PRELOAD}"
    break
  fi
done
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" # beside other work, spinning threads cost more than they win
exec "$PYTHON" -m weights.pretrain "$@"
