"""docs/methods.md and its figures: each method, from its class, its docstring, a ViT-B and the trials of the tests.

``python tests/methods_page.py`` writes them anew.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hosts_table
import timm
import torch
from methods_figures import figure
from torch import nn

from vpetl_mm import UserError
from vpetl_mm.petl import Delta, Plan, adapt
from vpetl_mm.petl.adapt import delta_type
from vpetl_mm.petl.delta import defaults_of
from vpetl_mm.petl.merging import check_hosts
from vpetl_mm.petl.proposal.methods import METHODS

DOCS = Path(__file__).parents[1] / 'docs'
PAGE, FIGURES = DOCS / 'methods.md', DOCS / 'figures/methods'
PARTS = {'LinearAdapter': 'SPT-Adapter and AIM', 'Sparse': 'SPT', 'FrameEmbedding': 'AIM'}  # of these, no methods
# the class -> what the literature calls it, where that is another name
CALLED = {
    'AdaptMLP': 'AdaptFormer',
    'Prefix': 'Prefix-tuning',
    'Prompt': 'VPT',
    'AdapterPlus': 'Adapter+',
    'MHPA': 'MH-PA',
    'STAdapter': 'ST-Adapter',
    'AIMTime': 'AIM',
}
# how a delta acts -> what is said of it, with the place
SAID = {
    'weights': 'changes the weights of {}',
    'input': 'sits beside {}',
    'norm': 'sits beside {}',
    'stream': 'sits beside {} and reads the stream in front of the norm',
    'output': 'sits behind {}',
    'before': 'sits in front of {}',
    'keys': 'brings further keys and values to {}',
}
PLACES = {'attn': 'attention', 'mlp': 'the MLP', 'block': 'the block', 'patch_embed': 'the patch embedding'}
PLACES |= {'norm1': 'norm1', 'norm2': 'norm2', 'last_norm': 'the last norm'}


def methods() -> dict[str, dict[str, Any]]:
    """Class name -> the delta of its first trial."""
    first: dict[str, dict[str, Any]] = {}
    for delta in METHODS.values():
        first.setdefault(delta['type'], delta)
    return first


@cache
def on_vit_b(name: str) -> Plan:
    """A method at its defaults on timm's ViT-B/16, on the meta device."""
    with torch.device('meta'):
        return adapt(timm.create_model('vit_base_patch16_224'), dict(x=dict(type=name, **options_of(name))), train=[])


def marks_of(delta: Delta) -> Iterator[tuple[str, str]]:
    """Where a delta acts, and how: what it overrides, and what its ``forward`` reads."""
    cls = type(delta)
    if delta.joins_attention:
        yield delta.at, 'keys'
        return
    if delta.reads == 'weights':
        yield delta.at, 'weights'
    elif delta.reads is not None and cls.forward is not nn.Module.forward:
        yield delta.at, delta.reads
    if cls.before is not Delta.before:
        yield delta.at, 'before'
    if cls.after is not Delta.after:
        yield delta.at, 'output'


def marks(name: str) -> list[tuple[str, str]]:
    """Where a method acts, in the order of its places."""
    return list(dict.fromkeys(mark for delta in on_vit_b(name).deltas() for mark in marks_of(delta)))


def sits(name: str) -> str:
    """Where a method acts, in words."""
    said: dict[str, list[str]] = {}
    for place, how in marks(name):
        where = PLACES.get(place, place)
        if place == 'between':
            where = {'before': 'the MLP and its norm'}.get(how, 'attention')
        said.setdefault(SAID[how], []).append(where)
    told = _and([what.format(_and(places)) for what, places in said.items()])
    return told.replace('and sits', 'and')


def _and(words: list[str]) -> str:
    return ' and '.join(filter(None, (', '.join(words[:-1]), words[-1])))


def about(name: str) -> tuple[str, str]:
    """The first sentence of a class's docstring, and the formula below it."""
    text = inspect.getdoc(delta_type(name))
    formula = re.search(r'::\n\n((?: {4}.*\n|\n)+)', text + '\n')[1]
    first = re.match(r'(.*?)(?:\.\s+(?=[A-Z])|\.$|:\s|::|\n\n)', text, re.DOTALL)[1]
    return ' '.join(first.split()), textwrap.dedent(formula).strip()


def called(name: str) -> str:
    """What the literature calls a method."""
    return CALLED.get(name, name)


def merges(name: str) -> bool:
    """Whether a method becomes part of the weights."""
    try:
        check_hosts(on_vit_b(name).model, '')
    except UserError:
        return False
    return True


def errata(name: str) -> str:
    """A link to the rows about a method, with their number; '' for none."""
    text, found = (DOCS / 'errata.md').read_text(encoding='utf-8'), {}
    for section in re.split(r'^## ', text, flags=re.MULTILINE)[1:]:
        title, rows = section.split('\n', 1)
        cells = [cell.lower() for cell in re.findall(r'^\| ([^|]+) \|', rows, re.MULTILINE)]
        named = [
            c for c in cells if any(re.search(rf'(?<!\w){re.escape(n.lower())}\b', c) for n in {name, called(name)})
        ]
        if named:
            found['-'.join(re.findall(r'\w+', title.lower()))] = len(named)
    return ', '.join(f'[{n}](errata.md#{anchor})' for anchor, n in found.items())


