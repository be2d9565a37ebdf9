#!/usr/bin/env bash
# Train on a Slurm cluster.
set -euo pipefail
me=tools/slurm_train.sh train=tools/train.py dist=tools/dist_train.sh
[[ ${BASH_SOURCE[0]} == */.mim/tools/* ]] && me='vpetl slurm_train' train='vpetl train' dist='vpetl dist_train'
usage="usage: [GPUS_PER_NODE=8] [CPUS_PER_TASK=8] [SRUN_ARGS=...] $me PARTITION JOB CONFIG [GPUS] [options of $train]"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "$usage

Train on GPUS GPUs in total (default: 4). Environment variables:
  GPUS_PER_NODE  GPUs per machine (default: GPUS, at most 8)
  CPUS_PER_TASK  cores per GPU (default: 8, the loader workers of a config)
  SRUN_ARGS      more options of srun, such as --time=1-0; --gres=none without GPUs
  MASTER_PORT    the port of the job (default: one of its own)

example:
  GPUS_PER_NODE=8 $me gpu bapat configs/swin_bapat_ssv2_b128.py 32"
    exit
fi
if [ $# -lt 3 ]; then
    echo "$usage" >&2
    exit 2
fi
partition=$1 job=$2 config=$3
shift 3
gpus=4
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    gpus=$1
    shift
fi
per_node=${GPUS_PER_NODE:-8}
if ! [[ $gpus =~ ^[1-9][0-9]*$ && $per_node =~ ^[1-9][0-9]*$ ]]; then
    echo "error: GPUS and GPUS_PER_NODE must be whole numbers of at least 1, got $gpus and $per_node." >&2
    exit 2
fi
per_node=$((gpus < per_node ? gpus : per_node))
if ! command -v srun >/dev/null; then
    echo "error: there is no srun here: run this on a machine of a Slurm cluster, and $dist elsewhere." >&2
    exit 2
fi
if ! reason=$(sinfo --noheader 2>&1 >/dev/null); then
    echo "error: srun exists, but no cluster answers (${reason##*$'\n'}): run this on a machine of a Slurm cluster," \
        "and $dist elsewhere." >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -r -a more <<<"${SRUN_ARGS:-}"
exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 "${more[@]}" \
    python -u "$here/train.py" "$config" --launcher slurm "$@"
