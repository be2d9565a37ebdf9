#!/usr/bin/env bash
# Train on several GPUs of one machine, or of several machines.
set -euo pipefail
me=tools/dist_train.sh train=tools/train.py
[[ ${BASH_SOURCE[0]} == */.mim/tools/* ]] && me='vpetl dist_train' train='vpetl train'
usage="usage: [NNODES=N NODE_RANK=I MASTER_ADDR=HOST] [PORT=29500] $me CONFIG GPUS [options of $train]"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "$usage

Train on GPUS GPUs of this machine. For several machines, run it on each; GPUS is the number on one machine.

examples:
  $me configs/swin_bapat_ssv2_b128.py 4
  NNODES=2 NODE_RANK=0 MASTER_ADDR=node1 $me configs/swin_bapat_ssv2_b128.py 8    # on node1
  NNODES=2 NODE_RANK=1 MASTER_ADDR=node1 $me configs/swin_bapat_ssv2_b128.py 8    # on the other one"
    exit
fi
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
