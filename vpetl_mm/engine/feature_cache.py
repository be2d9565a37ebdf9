"""Features of a frozen backbone, computed once instead of in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from ..models.features import extracted

# transforms that return the same at each call; any other may be random
FIXED = {
    *('LoadImageFromFile', 'NumpyToPIL', 'PILToNumpy', 'Resize', 'ResizeEdge', 'CenterCrop', 'Normalize', 'ToTensor'),
    *('DecordInit', 'DecordDecode', 'OpenCVInit', 'OpenCVDecode', 'PyAVInit', 'PyAVDecode', 'RawFrameDecode'),
    *('OpenVideo', 'DecodeVideo'),
    *('ThreeCrop', 'FormatShape', 'PackInputs', 'PackActionInputs', 'PILToTensor'),
}
MANY = ('ThreeCrop', 'TenCrop')
# what the libraries call the share that a module drops at random in training
DROPS = ('p', 'drop_prob', 'attn_drop', 'proj_drop')
HOW = 'set the number of views to compute, cache_features=dict(views=N), or remove the transform'


def views_of(setting: Any) -> int | None:
    """Return how many views ``cache_features`` asks for; None for ``True``, which leaves it open."""
    if setting is True:
        return None
    views = setting.get('views') if isinstance(setting, Mapping) and set(setting) == {'views'} else None
    if type(views) is not int or views < 1:
        raise UserError(f'cache_features must be False, True or dict(views=N) with N of at least 1, got {setting!r}.')
    return views


def random_transforms(pipeline: Iterable[Any]) -> list[str]:
    """Return the transforms of a pipeline that are not known to return the same at each call."""
    return [_name(step) for step in pipeline if not _is_fixed(step)]


def _name(step: Any) -> str:
    kind = step['type'] if isinstance(step, Mapping) else type(step)
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _is_fixed(step: Any) -> bool:
    name = _name(step).replace('/', '.').rpartition('.')[2]
    return bool(step.get('test_mode')) if name == 'SampleFrames' else name in FIXED


def _samples_many(step: Any) -> bool:
    name = _name(step).rpartition('.')[2]
    return name in MANY or (name == 'SampleFrames' and step.get('num_clips', 1) > 1)


def _steps_of(dataset: Any) -> Iterator[Any]:
    """Yield the steps of every pipeline in a data set's config, and of the data sets that it wraps."""
    if isinstance(dataset, Mapping):
        yield from dataset.get('pipeline') or ()
        for inner in (dataset.get('dataset'), *(dataset.get('datasets') or ())):
            yield from _steps_of(inner)


def check_cache(cfg: Config, model: nn.Module) -> None:
    """Raise :class:`UserError` if ``cache_features`` would train something else than without it."""
    views = views_of(cfg.cache_features)
    if views and views > cfg.train_cfg.max_epochs:
        raise UserError(f'cache_features: {views} views are more than {cfg.train_cfg.max_epochs} epochs would see.')
    head = f'{model.head_name}.'
    trained = [n for n, p in model.named_parameters() if p.requires_grad and not n.startswith(head)]
    if trained or model.with_neck:
        what = f'the config also trains {trained[0]}' if trained else 'the config has a neck'
        raise UserError(f'cache_features is for runs that train the head alone (petl.train=["head"]), and {what}.')
    for name, module in model.backbone.named_modules():
        drops = (getattr(module, option, 0) for option in DROPS)
        if share := max((d for d in drops if isinstance(d, (int, float))), default=0):
            raise UserError(
                f'cache_features: backbone.{name} drops {share:g} at random, which cached features cannot; set '
                'the drop rates of model.backbone to 0.'
            )
    for key in ('batch_augments', 'blending'):
        if getattr(model.data_preprocessor, key, None) is not None:
            raise UserError(f'cache_features: model.data_preprocessor mixes samples at random ({key}); remove it.')
    steps = list(_steps_of(cfg.train_dataloader.dataset))
    if any(map(_samples_many, steps)):
        raise UserError('cache_features takes one clip per sample; the training pipeline returns several.')
    found = random_transforms(steps)
    if found and views is None:
        raise UserError(f'cache_features: {found[0]} of the training pipeline is random; {HOW}.')


def is_fixed(dataset: Any) -> bool:
    """Return whether a data set returns the same single image or clip of a sample at each call."""
    return all(_is_fixed(step) and not _samples_many(step) for step in _steps_of(dataset))


def cached_dataset(
    runner: Runner, loader: DataLoader, views: int, context: Callable[[], AbstractContextManager] = nullcontext
) -> FeatureDataset:
    """Compute the features of a loader's data set; each process computes its share.

    Args:
        runner: its model, in evaluation mode, and its seed are used.
        loader: its batch size, workers and collation are used too.
        views: passes through the pipeline, each with a seed of its own.
        context: makes the context to compute in, such as autocast. Defaults to none, float32.
    """
    return FeatureDataset(_one_pass(runner, loader, view, views, context) for view in range(views))


def _one_pass(
    runner: Runner, loader: DataLoader, view: int, views: int, context: Callable[[], AbstractContextManager]
) -> tuple[Tensor, list[Any]]:
    rank, world = get_dist_info()
    share = range(rank, len(loader.dataset), world)
    batches = DataLoader(
        Subset(loader.dataset, share),
        loader.batch_sampler.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        generator=torch.Generator().manual_seed(hash((runner.seed, view, rank)) % 2**63),  # seeds the workers
    )
    model, console = runner.plain_model, Console(stderr=True)
    training, features, samples = model.training, [], []
    model.eval()
    label = f'computing features, view {view + 1} of {views}'
    with torch.no_grad(), context():
        for batch in track(batches, label, transient=True, console=console, disable=not console.is_terminal):
            data = model.data_preprocessor(batch, training)
            values = extracted(model, data['inputs'])
            if len(values) != len(data['data_samples']):
                raise UserError('cache_features takes one clip per sample; the pipeline returns several.')
            features.append(values.cpu())
            samples += [s.cpu() for s in data['data_samples']]
    model.train(training)
    return _in_order(all_gather_object((torch.cat(features), samples)), len(loader.dataset))


def _in_order(shares: list[tuple[Tensor, list[Any]]], total: int) -> tuple[Tensor, list[Any]]:
    """Join the processes' shares, every ``world``-th sample each, in the data set's order."""
    world, features = len(shares), shares[0][0]
    whole, listed = features.new_empty(total, *features.shape[1:]), [None] * total
    for rank, (values, labels) in enumerate(shares):
        whole[rank::world], listed[rank::world] = values, labels
    return whole, listed
