"""Converts a pre-trained file of any kind: completely, or not at all, saying what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS, DefaultScope
from torch import nn

from ..config import load_config
from ..errors import UserError, reason, tellable, unknown
from ..files import file_sha256
from ..models.build import build_model, on_meta
from ..petl import host_of
from ..weights.contents import must_be_file
from ..weights.converted import Origin, origin_of, write_converted
from ..weights.kinds import KINDS, Kind, recognised
from ..weights.shapes import INFERRED
from ..weights.source import Source, read_source
from ..weights.tensors import StateDict, Weights, check_complete
from ..weights.wrappings import INSERTED, unwrap

PREFIX = 'backbone.'
WRONG = (KeyError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, ArithmeticError, IndexError)


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Args:
        origin: the record in the file.
        tensors: under their names in the file.
        backbone: the config of the backbone, inferred from the shapes; None if a config was given.
        others: the names of further models in the source.
    """

    origin: Origin
    tensors: StateDict
    backbone: dict[str, Any] | None
    others: tuple[str, ...] = ()


def convert(
    src: str,
    dst: str,
    *,
    kind: str | None = None,
    config: str | None = None,
    trust_pickle: bool = False,
    force: bool = False,
    part: str | None = None,
    say: Callable[[str], None] = lambda step: None,
) -> Conversion:
    """Convert a pre-trained file.

    Args:
        src: a file of torch, safetensors or numpy.
        dst: the file to write, which ends in .safetensors; its folder is created.
        kind: overrides the kind that is recognised.
        config: the experiment whose backbone the weights are fitted to; None infers a backbone from their shapes.
        trust_pickle: let a pickle run its code. Defaults to False.
        force: replace ``dst``. Defaults to False.
        part: which of several models in the file, by a part of its name.
        say: called with the name of each step.

    Raises:
        UserError: for a file or an option that does not fit; ``dst`` is then left as it was.
    """
    try:
        _check_paths(Path(src), Path(dst), force)
    except OSError as error:
        raise UserError(f'{error.filename or dst}: {error.strerror or error}.') from error
    if kind not in (None, *KINDS):
        raise unknown('kind', kind, KINDS)
    fitted = None if config is None else _backbone_of(config)
    say(f'reading {src}')
    source = read_source(src, trust_pickle, part)
    say('converting')
    try:
        name, weights, backbone = _translated(source, kind, fitted)
    except UserError as error:
        raise UserError(f'{src}: {error}') from error
    say(f'hashing {src}')
    inputs = KINDS[name].inputs
    origin = Origin(
        kind=name,
        host=KINDS[name].host,
        source=dict(file=Path(src).name, sha256=file_sha256(src), bytes=os.path.getsize(src), part=source.model.name),
        keys={k: dict(dropped='beside the weights') for k in source.beside} | weights.fates(PREFIX),
        made={PREFIX + k: v for k, v in weights.made.items()},
        config=config,
        heads=weights.heads,
        inputs=inputs and dict(mean=list(inputs[0]), std=list(inputs[1]), channels='RGB'),
    )
    tensors = {PREFIX + k: v for k, v in weights.tensors.items()}
    say(f'writing {dst}')
    write_converted(Path(dst), tensors, origin)
    return Conversion(origin, tensors, backbone, tuple(m.name for m in source.others))


def _check_paths(src: Path, dst: Path, force: bool) -> None:
    must_be_file(src)
    if dst.suffix != '.safetensors':
        raise UserError(f'{dst} must end in .safetensors, the format that is written.')
    if dst.exists() and os.path.samefile(src, dst):
        raise UserError(f'{src} would be overwritten by its own conversion; choose another name.')
    if dst.is_dir():
        raise UserError(f'{dst} is a folder.')
    if dst.exists() and not force:
        raise UserError(f'{dst} exists; --force replaces it.')
    there = next(p for p in dst.absolute().parents if p.exists())
    if not there.is_dir():
        raise UserError(f'{dst} cannot be written: {there} is a file, not a folder.')


def _backbone_of(config: str) -> nn.Module:
    """Build the plain backbone of an experiment on the meta device."""
    cfg = load_config(config)
    cfg.model.petl = dict(deltas={}, train=['head'])
    model = build_model(cfg, meta=True)
    if not hasattr(model, 'plan'):
        raise UserError(f'{config}: model.type must be PETLRecognizer3D or PETLImageClassifier.')
    return model.backbone


