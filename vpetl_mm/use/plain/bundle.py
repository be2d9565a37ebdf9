"""The bundle of a plan: one .safetensors file with what was trained, which loads on the same frozen weights alone.

::

    save(plan, 'flowers.safetensors', classes=['daisy', 'tulip'])

    plan = adapt_from(timm.create_model(..., pretrained=True, num_classes=2), 'flowers.safetensors')
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError, reason
from ...files import need_safetensors
from ...petl import Plan, adapt, found
from ...petl.adapt import check_plain
from ...petl.meta import meta_copy
from ...spt.allocation import Allocation, allocation_of, described, tensors_sha256
from ...spt.plain import tuning_of
from ...spt.tuning import SPT
from ..bundle.opening import PLAIN, opened_bundle, tensors_of
from .about import PlanAbout, plan_about, written_plan

ENTRIES = 'spt/'  # in front of the names of SPT's single entries, which are no tensors of the model


def save(
    plan: Plan,
    file: str | Path,
    classes: Sequence[str] | None = None,
    license: str = 'unknown',
    name: str | None = None,
) -> Path:
    """Write what a plan has trained, with what it takes to load it, whole or not at all.

    Args:
        plan: of :func:`~vpetl_mm.petl.adapt`, before its model is merged.
        file: its name ends in ``.safetensors``; a bundle of a plan there is replaced.
        classes: their names, in the order of the head's outputs. Defaults to None, without names.
        license: of the trained weights. Defaults to ``'unknown'``.
        name: Defaults to the file's.

    Returns:
        The file's path.

    Raises:
        UserError: when it cannot be written, another file is there, the plan has nothing to save, or ``classes`` are
            not those of the head.
    """
    need_safetensors()
    from ...weights.files import write_safetensors

    path = Path(file)
    _check_target(path)
    state = plan.state_dict()
    if not plan.owners or any(v.is_meta for v in plan.model.state_dict().values()):
        what = 'has no values (it is on the meta device)' if plan.owners else 'trains nothing, or is merged'
        raise UserError(f'There is nothing to save: the model {what}.')
    _check_classes(plan, classes)
    tuning = plan.spt if isinstance(plan.spt, SPT) else None
    where = found(plan.model)
    about = PlanAbout(
        name=name or path.stem,
        host=where.key,
        model=_named(plan.model),
        backbone=plan.backbone,
        head=list(plan.heads),
        deltas=_settings(plan),
        train=plan.train,
        frozen_sha256=frozen_sha256(plan),
        **{k: v for k, v in plan.count().items() if k != 'by'},
        classes=None if classes is None else list(classes),
        spt=tuning and dict(allocation=described(tuning.allocation), dropout=tuning.options['dropout']),
        license=license,
        versions=_versions(where.key),
        created=datetime.now().astimezone().isoformat(timespec='seconds'),
    )
    text = written_plan(about)
    plan_about(text, f'{path} cannot be written')
    entries = tuning.allocation.sparse if tuning else {}
    write_safetensors(
        path, {**state, **{f'{ENTRIES}{n}': v for n, v in entries.items()}}, {'format': 'pt', PLAIN: text}
    )
    return path


def read_about(file: str | Path) -> PlanAbout:
    """Read the header of the bundle of a plan.

    Raises:
        UserError: when it is missing, no such bundle, of a newer format, or says what no bundle may say.
    """
    with opened_bundle(Path(file), PLAIN) as (_, text):
        return plan_about(text, f'{file} cannot be used')


def load(plan: Plan, file: str | Path) -> PlanAbout:
    """Load what was trained into the model of a plan with the same deltas, all of it or nothing.

    Args:
        plan: of :func:`~vpetl_mm.petl.adapt`, on a model with the frozen weights that it was trained on.
        file: of :func:`save`.

    Returns:
        Its header.

    Raises:
        UserError: as :func:`read_about`, and when the deltas, the shapes or the frozen weights are others.
    """
    about, tensors, _ = _read(Path(file))
    _check_settings(file, about, plan)
    plan.check_state(tensors, f'{file} does not fit this model: ')
    if frozen_sha256(plan) != about.frozen_sha256:
        raise UserError(
            f'{file} was trained on {about.model} ({about.host}) with other frozen weights than this model has, or '
            'with the same in another precision; load those weights first.'
        )
    plan.load_state_dict(tensors)
    return about


def adapt_from(model: nn.Module, file: str | Path) -> Plan:
    """Adapt a plain model as the bundle of a plan says, and load what was trained.

    Args:
        model: plain, with the frozen weights that it was trained on; changed in place.
        file: of :func:`save`.

    Returns:
        The plan; its model can predict, or train on.

    Raises:
        UserError: as :func:`load`; the model may then have the deltas, but no weight of it is changed.
    """
    about, tensors, allocation = _read(Path(file))
    check_plain(model)
    if (host := found(model).key) != about.host:
        raise UserError(f'{file} was trained on {about.model} ({about.host}), and this model is {host}.')
    empty = meta_copy(model)  # whatever the header says, it takes no memory before it is known to fit
    with torch.device('meta'):
        plan = _adapted(file, empty, about, allocation)
    plan.check_state(tensors, f'{file} does not fit this model: ')
    plan = _adapted(file, model, about, allocation)
    load(plan, file)
    return plan


def frozen_sha256(plan: Plan) -> str:
    """Return one SHA-256 of everything in a plan's model that is not in its ``state_dict()``, names included."""
    own = plan.state_dict().keys()
    return tensors_sha256({n: v for n, v in plan.model.state_dict().items() if n not in own})


