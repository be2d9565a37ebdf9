"""One run of the demo: a method with a seed on an amount of data, trained and tested in a process of its own."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine import Config

from ..campaign.job import Job
from ..config import load_config
from ..datasets.list_file import read_list
from ..engine.experiment import Options, prepare, test, train
from ..errors import UserError
from ..files import from_json, written_whole
from .allocate import AllocationRequest, find_allocation, resolve

SOURCE = 'source'
FILE = 'demo_run.json'
FEW_EPOCHS = 14  # twice those of all clips, half of their steps


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Args:
        params: trainable parameters, with the head.
        model: parameters of the model without deltas, with the head.
        top1: on the test clips, in percent.
        seconds: to train and test.
    """

    params: int
    model: int
    top1: float
    seconds: float


@dataclass(frozen=True)
class DemoRun:
    """A run; calling it does it, and leaves an :class:`Outcome` in its folder.

    Args:
        config: its file.
        data: where the clips and the pre-trained backbone are.
        folder: of this run.
        method: the config's.
        seed: of the run.
        few: train on this many clips, the first of the list, for ``FEW_EPOCHS``; 0, the default, is all.
    """

    config: Path
    data: Path
    folder: Path
    method: str
    seed: int
    few: int = 0

    @property
    def name(self) -> str:
        """Return what messages call it."""
        return f'{self.method}, seed {self.seed}' + (f', {self.few} clips' if self.few else '')

    @property
    def job(self) -> Job:
        """Return it as a job."""
        return Job(self.name, self.folder, self, self.done)

    def done(self) -> bool:
        """Return whether it has left its outcome."""
        return (self.folder / FILE).is_file()

    def outcome(self) -> Outcome:
        """Return what it came to.

        Raises:
            UserError: when it was not done, or its file is corrupt.
        """
        try:
            return Outcome(**from_json((self.folder / FILE).read_text(encoding='utf-8')))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f'The outcome {self.folder / FILE} cannot be read ({error}); run the demo again.'
            ) from error

    @property
    def options(self) -> dict[str, Any]:
        """Return what differs from the config's file."""
        few = {
            'train_dataloader.dataset.indices': self.few,
            'train_cfg.max_epochs': FEW_EPOCHS,
            'param_scheduler.1.end': FEW_EPOCHS,
            'param_scheduler.1.T_max': FEW_EPOCHS - 1,
        }
        return {'randomness.seed': self.seed, **(few if self.few else {})}

    def settings(self) -> Config:
        """Return the config as it runs."""
        cfg = prepare(self.config, Options(str(self.folder), cfg_options=self.options, overwrite=True))
        cfg.experiment_name = f'demo_{self.method}_{time.monotonic_ns()}'
        cfg.console = 'errors'
        return _lightened(cfg)

    @property
    def needs_source(self) -> bool:
        """Whether it starts from the pre-trained backbone."""
        return bool(_read(self.config).model.get('base'))

    @property
    def clips(self) -> int:
        """How many clips it trains on, in all epochs, and tests."""
        cfg = _read(self.config)
        every, tested = (
            len(read_list(cfg[k].dataset.ann_file, None)) for k in ('train_dataloader', 'test_dataloader')
        )
        return (self.few * FEW_EPOCHS or every * cfg.train_cfg.max_epochs) + tested

    def __call__(self) -> None:
        """Train and test; the source leaves its backbone where the other configs look for it."""
        cfg, started = self.settings(), time.monotonic()
        if cfg.model.petl.get('spt'):
            cfg.model.petl.spt.file = str(self._allocate())
        runner = train(cfg)
        adapter = self.folder / f'adapter_epoch_{runner.epoch}.pth'
        scores = test(cfg, adapter, str(self.folder / 'predictions.csv'))
        if self.method == SOURCE:
            with written_whole(self.data / 'source_backbone.pth') as partial:
                shutil.copyfile(adapter, partial)
        count, existing = runner.plain_model.plan.count(), runner.plain_model.plan.train
        model = count['total'] - sum(n for name, n in count['by'].items() if name not in existing)
        outcome = Outcome(count['trainable'], model, scores['acc/top1'], time.monotonic() - started)
        with written_whole(self.folder / FILE) as partial:
            partial.write_text(f'{json.dumps(asdict(outcome))}\n', encoding='utf-8')

    def _allocate(self) -> Path:
        """Choose what SPT tunes, on this run's training clips; return the file."""
        file = self.folder / 'spt.safetensors'
        request = AllocationRequest(str(self.config), out=str(file), cfg_options=self.options, force=True)
        cfg, request = resolve(request)
        find_allocation(_lightened(cfg), request)
        return file


@cache
def _read(config: Path) -> Config:
    return load_config(config)


def _lightened(cfg: Config) -> Config:
    """Make a run of small clips light, with the same numbers: docs/performance.md says what each part saves."""
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.update(type='DecodedVideoDataset', serialize_data=False)  # a list of 4,000 lines is small
        loader.num_workers = 0
    cfg.default_hooks.checkpoint.interval = cfg.train_cfg.max_epochs
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]  # without TensorBoard
    return cfg
