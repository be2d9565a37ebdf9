# What slurm_train.sh and slurm_test.sh share: reads the arguments, asks the cluster, and starts one process a GPU.
# Before it is sourced: name, tool, elsewhere, files (their number), takes, about, gpus (the default), example, and "$@".
me=tools/$name.sh run=tools/$tool.py instead=tools/$elsewhere
if [[ ${BASH_SOURCE[0]} == */.mim/tools/* ]]; then
    me="vpetl $name" run="vpetl $tool" instead="vpetl ${elsewhere%.*}"
fi
usage="usage: [GPUS_PER_NODE=8] [CPUS_PER_TASK=8] [SRUN_ARGS=...] $me PARTITION JOB $takes [GPUS] [options of $run]"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "$usage

$about Environment variables:
  GPUS_PER_NODE  GPUs per machine (default: GPUS, at most 8)
  CPUS_PER_TASK  cores per GPU (default: 8, the loader workers of a config)
  SRUN_ARGS      more options of srun, such as --time=1-0; --gres=none without GPUs
  MASTER_PORT    the port of the job (default: one of its own)

example:
  GPUS_PER_NODE=8 $me $example"
    exit
fi
[[ ${3:-} == *.safetensors ]] && files=1
if [ $# -lt $((2 + files)) ]; then
    echo "$usage" >&2
    exit 2
fi
partition=$1 job=$2
tested=("${@:3:files}")
shift $((2 + files))
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
    echo "error: there is no srun here: run this on a machine of a Slurm cluster, and $instead elsewhere." >&2
    exit 2
fi
if ! partitions=$(sinfo --noheader --format=%R 2>&1); then
    echo "error: srun exists, but no cluster answers (${partitions##*$'\n'}): run this on a machine of a Slurm" \
        "cluster, and $instead elsewhere." >&2
    exit 2
fi
for one in ${partition//,/ }; do
    if ! grep --quiet --line-regexp --fixed-strings -e "$one" <<<"$partitions"; then
        echo "error: the cluster has no partition $one, sinfo names ${partitions//$'\n'/, }." >&2
        exit 2
    fi
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -r -a more <<<"${SRUN_ARGS:-}"
exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 "${more[@]}" \
    python -u "$here/$tool.py" "${tested[@]}" --launcher slurm "$@"
