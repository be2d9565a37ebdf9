"""Carries a grid of tiny runs out while its drivers, jobs and node are killed, and compares it with one left alone.

    PYTHONPATH=$PWD:$PWD/tests:$PWD/tests/engine python tests/campaign/kill_grid.py --engine local slurm

Real trainings of small Video Swins, drivers that are processes of their own, and a file system of 1 GB. It prints
what was done to them, and whether each run is done once and with the result of one that was left alone.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path

import torch
from journaled import JournaledRun
from slurm_cluster import Cluster, running_slurm
from small_experiment import content, write_config

from vpetl_mm import UserError, build_model
from vpetl_mm.campaign.claim import in_use
from vpetl_mm.campaign.local import LocalEngine
from vpetl_mm.campaign.slurm import SlurmEngine, read_id
from vpetl_mm.commands import grid
from vpetl_mm.config import load_config
from vpetl_mm.datasets.demo_clips import make_demo_clips
from vpetl_mm.engine.record import read_record

METHODS, EPOCHS = ('fc', 'bapat', 'lora'), 2
QUICK = f"""
train_dataloader['num_workers'] = test_dataloader['num_workers'] = 0
train_cfg = dict(max_epochs={EPOCHS})
recipe_gpus = 1
"""
LOCAL = ['driver', 'job', 'second driver', 'job', 'full disk', 'driver', 'job', 'corrupt result', 'job', 'driver']
LOCAL += ['job', 'corrupt result', 'driver', 'job']
SLURM = ['driver', 'requeue', 'second driver', 'job', 'full disk', 'driver', 'node', 'corrupt result', 'requeue']
SLURM += ['driver', 'job', 'scancel', 'corrupt result', 'driver', 'requeue']
KILLS = ('driver', 'job', 'requeue', 'node', 'scancel')


def write_experiments(root: Path) -> None:
    """Clips, weights and the configs of three methods."""
    make_demo_clips(root, dict(target_train=16, target_test=8), progress=False)
    cfg = load_config(write_config(root, root / 'base.py'), {'model.base': None, 'randomness.seed': 7})
    model = build_model(cfg, init_weights=True)
    with model.plan.detached():
        torch.save(model.backbone.state_dict(), root / 'base.pth')
    for method in METHODS:
        write_config(root, root / f'small_{method}.py', method, QUICK)


def runs_of(root: Path, work_dirs: Path, number: int) -> list[JournaledRun]:
    """As many runs, by method and seed."""
    places = [(METHODS[i % len(METHODS)], i // len(METHODS)) for i in range(number)]
    return [JournaledRun(root / f'small_{m}.py', s, work_dirs / f'small_{m}/seed_{s}') for m, s in places]


def drive(root: Path, work_dirs: Path, number: int, engine: str) -> int:
    """What a driver does, in a process of its own."""
    try:
        at_work = (
            LocalEngine(2)
            if engine == 'local'
            else SlurmEngine(work_dirs / '.slurm', gpus=0, hours=1.0, max_parallel=2, pause=1.0)
        )
        grid.carry_out(runs_of(root, work_dirs, number), at_work, lambda line: print(line, flush=True))
    except UserError as error:
        print(f'error: {error}', flush=True)
        return 2
    return 0


class Disturbed:
    """A grid, its drivers, and what is done to them."""

    def __init__(self, root: Path, work_dirs: Path, number: int, engine: str, cluster: Cluster | None) -> None:
        self.root, self.work_dirs, self.engine, self.cluster = root, work_dirs, engine, cluster
        self.runs = runs_of(root, work_dirs, number)
        self.drivers: list[subprocess.Popen] = []
        self.draw = random.Random(0)
        self.log, self.started = root / 'drivers.log', time.monotonic()
        self.corrupted: list[str] = []

    def say(self, what: str) -> None:
        done = sum(r.is_done() for r in self.runs)
        print(f'{time.monotonic() - self.started:6.0f} s  {done:2} of {len(self.runs)} done  {what}', flush=True)

    def start_driver(self) -> None:
        command = [sys.executable, __file__, '--drive', str(self.root), str(self.work_dirs)]
        command += ['--engine', self.engine, '--runs', str(len(self.runs))]
        with open(self.log, 'a') as log:
            self.drivers.append(subprocess.Popen(command, cwd=self.root, stdout=log, stderr=subprocess.STDOUT))

    def carry_out(self, injuries: list[str]) -> None:
        """Disturb the grid each time that so many more runs are done; start another driver where none is left."""
        each, left = len(self.runs) / (len(injuries) + 1), list(injuries)
        while left or self.alive() or not all(r.is_done() for r in self.runs):
            if not self.alive():
                self.say('a driver is started')
                self.start_driver()
            if left and sum(r.is_done() for r in self.runs) >= each * (len(injuries) - len(left) + 1) - 1:
                self.injure(left.pop(0))
            time.sleep(0.3)

    def alive(self) -> list[subprocess.Popen]:
        return [d for d in self.drivers if d.poll() is None]

    def injure(self, what: str) -> None:
        time.sleep(self.draw.uniform(0, 3))
        getattr(self, f'_{what.replace(" ", "_")}')()

    def _driver(self) -> None:
        for driver in self.alive():
            driver.kill()
            driver.wait()
        self.say('KILL: all drivers')

    def _second_driver(self) -> None:
        self.start_driver()
        self.say('a further driver is started beside the first')

    def _running(self) -> JournaledRun:
        """A run at whose claim there is a process."""
        while True:
            running = [r for r in self.runs if in_use(r.work_dir, ('.claim',)) and not r.is_done()]
            if running:
                return self.draw.choice(running)
            time.sleep(0.2)

    def _job(self) -> None:
        run = self._running()
        with suppress(ProcessLookupError, IndexError, ValueError):
            process = int((run.work_dir / '.claim').read_text().split()[1])
            os.killpg(process, signal.SIGKILL)  # with what it has started
        self.say(f'KILL: the process of {run.title}')

    def _requeue(self) -> None:
        run = self._running()
        with suppress(RuntimeError):
            self.cluster.ask('scontrol', 'requeue', read_id(run.work_dir))
        self.say(f'KILL: {run.title} is requeued')

    def _scancel(self) -> None:
        run = self._running()
        self.cluster.ask('scancel', read_id(run.work_dir))
        self.say(f'KILL: {run.title} is cancelled')

    def _node(self) -> None:
        self._running()
        self.cluster.kill_node()
        self.say('KILL: the node, and all that ran there')
        time.sleep(12)
        self.cluster.start_node()

    def _corrupt_result(self) -> None:
        run = self.draw.choice([r for r in self.runs if r.is_done() and r.title not in self.corrupted])
        (run.work_dir / 'result.json').write_text('{"format": "vpetl_mm result 1", "top1"')
        self.corrupted.append(run.title)
        self.say(f'FAULT: the result of {run.title} is cut off')

    def _full_disk(self) -> None:
        before = self._failures()
        with open(self.work_dirs / 'ballast', 'wb', buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(65536))
        self.say('FAULT: the disk is full')
        end = time.monotonic() + 120
        while self._failures() == before and time.monotonic() < end and self.alive():
            time.sleep(0.3)
        (self.work_dirs / 'ballast').unlink()
        self.say(f'the disk has room again; failures so far: {self._failures() - before}')

    def _failures(self) -> int:
        return self.log.read_text().count(' failed: ') if self.log.is_file() else 0


def faults_of(run: JournaledRun, alone: JournaledRun | None, corrupted: list[str]) -> Iterator[str]:
    """What is wrong with a run of a disturbed grid; ``alone`` is the same one that was left alone."""
    record, weights = read_record(run.work_dir / 'result.json'), weights_of(run)
    if alone is not None:
        if record.top1 != read_record(alone.work_dir / 'result.json').top1:
            yield f'{run.title}: another top-1'
        other = weights_of(alone)
        if weights.keys() != other.keys() or not all(torch.equal(weights[k], other[k]) for k in weights):
            yield f'{run.title}: other weights'
    ends = [note for note in run.journal() if note['at'] == 'end']
    if sum('train.py' in note['tools'] for note in ends) > 1:
        yield f'{run.title}: trained {len(ends)} times'
    # a result that was cut off is measured again, and nothing else is done twice
    if len(ends) > 1 + (run.title in corrupted):
        yield f'{run.title}: finished {len(ends)} times'
    if any(p.name.endswith('.partial') for p in run.work_dir.rglob('*')):
        yield f'{run.title}: a half-written file'
    yield from overlaps(run)


def weights_of(run: JournaledRun) -> dict[str, torch.Tensor]:
    """The tensors of a run's adapter."""
    return content(run.work_dir / f'adapter_epoch_{EPOCHS}.pth')['state_dict']


