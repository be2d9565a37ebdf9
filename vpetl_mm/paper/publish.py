"""Publish results in the repository: ``ours`` in the metafile, and the generated pages in configs/ and docs/."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpetl_cli.shipped import leaf_of

from ..datasets.vtab1k import TASKS, TOKENS
from ..engine.record import Record, find_records
from ..errors import UserError
from ..files import written_whole
from .few_shot import EXPERIMENTS as FEW_SHOT
from .few_shot import STUDIED, TUNED, apart_table, few_shot_table, rates_table
from .metafile import APART, METAFILE, Entry, SeedResult, load_metafile, mean_of, write_metafile
from .names import Name, parse_name
from .searches import FACTOR, RATE, found_by, with_more
from .table_format import escaped, render
from .table_layouts import DATASETS, LAYOUTS, METHODS, PRETRAIN
from .tables import Tables, as_printed, by_seed, together, trainable
from .transfer import transfer_table
from .vtab import BY_BUDGET, PRETRAINED, extremes

BEGIN, END = '<!-- tools/tables.py --docs writes the table below -->', '<!-- and ends here -->'
WEIGHTS = {**PRETRAIN, 'in21k': 'IN-21K', 'mae': 'MAE', 'videomae': 'VideoMAE', 'videomaek400': 'VideoMAE + K400'}
WEIGHTS |= {**PRETRAINED, 'dinov2': 'DINOv2', 'dinov3': 'DINOv3', 'vjepa2': 'V-JEPA 2'}
WEIGHTS |= {'random': 'nothing, random'}
BACKBONES = dict(swin='Video Swin-B', vit='ViT-B', vits14='ViT-S/14', timmvits14='ViT-S/14 of timm')
BACKBONES |= dict(timmvit='ViT-B/16 of timm', hfvit='ViT-B/16 of Hugging Face', hfvitl='ViT-L/16 of Hugging Face')
VARIANTS = dict(qk='on q, k', qv='on q, v', qkv='on q, k, v', concat='concatenated', tokens='from trained tokens')
VARIANTS |= dict(
    zero='at zero first', learned='s learned', random='at random places', shuffled='sensitivities shuffled'
)
VARIANTS |= dict(probe='behind a trained head', sample='per-sample gradients')
VARIANTS |= dict(probesample='per-sample gradients behind a trained head')
VARIED = ('bapat', 'patt', 'sptlora', 'sptadapter')
OTHER_SIZES = dict(mhpa='num_tokens')


@dataclass(frozen=True)
class Collected:
    """What :func:`collect` wrote.

    Args:
        filled: the experiments with results.
        searched: those with a search for their learning rate, or for one of SPT's parts.
        left_out: the number of results that count for none.
    """

    filled: list[str]
    searched: list[str]
    left_out: int


def collect(metafile: Path = METAFILE, work_dirs: Path = Path('work_dirs')) -> Collected:
    """Write the results of runs and of few-shot transfer's searches for a learning rate.

    Runs of other seeds that the metafile has by seed stay, and so do rates that a search did not try; a mean without
    its runs is replaced by the mean of more.

    Args:
        metafile: changed in place, whole or not at all; other entries keep what they have.
        work_dirs: the folder of the runs; searches are in its ``tune``, those for a part of SPT in ``tune/<part>``.

    Raises:
        UserError: for a result, a search or a metafile that is corrupt; nothing is written then.
    """
    entries = load_metafile(metafile)
    found = find_records(work_dirs)
    runs, out = as_printed(found.values(), Path(metafile).parent)
    filled, searched = [], []
    for entry in entries:
        records = [r for r in runs.get(entry.name, ()) if r.seed is not None or not entry.by_seed]
        out += len(runs.get(entry.name, ())) - len(records)
        if records and (entry.by_seed or not entry.ours or entry.ours.seeds <= len(records)):
            _fill(entry, by_seed(found, records), _where(records))
            filled.append(entry.name)
        else:
            out += len(records)
        if _search(entry, Path(work_dirs, 'tune')):
            searched.append(entry.name)
    if filled or searched:
        write_metafile(metafile, entries)
    known = {e.name for e in entries}
    return Collected(filled, searched, out + sum(len(r) for name, r in runs.items() if name not in known))


def _fill(entry: Entry, runs: dict[int | None, SeedResult], where: str) -> None:
    """Write the results of an experiment, and where they were run, into its entry; known results change nothing."""
    known, entry.by_seed = entry.by_seed, together(entry, runs)
    entry.ours = mean_of(entry.by_seed.values())
    if entry.by_seed != known:
        others = entry.where.split('; ') if entry.where and known.keys() - runs.keys() else []
        entry.where = '; '.join(dict.fromkeys([*others, where]))
    if None in entry.by_seed:  # a run without a seed cannot be told from another
        entry.by_seed = {}


def _search(entry: Entry, tune: Path) -> bool:
    """Write what searches found into an entry; return whether there was something."""
    rates = found_by(tune / entry.name, RATE) if entry.name in TUNED else {}
    parts = APART if entry.name == STUDIED else ()
    apart = {part: found_by(tune / part / entry.name, FACTOR.format(part)) for part in parts}
    entry.search = with_more(entry.search, rates)
    entry.apart |= {part: with_more(entry.apart.get(part, {}), found) for part, found in apart.items() if found}
    return any((rates, *apart.values()))


def _where(runs: Sequence[Record]) -> str:
    machines = ' and '.join(dict.fromkeys(r.machine for r in runs))
    return f'{machines}, collected at commit {_commit()}, {max(r.finished for r in runs)[:10]}'


def _commit() -> str:
    command = ['git', '-C', str(Path(__file__).parent), 'rev-parse', '--short', 'HEAD']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def describe(name: Name) -> str:
    """Describe an experiment in a line."""
    if name.is_demo:
        return f'the demo: {name.method.replace("_", " ")}'
    base = next((m for m in VARIED if name.method.startswith(m)), name.method)
    parts = [METHODS.get(base, f'{name.method} alone')]
    parts += [VARIANTS[name.method.removeprefix(base)]] if name.method != base else []
    size = OTHER_SIZES.get(name.method, 'rank' if name.size_kind == 'r' else 'd_bottle')
    parts += [f'{size} {name.size}'] if name.size else []
    parts += [f'{name.budget / 1000:g}M parameters'] if name.budget else []
    parts += [f's {name.scale:g}'] if name.scale is not None else []
    parts += [f'{BACKBONES[name.backbone]} from {WEIGHTS.get(name.pretrain, name.pretrain)}']
    parts += [DATASETS.get(name.dataset, name.dataset), *([f'{name.frames} frames'] if name.frames else [])]
    return ', '.join([*parts, 'FC trained' if name.fc else 'FC frozen'])


def configs_tables(entries: Sequence[Entry], counts: Mapping[str, int]) -> tuple[str, str]:
    """Return the tables of configs/README.md, with VTAB-1k in the second.

    Args:
        entries: the metafile's.
        counts: experiment -> trainable parameters, without SPT's; for VTAB-1k those of :func:`extremes` are enough.
    """
    leaves: dict[str, list[Entry]] = {}
    for entry in entries:
        leaves.setdefault(leaf_of(entry.name)[0], []).append(entry)
    tasks = ', '.join(f'{word.removeprefix("vtab")} ({TASKS[task].classes})' for word, task in TOKENS.items())
    plain = [f'{len(entries)} experiments in {len(leaves)} files.', '']
    plain += ['| config | answers | trainable | what |', '| --- | --- | ---: | --- |']
    pretrains = ', '.join(f'{word} ({title})' for word, title in PRETRAINED.items())
    vtab = [f'Tasks (classes): {tasks}. Pre-trainings: {pretrains}. Trainable: for the fewest and the most classes.']
    vtab += ['', '| config | trainable | what |', '| --- | ---: | --- |']
    for leaf, members in leaves.items():
        known = sorted({counts[e.name] for e in members if e.name in counts})
        count = ' to '.join(f'{n:,}' for n in (*known[:1], *known[1:][-1:])) or BY_BUDGET
        name = parse_name(members[0].name)
        if leaf == members[0].name:
            cells = ', '.join(members[0].cells) or '-'
            plain.append(f'| [{leaf}]({leaf}.py) | {cells} | {count} | {describe(name)} |')
        else:
            shown = f'{leaf.replace("vtab", "vtab<task>")}_<pretrain>'
            about = describe(replace(name, dataset='vtab1k', pretrain=' or '.join(PRETRAINED.values())))
            vtab.append(f'| [`{shown}`](vtab1k/{leaf}.py) | {count} | {about} |')
    return '\n'.join(plain), '\n'.join(vtab)


def results(entries: Sequence[Entry], counts: Mapping[str, int]) -> str:
    """Return the generated part of docs/reproduction.md: every table, from the metafile alone, and where runs ran."""
    tables = Tables(entries, None, counts=counts)
    body = render([tables.table(name) for name in LAYOUTS], 'md')
    ran = [e for e in entries if e.ours and e.where]
    places = dict.fromkeys(e.where for e in ran)
    runs = [f'- {escaped(place)}: {", ".join(e.name for e in ran if e.where == place)}' for place in places]
    return '\n'.join([body, *(['', '## Where ours were run', '', *runs] if runs else [])])


def regenerated(page: Path, *parts: str) -> str:
    """Return a page's text with new generated parts, which stand between the comments ``BEGIN`` and ``END``."""
    text = page.read_text(encoding='utf-8')
    first, *rest = re.split(f'(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})', text, flags=re.DOTALL)
    if len(rest) != len(parts):
        raise UserError(f'{page} must have {len(parts)} parts between the comments {BEGIN} {END}.')
    return first + ''.join(f'\n\n{part}\n\n{after}' for part, after in zip(parts, rest, strict=True))


def documents(root: Path = Path(), counts: Mapping[str, int] | None = None) -> dict[Path, str]:
    """Return path -> text for the generated pages of a repository; trainable parameters are counted if not given."""
    configs = Path(root, 'configs')
    entries = load_metafile(configs / METAFILE.name)
    counts = counts or trainable(extremes(e.name for e in entries), configs)
    ours = {e.name: e.ours for e in entries if e.ours}
    few_shot = [few_shot_table(name, ours, counts, configs) for name in FEW_SHOT]
    pages = {
        configs / 'README.md': configs_tables(entries, counts),
        Path(root, 'docs', 'reproduction.md'): [results(entries, counts)],
        Path(root, 'docs', 'real_transfer.md'): [
            render([transfer_table(ours, counts, configs)], 'md').partition('\n\n')[2]
        ],
        Path(root, 'docs', 'few_shot.md'): [
            render([*few_shot, apart_table(entries, configs), rates_table(entries, configs)], 'md')
        ],
    }
    return {page: regenerated(page, *parts) for page, parts in pages.items()}


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        partial.write_text(text, encoding='utf-8')
