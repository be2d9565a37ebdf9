"""Pre-trained backbones: where they come from, how their names are translated, and that they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError, unknown
from ..petl import host_of
from ..weights.converted import Record, record_of
from ..weights.kinds import KINDS
from ..weights.source import file_sha256, read_source, read_weights
from ..weights.swin import FITS, fit_plain, plain_names
from ..weights.tensors import StateDict, Weights

__all__ = ['base_state', 'check_base', 'file_sha256', 'how_to_get', 'load_base', 'read_weights']
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
        weights = _named(Weights(source.state), backbone, base.get('convert'), record)
    except UserError as error:
        raise UserError(f'{file}: {error}') from error
    state, wanted = weights.tensors, backbone.state_dict()
    # buffers follow from the settings, such as the window's size, and are left out of some files
    derived = {k for k, _ in backbone.named_buffers() if k not in state}
    wrong = [k for k, v in wanted.items() if k not in derived and (k not in state or state[k].shape != v.shape)]
    wrong += [k for k in state if k not in wanted]
    if wrong:
        raise UserError(_mismatch(file, state, wanted, wrong[0]))
    return state


def _check_sha256(base: dict[str, Any], record: Record | None) -> None:
    wanted = base.get('sha256')
    if wanted and wanted not in (file_sha256(base['file']), record and record.source['sha256']):
        raise UserError(f'it is not the file that the config names: its SHA-256 is not {wanted}.')


def _named(weights: Weights, backbone: nn.Module, convert: str | None, record: Record | None) -> Weights:
    """``weights`` under the names of ``backbone``, and of its sizes."""
    host = host_of(backbone)
    if record is not None:
        if record.host != host:
            raise UserError(f'it was converted for {record.host}, and the backbone is {host}.')
        names, fit = plain_names, FITS.get(host, fit_plain)
    elif convert is not None:
        kind = KINDS[convert]
        if kind.host != host:
            raise UserError(f'model.base.convert={convert!r} is for {kind.host}, and the backbone is {host}.')
        names, fit = kind.names, kind.fit
    else:
        names, fit = plain_names, fit_plain
    names(weights)
    fit(weights, backbone)
    return weights


def load_base(backbone: nn.Module, base: dict[str, Any]) -> None:
    """Load pre-trained weights into a plain backbone; every key must match, or it is left unchanged.

    Raises:
        UserError: as :func:`base_state`.
    """
    state = base_state(backbone, base)
    backbone.load_state_dict({**backbone.state_dict(), **state})


def how_to_get(base: dict[str, Any]) -> str:
    """Where a base file comes from, and how it is converted, as a part of a sentence."""
    if not base.get('url'):
        return 'set model.base.file to where it is'
    file = Path(base['file'])
    command = 'tools/convert_checkpoint.py'
    if file.suffix == '.safetensors':
        return f'download {base["url"]}, then: {command} DOWNLOADED {file}'
    return (
        f'download {base["url"]} to {file}, which is read as it is, or convert it once ({command} DOWNLOADED '
        f'{file.with_suffix(".safetensors")}) and name the result with --cfg-options model.base.file=...'
    )


def _mismatch(file: str, state: StateDict, wanted: StateDict, first: str) -> str:
    matched = sum(k in state and state[k].shape == v.shape for k, v in wanted.items())
    if first not in state:
        what = 'is missing from the file'
    elif first not in wanted:
        what = 'is not in this backbone'
    else:
        what = f'is {tuple(state[first].shape)} in the file and {tuple(wanted[first].shape)} in this backbone'
    return (
        f'{file} is of another architecture: {matched} of {len(wanted)} keys matched; the first that did not, '
        f'{first}, {what}.'
    )