def overlaps(run: JournaledRun) -> Iterator[str]:
    """Attempts at a run that went on while another was begun."""
    ends = {note['process']: note['time'] for note in run.journal() if note['at'] == 'end'}
    begun = [note for note in run.journal() if note['at'] == 'begin']
    for one, following in pairwise(begun):
        if ends.get(one['process'], 0) > following['time']:
            yield f'{run.title}: two processes at once'


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={megabytes}m', 'tmpfs', str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(['umount', '--lazy', str(folder)], check=True)


def record_of(root: Path, number: int, engine: str, others: dict[str, JournaledRun]) -> None:
    """Disturb a grid and print what comes of it; ``others`` are runs to compare with, by title, which it extends."""
    with small_disk(root / engine, 1000), running_slurm() if engine == 'slurm' else nullcontext() as cluster:
        disturbed = Disturbed(root, root / engine, number, engine, cluster)
        injuries = LOCAL if engine == 'local' else SLURM
        disturbed.carry_out(injuries)
        disturbed.say('all done')
        wrong = [w for run in disturbed.runs for w in faults_of(run, others.get(run.title), disturbed.corrupted)]
        kills = sum(what in KILLS for what in injuries)
        attempts = sum(note['at'] == 'begin' for run in disturbed.runs for note in run.journal())
        print(
            f'{engine}: {sum(r.is_done() for r in disturbed.runs)} of {number} runs done, after '
            f'{kills} kills, by {len(disturbed.drivers)} drivers in {attempts} attempts; '
            f'{sum(r.title in others for r in disturbed.runs)} compared with runs left alone.'
        )
        print('\n'.join(wrong) or 'Each is done once, with their results and weights; none twice, none lost.')


def main() -> None:
    """Drive, or disturb and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--engine', nargs='+', choices=('local', 'slurm'), default=['local'])
    parser.add_argument('--runs', type=int, default=30)
    parser.add_argument('--alone', type=int, default=6, help='runs that are left alone, to compare with')
    parser.add_argument('--drive', nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        sys.exit(drive(*args.drive, args.runs, args.engine[0]))
    root = Path(tempfile.mkdtemp(prefix='grid'))
    write_experiments(root)
    started, alone = time.monotonic(), runs_of(root, root / 'alone', args.alone)
    grid.carry_out(alone, LocalEngine(2), lambda line: None)
    print(f'{args.alone} runs left alone: {time.monotonic() - started:.0f} s', flush=True)
    for engine in args.engine:
        shutil.rmtree(root / 'journals')
        record_of(root, args.runs, engine, {run.title: run for run in alone})
    shutil.rmtree(root, ignore_errors=True)


if __name__ == '__main__':
    main()
