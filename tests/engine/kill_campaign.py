"""Kills training runs at random moments, resumes them, and compares them with one that was left alone.

    python tests/engine/kill_campaign.py --kills 20 --src ../shared/data/fight_surv --out kills.json

SIGKILL goes to the whole process group, the loader's workers too, at a moment drawn evenly from the duration of the
uninterrupted run, start-up, saving and validation included. A run that finishes first is compared, and the next one
starts, until there were as many kills as asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import HistoryBuffer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vpetl_mm.datasets.demo_clips import make_demo_clips
from vpetl_mm.preparation.progress import progress

REPO = Path(__file__).parents[2]
CONFIG = """\
_base_ = '{repo}/configs/demo_bapat.py'
_pipeline = [*_base_.train_dataloader.dataset.pipeline]
_pipeline.insert(3, dict(type='Resize', scale=({size}, {size}), keep_ratio=False))
_fixed = [dict(step, test_mode=True) if step['type'] == 'SampleFrames' else step for step in _pipeline]
_mine = dict(data_prefix=dict(video='{videos}'), num_classes={classes}, metainfo=None)
_loader = dict(batch_size=4, num_workers=2)
holdout = None
train_dataloader = dict(dataset=dict(ann_file='{root}/train.txt', pipeline=_pipeline, **_mine), **_loader)
val_dataloader = dict(
    dataset=dict(ann_file='{root}/val.txt', held_out=False, pipeline=_fixed, **_mine), **_loader
)
test_dataloader = None
model = dict(base=None, cls_head=dict(num_classes={classes}))
train_cfg = dict(max_epochs={epochs})
param_scheduler = [dict(type='CosineAnnealingLR', T_max={epochs}, by_epoch=True, convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(save_best='acc/top1'), logger=dict(interval=1))
"""
# what tells the time, the place, or where the loop stood while it wrote: it differs between runs that are the same
PASSING = re.compile(
    r'meta\.(time|cfg|experiment_name)|message_hub\..*(time|memory|cfg|experiment_name)'
    r'|message_hub\.runtime_info\.(epoch|iter|loop_stage)'
)
PLACES = re.compile(r'message_hub\.runtime_info\.(best_ckpt|last_ckpt)')
MOMENT = re.compile(r'Epoch\((?:train|val)\) +\[\d+\](?:\[ *\d+/\d+\])?|Saving checkpoint at \d+ epochs|Resuming .*')


@dataclass
class Kill:
    """One kill: when, what lay there, and from where the next start went on.

    Args:
        run: which of the runs was killed.
        after: seconds since its last start.
        moment: the last thing that its log tells.
        files: the checkpoints and half-written files that it left.
        resumed: the epoch after which the next start went on; 0 anew, None where that was killed before it said so.
    """

    run: int
    after: float
    moment: str
    files: list[str] = field(default_factory=list)
    resumed: int | None = None


def write_experiment(root: Path, src: Path | None, epochs: int) -> Path:
    """Lists and a config of a small Video Swin with BAPAT; on demo clips where ``src`` is None."""
    videos, size = (root, 32) if src is None else (src.resolve(), 64)
    if src is None:
        make_demo_clips(root, dict(target_train=18), progress=False)
        rows = (root / 'target_train.txt').read_text().splitlines()
    else:
        folders = sorted(p for p in src.iterdir() if p.is_dir())
        rows = [f'{f.name}/{p.name} {n}' for n, f in enumerate(folders) for p in sorted(f.iterdir())]
    (root / 'train.txt').write_text('\n'.join(r for i, r in enumerate(rows) if i % 3))
    (root / 'val.txt').write_text('\n'.join(rows[::3]))
    classes = 1 + max(int(r.split()[-1]) for r in rows)
    about = dict(repo=REPO, root=root, videos=videos, size=size, classes=classes, epochs=epochs)
    (root / 'killed.py').write_text(CONFIG.format(**about))
    return root / 'killed.py'


class Training:
    """A run of tools/train.py in a process group of its own.

    Args:
        config: of the experiment.
        work_dir: where the run's files go; where a full state is there, it is resumed.
    """

    def __init__(self, config: Path, work_dir: Path) -> None:
        self.work_dir, self.before = work_dir, set(work_dir.glob('*/'))
        command = [sys.executable, 'tools/train.py', str(config), '--work-dir', str(work_dir)]
        command += ['--resume'] if list(work_dir.glob('epoch_*.pth')) else []
        self.started = time.monotonic()
        self.said = tempfile.TemporaryFile('w+')  # noqa: SIM115 (read when it ended)
        env = dict(os.environ, OMP_NUM_THREADS='1')
        self.process = subprocess.Popen(
            command, cwd=REPO, env=env, stdout=self.said, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.anew = '--resume' not in command

    def finish(self, seconds: float) -> bool:
        """Whether the run ends by itself within ``seconds``; it is killed otherwise.

        Raises:
            RuntimeError: when it ends with an error.
        """
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return False
        if status:
            self.said.seek(0)
            raise RuntimeError(f'training ended with {status}: {self.said.read()[-2000:]}')
        return True

    def log(self) -> str:
        """What the run has logged since this start."""
        new = sorted(set(self.work_dir.glob('*/')) - self.before)
        return ''.join(p.read_text() for folder in new for p in folder.glob('*.log'))

    def kill(self, run: int) -> Kill:
        """The record of a kill that just was."""
        moments = MOMENT.findall(self.log())
        files = sorted(p.name for p in self.work_dir.glob('*.pth*'))
        return Kill(run, round(time.monotonic() - self.started, 2), moments[-1] if moments else 'start-up', files)

    def resumed(self) -> int | None:
        """The epoch after which this start went on."""
        said = re.search(r'Resuming after epoch (\d+)', self.log())
        return 0 if self.anew else int(said[1]) if said else None


def campaign(root: Path, src: Path | None, kills: int, epochs: int, seed: int) -> dict[str, Any]:
    """Train once undisturbed and then under ``kills`` kills; the record."""
    config, draw = write_experiment(root, src, epochs), random.Random(seed)
    whole = Training(config, root / 'whole')
    whole.finish(3600)
    seconds = time.monotonic() - whole.started
    record: dict[str, Any] = dict(seconds=round(seconds, 1), epochs=epochs, seed=seed, kills=[], runs=[])
    with progress('kills', kills) as advance:
        while len(record['kills']) < kills:
            run, work_dir = len(record['runs']), root / f'killed_{len(record["runs"])}'
            for kill in killed(config, work_dir, run, kills - len(record['kills']), draw, seconds):
                record['kills'].append(kill)
                advance(1)
            wrong = differences(root / 'whole', work_dir)
            record['runs'].append(dict(work_dir=work_dir.name, differences=wrong))
    record['kills'] = [asdict(k) for k in record['kills']]
    return record


def killed(config: Path, work_dir: Path, run: int, most: int, draw: random.Random, seconds: float) -> Iterator[Kill]:
    """Train to the end, and give each kill on the way, ``most`` of them at most, when it is known what followed."""
    work_dir.mkdir()
    last = None
    while True:
        training = Training(config, work_dir)
        done = training.finish(draw.uniform(0, seconds) if most else 3600)
        if last:
            last.resumed = training.resumed()
            yield last
        if done:
            return
        last, most = training.kill(run), most - 1


def differences(whole: Path, other: Path) -> list[str]:
    """What differs between the files of two runs, but for times and places."""
    names = [{p.name for p in run.glob('*.pth*')} for run in (whole, other)]
    wrong = [f'{name} is not in both' for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        one, two = (dict(flat(torch.load(run / name, weights_only=True))) for run in (whole, other))
        wrong += [f'{name}: {k}' for k in sorted({*one, *two}) if not same(k, one.get(k), two.get(k))]
    last = [Path((run / 'last_checkpoint').read_text()).name for run in (whole, other)]
    wrong += [] if last[0] == last[1] else [f'last_checkpoint names {last[1]}']
    one, two = curves(whole), curves(other)
    return wrong + [f'curve {k} at step {s}' for k, s in sorted({*one, *two}) if one.get((k, s)) != two.get((k, s))]


def flat(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and lists, by dotted name."""
    if isinstance(value, HistoryBuffer):
        value = [part.tolist() for part in value.data]
    if isinstance(value, (dict, list, tuple)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(part, f'{name}.{key}' if name else str(key))
    elif not PASSING.match(name):
        yield name, Path(value).name if PLACES.fullmatch(name) else value


def same(name: str, one: Any, two: Any) -> bool:
    """Whether two leaves are the same to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return type(one) is type(two) and one == two


def curves(run: Path) -> dict[tuple[str, int], set[float]]:
    """Each value that TensorBoard shows of a run and all its restarts, by tag and step."""
    found: dict[tuple[str, int], set[float]] = {}
    for folder in run.glob('*/vis_data'):
        events = EventAccumulator(str(folder), dict(scalars=0)).Reload()
        for tag in events.Tags()['scalars']:
            for event in events.Scalars(tag) if 'time' not in tag and 'memory' not in tag else ():
                found.setdefault((tag, event.step), set()).add(event.value)
    return found


def main() -> int:
    """Run the campaign of the command line; 1 where a killed run ended otherwise than the one left alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--src', type=Path, help='clips, a folder per class (default: generated ones)')
    parser.add_argument('--out', type=Path, required=True, help='the record, a JSON file')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = campaign(Path(folder), args.src, args.kills, args.epochs, args.seed)
    machine = f'{os.cpu_count()} CPU cores, {platform.platform()}'
    args.out.write_text(json.dumps(dict(command=' '.join(sys.argv[1:]), machine=machine, **record), indent=1) + '\n')
    wrong = [text for run in record['runs'] for text in run['differences']]
    print(
        f'{len(record["kills"])} kills in {len(record["runs"])} runs, {len(wrong)} differences', *wrong[:20], sep='\n'
    )
    return bool(wrong)


if __name__ == '__main__':
    sys.exit(main())
