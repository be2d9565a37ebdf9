"""From a bundle and its base to a model that classifies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..engine.adapter import check_trained, frozen_sha256
from ..errors import UserError
from ..models.build import build_model, drawn_from
from ..weights.base import DEMO
from .bundle import Bundle, element_count

FOLDERS = (Path('data/weights'), Path(DEMO).parent)
MOST_BUFFERS = 1 << 27


def bundled_model(bundle: Bundle, base: str | Path | None = None) -> nn.Module:
    """Build the model of a bundle, on the CPU and in eval mode.

    Args:
        bundle: read and checked.
        base: the file of its base, as downloaded or converted. Defaults to the file of its name in ``data/weights/``
            or ``data/demo/``; a bundle that holds the whole model needs none.

    Raises:
        UserError: when the base is missing or another one, or the tensors are not those of the model.
    """
    content = content_of(bundle)
    check_tensors(bundle, base)
    whole = bundle.about.frozen_sha256 is None
    config = model_config(bundle, None if whole else base_of(bundle, base))
    with drawn_from(0):
        model = build_model(config, init_weights=not whole)
    if not whole:
        check_frozen(bundle, model)
    model.load_state_dict(content['state_dict'], strict=False)
    return model.eval()


def model_config(bundle: Bundle, base: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``default_scope`` and ``model`` of a config; ``base`` is the model's."""
    about = bundle.about
    petl = dict(about.model['petl'])
    if bundle.allocation is not None:
        petl['spt'] = dict(petl['spt'], allocation=bundle.allocation, control=bundle.allocation.control)
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
    return dict(file=str(file), convert=base['convert'])


def source_of(base: Mapping[str, Any]) -> str:
    """Return where a base is had, as the end of a sentence."""
    where = f'it is at {base["url"]}' if base['url'] else 'ask whoever made the bundle for it'
    return f'{where} (SHA-256 of the file {base["sha256"]})'


def check_frozen(bundle: Bundle, model: nn.Module) -> None:
    """Raise :class:`UserError` unless the frozen tensors of ``model`` are those that the bundle was trained on."""
    wanted, found, base = bundle.about.frozen_sha256, frozen_sha256(model), bundle.about.base
    if wanted != found:
        raise UserError(
            f'{bundle.file} was trained on {base["name"]}, whose frozen tensors have the SHA-256 {wanted}, and '
            f'{model.base["file"]} gives {found}: it is another base, or was changed; {source_of(base)}.'
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
    model = build_model(model_config(bundle, None), meta=True)
    buffers = sum(b.numel() for b in model.buffers())
    if buffers > MOST_BUFFERS:
        raise UserError(f'{bundle.file} is broken: the tables of its model would take {buffers:,} numbers.')
    check_trained(model, bundle.file, content_of(bundle))
    rest = {n: p for n, p in model.named_parameters() if n not in bundle.tensors}
    if bundle.about.frozen_sha256 is None and rest:
        raise UserError(f'{bundle.file} is broken: it names no base, and lacks {next(iter(rest))}.')
    if rest and at_hand:
        file = Path(base_of(bundle, base)['file'])
        if element_count(rest) > file.stat().st_size:
            raise UserError(
                f'{bundle.file} is not for {file}: it leaves {element_count(rest):,} parameters to its base.'
            )
    return model
