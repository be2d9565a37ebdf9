"""Builds the model of a bundle on its base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...engine.adapter import check_trained, frozen_sha256
from ...engine.checkpoint import Checkpoint
from ...errors import UserError, reason
from ...models.build import build_model, drawn_from
from ...petl.deltas import of_delta
from ...spt.tuning import measured_as
from ...weights.base import DEMO
from ...weights.shards import weights_sha256, weights_size
from .bundle import Bundle, is_bundle, read_bundle
from .views import check_steps

FOLDERS = (Path('data/weights'), Path(DEMO).parent)
MOST_BUFFERS = 1 << 26  # numbers, such as position indices; of one table an eighth


def bundled_model(bundle: Bundle, base: str | Path | None = None) -> nn.Module:
    """Build the model of a bundle, on the CPU and in eval mode.

    Args:
        bundle: read and checked.
        base: the file of its base, as downloaded or converted. Defaults to the file of its name in ``data/weights/``
            or ``data/demo/``; a bundle that holds the whole model needs none.

    Raises:
        UserError: when the base is missing or another one, or the tensors are not those of the model.
    """
    check_tensors(bundle, base)
    with drawn_from(0):
        model = _built(bundle, None) if bundle.about.frozen_sha256 is None else _on_base(bundle, base)
    for name, buffer in model.named_buffers():
        chosen = of_delta(name) and not buffer.is_floating_point()  # the indices of single weights
        if chosen and not torch.equal(buffer, bundle.tensors[name]):
            raise UserError(f'{bundle.file} is broken: its {name} does not match its SPT choice.')
    model.load_state_dict(bundle.tensors, strict=False)
    return model.eval()


def _built(bundle: Bundle, base: Mapping[str, Any] | None, **options: bool) -> nn.Module:
    try:
        check_steps(bundle.about)
        return build_model(model_config(bundle, base), **options)
    except UserError as error:
        raise UserError(f'{bundle.file} cannot be used: {error}') from error


def _on_base(bundle: Bundle, given: str | Path | None) -> nn.Module:
    """Build the model with its base's weights."""
    base = base_of(bundle, given)
    try:
        model = build_model(model_config(bundle, base), init_weights=True)
    except UserError as error:
        raise _not_the_base(bundle, base['file'], reason(error)) from error
    check_frozen(bundle, model)
    return model


def _not_the_base(bundle: Bundle, file: str, why: str) -> UserError:
    base = bundle.about.base
    return UserError(
        f'{bundle.file} was trained on {base["name"]}; {source_of(base)}. {file}, of SHA-256 {weights_sha256(file)}, '
        f'does not load: {why}'
    )


def model_config(bundle: Bundle, base: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``default_scope`` and ``model`` of a config; ``base`` is the model's."""
    about = bundle.about
    petl = dict(about.model['petl'])
    if bundle.allocation is not None:
        chosen = bundle.allocation
        petl['spt'] = dict(petl['spt'], allocation=chosen, control=chosen.control, **measured_as(chosen))
    return dict(default_scope=about.default_scope, model=dict(about.model, petl=petl, base=base))


def base_of(bundle: Bundle, given: str | Path | None) -> dict[str, Any]:
    """Return the base of the model's config.

    Raises:
        UserError: when no file is given and none of its name is there, with where to get it.
    """
    base = bundle.about.base
    file = given or next((p for f in FOLDERS if f.is_dir() for p in f.iterdir() if p.name == base['name']), None)
    if file is None:
        raise UserError(f'{bundle.file} needs its base, {base["name"]}: name it with --base FILE; {source_of(base)}.')
    if not Path(file).is_file():
        raise UserError(f'The base {file} does not exist; {source_of(base)}.')
    convert = {} if base['convert'] is None else dict(convert=base['convert'])
    return dict(file=str(file), **convert)


def source_of(base: Mapping[str, Any]) -> str:
    """Return where to get a base, as the end of a sentence."""
    where = f'download it from {base["url"]}' if base['url'] else 'ask the author of the bundle for it'
    return f'{where} (SHA-256 of the file: {base["sha256"]})'


def check_frozen(bundle: Bundle, model: nn.Module) -> None:
    """Raise :class:`UserError` unless the frozen tensors of ``model`` are those of the bundle's base."""
    wanted, found, base = bundle.about.frozen_sha256, frozen_sha256(model), bundle.about.base
    if wanted != found:
        raise UserError(
            f'{bundle.file} was trained on {base["name"]}, whose frozen tensors have the SHA-256 {wanted}, and '
            f'{model.base["file"]} gives {found}: this is a different or changed base; {source_of(base)}.'
        )


def content_of(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle in the form of an adapter file's content."""
    about = bundle.about
    base = about.base and dict(file=about.base['name'], sha256=about.base['sha256'])
    meta = dict(
        adapter_format=1,
        frozen_sha256=about.frozen_sha256,
        deltas=about.deltas,
        base=base,
        epoch=about.epoch,
        seed=about.seed,
        options=about.options,
        dataset_meta=dict(classes=about.classes),
    )
    return dict(state_dict=dict(bundle.tensors), meta=meta)


def as_checkpoint(bundle: Bundle) -> Checkpoint:
    """Return a bundle in the form of a checkpoint, to test it or to train on from it."""
    return Checkpoint(bundle.file, content_of(bundle), partial(_check_base, bundle))


def trained_weights(file: str | Path) -> Checkpoint:
    """Read a bundle, or a checkpoint of this project, as what another run may start from.

    Raises:
        UserError: when it is neither.
    """
    return as_checkpoint(read_bundle(file)) if is_bundle(file) else Checkpoint.of(file)


def _check_base(bundle: Bundle, model: nn.Module) -> None:
    if bundle.about.frozen_sha256 is None:  # it holds the whole model
        return
    if model.base is None:
        raise UserError(f'{bundle.file} was trained on {bundle.about.base["name"]}, and this backbone is random.')
    check_frozen(bundle, model)


def check_tensors(bundle: Bundle, base: str | Path | None = None, at_hand: bool = True) -> nn.Module:
    """Check the tensors against the model's, before it takes memory; return the model, on the meta device.

    Args:
        bundle: read and checked.
        base: its base, as for :func:`bundled_model`.
        at_hand: also check that the base is there and large enough. Defaults to True.

    Raises:
        UserError: for tensors that are missing, left over, or of another shape, and for a model that is larger than
            what the bundle and its base can hold.
    """
    model = _built(bundle, None, meta=True)
    tables = [math.prod(b.shape) for b in model.buffers()]
    if sum(tables) > MOST_BUFFERS or max(tables, default=0) > MOST_BUFFERS // 8:
        raise UserError(f'{bundle.file} is broken: the tables of its model would take {sum(tables):,} numbers.')
    check_trained(model, bundle.file, content_of(bundle))
    count, claimed = model.plan.count(), (bundle.about.trainable, bundle.about.total)
    if (count['trainable'], count['total']) != claimed:
        raise UserError(f'{bundle.file} is broken: it has other parameter counts than its model.')
    rest = {n: p for n, p in model.named_parameters() if n not in bundle.tensors}
    if bundle.about.frozen_sha256 is None and rest:
        raise UserError(f'{bundle.file} is broken: it names no base and lacks {next(iter(rest))}.')
    if rest and at_hand:
        file, left = base_of(bundle, base)['file'], sum(p.numel() for p in rest.values())
        if left > weights_size(file):
            raise _not_the_base(bundle, file, f'it is too small for {left:,} parameters.')
    return model
