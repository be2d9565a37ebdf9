"""What a bundle says about itself: as lines for a terminal, and as a model card in Markdown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from safetensors import safe_open

from ...errors import tellable
from ...files import size_of
from ..plain.info import tuned_as
from .bundle import About, read_about
from .views import number_of_views


def info_of(file: str | Path) -> str:
    """Return the description of a bundle, a line for each fact, from its header alone.

    Raises:
        UserError: as :func:`~.bundle.read_about`.
    """
    facts = facts_of(file, read_about(file))
    width = max(map(len, facts))
    return '\n'.join(f'{name:{width}}  {value}' for name, value in facts.items())


def facts_of(file: str | Path, about: About) -> dict[str, str]:
    """Return the facts about a bundle, by name, each on one line that is safe for a terminal."""
    with safe_open(file, 'pt') as opened:
        count = len(opened.keys())
    share = 100 * about.trainable / max(about.total, 1)
    views = number_of_views(about)
    facts = {
        'experiment': about.name,
        'file': f'{file}, {size_of(file)}, {count} tensors',
        'classifies': f'{about.media}s, {_classes(about)}',
        'views': f'{views} of each {about.media}{", averaged" if views > 1 else ""}',
        'backbone': _backbone(about),
        'tuned': ', '.join(filter(None, [_deltas(about), *about.model['petl']['train']])),
        'parameters': f'{about.trainable:,} trained of {about.total:,} ({share:.2f} %)',
        'base': _base(about),
        'scores': _scores(about),
        'trained': f'{about.epoch} epoch{"s" * (about.epoch != 1)}, seed {_or_unknown(about.seed)}',
        'options': ', '.join(f'{k}={v}' for k, v in about.options.items()) or 'none',
        'license': about.license,
        'made': f'{about.created} with ' + ', '.join(f'{k} {v}' for k, v in about.versions.items()),
    }
    return {name: tellable(value) for name, value in facts.items()}


def _or_unknown(value: object) -> str:
    return 'unknown' if value is None else str(value)


def _classes(about: About) -> str:
    if about.classes is None:
        return f'{about.num_classes} classes without names'
    shown = ', '.join(about.classes[:3])
    return f'{about.num_classes} classes: {shown}{", ..." if about.num_classes > 3 else ""}'


def _backbone(about: About) -> str:
    backbone = about.model['backbone']
    arch = backbone.get('arch')
    return f'{about.default_scope}.{backbone["type"]}{f", {arch}" if isinstance(arch, str) else ""}'


def _deltas(about: About) -> str:
    return ', '.join(tuned_as(name, delta) for name, delta in about.deltas.items())


def _base(about: About) -> str:
    if about.base is None:
        return 'none (random backbone); the bundle holds the whole model'
    where = f', {about.base["url"]}' if about.base['url'] else ''
    needed = '' if about.frozen_sha256 else ', not needed: the bundle holds the whole model'
    return f'{about.base["name"]}{where}{needed}; SHA-256 {about.base["sha256"]}'


def _scores(about: About) -> str:
    if about.scores is None:
        return 'not tested'
    s = about.scores
    accuracies = f'top-1 {s["top1"]:.2f}, top-5 {s["top5"]:.2f}, mean class {s["mean_class"]:.2f} %'
    return f'{accuracies} on the {s["samples"]:,} samples of {s["list"]}'


def card_of(file: str | Path) -> str:
    """Return a model card in Markdown.

    Raises:
        UserError: as :func:`~.bundle.read_about`.
    """
    about = read_about(file)
    facts = facts_of(file, about)
    what, article = about.media, 'A' if about.is_video else 'An'
    base, needed = '', 'It holds the whole model and needs no other file.'
    if about.frozen_sha256:
        base, needed = ' --base FILE', f'It also needs its base: {escaped(facts["base"])}.'
    rows = '\n'.join(f'| {name} | {escaped(value)} |' for name, value in facts.items())
    tested = 'It was not tested.' if about.scores is None else f'Measured: {escaped(facts["scores"])}, one seed.'
    name = escaped(about.name)
    classes = '\n'.join(f'- {escaped(c)}' for c in about.classes or ()) or 'Their names are not recorded.'
    return f"""\
# {name}

{article} {what} classifier: a frozen {escaped(facts['backbone'])}, adapted by training {about.trainable:,} of its \
{about.total:,} parameters with vpetl_mm. {tested}

## Use

```
tools/predict.py {tellable(shlex.quote(Path(file).name))} {what}s/{base}
```

The file holds no code. {needed}

## Facts

| | |
| --- | --- |
{rows}

## Classes

{classes}

## Limits

It knows only these classes and assigns one of them to any {what}. It has not been tested on {what}s from
other sources.
"""


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, whatever it holds: no tag, link, list, formula or mention."""
    text = re.sub(r'([^\w\s,.%-]|_|^[.-]|(?<=[^\W\d])[.](?=\w))', r'\\\1', text)
    return re.sub(r'^(\d+)[.]', r'\1\\.', text)
