"""Packs a run into a bundle."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine import Config
from torch import Tensor, nn

from ...config import load_config
from ...engine.adapter import adapter_keys, check_trained, load_trained
from ...engine.checkpoint import read_checkpoint
from ...engine.entries import innermost
from ...engine.record import FILE, json_safe, read_record
from ...engine.run_folder import BEST
from ...engine.runner import PETLRunner
from ...errors import UserError
from ...files import check_new
from ...models.build import build_model
from ...models.inputs import normalising
from ...models.wrapped import WrappedBackbone
from ...spt.allocation import described
from ...weights.hub import url_of
from .about import About, about_of, written
from .allowed import PLAIN, TRAINING
from .bundle import Bundle, is_bundle, write_bundle
from .libraries import portable_backbone
from .model import check_tensors

LIBRARIES = ('vpetl_mm', 'torch', 'mmengine', 'mmaction2', 'mmpretrain', 'timm', 'transformers')
LAST = re.compile(r'(?:adapter_)?epoch_(\d+)\.pth')


def pack(
    run: str | Path,
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    license: str = '',
) -> Path:
    """Write a bundle of a trained model.

    Args:
        run: the folder of a run, or its config.
        checkpoint: ``adapter_*.pth``, ``best_*.pth`` or ``epoch_*.pth``. Defaults to the run's best, or its last.
        out: the bundle. Defaults to ``<config>.safetensors`` in the run's folder, which is replaced.
        cfg_options: dotted keys to override in the config; those of the run, if ``run`` is a config.
        license: of the trained weights. Defaults to '', what the card of the base names, or 'unknown'.

    Returns:
        The bundle's path.

    Raises:
        UserError: when an input is missing or does not fit, ``out`` exists, or the model has a part that no bundle
            holds; nothing is written then.
    """
    folder, config = _run(Path(run))
    checkpoint = Path(checkpoint) if checkpoint else best_checkpoint(folder)
    name = Path(config).stem
    target = Path(out) if out else (folder if folder.is_dir() else checkpoint.parent) / f'{name}.safetensors'
    check_bundle_name(target)
    if out:
        check_new(target)
    cfg, content = load_config(config, cfg_options), read_checkpoint(checkpoint)
    return packed(cfg, name, checkpoint, content, target, license)


def check_bundle_name(file: Path) -> None:
    """Raise :class:`UserError` unless the name of a bundle ends in ``.safetensors``."""
    if file.suffix != '.safetensors':
        raise UserError(f'The name of a bundle ends in .safetensors, and {file} does not.')


def bundle_of_run(runner: PETLRunner) -> Path:
    """Write the bundle of a run that has just ended, ``<config>.safetensors`` in its folder; see :func:`pack`."""
    cfg, folder = runner.cfg, Path(runner.cfg.work_dir)
    name = Path(cfg.filename).stem if cfg.filename else runner.experiment_name
    checkpoint = best_checkpoint(folder)
    return packed(cfg, name, checkpoint, read_checkpoint(checkpoint), folder / f'{name}.safetensors')


def packed(
    cfg: Config, name: str, checkpoint: Path, content: dict[str, Any], target: Path, license: str = ''
) -> Path:
    """Write the bundle of a checkpoint's content; see :func:`pack`.

    Args:
        cfg: the config that it was trained with.
        name: of the experiment.
        checkpoint: its file.
        content: of the file.
        target: the bundle; one that exists is replaced.
        license: of the trained weights. Defaults to '', what the card of the base names, or 'unknown'.
    """
    if os.path.lexists(target) and not is_bundle(target):
        raise UserError(f'{target} exists and is not a bundle: move it, or give another name.')
    model, whole, tensors = _trained(cfg, checkpoint, content)
    meta, allocation = content['meta'], model.spt and model.spt.allocation
    about = About(
        name=name,
        default_scope=cfg.get('default_scope', 'mmaction'),
        model=_portable(cfg.model, model),
        pipeline=_test_pipeline(cfg),
        classes=_class_names(cfg, meta, model),
        base=_base(cfg, meta),
        frozen_sha256=None if whole else meta['frozen_sha256'],
        deltas=json_safe(meta['deltas']),
        **{k: v for k, v in model.plan.count().items() if k != 'by'},
        epoch=meta.get('epoch', 0),
        seed=meta.get('seed'),
        scores=_scores(cfg, checkpoint, name, meta),
        options=json_safe(meta.get('options', {})),
        versions=_versions(),
        license=license or _license(meta),
        created=datetime.now().astimezone().isoformat(timespec='seconds'),
        spt=allocation and described(allocation),
    )
    about = about_of(written(about), f'{name} cannot be a bundle')
    check_tensors(Bundle(checkpoint, about, tensors, allocation), at_hand=False)
    write_bundle(target, about, tensors, allocation and allocation.sparse)
    return target


def _run(run: Path) -> tuple[Path, Path | str]:
    """Return the folder of a run and its config."""
    if not run.is_dir():
        return Path('work_dirs', Path(run).stem), run
    dumped = [p for p in sorted(run.glob('*.py')) if p.is_file()]
    if len(dumped) != 1:
        there = f'has {len(dumped)} configs' if dumped else 'has no config'
        raise UserError(f'{run} is not the folder of one run: it {there}. Give the config and the checkpoint.')
    return run, dumped[0]


def best_checkpoint(folder: str | Path) -> Path:
    """Return the best checkpoint of a run if it kept one, or its last adapter, or its last full state.

    Raises:
        UserError: when the folder has none.
    """
    folder = Path(folder)
    files = sorted(folder.glob('*.pth')) if folder.is_dir() else []
    best = [(int(m[1]), p) for p in files if (m := BEST.fullmatch(p.name))]
    last = [(int(m[1]), p.name.startswith('adapter_'), p) for p in files if (m := LAST.fullmatch(p.name))]
    if not best and not last:
        raise UserError(f'{folder} has no checkpoint: train first, or name one.')
    return max(best)[-1] if best else max(last)[-1]


def _trained(cfg: Config, checkpoint: Path, content: dict[str, Any]) -> tuple[nn.Module, bool, dict[str, Tensor]]:
    """Return the model, maybe without values, whether the bundle holds all of it, and the bundle's tensors."""
    model = build_model(cfg, meta=True)
    if not hasattr(model, 'plan'):
        raise UserError(f'model.type must be PETLRecognizer3D or PETLImageClassifier, got {cfg.model.type}.')
    check_trained(model, checkpoint, content)
    state, is_adapter = content['state_dict'], 'adapter_format' in content['meta']
    parameters = {f'backbone.{n}': p for n, p in model.backbone.named_parameters()}
    whole = cfg.model.base is None or all(p.requires_grad for p in parameters.values())
    wanted = {*adapter_keys(model), *(parameters if whole else ()), *(state if is_adapter else ())}
    if whole or not is_adapter:  # an adapter has the buffers that have changed
        wanted |= {f'backbone.{n}' for n, b in model.backbone.named_buffers() if b.is_floating_point()}
    if not wanted <= state.keys():  # the rest is as at the start, which follows from the seed and the base
        model = build_model(cfg, init_weights=True)
        load_trained(model, checkpoint, content)
        state = model.state_dict()
    return model, whole, {k: v for k, v in state.items() if k in wanted}


