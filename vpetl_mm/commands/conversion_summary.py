"""What a conversion says of itself on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..errors import tellable
from ..weights.converted import Record
from ..weights.kinds import KINDS
from ..weights.wrappings import INSERTED
from .conversion import Conversion


def summary(conversion: Conversion, dst: str, forced: bool) -> str:
    """The lines that follow a conversion: kind, host, what went where, and what to write in a config.

    Args:
        conversion: what was written.
        dst: where.
        forced: whether the kind was given by ``--kind``.
    """
    return '\n'.join(map(tellable, _lines(conversion, dst, forced)))


def _lines(conversion: Conversion, dst: str, forced: bool) -> Iterator[str]:
    record, tensors = conversion.record, conversion.tensors
    how = 'given by --kind' if forced else 'recognised'
    yield f'kind        {record.kind}: {KINDS[record.kind].about} ({how})'
    yield f'host        {record.host}' + (f', as in {record.config}' if record.config else '')
    if record.source['part']:
        yield f'taken from  {record.source["part"]}'
    inserted = sorted({name for key in record.keys for name in INSERTED.findall(key)})
    if inserted:
        yield f'taken off   {", ".join(inserted)}, which torch put into the keys'
    if conversion.others:
        yield f'also there  {", ".join(conversion.others)}: --part NAME takes one of them instead'
    numbers = sum(t.numel() for t in tensors.values())
    if record.heads:
        yield f'heads       {record.heads}'
    yield f'converted   {len(tensors)} tensors, {numbers:,} parameters, float32'
    changed = Counter(change for k in record.keys.values() for change in k.get('how', '').split('; ')[1:])
    for change, count in changed.most_common():
        if not change.startswith(('heads joined', 'transposed')):
            yield f'            {count} {change}'
    for name, what in record.made.items():
        yield f'made        {name}: {what}'
    dropped: dict[str, list[str]] = {}
    for key, fate in record.keys.items():
        if 'dropped' in fate:
            dropped.setdefault(fate['dropped'], []).append(key)
    for why, keys in dropped.items():
        more = ', ...' if len(keys) > 3 else ''
        yield f'dropped     {len(keys)}, {why}: {", ".join(keys[:3])}{more}'
    yield f'source      sha256 {record.source["sha256"]}'
    yield f'written     {dst}; in model of a config, or with --cfg-options model.base.file={dst}:'
    yield f'    base=dict(file={dst!r}),'
    if conversion.backbone is not None:
        options = ', '.join(f'{k}={v!r}' for k, v in conversion.backbone.items())
        yield f'    backbone=dict(_delete_=True, {options}),'
    yield from _preprocessor(record)
    if conversion.backbone is not None and record.kind != 'google_vit' and 'VisionTransformer' in record.host:
        yield '    num_heads IS A GUESS: it is in no tensor, and every number of heads would load. Check it.'


def _preprocessor(record: Record) -> Iterator[str]:
    """Mean and std belong to the weights, and so to what a config takes over with them."""
    if record.inputs is None:
        yield '    mean and std of data_preprocessor ARE IN NO TENSOR, and differ between such files. Look them up.'
        return
    image = record.host.startswith('mmpretrain')
    options = dict(type='ClsDataPreprocessor' if image else 'ActionDataPreprocessor')
    options |= {k: record.inputs[k] for k in ('mean', 'std')} | ({} if image else dict(format_shape='NCTHW'))
    yield f'    data_preprocessor=dict({", ".join(f"{k}={v!r}" for k, v in options.items())}),'
