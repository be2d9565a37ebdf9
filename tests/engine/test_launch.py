"""Starting over several machines: what Slurm says, the scripts themselves on loopback, and what they refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from ranks import commands, free_port
from small_experiment import REPO, adapter, assert_same, content, write_config

from vpetl_cli import command as cli
from vpetl_mm import UserError
from vpetl_mm.engine import launch

ENDING = """
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, _delete_=True))
model['backbone']['drop_path_rate'] = 0.0
train_dataloader['num_workers'] = 0
train_cfg = dict(max_epochs=1)
"""
SLURM = dict(SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_LOCALID='1', SLURM_NODELIST='node[3-4]', SLURM_JOB_ID='77')
# what Slurm's own do, for two tasks on two machines that are both this one
SRUN = """\
#!/usr/bin/env bash
printf '%s\\n' "$@" >"$SAID"
while [[ $1 == -* ]]; do [[ $1 == --ntasks=* ]] && tasks=${1#*=}; shift; done
for ((task = 0; task < tasks; task++)); do
    SLURM_PROCID=$task SLURM_NTASKS=$tasks SLURM_LOCALID=0 SLURM_NODELIST='lo[1-2]' SLURM_JOB_ID=$JOB "$@" &
    started+=($!)
done
for process in "${started[@]}"; do wait "$process" || exit 1; done
"""
# a cluster that answers, and what Slurm 22.05 says without a configuration, in its last line
SINFO = '#!/bin/sh\nprintf "main\\nlong\\n"'
NO_CLUSTER = """\
#!/bin/sh
echo 'sinfo: error: fetch_config: DNS SRV lookup failed
sinfo: fatal: Could not establish a configuration source' >&2
exit 1
"""
SCONTROL = """\
#!/usr/bin/env bash
[[ "$*" == "show hostnames lo[1-2]" ]] && printf '127.0.0.1\\n127.0.0.2\\n'
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """A folder in front of PATH with ``srun``, ``scontrol``, ``sinfo`` and this Python."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, text in (('srun', SRUN), ('scontrol', SCONTROL), ('sinfo', SINFO)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:{Path(sys.executable).parent}:{os.environ["PATH"]}')
    for name in [v for v in os.environ if v.startswith('SLURM_') or v in launch.FROM_TORCHRUN]:
        monkeypatch.delenv(name)
    return folder


def test_srun_and_two_machines_train_the_same_and_the_first_alone_writes(cluster, clips, tmp_path):
    config = str(write_config(clips, tmp_path / 'two.py', extra=ENDING))
    job = str(free_port() - 15000)  # so that the job's own port is a free one
    srun = ['tools/slurm_train.sh', 'long', 'name', config, '2', '--work-dir', str(tmp_path / 'slurm')]
    said = tmp_path / 'said.txt'
    extra = dict(SAID=str(said), JOB=job, GPUS_PER_NODE='1', CPUS_PER_TASK='3', SRUN_ARGS='--time=9 --qos=low')
    ((status, output),) = commands([(srun, extra)], tmp_path)
    assert status == 0, output[-3000:]
    options = said.read_text().split('\n')
    assert options[:9] == [
        *('--partition=long', '--job-name=name', '--gres=gpu:1', '--ntasks=2', '--ntasks-per-node=1'),
        *('--cpus-per-task=3', '--kill-on-bad-exit=1', '--time=9', '--qos=low'),
    ]
    assert options[9:11] == ['python', '-u'] and output.count('Test it with') == 1

    nodes = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=str(free_port()))
    machine = ['tools/dist_train.sh', config, '1', '--work-dir']
    both = [([*machine, str(tmp_path / f'node{i}')], dict(nodes, NODE_RANK=str(i))) for i in range(2)]
    for status, output in commands(both, tmp_path):
        assert status == 0, output[-3000:]
    assert_same(adapter(tmp_path / 'slurm', 1), adapter(tmp_path / 'node0', 1))
    # 24 clips in batches of 4 on each of 2 ranks are 3 steps, so that both took their share
    assert content(tmp_path / 'node0/epoch_1.pth')['meta']['iter'] == 3
    assert not [p for p in (tmp_path / 'node1').rglob('*') if p.is_file()]


def test_what_slurm_says_is_put_under_torchruns_names(cluster):
    (cluster / 'scontrol').write_text('#!/bin/sh\n[ "$*" = "show hostnames node[3-4]" ] && printf "node3\\nnode4\\n"')
    environ = dict(SLURM)
    launch.read_launcher('slurm', environ)
    place = dict(RANK='5', WORLD_SIZE='8', LOCAL_RANK='1', MASTER_ADDR='node3', MASTER_PORT='15077')
    assert environ == SLURM | place
    # a step on fewer machines than the job begins on its own first; what the user sets stays
    environ = SLURM | dict(SLURM_STEP_NODELIST='node4', MASTER_PORT='4321')
    launch.read_launcher('slurm', environ)
    assert (environ['MASTER_ADDR'], environ['MASTER_PORT']) == ('node4', '4321')


@pytest.mark.parametrize(
    ('launcher', 'environ', 'said'),
    [
        ('slurm', {}, 'needs srun, which sets SLURM_PROCID: use tools/slurm_train.sh'),
        ('slurm', {k: v for k, v in SLURM.items() if k != 'SLURM_NODELIST'}, 'which sets SLURM_NODELIST'),
        ('slurm', SLURM | dict(SLURM_NTASKS='many'), "SLURM_NTASKS must be a whole number, got 'many'"),
        ('slurm', SLURM, r'machines of node\[3-4\], does not answer; set MASTER_ADDR'),
        (
            'pytorch',
            dict(RANK='0', WORLD_SIZE='1'),
            'needs torchrun, which sets MASTER_ADDR: use tools/dist_train.sh',
        ),
    ],
)
def test_a_process_that_its_launcher_did_not_start_is_refused(cluster, launcher, environ, said):
    (cluster / 'scontrol').write_text('#!/bin/sh\nexit 1')
    with pytest.raises(UserError, match=said):
        launch.read_launcher(launcher, dict(environ))


def test_the_command_says_it_in_one_sentence(cluster, config, monkeypatch, capsys):
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    parser = cli.Parser('', '')
    parser.add_run_options()
    assert cli.run(pytest.fail, parser, [str(config), '--launcher', 'slurm']) == 2
    assert capsys.readouterr().err == (
        'error: --launcher slurm needs srun, which sets SLURM_PROCID: '
        'use tools/slurm_train.sh or tools/slurm_test.sh.\n'
    )


def test_errors_of_another_machine_are_signed_and_those_of_its_other_ranks_left_out(monkeypatch):
    for rank, local, signature in (('0', '0', ''), ('3', '3', None), ('4', '0', ' (rank 4)')):
        monkeypatch.setenv('RANK', rank)
        monkeypatch.setenv('LOCAL_RANK', local)
        assert cli.speaker() == signature


def test_more_processes_than_gpus_are_refused(monkeypatch, ready):
    cfg = ready()
    cfg.launcher = 'pytorch'
    for name, value in (('RANK', 2), ('WORLD_SIZE', 4), ('LOCAL_RANK', 2), ('MASTER_ADDR', 'x'), ('MASTER_PORT', 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UserError, match='At least 3 processes on this machine see 2 GPUs'):
        launch.start_process_group(cfg)


@pytest.mark.parametrize(
    ('command', 'extra', 'said'),
    [
        (['tools/slurm_train.sh', 'long', 'name'], {}, 'usage: '),
        (
            ['tools/slurm_train.sh', 'long', 'name', 'c.py', '0'],
            {},
            'must be whole numbers of at least 1, got 0 and 8',
        ),
        (['tools/slurm_train.sh', 'lang', 'name', 'c.py'], {}, 'has no partition lang, sinfo names main, long.'),
        (['tools/slurm_test.sh', 'long', 'name', 'c.py'], {}, 'usage: '),
        (['tools/slurm_test.sh', 'long,lang', 'name', 'c.py', 'a.pth'], {}, 'has no partition lang, sinfo names'),
        (['tools/slurm_test.sh', 'long', 'name', 'b.safetensors', '0'], {}, 'must be whole numbers of at least 1'),
        (['tools/dist_train.sh', 'c.py'], {}, 'usage: '),
        (['tools/dist_train.sh', 'c.py', 'two'], {}, 'GPUS must be a whole number of at least 1, got two'),
        (['tools/dist_train.sh', 'c.py', '2'], {'OMP_NUM_THREADS': '1'}, 'error: The config c.py does not exist'),
        (['tools/dist_train.sh', 'c.py', '1'], {'NNODES': '2', 'NODE_RANK': '0'}, 'NNODES=2 needs MASTER_ADDR'),
    ],
)
def test_the_scripts_refuse_what_cannot_run(cluster, command, extra, said):
    extra = extra | dict(PORT=str(free_port()))
    assert said in refused(command, {k: v for k, v in os.environ.items() if k != 'MASTER_ADDR'} | extra)


@pytest.mark.parametrize(
    ('argv', 'asked', 'passed'),
    [
        (
            'c.py a.pth 3 --merge m',
            '--gres=gpu:2 --ntasks=3 --ntasks-per-node=2',
            'c.py a.pth --launcher slurm --merge m',
        ),
        (
            'b.safetensors --data l',
            '--gres=gpu:1 --ntasks=1 --ntasks-per-node=1',
            'b.safetensors --launcher slurm --data l',
        ),
    ],
)
def test_srun_tests_a_checkpoint_or_a_bundle(cluster, argv, asked, passed):
    (cluster / 'srun').write_text('#!/bin/sh\necho "$@"')
    command = ['tools/slurm_test.sh', 'main,long', 'name', *argv.split()]
    environ = os.environ | dict(GPUS_PER_NODE='2', SRUN_ARGS='--time=9')
    done = subprocess.run(command, cwd=REPO, env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == (
        f'--partition=main,long --job-name=name {asked} --cpus-per-task=8 --kill-on-bad-exit=1 --time=9 '
        f'python -u {REPO}/tools/test.py {passed}\n'
    )


def test_without_slurm_or_a_cluster_it_says_which(cluster):
    command = ['tools/slurm_train.sh', 'long', 'name', 'c.py']
    (cluster / 'sinfo').write_text(NO_CLUSTER)
    assert 'no cluster answers (sinfo: fatal: Could not establish a configuration source)' in refused(
        command, os.environ
    )
    (cluster / 'srun').unlink()
    (cluster / 'bash').symlink_to(shutil.which('bash'))
    assert 'there is no srun here' in refused(command, dict(PATH=str(cluster)))


def refused(command: list[str], environ: Mapping[str, str]) -> str:
    """The one line that a script ends with."""
    done = subprocess.run(command, cwd=REPO, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    return done.stderr
