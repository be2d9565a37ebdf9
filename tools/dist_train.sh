#!/usr/bin/env bash
# Train on several GPUs of one machine: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec python -m torch.distributed.run --nproc_per_node="$gpus" --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$here/train.py" "$config" --launcher pytorch "$@"
