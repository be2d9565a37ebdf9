"""The image data sets' configs: what reaches the model, beside what Pillow alone would make of the same file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from building import REPO
from building import build as build_dataset
from mmengine import Config
from mmengine.registry import DATASETS, PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner
from PIL import Image
from trees import REAL, cifar_files, make_official, put, put_all, write_svhn

BASES = REPO / 'configs/_base_'
SUBSET = REAL / 'cifar100/cifar100_subset.npz'
NAMES = ('cifar100', 'svhn', 'food101')
LOADERS = ('train', 'val', 'test')


def write_food101(folder: Path, images: np.ndarray | list[np.ndarray]) -> None:
    (folder / 'images/waffles').mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f'images/waffles/{i}.jpg', quality=95)
    for split in ('train', 'test'):
        put(folder / f'meta/{split}.txt', ''.join(f'waffles/{i}\n' for i in range(len(images))))


@pytest.fixture
def build(tmp_path, monkeypatch) -> Callable:
    """The data set of a config's loader over the given images [N, H, W, 3]."""

    def made(name: str, images: np.ndarray | list[np.ndarray], loader: str = 'train'):
        if name == 'food101':
            write_food101(tmp_path, images)
        elif name == 'svhn':
            write_svhn(tmp_path, 'train', images)
            write_svhn(tmp_path, 'test', images)
        else:
            files = cifar_files(*[(images, range(len(images)))] * 2)
            make_official(monkeypatch, files)
            put_all(tmp_path, files)
        dataset = config(name)[f'{loader}_dataloader'].dataset
        dataset.update(data_root=str(tmp_path), serialize_data=False)
        return build_dataset(dataset)

    return made


def config(name: str) -> Config:
    return Config.fromfile(BASES / f'datasets/{name}.py')


def plain(colours: list[tuple[int, int, int]], size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """One image of each colour, [N, *size, 3]."""
    return np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), *size, 3)).copy()


@pytest.mark.parametrize('loader', LOADERS)
@pytest.mark.parametrize('name', NAMES)
def test_red_stays_red(build, name, loader):
    data = build(name, plain([(250, 60, 5)] * 3), loader)
    image = data[0]['inputs']
    assert image.dtype == torch.uint8 and image.shape == (3, 224, 224)
    # within 6, as JPEG rounds
    assert ((image.float() - torch.tensor([250.0, 60.0, 5.0])[:, None, None]).abs() <= 6).all()


@pytest.mark.parametrize(('height', 'width'), [(300, 400), (411, 200), (200, 150)])
def test_testing_resizes_the_shorter_side_to_256_and_crops_the_centre(build, height, width):
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    data = build('food101', [smooth], 'test')
    stored = Image.open(data.get_data_info(0)['img_path'])
    long = int(256 * max(height, width) / min(height, width))
    scale = (256, long) if height > width else (long, 256)
    left, top = round((scale[0] - 224) / 2), round((scale[1] - 224) / 2)
    expected = stored.resize(scale, Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    assert np.array_equal(data[0]['inputs'].permute(1, 2, 0), np.array(expected))


@pytest.mark.skipif(not SUBSET.exists(), reason='the real images are not at hand')
@pytest.mark.parametrize('name', ['cifar100', 'svhn'])
def test_real_images_are_tested_as_pillow_enlarges_them(build, name):
    images = np.load(SUBSET)['test_images'][:20]
    data = build(name, images, 'test')
    for i, image in enumerate(images):
        expected = Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240))
        assert np.array_equal(data[i]['inputs'].permute(1, 2, 0), np.array(expected))


@pytest.mark.parametrize('name', NAMES)
def test_training_crops_at_random_and_flips_half(build, name):
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], (32, 32, 3))
    data = build(name, [ramp.copy()])
    torch.manual_seed(0)
    means = torch.stack([data[0]['inputs'].float()[0].mean(0) for _ in range(100)])  # by column
    rises = means[:, -1] > means[:, 0]
    assert 30 < rises.sum() < 70
    spans = (means[:, -1] - means[:, 0]).abs()
    assert spans.std() > 20, 'crops of all sizes'
    torch.manual_seed(0)
    assert torch.equal(data[0]['inputs'].float()[0].mean(0), means[0]), "follows torch's seed"


