"""The demo: pre-train a small Video Swin on one domain, adapt it to another by every method, and compare."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from statistics import mean

from ..campaign.claim import in_use
from ..campaign.driver import DONE, FAILED, drive
from ..campaign.job import LOG, Job
from ..campaign.local import PRELOAD, LocalEngine
from ..datasets.decoded_clips import decode_clips
from ..datasets.demo_clips import make_demo_clips
from ..errors import UserError
from ..files import written_whole
from ..paper.demo_table import DemoRow, demo_table
from ..paper.names import FURTHER_METHODS, POSITIONS
from ..paper.table_format import render
from ..paper.tradeoff import draw_tradeoff
from ..preparation.progress import progress
from .demo_run import SOURCE, DemoRun, Outcome

CLIPS = dict(source_train=4000, source_test=400, target_train=800, target_val=400, target_test=800)
FEW = 4  # the second column has one in so many of the target's training clips
COMPARED = ('full', 'fc', 'lora', 'bitfit', 'adaptformer', 'patt', 'bapat', 'sptlora', 'sptadapter')
CONTROLS = {'bapat_random_backbone': 'a backbone that was never trained', 'one_frame': 'one frame of each clip'}
CHANCE = 100 / 8  # percent
METHODS = (*COMPARED, *CONTROLS)
# the weights to tune drawn at random, and by shuffled sensitivities
SPT_CONTROLS = ('sptlorarandom', 'sptlorashuffled', 'sptadapterrandom', 'sptadaptershuffled')
SPT_MEASURED = ('sptloraprobe', 'sptlorasample', 'sptloraprobesample')  # behind a trained head; by sample; both
# methods of further papers, but DTL, which needs blocks of one width
FURTHER = tuple(m for m in FURTHER_METHODS if m != 'dtl')
# Tables 1 and 3 in miniature; a position of Table 1 is tuned alone under a random, frozen classification layer
ALL = (*COMPARED, 'prefix', 'prompt', *CONTROLS, *SPT_CONTROLS, *POSITIONS)
KNOWN = (*ALL, *FURTHER, *SPT_MEASURED)
# what a run imports late, beside what the engine's processes share already
IMPORTED = (*PRELOAD, 'matplotlib.pyplot', 'vpetl_mm.commands.demo_run')


@dataclass
class Demo:
    """The runs of the demo, each a process with one thread, so that their number changes no figure.

    Args:
        configs: the folder that holds ``demo_*.py``.
        data: where clips and the pre-trained backbone go, as the configs name them.
        work_dir: where the runs and the table go.
        seeds: seeds per method; the source is pre-trained once. Defaults to 1.
        methods: which methods, in order. Defaults to :data:`METHODS`.
        clips: clips in each split. Defaults to :data:`CLIPS`.
        parallel: runs at a time. Defaults to one for each core.
    """

    configs: Path
    data: Path
    work_dir: Path
    seeds: int = 1
    methods: Sequence[str] = METHODS
    clips: dict[str, int] = field(default_factory=CLIPS.copy)
    parallel: int | None = None

    def run(self) -> list[DemoRow]:
        """Make the clips, pre-train, adapt by every method, write the table and the figure; return the rows.

        Raises:
            UserError: for fewer than one seed or run at a time, and when a run fails; the others are stopped.
        """
        if self.seeds < 1:
            raise UserError(f'--seeds must be at least 1, got {self.seeds}.')
        started = time.monotonic()
        engine = _SourceFirst(self.parallel, threads=1)
        make_demo_clips(self.data, self.clips)
        for split in self.clips:
            decode_clips(self.data / f'{split}.txt', self.data)
        source, runs = self._run(SOURCE), list(self._runs())
        for run in (source, *runs):
            if in_use(run.folder):
                raise UserError(f'Another process is at work in {run.folder}: wait for it, or end it.')
            shutil.rmtree(run.folder, ignore_errors=True)
        engine.source, engine.needing = source, {run.name for run in runs if run.needs_source}
        self._carry_out([source, *sorted(runs, key=self._turn)], engine)
        pretrained = source.outcome()
        rows = [self._row(method) for method in self.methods]
        self._write(rows, pretrained, time.monotonic() - started)
        return rows

    @property
    def few(self) -> int:
        """How many clips the second column has."""
        return max(1, self.clips['target_train'] // FEW)

    def _run(self, method: str, seed: int = 0, few: int = 0) -> DemoRun:
        folder = self.work_dir / method / (f'few_seed_{seed}' if few else f'seed_{seed}')
        config = self.configs / f'demo_{method}.py'
        return DemoRun(config.absolute(), self.data.absolute(), folder.absolute(), method, seed, few)

    def _runs(self) -> Iterator[DemoRun]:
        return (self._run(m, seed, n) for n in (0, self.few) for m in self.methods for seed in range(self.seeds))

    def _turn(self, run: DemoRun) -> tuple[bool, bool]:
        """Return when a run comes: what needs no source can begin with it, and long runs go before short ones."""
        return run.needs_source, bool(run.few)

    def _carry_out(self, runs: Sequence[DemoRun], engine: LocalEngine) -> None:
        """Do the runs; tell about a method and an amount of data as soon as all seeds are done."""
        by_name = {run.name: run for run in runs}
        events = closing(drive([run.job for run in runs], engine))  # what still runs is stopped after a failure
        with progress('clips', sum(run.clips for run in runs)) as advance, events as happening:
            for event in happening:
                run = by_name[event.job.name]
                if event.what == FAILED:
                    raise UserError(f'{run.name} failed: {event.reason} (see {run.folder / LOG})')
                if event.what == DONE:
                    advance(run.clips)
                    self._tell(run, [r for r in runs if (r.method, r.few) == (run.method, run.few)])

    def _tell(self, run: DemoRun, alike: Sequence[DemoRun]) -> None:
        if all(r.done() for r in alike):
            top1, seconds = _means([r.outcome() for r in alike])
            clips = 'source' if run.method == SOURCE else f'{run.few or self.clips["target_train"]} clips'
            print(f'{run.method:>24}, {clips:>10}: top-1 {top1:5.1f}, {seconds:4.0f} s', flush=True)

    def _row(self, method: str) -> DemoRow:
        """Return a method's row; its share is that of the parameters without deltas."""
        every, few = (
            [r.outcome() for r in self._runs() if r.method == method and bool(r.few) is is_few]
            for is_few in (False, True)
        )
        top1, seconds = _means(every)
        scores = [outcome.top1 for outcome in few]
        return DemoRow(
            *(method, every[0].params, every[0].params / every[0].model, top1, seconds),
            *([outcome.top1 for outcome in every], mean(scores), scores),
        )

    def _write(self, rows: list[DemoRow], source: Outcome, seconds: float) -> None:
        every = self.clips['target_train']
        table = demo_table(
            rows,
            f'Top-1 in percent on {self.clips["target_test"]} target clips, last epoch, {self.seeds} seed(s), '
            f'trained on {every} clips and on {self.few} of them ("few"); the source, at {source.top1:.1f}, took '
            f'{source.seconds:.0f} s; all of it {seconds / 60:.1f} minutes.',
            'Controls: bapat_random_backbone has nothing pre-trained; one_frame is bapat on one frame of each clip, '
            f'where chance is {CHANCE:.1f}.',
        )
        self.work_dir.mkdir(parents=True, exist_ok=True)
        with written_whole(self.work_dir / 'table.json') as partial:
            partial.write_text(json.dumps([asdict(r) for r in rows], indent=1) + '\n')
        (self.work_dir / 'table.md').write_text(render([table], 'md') + '\n', encoding='utf-8')
        draw_tradeoff(drawn(rows), (every, self.few), CONTROLS, CHANCE, self.work_dir / 'tradeoff.png')
        print(f'\n{render([table])}\n\n{self.work_dir}: table.json, table.md, tradeoff.png, and every run')


def drawn(rows: Sequence[DemoRow]) -> Sequence[DemoRow]:
    """Return the rows that the figure shows: without single positions and variants of SPT, unless that is all."""
    return [r for r in rows if r.method not in (*SPT_CONTROLS, *SPT_MEASURED, *POSITIONS)] or rows


class _SourceFirst(LocalEngine):
    """Starts what needs the pre-trained backbone when it is there.

    Attributes:
        source: the run that leaves it.
        needing: names of the jobs that need it.
    """

    source: DemoRun
    needing: set[str]

    def __init__(self, parallel: int | None, threads: int) -> None:
        super().__init__(parallel, threads=threads, preload=IMPORTED)
        forkserver.ensure_running()  # it imports while the clips are made

    def start(self, waiting: Sequence[Job]) -> list[Job]:
        """Start as many of the jobs as fit now and need nothing that is not there; return them."""
        there = self.source.done()
        return super().start([job for job in waiting if there or job.name not in self.needing])


def _means(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the means of top-1 and seconds."""
    return mean(o.top1 for o in outcomes), mean(o.seconds for o in outcomes)