def options_of(name: str) -> dict[str, Any]:
    """The options of a method's trial that a delta cannot do without."""
    given, defaults = methods()[name], defaults_of(delta_type(name))
    return {k: v for k, v in given.items() if k == 'num_frames' or k not in ('type', 'at', *defaults)}


@cache
def hosts_without(name: str) -> dict[str, list[str]]:
    """Reason -> the hosts that refuse a method for it, as docs/hosts.md says."""
    columns = hosts_table.COLUMNS | hosts_table.FURTHER
    trials = {c: given if isinstance(given, str) else given[0] for c, given in columns.items()}
    column = next(c for c, trial in trials.items() if METHODS.get(trial, {}).get('type') == name)
    text = hosts_table.PAGE.read_text(encoding='utf-8').partition(hosts_table.BEGIN)[2].partition(hosts_table.END)[0]
    reasons = dict(re.findall(r'^- (\w): (.*)', text, re.MULTILINE))
    refused: dict[str, list[str]] = {}
    head: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        head = cells if cells[0] == 'host' else head
        if line.startswith('|') and column in head and cells[head.index(column)] in reasons:
            refused.setdefault(reasons[cells[head.index(column)]], []).append(f'{cells[0]} of {cells[1]}')
    return refused


def page() -> str:
    """The whole page."""
    rows = [
        '| method | parameters on a ViT-B | share | merges | starts plain | hosts | errata |',
        '| --- | ---: | ---: | :-: | :-: | --- | --- |',
        *map(_row, methods()),
    ]
    parts = _and([f'`{part}` (of {whole})' for part, whole in PARTS.items()])
    return '\n\n'.join([INTRODUCTION.format(parts=parts), '\n'.join(rows), *map(_section, methods())]) + '\n'


def _row(name: str) -> str:
    count = on_vit_b(name).count()
    trains, total = count['trainable'], count['total']
    plain = all(delta.starts_plain for delta in on_vit_b(name).deltas())
    without = sum(map(len, hosts_without(name).values()))
    hosts = f'all but {without}' if without else 'all'
    yes = {True: 'yes', False: 'no'}
    cells = [
        f'{trains:,}',
        f'{100 * trains / (total - trains):.2f} %',
        yes[merges(name)],
        yes[plain],
        hosts,
        errata(name),
    ]
    return f'| [{called(name)}](#{anchor(name)}) | {" | ".join(cells)} |'


def anchor(name: str) -> str:
    """The link to a method's section, as GitHub makes it from the title."""
    return re.sub(r'[^\w -]', '', _title(name).lower()).replace(' ', '-')


def _title(name: str) -> str:
    return name if called(name) == name else f'{called(name)} (`{name}`)'


def _section(name: str) -> str:
    sentence, formula = about(name)
    options = ', '.join(
        f'`{k}={v}`' for k, v in options_of(name).items() if k != 'num_frames'
    )  # which counts nothing
    lines = [
        f'## {_title(name)}',
        f'<img src="figures/methods/{name.lower()}.svg" width="240" alt="{sits(name)}">',
        f'{sentence}.',
        f'```\n{formula}\n```',
        f'`{name}` {sits(name)}{f"; counted with {options}" if options else ""}.',
    ]
    without = [f'- refused on {"; ".join(hosts)}: {why}' for why, hosts in hosts_without(name).items()]
    return '\n\n'.join([*lines, *(['\n'.join(without)] if without else [])])


INTRODUCTION = """\
# Methods

<!-- made by tests/methods_page.py -->

Every method here is one class, a `type` in `petl.deltas`; its docstring has the formula of its parameters and all its
options. A figure shows one block: grey is the host, red what the method adds, or whose weights it changes.

- Parameters: on timm's ViT-B/16 at the class's defaults, without the head. `tools/count_params.py --methods all`
  counts those of the configs on every host.
- Merges: it becomes part of the weights, which leaves the plain model and its speed. SSF, RepAdapter and KAdaptation
  change biases too, and merge where the layers have some: not on a ViT whose qkv has none, such as mmpretrain's from
  ImageNet-21k or DINOv3.
- Starts plain: step 0 is exactly the plain backbone.
- Hosts: those of [hosts](hosts.md) that take it; each section names the others.
- Errata: how many disagreements of papers and published code there are.

{parts} are parts of methods."""


def main() -> None:
    """Write the page and the figures."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, text in figures().items():
        (FIGURES / name).write_text(text, encoding='utf-8')
    PAGE.write_text(page(), encoding='utf-8')


def figures() -> dict[str, str]:
    """File name -> SVG."""
    return {f'{n.lower()}.svg': figure(f'{called(n)}: {sits(n)}', called(n), marks(n)) for n in methods()}


if __name__ == '__main__':
    main()
