"""The demo: pre-train a small Video Swin on one domain, adapt it to another by every method, compare."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from mmengine import Config
from mmengine.fileio import list_from_file
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..datasets.demo_clips import make_demo_clips
from ..engine.experiment import Options, prepare, test, train
from ..files import written_whole
from ..paper.demo_rows import DemoRow, demo_table
from ..paper.tradeoff import draw_tradeoff
from .allocate import Request, find, prepared

CLIPS = dict(source_train=4000, source_test=400, target_train=800, target_val=400, target_test=800)
METHODS = (
    'full',
    'fc',
    'lora',
    'bitfit',
    'adaptformer',
    'patt',
    'bapat',
    'sptlora',
    'sptadapter',
    'bapat_random_backbone',
    'one_frame',
)
# Table 1's positions, tuned alone behind a random, frozen classification layer
POSITIONS = ('norm1', 'attnproj', 'attnqkv', 'attnrpb', 'norm2', 'mlpfc1', 'mlpfc2', 'downsample')
CONTROLS = ('bapat_random_backbone', 'one_frame')
# SPT's places drawn at random, and dealt out to others
SPT_CONTROLS = ('sptlorarandom', 'sptlorashuffled', 'sptadapterrandom', 'sptadaptershuffled')
ALL = (*METHODS[:-2], 'prefix', 'prompt', *CONTROLS, *SPT_CONTROLS, *POSITIONS)  # Tables 1 and 3 in miniature


class Demo:
    """The demo's runs.

    Args:
        configs: the folder that holds ``demo_*.py``.
        data: where clips and the pre-trained backbone go, as the configs name them.
        work_dir: where the runs and the table go.
        seeds: how many seeds each method is run with. The source is pre-trained once.
        methods: which methods, in order.
        clips: how many clips each split has.
    """

    def __init__(
        self,
        configs: Path,
        data: Path,
        work_dir: Path,
        seeds: int = 1,
        methods: Sequence[str] = METHODS,
        clips: dict[str, int] | None = None,
    ) -> None:
        self.configs, self.data, self.work_dir = configs, data, work_dir
        self.seeds, self.methods, self.clips = seeds, list(methods), clips or CLIPS
        self.console = Console()

    def run(self) -> list[DemoRow]:
        """Do it all; the table's rows."""
        started = time.monotonic()
        make_demo_clips(self.data, self.clips)
        with Progress(
            TextColumn('{task.description:>24}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('clips,'),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
        ) as progress:
            self._begin(progress)
            source = self._pretrain()
            rows = [self._adapt(method) for method in self.methods]
        self._write(rows, source, time.monotonic() - started)
        return rows

    def _begin(self, progress: Progress) -> None:
        runs = [self._config('source')] + [self._config(m) for m in self.methods for _ in range(self.seeds)]
        total = sum(_clips_of(cfg) for cfg in runs)
        self._progress, self._task = progress, progress.add_task('', total=total)
        self._done, self._total, self._started = 0, total, time.monotonic()

    def _advance(self, clips: int) -> None:
        self._done += clips
        self._progress.advance(self._task, clips)

    def _config(self, name: str, seed: int = 0) -> Config:
        cfg = prepare(self.configs / f'demo_{name}.py', Options(work_dir=str(self.work_dir / name / f'seed_{seed}')))
        cfg.randomness.seed = seed
        cfg.experiment_name = f'demo_{name}_{seed}_{time.monotonic_ns()}'
        cfg.console = 'errors'
        return cfg

    def _run(self, name: str, seed: int) -> tuple[dict, float, float, Path]:
        """Train and test one config: its parameter counts, top-1, seconds, and trained weights."""
        self._progress.update(self._task, description=f'{name}, seed {seed}' if self.seeds > 1 else name)
        cfg = self._config(name, seed)
        shutil.rmtree(cfg.work_dir, ignore_errors=True)
        started = time.monotonic()
        if cfg.model.petl.get('spt'):
            cfg.model.petl.spt.file = self._sensitivity(name, seed, cfg.work_dir)
        hooks = [_Progress(self._advance)]
        runner = train(cfg, hooks)
        counts = runner.plain_model.plan.count()
        adapter = Path(cfg.work_dir, f'adapter_epoch_{runner.epoch}.pth')
        scores = test(cfg, adapter, str(Path(cfg.work_dir, 'predictions.csv')), hooks)
        return counts, scores['acc/top1'], time.monotonic() - started, adapter

    def _sensitivity(self, name: str, seed: int, work_dir: str) -> str:
        """What SPT tunes in this run, as tools/sensitivity.py finds it; the file."""
        request = Request(
            str(self.configs / f'demo_{name}.py'),
            out=str(Path(work_dir, 'spt.safetensors')),
            cfg_options={'randomness.seed': seed},
        )
        cfg, request = prepared(request)
        find(cfg, request)
        return request.out

    def _pretrain(self) -> DemoRow:
        counts, top1, seconds, weights = self._run('source', 0)
        self._full = counts['trainable']  # the plain model, of which the shares are taken
        with written_whole(self.data / 'source_backbone.pth') as partial:
            shutil.copyfile(weights, partial)
        row = DemoRow('source', counts['trainable'], 1.0, top1, seconds, [top1])
        self._say(row)
        return row

    def _adapt(self, method: str) -> DemoRow:
        runs = [self._run(method, seed) for seed in range(self.seeds)]
        counts, scores = runs[0][0], [top1 for _, top1, _, _ in runs]
        share = counts['trainable'] / self._full
        row = DemoRow(method, counts['trainable'], share, mean(scores), mean(s for _, _, s, _ in runs), scores)
        self._say(row)
        return row

    def _say(self, row: DemoRow) -> None:
        left = (time.monotonic() - self._started) / self._done * (self._total - self._done)
        done = f'top-1 {row.top1:5.1f}, {row.seconds:4.0f} s'
        self.console.print(f'{row.method:>24}  {done}; about {left / 60:.1f} minutes left', highlight=False)

    def _write(self, rows: list[DemoRow], source: DemoRow, seconds: float) -> None:
        self.work_dir.mkdir(parents=True, exist_ok=True)
        note = (
            f'Top-1 in percent on {self.clips["target_test"]} target clips, last epoch, {self.seeds} seed(s); '
            f'the source, at {source.top1:.1f}, took {source.seconds:.0f} s; all of it {seconds / 60:.1f} minutes.\n'
            'Controls: bapat_random_backbone has nothing pre-trained; one_frame is bapat seeing one frame of each\n'
            f'clip, where chance is {100 / 8:.1f}.'
        )
        table = demo_table(rows)
        (self.work_dir / 'table.json').write_text(json.dumps([asdict(r) for r in rows], indent=1) + '\n')
        (self.work_dir / 'table.md').write_text(f'{table}\n\n{note}\n', encoding='utf-8')
        drawn = [r for r in rows if r.method not in ('one_frame', *SPT_CONTROLS, *POSITIONS)]
        draw_tradeoff(drawn, self.work_dir / 'tradeoff.png')
        print(f'\n{table}\n\n{note}\n\n{self.work_dir}: table.json, table.md, tradeoff.png, and every run')


class _Progress(Hook):
    """Calls ``advance`` with the number of samples after each batch of training and testing."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count a batch."""
        self.advance(len(data_batch['data_samples']))

    after_test_iter = after_train_iter


def _clips_of(cfg: Config) -> int:
    """How many clips a run trains on and tests, epochs counted."""
    lines = [len(list_from_file(cfg[k].dataset.ann_file)) for k in ('train_dataloader', 'test_dataloader')]
    return lines[0] * cfg.train_cfg.max_epochs + lines[1]
