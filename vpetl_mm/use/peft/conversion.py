"""Converts a bundle to a PEFT folder, and a PEFT folder to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine import Config
from torch import Tensor, nn

from ...config import load_config
from ...engine.adapter import adapter_state, trained_meta
from ...errors import UserError
from ...files import check_new, os_errors_explained
from ...models.build import build_model
from ..bundle.bundle import Bundle, read_bundle
from ..bundle.card import escaped
from ..bundle.model import bundled_model, source_of
from ..bundle.packing import check_bundle_name, packed
from .reading import from_peft, model_with
from .timm_vit import timm_state
from .writing import PEFTAdapter, to_peft, write_peft


def bundle_to_peft(file: str | Path, folder: str | Path, base: str | Path | None = None) -> PEFTAdapter:
    """Write the LoRA and the head of a bundle as a new folder of Hugging Face PEFT, for timm's image ViT.

    Args:
        file: the bundle.
        folder: does not exist yet.
        base: the file of its base, whose backbone then lies in the folder too, under timm's names. Defaults to None:
            it does not, unless the bundle holds the whole model.

    Returns:
        What was written.

    Raises:
        UserError: when the bundle trains more than LoRA and the head, timm has no such model, or the base is another.
    """
    bundle, folder = read_bundle(file), Path(folder)
    check_new(folder)
    trained = {k: v for k, v in bundle.tensors.items() if '.deltas.' in k or not k.startswith('backbone.')}
    whole = bundle.about.frozen_sha256 is None
    try:
        adapter = to_peft(bundle.about.model, trained if whole else bundle.tensors)
    except UserError as error:
        raise UserError(f'{file} cannot become a PEFT folder: {error}') from error
    backbone = timm_state(bundled_model(bundle, base).backbone) if base or whole else None
    write_peft(adapter, folder, _readme(bundle), backbone)
    return adapter


def _readme(bundle: Bundle) -> str:
    about = bundle.about
    inputs = about.model.get('data_preprocessor') or {}
    lines = [
        f"# {escaped(about.name)}: LoRA for timm's image ViT",
        '',
        f'Inputs: RGB images of 0 to 255, minus {list(inputs.get("mean") or [0])}, divided by '
        f'{list(inputs.get("std") or [1])}. License: {escaped(about.license)}.',
    ]
    if about.base is not None:
        lines += ['', f'Trained on {escaped(about.base["name"])}: {escaped(source_of(about.base))}.']
    if about.classes is not None:
        lines += ['', f'Classes: {", ".join(map(escaped, about.classes))}.']
    return '\n'.join(lines)


def peft_to_bundle(
    folder: str | Path,
    config: str | Path | Config,
    out: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    classes: str | Path | None = None,
    license: str = 'unknown',
) -> Path:
    """Write a bundle of the LoRA and the head in a PEFT folder.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        config: an experiment with the backbone, its base and the test pipeline. Its method, and the number of
            classes, are the folder's.
        out: the bundle, a new file.
        cfg_options: dotted keys to override in the config.
        classes: a file with a class name a line. Defaults to the config's own, if there are as many.
        license: of the trained weights.

    Returns:
        The bundle's path.

    Raises:
        UserError: when the folder is not of plain LoRA for this backbone, or an input is missing; nothing is written
            then.
    """
    folder, out = Path(folder), Path(out)
    check_bundle_name(out)
    check_new(out)
    cfg = load_config(config, cfg_options)
    read = from_peft(folder, cfg.model.to_dict())
    cfg.model = model_with(cfg.model.to_dict(), read)
    model = build_model(cfg, init_weights=True)
    names = None if classes is None else _names(classes, read.num_classes)
    content = _as_checkpoint(model, read.tensors, names)
    return packed(cfg, folder.resolve().name, folder, content, out, license)


def _names(file: str | Path, number: int) -> list[str]:
    with os_errors_explained():
        names = Path(file).read_text(encoding='utf-8', errors='replace').split('\n')
    names = [name.strip() for name in names if name.strip()]
    if len(names) != number:
        raise UserError(f'{file} has {len(names)} names, and the head {number} classes.')
    return names


def _as_checkpoint(model: nn.Module, tensors: Mapping[str, Tensor], classes: list[str] | None) -> dict[str, Any]:
    """Return a model's LoRA and head as the content of an adapter file."""
    model.load_state_dict(dict(tensors), strict=False)
    meta = dict(adapter_format=1, epoch=0, seed=None, options={}, dataset_meta=dict(classes=classes))
    return dict(state_dict=dict(adapter_state(model)), meta=dict(meta, **trained_meta(model)))
