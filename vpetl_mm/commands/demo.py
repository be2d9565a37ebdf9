"""The demo: pre-train a small Video Swin on one domain, adapt it to another by every method, and compare."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from mmengine import Config
from mmengine.fileio import list_from_file
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..datasets.demo_clips import make_demo_clips
from ..engine.experiment import Options, prepare, test, train
from ..files import written_whole
from ..paper.demo_table import DemoRow, demo_table
from ..paper.names import FURTHER_METHODS, POSITIONS
from ..paper.table_format import render
from ..paper.tradeoff import draw_tradeoff
from ..preparation.progress import progress
from .allocate import AllocationRequest, find_allocation, resolve

CLIPS = dict(source_train=4000, source_test=400, target_train=800, target_val=400, target_test=800)
COMPARED = ('full', 'fc', 'lora', 'bitfit', 'adaptformer', 'patt', 'bapat', 'sptlora', 'sptadapter')
CONTROLS = ('bapat_random_backbone', 'one_frame')
METHODS = (*COMPARED, *CONTROLS)
# the weights to tune drawn at random, and by shuffled sensitivities
SPT_CONTROLS = ('sptlorarandom', 'sptlorashuffled', 'sptadapterrandom', 'sptadaptershuffled')
# methods of further papers, but DTL, which needs blocks of one width
FURTHER = tuple(m for m in FURTHER_METHODS if m != 'dtl')
# Tables 1 and 3 in miniature; a position of Table 1 is tuned alone under a random, frozen classification layer
ALL = (*COMPARED, 'prefix', 'prompt', *CONTROLS, *SPT_CONTROLS, *POSITIONS)
KNOWN = (*ALL, *FURTHER)


@dataclass
class Demo:
    """The runs of the demo.

    Args:
        configs: the folder that holds ``demo_*.py``.
        data: where clips and the pre-trained backbone go, as the configs name them.
        work_dir: where the runs and the table go.
        seeds: seeds per method; the source is pre-trained once. Defaults to 1.
        methods: which methods, in order. Defaults to :data:`METHODS`.
        clips: clips in each split. Defaults to :data:`CLIPS`.
    """

    configs: Path
    data: Path
    work_dir: Path
    seeds: int = 1
    methods: Sequence[str] = METHODS
    clips: dict[str, int] = field(default_factory=CLIPS.copy)

    def run(self) -> list[DemoRow]:
        """Make the clips, pre-train, adapt by every method, write the table and the figure; return the rows."""
        started = time.monotonic()
        make_demo_clips(self.data, self.clips)
        clips = _clips_of(self._config('source')) + self.seeds * sum(_clips_of(self._config(m)) for m in self.methods)
        with progress('clips', clips) as advance:
            self.hooks = [_Progress(advance)]
            source = self._row('source', 1)
            rows = [self._row(method, self.seeds, source) for method in self.methods]
        self._write(rows, source, time.monotonic() - started)
        return rows

    def _config(self, name: str, seed: int = 0) -> Config:
        cfg = prepare(self.configs / f'demo_{name}.py', Options(work_dir=str(self.work_dir / name / f'seed_{seed}')))
        cfg.randomness.seed = seed
        cfg.experiment_name = f'demo_{name}_{seed}_{time.monotonic_ns()}'
        cfg.console = 'errors'
        return cfg

    def _row(self, name: str, seeds: int, source: DemoRow | None = None) -> DemoRow:
        """Run a method with every seed; its share is that of the source's parameters, which all train."""
        params, scores, seconds = zip(*(self._run(name, seed) for seed in range(seeds)), strict=True)
        share = params[0] / source.params if source else 1.0
        row = DemoRow(name, params[0], share, mean(scores), mean(seconds), list(scores))
        print(f'{name:>24}  top-1 {row.top1:5.1f}, {row.seconds:4.0f} s', flush=True)
        return row

    def _run(self, name: str, seed: int) -> tuple[int, float, float]:
        """Train and test one config; return its trainable parameters, top-1 and seconds."""
        cfg = self._config(name, seed)
        shutil.rmtree(cfg.work_dir, ignore_errors=True)
        started = time.monotonic()
        if cfg.model.petl.get('spt'):
            cfg.model.petl.spt.file = file = str(Path(cfg.work_dir, 'spt.safetensors'))
            config, options = str(self.configs / f'demo_{name}.py'), {'randomness.seed': seed}
            find_allocation(*resolve(AllocationRequest(config, out=file, cfg_options=options)))
        runner = train(cfg, self.hooks)
        params = runner.plain_model.plan.count()['trainable']
        adapter = Path(cfg.work_dir, f'adapter_epoch_{runner.epoch}.pth')
        scores = test(cfg, adapter, str(Path(cfg.work_dir, 'predictions.csv')), self.hooks)
        if name == 'source':
            with written_whole(self.data / 'source_backbone.pth') as partial:
                shutil.copyfile(adapter, partial)
        return params, scores['acc/top1'], time.monotonic() - started

    def _write(self, rows: list[DemoRow], source: DemoRow, seconds: float) -> None:
        table = demo_table(
            rows,
            f'Top-1 in percent on {self.clips["target_test"]} target clips, last epoch, {self.seeds} seed(s); the '
            f'source, at {source.top1:.1f}, took {source.seconds:.0f} s; all of it {seconds / 60:.1f} minutes.',
            'Controls: bapat_random_backbone has nothing pre-trained; one_frame is bapat on one frame of each clip, '
            f'where chance is {100 / 8:.1f}.',
        )
        self.work_dir.mkdir(parents=True, exist_ok=True)
        (self.work_dir / 'table.json').write_text(json.dumps([asdict(r) for r in rows], indent=1) + '\n')
        (self.work_dir / 'table.md').write_text(render([table], 'md') + '\n', encoding='utf-8')
        left_out = ('one_frame', *SPT_CONTROLS, *POSITIONS)
        draw_tradeoff([r for r in rows if r.method not in left_out], self.work_dir / 'tradeoff.png')
        print(f'\n{render([table])}\n\n{self.work_dir}: table.json, table.md, tradeoff.png, and every run')


class _Progress(Hook):
    """Calls ``advance`` with the number of samples after each batch of training and testing."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count a batch."""
        self.advance(len(data_batch['data_samples']))

    after_test_iter = after_train_iter


def _clips_of(cfg: Config) -> int:
    """Return how many clips a run trains on, in all epochs, and tests."""
    lines = [len(list_from_file(cfg[k].dataset.ann_file)) for k in ('train_dataloader', 'test_dataloader')]
    return lines[0] * cfg.train_cfg.max_epochs + lines[1]
