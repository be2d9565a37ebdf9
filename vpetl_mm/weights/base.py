"""Pre-trained backbones: where they come from, how their names are translated, and that they fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from ..errors import UserError, unknown
from ..files import file_sha256
from ..petl import host_of
from .converted import Record, record_of, recorded_inputs
from .kinds import FITS, KINDS
from .source import Source, read_source
from .swin import fit_plain
from .tensors import StateDict, Weights
from .wrappings import unwrap

DEMO = 'data/demo/source_backbone.pth'
BASE_KEYS = ('file', 'url', 'sha256', 'convert')


def check_base(base: Any) -> dict[str, Any] | None:
    """The ``base`` dict of a model config, or a :class:`UserError` that says what is wrong with it."""
    if base is None:
        return None
    if not isinstance(base, dict) or not base.get('file'):
        raise UserError(f'model.base must be dict(file=..., url=...) or, for a random backbone, None; got {base!r}.')
    for key in base:
        if key not in BASE_KEYS:
            raise unknown('model.base key', key, BASE_KEYS)
    if base.get('convert') not in (None, *KINDS):
        raise unknown('model.base.convert', base['convert'], ['None', *KINDS])
    return dict(base)


def base_state(backbone: nn.Module, base: dict[str, Any]) -> StateDict:
    """The tensors of ``base``, translated and complete for ``backbone``, which may be on the meta device.

    A file that tools/convert_checkpoint.py wrote says itself what it is, whatever ``convert`` says.

    Args:
        backbone: without deltas.
        base: ``file``, and optionally ``url`` (said when the file is missing), ``sha256`` (checked; of the
            file, or of the one that it was converted from) and ``convert`` (a name in ``KINDS``).

    Raises:
        UserError: when the file is missing, is another file than ``sha256`` says, or is of another
            architecture.
    """
    file = base['file']
    if not Path(file).is_file():
        raise UserError(f'The pre-trained weights {file} are missing: {how_to_get(base)}')
    source = read_source(file)
    try:
        record = record_of(source.metadata)
        _check_sha256(base, record)
        weights = _named(source, backbone, base.get('convert'), record)
    except UserError as error:
        raise UserError(f'{file}: {error}') from error
    if source.others:
        others = ', '.join(m.name for m in source.others)
        weights.remarks.append(
            f'{source.model.name or "the model at the top"} was taken, and it also holds {others}, which '
            'tools/convert_checkpoint.py --part NAME takes'
        )
    for remark in weights.remarks:
        print_log(f'{file}: {remark}.', 'current', 30)
    state, wanted = weights.tensors, backbone.state_dict()
    # buffers follow from the settings, such as the window's size, and are left out of some files
    derived = {k for k, _ in backbone.named_buffers() if k not in state}
    wrong = [k for k, v in wanted.items() if k not in derived and (k not in state or state[k].shape != v.shape)]
    wrong += [k for k in state if k not in wanted]
    if wrong:
        again = '' if record is None else ' A converted file fits one size of window; convert it again with --config.'
        raise UserError(_mismatch(file, state, wanted, wrong[0]) + again)
    infinite = next((k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()), None)
    if infinite:
        raise UserError(f'{file}: {infinite} holds numbers that are not finite; no run can use them.')
    return state


def _check_sha256(base: dict[str, Any], record: Record | None) -> None:
    wanted = str(base.get('sha256') or '').lower()
    if wanted and wanted not in (file_sha256(base['file']), record and record.source['sha256']):
        raise UserError(f'it is not the file that the config names: its SHA-256 is not {wanted}.')


def _named(source: Source, backbone: nn.Module, convert: str | None, record: Record | None) -> Weights:
    """The file's weights under the names of ``backbone``, and of its sizes."""
    host, weights = host_of(backbone), Weights(source.state)
    plain = record is not None or convert is None
    unwrap(weights, source.model, source.others, only=plain)
    if record is not None and record.host != host:
        raise UserError(f'it was converted for {record.host}, and the backbone is {host}.')
    if plain:
        fit = fit_plain if record is None else FITS.get(host, fit_plain)
    else:
        kind = KINDS[convert]
        if kind.host != host:
            raise UserError(f'model.base.convert={convert!r} is for {kind.host}, and the backbone is {host}.')
        kind.names(weights)
        fit = kind.fit
    weights.heads = weights.heads or (record.heads if record else None)
    before = weights['pos_embed'].shape if 'pos_embed' in weights else None
    fit(weights, backbone)
    if record and record.config and before and 'pos_embed' in weights and weights['pos_embed'].shape != before:
        raise UserError(
            f'it was converted for the image size of {record.config}; convert the original again for this one.'
        )
    return weights


def load_base(backbone: nn.Module, base: dict[str, Any]) -> StateDict:
    """Load pre-trained weights into a plain backbone; every key must match, or it is left unchanged.

    Returns:
        The tensors that were loaded.

    Raises:
        UserError: as :func:`base_state`.
    """
    state = base_state(backbone, base)
    backbone.load_state_dict({**backbone.state_dict(), **state})
    return state


def warn_of_inputs(file: str, preprocessor: nn.Module) -> None:
    """Say, in one line, that a model's inputs are normalised otherwise than those of its base were.

    Args:
        file: the base; only a converted file says what its inputs were normalised with.
        preprocessor: the model's.
    """
    recorded = recorded_inputs(file)
    if recorded is None:
        return
    own = {}
    for name, otherwise in (('mean', 0.0), ('std', 1.0)):
        values = getattr(preprocessor, name, torch.full((3,), otherwise))
        own[name] = [round(value, 3) for value in values.flatten().tolist()]
    if all(_close(own[name], recorded[name]) for name in own):
        return
    print_log(
        f'{file} was trained on inputs of mean {recorded["mean"]} and std {recorded["std"]} (R, G, B), and '
        f'model.data_preprocessor normalises with mean {own["mean"]} and std {own["std"]}.',
        'current',
        30,
    )


def _close(ours: list[float], theirs: list[float]) -> bool:
    return len(ours) == len(theirs) and all(
        math.isclose(a, b, rel_tol=1e-3) for a, b in zip(ours, theirs, strict=True)
    )


def how_to_get(base: dict[str, Any]) -> str:
    """Where a base file comes from, and how it is converted, as a part of a sentence."""
    if str(base['file']) == DEMO:
        return '"make demo" makes it'
    if not base.get('url'):
        return 'set model.base.file to where it is'
    file = Path(base['file'])
    command = 'tools/convert_checkpoint.py'
    if file.suffix == '.safetensors':
        return f'download {base["url"]}, then: {command} DOWNLOADED {file}'
    converted = file.with_suffix('.safetensors')
    return (
        f'download {base["url"]} to {file}, which is read as it is; or convert it, {command} {file} {converted}, and '
        f'train with --cfg-options model.base.file={converted}'
    )


def _mismatch(file: str, state: StateDict, wanted: StateDict, first: str) -> str:
    matched = sum(k in state and state[k].shape == v.shape for k, v in wanted.items())
    if first not in state:
        what = 'is missing from the file'
    elif first not in wanted:
        what = 'is not in this backbone'
    else:
        what = f'is {tuple(state[first].shape)} in the file and {tuple(wanted[first].shape)} in this backbone'
    few = 2 * matched < len(wanted)
    hint = ' A file as it was published is first converted: tools/convert_checkpoint.py.' if few else ''
    return (
        f'{file} is of another architecture or naming: {matched} of {len(wanted)} keys matched; the first that did '
        f'not, {first}, {what}.{hint}'
    )
