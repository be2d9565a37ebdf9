"""Features of a frozen backbone, computed once in place of once an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine import Config
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ..datasets.feature_dataset import FeatureDataset
from ..errors import UserError
from ..models.features import pooled

# transforms that give the same result at each call; any other may be random
FIXED = {
    *('LoadImageFromFile', 'NumpyToPIL', 'PILToNumpy', 'Resize', 'ResizeEdge', 'CenterCrop', 'Normalize', 'ToTensor'),
    *('DecordInit', 'DecordDecode', 'OpenCVInit', 'OpenCVDecode', 'PyAVInit', 'PyAVDecode', 'RawFrameDecode'),
    *('ThreeCrop', 'FormatShape', 'PackInputs', 'PackActionInputs', 'PILToTensor'),
}
HOW = 'give the number of views to compute, cache_features=dict(views=N), or take the transform out'


def views_of(setting: Any) -> int | None:
    """How many views ``cache_features`` asks for; None for ``True``, which leaves it open.

    Raises:
        UserError: for anything but False, True and ``dict(views=N)``.
    """
    if setting is True:
        return None
    views = setting.get('views') if isinstance(setting, Mapping) and set(setting) == {'views'} else None
    if isinstance(views, bool) or not isinstance(views, int) or views < 1:
        raise UserError(f'cache_features must be False, True or dict(views=N) with N of at least 1, got {setting!r}.')
    return views


def random_transforms(pipeline: Iterable[Any]) -> list[str]:
    """The transforms of a pipeline that are not known to give the same result at each call."""
    found = []
    for step in pipeline:
        kind = step['type'] if isinstance(step, Mapping) else type(step)
        name = kind.__name__ if isinstance(kind, type) else str(kind)
        fixed = name.replace('/', '.').rpartition('.')[2] in FIXED
        if name.rpartition('.')[2] == 'SampleFrames':
            fixed = bool(step.get('test_mode'))
        found += [] if fixed else [name]
    return found


def check_cache(cfg: Config, model: nn.Module) -> None:
    """Raise :class:`UserError` where ``cache_features`` would train something else than without it.

    Args:
        cfg: the experiment.
        model: built from it, on any device.
    """
    views = views_of(cfg.cache_features)
    head = f'{model.head_name}.'
    trained = [n for n, p in model.named_parameters() if p.requires_grad and not n.startswith(head)]
    if trained or model.with_neck:
        what = f'the config also trains {trained[0]}' if trained else 'the config has a neck'
        raise UserError(f'cache_features is for runs that train the head alone (petl.train=["head"]), and {what}.')
    for name, module in model.backbone.named_modules():
        share = getattr(module, 'drop_prob', 0) or (module.p if isinstance(module, nn.Dropout) else 0)
        if share:
            raise UserError(
                f'cache_features: backbone.{name} drops {share:g} at random, which cached features would hide; set '
                'the drop rates of model.backbone to 0.'
            )
    if getattr(model.data_preprocessor, 'batch_augments', None) is not None:
        raise UserError('cache_features: model.data_preprocessor mixes images at random (batch_augments); drop it.')
    found = random_transforms(cfg.train_dataloader.dataset.get('pipeline', []))
    if found and views is None:
        raise UserError(f'cache_features: {found[0]} of the training pipeline is random; {HOW}.')


def cached_dataset(
    runner: Runner, loader: DataLoader, views: int, context: Callable[[], AbstractContextManager] = nullcontext
) -> FeatureDataset:
    """The features of a loader's data set, each process computing its share.

    Args:
        runner: whose model, in evaluation mode, and seed to take.
        loader: whose data set, batch size, workers and collation to take.
        views: passes through the pipeline, each with a seed of its own.
        context: makes the context to compute in, for its precision. Defaults to none, float32.
    """
    passes = [_one_pass(runner, loader, view, views, context) for view in range(views)]
    return FeatureDataset([features for features, _ in passes], passes[0][1])


def _one_pass(
    runner: Runner, loader: DataLoader, view: int, views: int, context: Callable[[], AbstractContextManager]
) -> tuple[Tensor, list[Any]]:
    rank, world = get_dist_info()
    share = range(rank, len(loader.dataset), world)
    generator = torch.Generator().manual_seed(hash((runner.seed, view, rank)) % 2**63)  # seeds the workers
    batches = DataLoader(
        Subset(loader.dataset, share),
        loader.batch_sampler.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        generator=generator,
    )
    model, console = runner.plain_model, Console(stderr=True)
    training, features, samples = model.training, [], []
    model.eval()
    label = f'computing features, view {view + 1} of {views}'
    with torch.no_grad(), context():
        for batch in track(batches, label, transient=True, console=console, disable=not console.is_terminal):
            data = model.data_preprocessor(batch, training)
            feats = model.extract_feat(data['inputs'])
            values = pooled(feats[0] if isinstance(feats[-1], dict) else feats)
            if len(values) != len(data['data_samples']):
                raise UserError('cache_features is for one clip a sample; the pipeline samples several (num_clips).')
            features.append(values.float().cpu())
            samples += [s.cpu() for s in data['data_samples']]
    model.train(training)
    return _in_order(torch.cat(features), samples, len(loader.dataset))


def _in_order(features: Tensor, samples: list[Any], total: int) -> tuple[Tensor, list[Any]]:
    """All processes' shares, every ``world``-th sample each, in the data set's order."""
    shares = all_gather_object((features, samples))
    world = len(shares)
    whole = features.new_empty(total, *features.shape[1:])
    listed: list[Any] = [None] * total
    for rank, (values, labels) in enumerate(shares):
        whole[rank::world], listed[rank::world] = values, labels
    return whole, listed