def _portable(model: Config, built: nn.Module) -> dict[str, Any]:
    """Return a model's config without its base, SPT's file, and what matters in training alone.

    Of a model of another library it says what that library says otherwise: how inputs are normalised, and what a
    folder or a repository describes.
    """

    def without(part: Any, names: bool = False) -> Any:
        if isinstance(part, Mapping):
            return {k: without(v, k == 'deltas') for k, v in part.items() if names or k not in TRAINING}
        return part

    given = {k: v for k, v in model.items() if k != 'base'}
    if isinstance(built.backbone, WrappedBackbone):
        given['backbone'] = portable_backbone(given['backbone'], built.backbone)
        preprocessor = given.get('data_preprocessor')
        given['data_preprocessor'] = normalising(preprocessor, model['backbone'], built.head_name)
    portable = json_safe(without(given))
    if (portable.get('petl') or {}).get('spt'):
        spt = portable['petl']['spt']
        portable['petl']['spt'] = {k: v for k, v in spt.items() if k in PLAIN['spt']}
    return portable


def _test_pipeline(cfg: Config) -> list[dict[str, Any]]:
    dataset = innermost(cfg.test_dataloader.dataset) if cfg.get('test_dataloader') else {}
    steps = dataset.get('pipeline')
    if not steps:
        raise UserError(
            f'{cfg.filename or "The config"} has no test_dataloader with a pipeline, which a bundle needs.'
        )
    left_out = ('io_backend', 'backend_args', 'file_client_args', 'meta_keys')
    return [{k: json_safe(v) for k, v in step.items() if k not in left_out} for step in steps]


def _class_names(cfg: Config, meta: Mapping[str, Any], model: nn.Module) -> list[str] | None:
    """Return the class names of the run's data set, or those in the file that the config names."""
    names = meta.get('dataset_meta', {}).get('classes')
    if not isinstance(names, (list, tuple)):  # a path in a checkpoint is not opened, one in a config is
        dataset = innermost(cfg.test_dataloader.dataset)
        names = (dataset.get('metainfo') or {}).get('classes', dataset.get('classes'))
    if isinstance(names, str):
        with suppress(OSError, ValueError):
            names = Path(names).read_text(encoding='utf-8').splitlines()
    number = getattr(model, model.head_name).num_classes
    fits = isinstance(names, (list, tuple)) and len(names) == number and all(isinstance(n, str) for n in names)
    return [''.join(filter(str.isprintable, ' '.join(n.split()))) for n in names] if fits else None


def _base(cfg: Config, meta: Mapping[str, Any]) -> dict[str, Any] | None:
    if meta['base'] is None:
        return None
    named = cfg.model.get('base') or {}
    of_hub = dict(named, **{k: meta['base'].get(k) for k in ('hub', 'commit', 'name')})
    repo = str(of_hub['hub'] or '').rpartition('/')[2]
    file = Path(meta['base']['file'])
    return dict(
        name=f'{repo}{"".join(file.suffixes[-1:])}' if repo else file.name,
        url=url_of(of_hub),
        sha256=meta['base']['sha256'],
        convert=named.get('convert'),
    )


def _license(meta: Mapping[str, Any]) -> str:
    named = (meta['base'] or {}).get('license')
    return f'{named} (that of its base)' if isinstance(named, str) and named else 'unknown'


def _scores(cfg: Config, checkpoint: Path, name: str, meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the scores of the test that lies beside a checkpoint, if it tested this one."""
    try:
        record = read_record(checkpoint.parent / FILE)
    except UserError:
        return None
    tested = record.config, record.checkpoint, record.epoch, record.seed
    if tested != (name, checkpoint.name, meta.get('epoch', 0), meta.get('seed')):
        return None
    dataset = innermost(cfg.test_dataloader.dataset)
    where = dataset.get('ann_file') or dataset.get('data_root') or dataset.get('type')
    scores = {k: getattr(record, k) for k in ('top1', 'top5', 'mean_class', 'samples', 'checkpoint')}
    return dict(scores, list=Path(str(where)).name)


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
