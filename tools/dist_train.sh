#!/usr/bin/env bash
# Train on several GPUs of one machine: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# On several machines, once on each, GPUS being those of one: NNODES=2 NODE_RANK=0 MASTER_ADDR=node1 PORT=29500 (29500)
set -euo pipefail
me=tools/dist_train.sh train=tools/train.py
[[ ${BASH_SOURCE[0]} == */.mim/tools/* ]] && me='vpetl dist_train' train='vpetl train'
usage="usage: [NNODES=N NODE_RANK=I MASTER_ADDR=HOST] [PORT=29500] $me CONFIG GPUS [options of $train]"
[[ ${1:-} == -h || ${1:-} == --help ]] && echo "$usage" && exit
if [ $# -lt 2 ]; then
    echo "$usage" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
if [ "${NNODES:-1}" != 1 ] && { [ -z "${MASTER_ADDR:-}" ] || [ -z "${NODE_RANK:-}" ]; }; then
    echo "error: NNODES=$NNODES needs MASTER_ADDR, the first machine's name, and NODE_RANK, this one's number from 0." >&2
    exit 2
fi
if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then
    echo "error: GPUS must be a whole number of at least 1, got $gpus." >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec python -m vpetl_cli.torchrun --nproc_per_node="$gpus" --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$here/train.py" "$config" --launcher pytorch "$@"
