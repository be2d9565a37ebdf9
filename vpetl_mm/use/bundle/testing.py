"""The config that tests a bundle on a list of files, built from the bundle alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine import Config

from vpetl_cli.shipped import ROOT

from ...datasets.list_file import read_list
from ...engine.launch import available_cores
from ...engine.outcome import LIST
from ...errors import UserError
from ...preparation.found import MEDIA
from ...spt.allocation import write_allocation
from .bundle import About, Bundle
from .model import base_of, bundled_model, model_config
from .views import check_kind, from_files

RUNTIME = ROOT / 'configs/_base_/runtime.py'
BATCH = {True: 2, False: 64}  # of videos, of images
WORKERS = 8


@contextmanager
def bundle_experiment(
    bundle: Bundle, data: str | Path, prefix: str | Path | None = None, base: str | Path | None = None
) -> Iterator[Config]:
    """Yield the config of an experiment that tests a bundle, for :func:`vpetl_mm.engine.experiment.test`.

    Args:
        bundle: read and checked.
        data: the list, of ``path label`` lines.
        prefix: the folder that the paths of the list are relative to. Defaults to the first that has the first file,
            of: the list's folder, ``videos`` or ``images`` in it, and the current folder.
        base: the file of the bundle's base; see :func:`vpetl_mm.use.bundle.model.base_of`.

    Raises:
        UserError: when the list or the base is missing, a label lies outside the bundle's classes, or the list has
            files of the other kind.
    """
    about = bundle.about
    folder = _folder(about, Path(data), prefix)
    bundled_model(bundle, base)  # the test itself would find another base only after it has made its folder
    whole = about.frozen_sha256 is None
    config = model_config(bundle, None if whole else base_of(bundle, base))
    with tempfile.TemporaryDirectory() as made:
        spt = config['model']['petl'].get('spt')
        if spt and spt.pop('allocation', None):  # a config is plain text
            spt['file'] = str(Path(made, 'spt.safetensors'))
            write_allocation(Path(spt['file']), bundle.allocation)
        yield Config({**Config.fromfile(RUNTIME).to_dict(), **config, **_test(about, Path(data), folder)})


def _test(about: About, data: Path, folder: Path) -> dict[str, Any]:
    names = about.classes or [str(number) for number in range(about.num_classes)]
    if about.is_video:
        dataset = dict(
            type='PETLVideoDataset',
            data_prefix=dict(video=str(folder)),
            num_classes=about.num_classes,
            metainfo=dict(classes=names),
            test_mode=True,
        )
    else:
        dataset = dict(type='PETLImageList', data_prefix=str(folder), classes=names)
    dataset |= dict(ann_file=str(data), pipeline=from_files(about))
    views = (about.model.get('test_cfg') or {}).get('max_testing_views')
    return dict(
        experiment_name=about.name,
        randomness=dict(seed=about.seed),
        test_dataloader=dict(
            batch_size=1 if views else BATCH[about.is_video],
            num_workers=min(WORKERS, available_cores()),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
        ),
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='PETLAccuracy'),
    )


def _folder(about: About, data: Path, prefix: str | Path | None) -> Path:
    """Return the folder that the paths of a list are relative to."""
    first = read_list(data, about.num_classes)[0].path
    check_kind(about, first)
    if prefix is not None:
        if not Path(prefix).is_dir():
            raise UserError(f'The folder {prefix} (--data-prefix) does not exist.')
        return Path(prefix)
    folders = [data.parent, data.parent / MEDIA[about.media], Path()]
    names = [first] if Path(first).suffix or not about.is_video else [first, f'{first}.mp4']
    found = next((folder for folder in folders if any((folder / name).exists() for name in names)), None)
    if found is None:
        where = ', '.join(str(folder) for folder in folders)
        raise UserError(f'{first}, the first file of {data}, is not in {where}: name its folder with --data-prefix.')
    return found


def listed_options(bundle: Bundle, data: str | Path) -> dict[str, Any]:
    """Return the options that the result of a bundle's test records: it is not the experiment's own."""
    return {'bundle': bundle.file.name, LIST: str(data)}
