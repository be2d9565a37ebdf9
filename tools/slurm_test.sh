#!/usr/bin/env bash
# Test a checkpoint or a bundle on a Slurm cluster.
set -euo pipefail
name=slurm_test tool=test elsewhere=test.py files=2 takes='{CONFIG CHECKPOINT | BUNDLE}' gpus=1
about='Test a checkpoint, or a bundle with --data LIST, on GPUS GPUs in total (default: 1).'
example='gpu bapat configs/swin_bapat_ssv2_b128.py work_dirs/swin_bapat_ssv2_b128/adapter_epoch_70.pth 8'
source "${BASH_SOURCE[0]%"$name.sh"}slurm_job.bash"
