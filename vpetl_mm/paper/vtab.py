"""VTAB-1k: accuracy over the 19 tasks, by group and overall, beside what SPT's paper claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean

from ..datasets.vtab1k import TASKS, TOKENS, token
from .metafile import Ours
from .names import SPT_METHODS, parse_name
from .table_format import Table
from .table_layouts import METHODS

# method -> the size in its configs' names
SIZES = dict(full='', fc='', bitfit='', vpt='', adaptformer='_b8', lora='_r8', sptlora='', sptadapter='')
PRETRAINED = dict(in21k='IN-21K', mae='MAE', mocov3='MoCo v3')
GROUPS = tuple(dict.fromkeys(task.group for task in TASKS.values()))
BACKBONE, WIDTH = 85_798_656, 768  # ViT-B's parameters, and what its head reads
# overall mean and share of the backbone's parameters, in percent, on ImageNet-21k; read off the authors' figure
CLAIMS = dict(
    sptlora=((75.9, 0.31), (76.4, 0.63)),
    sptadapter=((76.2, 0.37), (76.4, 0.44)),
    lora=((75.0, None),),
    adaptformer=((74.7, None),),
    vpt=((72.0, None),),
)
BY_BUDGET, NOT_RUN = 'by budget', 'not run'
NOTES = (
    'Top-1 in percent on the test sets, last epoch. The mean is the mean of the three group means, as is usual for '
    'VTAB-1k; a group mean needs all of its tasks.',
    'Trainable parameters in millions and in percent of the backbone, without the head; of SPT the mean over the '
    'tasks that are done.',
    "The paper's are read off its figure, supervised ViT-B; there Adapter, which has no row here, is at 74. Its "
    'abstract has 7.3 more than full tuning at 0.65% of the parameters.',
)


def experiment(method: str, task: str, pretrain: str) -> str:
    """The name of one task's config."""
    return f'vit_{method}_{token(task)}{SIZES[method]}_{pretrain}'


def experiments(method: str, pretrain: str) -> dict[str, str]:
    """Task -> config, of one row."""
    return {task: experiment(method, task, pretrain) for task in TASKS}


EXPERIMENTS = tuple(name for m in SIZES for p in PRETRAINED for name in experiments(m, p).values())


def pattern(name: str) -> str | None:
    """A config's name with ``<task>`` for its task of VTAB-1k; None for another data set."""
    dataset = parse_name(name).dataset
    return name.replace(dataset, 'vtab<task>') if dataset in TOKENS else None


def head_params(name: str) -> int:
    """The parameters of the head of a VTAB-1k config on ViT-B."""
    return (WIDTH + 1) * TASKS[TOKENS[parse_name(name).dataset]].classes


def extremes(names: Iterable[str]) -> list[str]:
    """What is to be counted of ``names``: of a row of VTAB-1k only the tasks with the fewest and most classes."""
    kept, rows = [], {}
    for name in names:
        if row := pattern(name):
            rows.setdefault(row, []).append(name)
        else:
            kept.append(name)
    for members in rows.values():
        members.sort(key=head_params)
        kept += dict.fromkeys((members[0], members[-1]))
    return kept


@dataclass(frozen=True)
class Result:
    """One row.

    Args:
        groups: group -> mean top-1 over its tasks; None where one of them was not run.
        done: how many tasks were run.
        params: trainable parameters without the head; None where only a run can tell.
    """

    groups: dict[str, float | None]
    done: int
    params: float | None

    @property
    def mean(self) -> float | None:
        """The mean of the group means; None where one is missing."""
        values = list(self.groups.values())
        return None if None in values else mean(values)


def result(method: str, pretrain: str, ours: Mapping[str, Ours], counts: Mapping[str, int]) -> Result:
    """A row from the results and the counts that there are.

    Args:
        method: such as ``'lora'``.
        pretrain: such as ``'in21k'``.
        ours: results by experiment.
        counts: trainable parameters by experiment; any task's says that of the others. SPT's are the results'.
    """
    names = experiments(method, pretrain)
    done = {task: ours[name] for task, name in names.items() if name in ours}
    groups = {}
    for group in GROUPS:
        scores = [done[t].top1 if t in done else None for t, about in TASKS.items() if about.group == group]
        groups[group] = None if None in scores else mean(scores)
    trained = [counts[n] - head_params(n) for n in names.values() if n in counts]
    if method in SPT_METHODS:
        trained = [o.params - head_params(names[task]) for task, o in done.items()]
    return Result(groups, len(done), mean(trained) if trained else None)


def needed(ours: Iterable[str]) -> list[str]:
    """The experiments whose parameters the table needs: one a row, and those that have results."""
    first = next(iter(TASKS))
    rows = (experiment(m, first, p) for m in SIZES for p in PRETRAINED if m not in SPT_METHODS)
    return list(dict.fromkeys((*rows, *(name for name in ours if name in EXPERIMENTS))))


def vtab_table(ours: Mapping[str, Ours], counts: Mapping[str, int]) -> Table:
    """The table, with "not run" where a mean lacks a task.

    Args:
        ours: results by experiment.
        counts: trainable parameters of :func:`needed`.
    """
    rows = []
    for method in SIZES:
        for pretrain, title in PRETRAINED.items():
            row = result(method, pretrain, ours, counts)
            means = [NOT_RUN if m is None else f'{m:.2f}' for m in (*row.groups.values(), row.mean)]
            claims = CLAIMS.get(method, ()) if pretrain == 'in21k' else ()
            paper = ', '.join(_claim(*claim) for claim in claims) or '-'
            done = f'{row.done} of {len(TASKS)}'
            rows.append([METHODS[method], title, *_trainable(row.params), *means, done, paper, ''])
    head = ['method', 'pre-training', 'M', 'share', *GROUPS, 'mean', 'done', 'paper', 'remark']
    return Table("VTAB-1k. ViT-B/16 in SPT's recipe", head, rows, 2, list(NOTES))


def _trainable(params: float | None) -> tuple[str, str]:
    return (BY_BUDGET, '-') if params is None else (f'{params / 1e6:.2f}', f'{100 * params / BACKBONE:.2f}%')


def _claim(top1: float, share: float | None) -> str:
    return f'{top1:g}' if share is None else f'{top1:g} at {share:g}%'