def _adapted(file: str | Path, model: nn.Module, about: PlanAbout, allocation: Allocation | None) -> Plan:
    spt = None if allocation is None else tuning_of(allocation, about.spt['dropout'])
    try:
        return adapt(model, about.deltas, about.train, about.head or None, spt)
    except UserError as error:
        raise UserError(f'{file} does not fit this model: {error}') from error
    except (RuntimeError, OverflowError) as error:  # sizes that no tensor can have
        raise UserError(f'{file} does not fit this model: {reason(error)}.') from error


def _read(path: Path) -> tuple[PlanAbout, dict[str, Tensor], Allocation | None]:
    with opened_bundle(path, PLAIN) as (opened, text):
        about = plan_about(text, f'{path} cannot be used')
        content = tensors_of(path, opened)
    entries = {k.removeprefix(ENTRIES): content.pop(k) for k in list(content) if k.startswith(ENTRIES)}
    if about.spt is None and entries:
        raise UserError(f'{path} is broken: it holds single entries of weights, but its header has no SPT.')
    try:
        return about, content, about.spt and allocation_of(about.spt['allocation'], entries)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise UserError(f'{path} is broken: its SPT choice cannot be read ({reason(error)}).') from error


def _check_settings(file: str | Path, about: PlanAbout, plan: Plan) -> None:
    theirs, ours = about.deltas, _settings(plan)
    if theirs.keys() != ours.keys():
        raise UserError(
            f'{file} has the deltas {", ".join(theirs) or "none"}, and the model {", ".join(ours) or "none"}.'
        )
    for name, settings in ours.items():
        for option in sorted({*settings, *theirs[name]}):
            there, here = theirs[name].get(option), settings.get(option)
            if there != here:
                raise UserError(
                    f'{file} was trained with {name}.{option}={there!r:.80}, and here it is {here!r:.80}.'
                )


def _check_target(path: Path) -> None:
    if path.suffix != '.safetensors':
        raise UserError(f'The name of a bundle ends in .safetensors, and {path} does not.')
    if os.path.lexists(path):
        try:
            read_about(path)
        except UserError as error:
            raise UserError(f'{path} exists and is not the bundle of a plan: give another name.') from error


def _check_classes(plan: Plan, classes: Sequence[str] | None) -> None:
    for path in plan.heads if classes is not None else ():
        head = plan.model.get_submodule(path)
        if isinstance(head, nn.Linear) and head.out_features != len(classes):
            raise UserError(f'classes has {len(classes)} names, and {path} has {head.out_features} outputs.')


def _settings(plan: Plan) -> dict[str, dict[str, Any]]:
    settings = {name: options for name, options in plan.settings().items() if name != 'spt'}
    try:
        return json.loads(json.dumps(settings))  # as a file holds them: tuples are lists
    except TypeError as error:
        raise UserError(f'The deltas have an option that no file can hold: {reason(error)}.') from error


def _named(model: nn.Module) -> str:
    """Return a model's class, and what timm or transformers calls it."""
    told = (getattr(model, 'default_cfg', None) or {}).get('architecture')
    told = told or getattr(getattr(model, 'config', None), 'model_type', None)
    return type(model).__name__ + (f', {told}' if isinstance(told, str) else '')


def _versions(host: str) -> dict[str, str]:
    versions = {}
    for name in ('vpetl_mm', 'torch', host.partition('.')[0]):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
