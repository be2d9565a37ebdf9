"""The table of VTAB-1k: accuracy over the 19 tasks, by group and overall, beside the claims of SPT's paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean

from vpetl_cli.shipped import leaf_of

from ..datasets.vtab1k import TASKS, TOKENS, token
from .metafile import Ours
from .names import SPT_METHODS, parse_name
from .table_format import Table
from .table_layouts import METHODS

# method -> the size in its configs' names, of SPT's comparison and of further papers
SIZES = dict(full='', fc='', bitfit='', vpt='', adaptformer='_b8', lora='_r8', sptlora='', sptadapter='')
FURTHER = dict(ssf='', repadapter='_b8', dora='_r16', facttt='_r16', facttk='_r32', vera='_r256', kadaptation='')
FURTHER |= dict(adapterplus='_b8', convpass='_b8', mona='_b64', compacter='_b24', mam='_b512', mhpa='_b30', dtl='_r2')
PRETRAINED = dict(in21k='IN-21K', mae='MAE', mocov3='MoCo v3')
GROUPS = tuple(dict.fromkeys(task.group for task in TASKS.values()))
BACKBONE, WIDTH = 85_798_656, 768  # ViT-B's parameters, and its head's input features
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
    'Trainable parameters in millions and in percent of the backbone, without the head; for SPT the mean over the '
    'finished tasks.',
    "The paper's are read off its figure, supervised ViT-B; there Adapter, which has no row here, is at 74. Its "
    'abstract has 7.3 more than full tuning at 0.65% of the parameters.',
)

FURTHER_NOTES = (
    NOTES[0],
    'Trainable parameters in millions and in percent of the backbone, without the head.',
    "Recipes are the methods' own where they have one for VTAB-1k, else SPT's; what is published is not comparable "
    '(docs/configs.md).',
)


def row_names(method: str, pretrain: str) -> dict[str, str]:
    """Return task -> experiment for one row of the table."""
    return {task: f'vit_{method}_{token(task)}{(SIZES | FURTHER)[method]}_{pretrain}' for task in TASKS}


EXPERIMENTS, OTHERS = (
    tuple(name for m in methods for p in PRETRAINED for name in row_names(m, p).values())
    for methods in (SIZES, FURTHER)
)


def head_params(name: str) -> int:
    """Return the parameters of the head of a VTAB-1k experiment on ViT-B."""
    return (WIDTH + 1) * TASKS[TOKENS[parse_name(name).dataset]].classes


def extremes(names: Iterable[str]) -> list[str]:
    """Return ``names`` with only the fewest and the most classes of each VTAB-1k leaf, to count parameters."""
    leaves: dict[str, list[str]] = {}
    for name in names:
        leaves.setdefault(leaf_of(name)[0], []).append(name)
    ends = (m if leaf in m else sorted(m, key=head_params) for leaf, m in leaves.items())
    return [name for members in ends for name in dict.fromkeys((members[0], members[-1]))]


@dataclass(frozen=True)
class GroupMeans:
    """The results of one row.

    Args:
        groups: group -> mean top-1 over its tasks; None if a task was not run.
        done: the number of tasks that were run.
        params: trainable parameters without the head; None if only a run can tell.
    """

    groups: dict[str, float | None]
    done: int
    params: float | None

    @property
    def mean(self) -> float | None:
        """The mean of the group means; None if one is missing."""
        values = list(self.groups.values())
        return None if None in values else mean(values)


def group_means(method: str, pretrain: str, ours: Mapping[str, Ours], counts: Mapping[str, int]) -> GroupMeans:
    """Return a row from whatever results and counts exist.

    Args:
        method: such as ``'lora'``.
        pretrain: such as ``'in21k'``.
        ours: experiment -> results.
        counts: experiment -> trainable parameters; any task's will do. SPT's are those of the results.
    """
    names = row_names(method, pretrain)
    done = {task: ours[name] for task, name in names.items() if name in ours}
    groups = {}
    for group in GROUPS:
        scores = [done[t].top1 if t in done else None for t, about in TASKS.items() if about.group == group]
        groups[group] = None if None in scores else mean(scores)
    trained = [counts[n] - head_params(n) for n in names.values() if n in counts]
    if method in SPT_METHODS:
        trained = [o.params - head_params(names[task]) for task, o in done.items()]
    return GroupMeans(groups, len(done), mean(trained) if trained else None)


def needed(ours: Iterable[str], further: bool = False) -> list[str]:
    """Return the experiments whose parameters a table needs: one per row, and those with results."""
    methods, shown = (FURTHER, OTHERS) if further else (SIZES, EXPERIMENTS)
    rows = (next(iter(row_names(m, p).values())) for m in methods for p in PRETRAINED if m not in SPT_METHODS)
    return list(dict.fromkeys((*rows, *(name for name in ours if name in shown))))


def vtab_table(ours: Mapping[str, Ours], counts: Mapping[str, int], further: bool = False) -> Table:
    """Return the table of SPT's comparison or of the methods of further papers, "not run" for a mean without a task.

    Args:
        ours: experiment -> results.
        counts: trainable parameters of :func:`needed`.
        further: whether the methods are those of further papers.
    """
    rows = []
    for method in FURTHER if further else SIZES:
        for pretrain, title in PRETRAINED.items():
            row = group_means(method, pretrain, ours, counts)
            trained = [BY_BUDGET, '-']
            if row.params is not None:
                trained = [f'{row.params / 1e6:.2f}', f'{100 * row.params / BACKBONE:.2f}%']
            means = [NOT_RUN if m is None else f'{m:.2f}' for m in (*row.groups.values(), row.mean)]
            claims = CLAIMS.get(method, ()) if pretrain == 'in21k' else ()
            paper = ', '.join(f'{top1:g} at {share:g}%' if share else f'{top1:g}' for top1, share in claims) or '-'
            papers = [] if further else [paper]
            rows.append([METHODS[method], title, *trained, *means, f'{row.done} of {len(TASKS)}', *papers, ''])
    head = ['method', 'pre-training', 'M', 'share', *GROUPS, 'mean', 'done', *['paper'] * (not further), 'remark']
    title, notes = ('Methods of further papers', FURTHER_NOTES) if further else ("ViT-B/16 in SPT's recipe", NOTES)
    return Table(f'VTAB-1k. {title}', head, rows, 2, list(notes))
