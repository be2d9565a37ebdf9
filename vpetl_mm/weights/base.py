"""The pre-trained weights that a config names in ``model.base``: checked, translated and loaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import nn

from ..errors import UserError, is_line, unknown
from ..petl import found
from .converted import Origin, origin_of, recorded_inputs
from .families import described, sized
from .hub import check_hub, located
from .kinds import FITS, KINDS
from .license import LONGEST, license_beside, license_of_tag
from .shards import weights_sha256
from .source import Source, read_source
from .swin import fit_plain
from .tensors import StateDict, Weights, check_complete
from .timm import fit_timm
from .transformers import fit_transformers
from .wrappings import unwrap

RECORDED = ('hub', 'revision', 'commit', 'name', 'license')
_sha256_once = cache(weights_sha256)
DEMO = 'data/demo/source_backbone.pth'
OPENMMLAB = ('mmaction', 'mmpretrain')
# libraries whose own functions rename and resize the weights of their models
LIBRARIES = {'timm': fit_timm, 'transformers': fit_transformers}
BASE_KEYS = ('file', 'url', 'sha256', 'convert', 'license', 'hub', 'revision', 'name')
COMMAND = 'tools/convert_checkpoint.py'


def check_base(base: Any) -> dict[str, Any] | None:
    """Return a copy of a model config's ``base``.

    Raises:
        UserError: when it is neither None nor a dict with a file, or a repository, and known keys.
    """
    if base is None:
        return None
    if not isinstance(base, dict) or not (base.get('file') or base.get('hub')):
        raise UserError(
            'model.base must be dict(file=..., url=...), dict(hub=...) or, for a random backbone, None; got '
            f'{base!r}.'
        )
    for key in base:
        if key not in BASE_KEYS:
            raise unknown('model.base key', key, BASE_KEYS)
    if base.get('convert') not in (None, *KINDS):
        raise unknown('model.base.convert', base['convert'], ['None', *KINDS])
    if base.get('hub'):
        if base.get('file') or base.get('url'):
            raise UserError('model.base: hub says where the weights are; leave out file and url.')
        check_hub(base)
    elif there := next((key for key in ('revision', 'name') if base.get(key)), None):
        raise UserError(f'model.base.{there} is about a repository, and there is no model.base.hub.')
    license = base.get('license')
    if license is not None and not (is_line(license) and 0 < len(license) <= LONGEST):
        raise UserError(f'model.base.license must be text of one line, got {license!r:.80}.')
    return dict(base)


def base_state(backbone: nn.Module, base: dict[str, Any]) -> StateDict:
    """Read the tensors of ``base``, translated into the names and sizes of ``backbone``.

    A converted file needs no ``convert``: its own record wins.

    Args:
        backbone: without deltas, on any device (also meta).
        base: ``file``, and optionally ``url`` (shown when the file is missing), ``sha256`` (of the file, or of the
            file that it was converted from) and ``convert`` (a name in ``KINDS``); or ``hub``, see
            :func:`~.hub.located`.

    Raises:
        UserError: when the file is missing, does not have this ``sha256``, or does not fit the backbone.
    """
    base = located(base)
    file = base['file']
    if not Path(file).is_file():
        raise UserError(f'The pre-trained weights {file} are missing: {how_to_get(base)}')
    source = read_source(file)
    try:
        origin = origin_of(source.metadata)
        wanted = str(base.get('sha256') or '').lower()
        if wanted and wanted not in (weights_sha256(file), origin and origin.source['sha256']):
            raise UserError(f'it is not the file that the config names: its SHA-256 is not {wanted}.')
        weights = _fitted(source, backbone, base, origin)
    except UserError as error:
        raise UserError(f'{file}: {error}') from error
    if source.others:
        others = ', '.join(m.name for m in source.others)
        weights.remarks.append(
            f'{source.model.name or "the model at the top"} was loaded; the file also holds {others}, which '
            f'{COMMAND} --part NAME extracts'
        )
    for remark in weights.remarks:
        print_log(f'{file}: {remark}.', 'current', 30)
    path = found(backbone).path
    return {f'{path}.{n}' if path else n: value for n, value in weights.tensors.items()}


def _fitted(source: Source, backbone: nn.Module, base: dict[str, Any], origin: Origin | None) -> Weights:
    """Return the whole weights of the backbone that the place table finds in ``backbone``, under its own names."""
    where = found(backbone)
    inner = backbone.get_submodule(where.path)
    is_openmmlab = where.key.partition('.')[0] in OPENMMLAB
    _check_host(where.key, base.get('convert'), origin)
    try:
        weights = _translated(source, where.key, inner, base.get('convert'), origin)
        check_complete(weights, inner, _hint(base, origin) if is_openmmlab else '')
    except UserError as error:
        theirs, own = described(source.state), inner.state_dict()
        if is_openmmlab or theirs == described(own):
            raise
        raise UserError(f'it looks like {theirs}, and the backbone is {sized(where.key, own)}.') from error
    return weights


def _check_host(host: str, convert: str | None, origin: Origin | None) -> None:
    if origin is not None and origin.host != host:
        raise UserError(f'it was converted for {origin.host}, but the backbone is {host}.')
    if origin is None and convert and KINDS[convert].host != host:
        raise UserError(f'model.base.convert={convert!r} is for {KINDS[convert].host}, but the backbone is {host}.')


def _hint(base: dict[str, Any], origin: Origin | None) -> str:
    if origin is not None:
        return ' A converted file fits one window size; convert it again with --config.'
    return '' if base.get('convert') else f" A file in its authors' naming has to be converted first: {COMMAND}."


def _translated(
    source: Source, host: str, backbone: nn.Module, convert: str | None, origin: Origin | None
) -> Weights:
    """Rename and resize a file's weights for ``backbone``, whose key in the place table is ``host``."""
    weights = Weights(source.state)
    plain = origin is not None or convert is None
    unwrap(weights, source.model, source.others, only=plain)
    if plain:
        fit = LIBRARIES.get(host.partition('.')[0], fit_plain)
        fit = fit if origin is None else FITS.get(host, fit)
    else:
        kind = KINDS[convert]
        kind.names(weights)
        fit = kind.fit
    weights.heads = weights.heads or (origin.heads if origin else None)
    before = weights['pos_embed'].shape if 'pos_embed' in weights else None
    fit(weights, backbone)
    if origin and origin.config and before and 'pos_embed' in weights and weights['pos_embed'].shape != before:
        raise UserError(
            f'it was converted for the image size of {origin.config}; convert the original file again for this size.'
        )
    return weights


