"""From a pre-trained file of any kind to a converted one: complete, or refused with what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..config import load_config
from ..errors import UserError, reason
from ..files import file_sha256
from ..models.build import build_model, on_meta
from ..petl import host_of
from ..weights.contents import is_a_folder
from ..weights.converted import Record, record_of, write_converted
from ..weights.kinds import KINDS, Kind, kind_of, recognised
from ..weights.shapes import INFERRED
from ..weights.source import Source, read_source
from ..weights.tensors import StateDict, Weights
from ..weights.wrappings import unwrap

PREFIX = 'backbone.'
WRONG = (KeyError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, ArithmeticError, IndexError)


@dataclass(frozen=True)
class Options:
    """How to convert.

    Args:
        kind: overrides what is recognised.
        config: the experiment whose backbone the file is fitted to; None builds one from the file's shapes.
        trust_pickle: let a pickle run what it holds.
        force: replace what is there.
        part: which of several models in the file, by a part of its name.
    """

    kind: str | None = None
    config: str | None = None
    trust_pickle: bool = False
    force: bool = False
    part: str | None = None


@dataclass(frozen=True)
class Conversion:
    """What came of it.

    Args:
        record: as in the file.
        tensors: under the file's names.
        backbone: the config of the backbone that was told from the shapes; None with ``Options.config``.
        others: the names of further models in the file.
    """

    record: Record
    tensors: StateDict
    backbone: dict[str, Any] | None
    others: tuple[str, ...] = ()


def convert(src: str, dst: str, options: Options, say: Callable[[str], None] = lambda step: None) -> Conversion:
    """Write ``src``, a pre-trained file, as ``dst``, a converted one.

    Args:
        src: a file of torch, safetensors or numpy.
        dst: ends in .safetensors; its folder is made.
        options: see :class:`Options`.
        say: is told what goes on.

    Raises:
        UserError: for a file or an option that does not do; ``dst`` is then as it was.
    """
    check_paths(Path(src), Path(dst), options.force)
    if options.kind is not None:
        kind_of(options.kind)
    fitted = None if options.config is None else _backbone_of(options.config)
    say(f'reading {src}')
    source = read_source(src, options.trust_pickle, options.part)
    say('converting')
    try:
        name, weights, told = _translated(source, options.kind, fitted)
    except UserError as error:
        raise UserError(f'{src}: {error}') from error
    say(f'hashing {src}')
    about = dict(file=Path(src).name, sha256=file_sha256(src), bytes=os.path.getsize(src), part=source.model.name)
    keys = {k: dict(dropped='beside the weights') for k in source.beside} | weights.fates(PREFIX)
    made = {PREFIX + k: v for k, v in weights.made.items()}
    record = Record(name, KINDS[name].host, about, keys, made, options.config, weights.heads, inputs_of(KINDS[name]))
    tensors = {PREFIX + k: v for k, v in weights.tensors.items()}
    say(f'writing {dst}')
    write_converted(Path(dst), tensors, record)
    return Conversion(record, tensors, told, tuple(m.name for m in source.others))


def inputs_of(kind: Kind) -> dict[str, Any] | None:
    """What a record says of the inputs' normalisation."""
    return kind.inputs and dict(mean=list(kind.inputs[0]), std=list(kind.inputs[1]), channels='RGB')


def check_paths(src: Path, dst: Path, force: bool) -> None:
    """Raise :class:`UserError` for a source that is none or a target that cannot be one."""
    try:
        _check_paths(src, dst, force)
    except OSError as error:
        raise UserError(f'{error.filename or dst}: {error.strerror or error}.') from error


def _check_paths(src: Path, dst: Path, force: bool) -> None:
    if not src.is_file():
        raise UserError(is_a_folder(src) if src.is_dir() else f'{src} does not exist or is no file.')
    if dst.suffix != '.safetensors':
        raise UserError(f'{dst} must end in .safetensors: that is what is written.')
    if dst.exists() and os.path.samefile(src, dst):
        raise UserError(f'{src} would be replaced by its own conversion; give it another name.')
    if dst.is_dir():
        raise UserError(f'{dst} is a folder.')
    if dst.exists() and not force:
        raise UserError(f'{dst} exists; --force replaces it.')
    there = next(p for p in dst.absolute().parents if p.exists())
    if not there.is_dir():
        raise UserError(f'{dst} cannot be written: {there} is a file, not a folder.')


def _backbone_of(config: str) -> nn.Module:
    """The plain backbone of an experiment, on the meta device."""
    cfg = load_config(config)
    cfg.model.petl = dict(deltas={}, train=['head'])
    model = build_model(cfg, meta=True)
    if not hasattr(model, 'plan'):
        raise UserError(f'{config}: model.type must be PETLRecognizer3D or PETLImageClassifier.')
    return model.backbone


def _translated(
    source: Source, name: str | None, fitted: nn.Module | None
) -> tuple[str, Weights, dict[str, Any] | None]:
    """The kind's name, the backbone's tensors, and the backbone's config where it was told from the shapes."""
    if record_of(source.metadata) is not None:
        raise UserError('it is converted already: name it in model.base.file as it is.')
    if any('.deltas.' in key for key in source.state):
        raise UserError("it holds a method's deltas: it is a result of this project, not a pre-trained backbone.")
    weights = Weights(source.state)
    unwrap(weights, source.model, source.others)
    name = name or recognised(weights)
    kind = KINDS[name]
    try:
        kind.names(weights)
        told = None if fitted is not None else INFERRED[kind.host](weights, source.state)
        backbone = fitted if told is None else _built(kind, told)
        if host_of(backbone) != kind.host:
            raise UserError(f'the backbone of the config is {host_of(backbone)}, and this is for {kind.host}.')
        kind.fit(weights, backbone)
        if weights.remarks:
            raise UserError(f'{weights.remarks[0]}.')
        check_complete(weights, backbone)
    except UserError as error:
        raise UserError(f'as {name} ({kind.about}), {error}') from error
    return name, weights, told


def _built(kind: Kind, config: dict[str, Any]) -> nn.Module:
    """The host's own class, on the meta device."""
    try:
        with DefaultScope.overwrite_default_scope(kind.host.partition('.')[0]), on_meta():
            return MODELS.build(dict(config))
    except WRONG as error:
        raise UserError(f'its shapes are of no {kind.host} ({reason(error)}).') from error


def check_complete(weights: Weights, backbone: nn.Module) -> None:
    """Raise :class:`UserError` that names what is missing, left over, of another shape or no finite number."""
    wanted = backbone.state_dict()
    derived = {name for name, _ in backbone.named_buffers()}
    there = [k for k in wanted if k in weights]
    problems = {
        'missing': [_both(weights, k) for k in wanted if k not in weights and k not in derived],
        'left over': [', '.join(weights.sources(k)) for k in weights if k not in wanted],
        'of another shape': [
            f'{_both(weights, k)}, {tuple(weights[k].shape)} for {tuple(wanted[k].shape)}'
            for k in there
            if weights[k].shape != wanted[k].shape
        ],
        'not floating-point': [_both(weights, k) for k in there if not weights[k].is_floating_point()],
        'not finite': [_both(weights, k) for k in there if not _finite(weights[k])],
    }
    said = '; '.join(f'{what}: {_listed(names)}' for what, names in problems.items() if names)
    if said:
        raise UserError(f'it is not the whole backbone and nothing else: {said}.')


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _both(weights: Weights, name: str) -> str:
    theirs = weights.known_as(name)
    return theirs if theirs.endswith(name) else f'{theirs} ({name})'


def _listed(names: list[str], most: int = 6) -> str:
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