@pytest.mark.parametrize('name', NAMES)
def test_validation_reads_the_training_split_as_testing_reads_its_own(name):
    cfg = config(name)
    assert cfg.train_dataloader.dataset.split == cfg.val_dataloader.dataset.split == 'train'
    assert cfg.test_dataloader.dataset.split == 'test'
    assert cfg.val_dataloader.dataset.held_out and not cfg.train_dataloader.dataset.get('held_out')
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline
    assert cfg.holdout == dict(fraction=0.0, seed=0) and cfg.data_help
    for loader in LOADERS:
        dataset = cfg[f'{loader}_dataloader'].dataset
        assert DATASETS.get(dataset.type).num_classes == cfg.num_classes
        assert dataset.data_root == f'data/{name}'
        assert cfg[f'{loader}_dataloader'].persistent_workers is False


@pytest.mark.parametrize('name', NAMES)
def test_training_changes_no_colours_and_mixes_no_images(name):
    pipeline = config(name).train_dataloader.dataset.pipeline
    assert pipeline[-3].interpolation == 'bicubic'
    kinds = [t.type for t in pipeline]
    assert kinds[-4:] == [
        'NumpyToPIL',
        'torchvision/RandomResizedCrop',
        'torchvision/RandomHorizontalFlip',
        'PackInputs',
    ]
    assert kinds[:-4] == (['LoadImageFromFile'] if name == 'food101' else [])


def test_a_loader_of_workers_gives_batches(build):
    dataset = build('cifar100', plain([(i, 2 * i, 3 * i) for i in range(5)]))
    cfg = config('cifar100').train_dataloader
    cfg.update(dataset=dataset, batch_size=2, num_workers=1)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        batches = list(Runner.build_dataloader(cfg, seed=0))
    assert len(batches) == 2, 'the fifth image is dropped'
    assert all(image.shape == (3, 224, 224) for b in batches for image in b['inputs'])
    for image, sample in ((b['inputs'][i], b['data_samples'][i]) for b in batches for i in range(2)):
        label = int(sample.gt_label)
        assert (image == torch.tensor([label, 2 * label, 3 * label])[:, None, None]).all()


def test_the_schedule_is_the_papers():
    cfg = Config.fromfile(BASES / 'schedules/image_100e.py')
    images = config('cifar100').train_dataloader.batch_size * 4
    assert images == cfg.auto_scale_lr.base_batch_size == 256 and cfg.auto_scale_lr.enable
    assert cfg.train_cfg.max_epochs == 100
    model, steps = torch.nn.Linear(1, 1), 3
    options = dict(cfg.optim_wrapper.optimizer)
    assert options.pop('type') == 'SGD'
    optimizer = torch.optim.SGD(model.parameters(), **options)
    assert optimizer.defaults['momentum'] == 0.9 and optimizer.defaults['weight_decay'] == 0
    rates = epoch_rates(cfg, optimizer, steps)
    assert rates[0] == pytest.approx(1e-7) and rates[10 * steps] == pytest.approx(0.05, rel=0.03)
    assert max(rates) == pytest.approx(0.1, rel=1e-3) and rates.index(max(rates)) in (20 * steps - 1, 20 * steps)
    assert rates[60 * steps] == pytest.approx(0.05, rel=0.03) and rates[-1] < 1e-5, 'half way down, and at its end'


def epoch_rates(cfg: Config, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """The learning rate of each iteration of 100 epochs."""
    schedulers = []
    for scheduler in cfg.param_scheduler:
        options = {k: v for k, v in scheduler.items() if k not in ('type', 'convert_to_iter_based')}
        kind = PARAM_SCHEDULERS.get(scheduler.type)
        schedulers.append(kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=steps, **options))
    rates = []
    for _ in range(100 * steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates
