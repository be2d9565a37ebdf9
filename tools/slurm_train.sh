#!/usr/bin/env bash
# Train on a Slurm cluster.
set -euo pipefail
name=slurm_train tool=train elsewhere=dist_train.sh files=1 takes=CONFIG gpus=4
about='Train on GPUS GPUs in total (default: 4).'
example='gpu bapat configs/swin_bapat_ssv2_b128.py 32'
source "${BASH_SOURCE[0]%"$name.sh"}slurm_job.bash"