def _translated(
    source: Source, name: str | None, fitted: nn.Module | None
) -> tuple[str, Weights, dict[str, Any] | None]:
    """Return the kind's name, the backbone's weights, and its config if that had to be inferred."""
    if origin_of(source.metadata) is not None:
        raise UserError('it is already converted: use it directly as model.base.file.')
    if any('.deltas.' in key for key in source.state):
        raise UserError("it holds a method's deltas: it is a result of this project, not a pre-trained backbone.")
    weights = Weights(source.state)
    unwrap(weights, source.model, source.others)
    name = name or recognised(weights)
    kind = KINDS[name]
    try:
        kind.names(weights)
        inferred = None if fitted is not None else INFERRED[kind.host](weights, source.state)
        backbone = fitted if inferred is None else _built(kind, inferred)
        if host_of(backbone) != kind.host:
            raise UserError(f'the backbone of the config is {host_of(backbone)}, but this kind is for {kind.host}.')
        kind.fit(weights, backbone)
        if weights.remarks:
            raise UserError(f'{weights.remarks[0]}.')
        check_complete(weights, backbone)
    except UserError as error:
        raise UserError(f'as {name} ({kind.about}), {error}') from error
    return name, weights, inferred


def _built(kind: Kind, config: dict[str, Any]) -> nn.Module:
    """Build the host's own class on the meta device."""
    try:
        with DefaultScope.overwrite_default_scope(kind.host.partition('.')[0]), on_meta():
            return MODELS.build(dict(config))
    except WRONG as error:
        raise UserError(f'its shapes do not make a {kind.host} ({reason(error)}).') from error


def describe_conversion(conversion: Conversion, dst: str, forced: bool) -> str:
    """Describe a conversion to ``dst``: kind (``forced``: by --kind), host, what went where, lines for a config."""
    return '\n'.join(map(tellable, (*_fates(conversion, forced), *_config_lines(conversion, dst))))


def _fates(conversion: Conversion, forced: bool) -> Iterator[str]:
    origin, tensors = conversion.origin, conversion.tensors
    yield f'kind        {origin.kind}: {KINDS[origin.kind].about} ({"given by --kind" if forced else "recognised"})'
    yield f'host        {origin.host}' + (f', as in {origin.config}' if origin.config else '')
    if origin.source['part']:
        yield f'taken from  {origin.source["part"]}'
    if inserted := sorted({name for key in origin.keys for name in INSERTED.findall(key)}):
        yield f'removed     {", ".join(inserted)}, which torch inserted into the keys'
    if conversion.others:
        yield f'also there  {", ".join(conversion.others)}: --part NAME extracts one of them instead'
    if origin.heads:
        yield f'heads       {origin.heads}'
    parameters = sum(t.numel() for t in tensors.values())
    yield f'converted   {len(tensors)} tensors, {parameters:,} parameters, float32'
    changes = Counter(change for k in origin.keys.values() for change in k.get('how', '').split('; ')[1:])
    for change, count in changes.most_common():
        if not change.startswith(('heads joined', 'transposed')):
            yield f'            {count} {change}'
    for name, what in origin.made.items():
        yield f'added       {name}: {what}'
    dropped: dict[str, list[str]] = {}
    for key, fate in origin.keys.items():
        if 'dropped' in fate:
            dropped.setdefault(fate['dropped'], []).append(key)
    for why, keys in dropped.items():
        yield f'dropped     {len(keys)}, {why}: {", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""}'
    yield f'source      sha256 {origin.source["sha256"]}'


def _config_lines(conversion: Conversion, dst: str) -> Iterator[str]:
    """Yield the lines for a config, with the mean and std of the inputs, which belong to the weights."""
    origin, backbone = conversion.origin, conversion.backbone
    yield f'written     {dst}; for "model" in a config, or --cfg-options model.base.file={dst}:'
    yield f'    base=dict(file={dst!r}),'
    if backbone is not None:
        yield f'    backbone=dict(_delete_=True, {_arguments(backbone)}),'
    if origin.inputs is None:
        yield '    mean and std of data_preprocessor ARE IN NO TENSOR and differ between such files. Look them up.'
    else:
        image = origin.host.startswith('mmpretrain')
        options = dict(type='ClsDataPreprocessor' if image else 'ActionDataPreprocessor')
        options |= {k: origin.inputs[k] for k in ('mean', 'std')} | ({} if image else dict(format_shape='NCTHW'))
        yield f'    data_preprocessor=dict({_arguments(options)}),'
    if backbone is not None and origin.kind != 'google_vit' and 'VisionTransformer' in origin.host:
        yield '    num_heads IS A GUESS: no tensor tells it, and any number would load. Check it.'


def _arguments(options: dict[str, Any]) -> str:
    return ', '.join(f'{k}={v!r}' for k, v in options.items())