def load_base(backbone: nn.Module, base: dict[str, Any]) -> StateDict:
    """Load pre-trained weights into a plain backbone; if a single key does not fit, nothing is loaded.

    Returns:
        The tensors that were loaded.

    Raises:
        UserError: as :func:`base_state`.
    """
    state = base_state(backbone, base)
    backbone.load_state_dict({**backbone.state_dict(), **state})
    return state


def about_base(base: dict[str, Any], backbone: nn.Module) -> dict[str, Any]:
    """Return what a run records of its base: ``file``, ``sha256``, and what is known of ``hub`` and ``license``."""
    license = base.get('license') or license_beside(base['file']) or license_of_tag(backbone)
    more = {k: v for k, v in dict(base, license=license).items() if k in RECORDED and v}
    return dict(file=str(base['file']), sha256=_sha256_once(base['file']), **more)


def warn_of_inputs(file: str, preprocessor: nn.Module) -> None:
    """Warn, in one line, when a model normalises its inputs differently from its base, if ``file`` records how."""
    recorded = recorded_inputs(file)
    if recorded is None:
        return
    own = {}
    for name, default in (('mean', 0.0), ('std', 1.0)):
        values = getattr(preprocessor, name, torch.full((3,), default))
        own[name] = [round(value, 3) for value in values.flatten().tolist()]
    if all(len(own[k]) == 3 and np.allclose(own[k], recorded[k], rtol=1e-3, atol=0) for k in own):
        return
    print_log(
        f'{file} was trained on inputs of mean {recorded["mean"]} and std {recorded["std"]} (R, G, B), but '
        f'model.data_preprocessor normalises with mean {own["mean"]} and std {own["std"]}.',
        'current',
        30,
    )


def how_to_get(base: dict[str, Any]) -> str:
    """Return how to obtain a base file, as the end of a sentence."""
    if str(base['file']) == DEMO:
        return '"make demo" creates it'
    if not base.get('url'):
        return 'point model.base.file at them'
    file = Path(base['file'])
    if file.suffix == '.safetensors' and str(base['url']).partition('?')[0].endswith('.safetensors'):
        return f'download {base["url"]} to {file}'
    if file.suffix == '.safetensors':
        return f'download {base["url"]}, then run {COMMAND} DOWNLOADED {file}'
    converted = file.with_suffix('.safetensors')
    return (
        f'download {base["url"]} to {file}, which is read directly; or convert it with {COMMAND} {file} {converted}, '
        f'and train with --cfg-options model.base.file={converted}'
    )
