"""One task of VTAB-1k, from its three lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from building import build
from PIL import Image
from small_vtab import CLASSES

from vpetl_mm import UserError
from vpetl_mm.config import load_config
from vpetl_mm.datasets.vtab1k import TASKS, TOKENS
from vpetl_mm.engine.experiment import Options, prepare

LISTS = {
    'train800': ['images/train800/0.png 2', 'images/train800/with space.png 0', 'images/train800/2.png 1'],
    'val200': ['images/val200/0.png 1'],
    'test': ['images/test/0.png 0', 'images/test/1.png 2'],
}


@pytest.fixture
def task(tmp_path) -> Path:
    """Images of one value each, 10, 20, ..., in the order of the lists, one of them grey."""
    value = 0
    for name, rows in LISTS.items():
        for row in rows:
            value += 10
            path = tmp_path / row.rpartition(' ')[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (6, 8) if value == 10 else (6, 8, 3)
            Image.fromarray(np.full(shape, value, np.uint8)).save(path)
        (tmp_path / f'{name}.txt').write_text('\n'.join(rows) + '\n')
    return tmp_path


def built(task: Path, **options):
    return build(dict(dict(type='VTAB1k', data_root=str(task), num_classes=3), **options))


def rows(data) -> list[str]:
    infos = [data.get_data_info(i) for i in range(len(data))]
    root = Path(data.data_root)
    return [f'{Path(i["img_path"]).relative_to(root)} {i["gt_label"]}' for i in infos]


@pytest.mark.parametrize(
    ('options', 'lists'),
    [
        (dict(), ['train800', 'val200']),
        (dict(holdout=0.0), ['train800', 'val200']),
        (dict(holdout=0.2), ['train800']),
        (dict(holdout=0.2, held_out=True, holdout_seed=7), ['val200']),
        (dict(held_out=True), ['val200']),
        (dict(split='test'), ['test']),
        (dict(split='test', holdout=0.2), ['test']),
    ],
)
def test_the_official_lists_are_the_parts(task, options, lists):
    assert rows(built(task, **options)) == [row for name in lists for row in LISTS[name]]


def test_images_are_what_the_configs_make_of_them(task):
    cfg = load_config('vit_fc_vtabkitti_mae')
    data = built(task, pipeline=cfg.test_dataloader.dataset.pipeline)
    for n in range(3):  # both sides are resized, not a crop
        assert data[n]['inputs'].shape == (3, 224, 224) and (data[n]['inputs'] == 10 * (n + 1)).all()
    assert data.num_classes == 3 and data[0]['data_samples'].gt_label.item() == 2


def test_direct_resizing_keeps_every_part_of_a_wide_image(task):
    picture = np.zeros((10, 40, 3), np.uint8)
    picture[:, :10, 0] = picture[:, 30:, 2] = 255  # red on the left, blue on the right: lost by a centre crop
    Image.fromarray(picture).save(task / 'images/test/0.png')
    cfg = load_config('vit_fc_vtabkitti_mae')
    image = built(task, split='test', pipeline=cfg.test_dataloader.dataset.pipeline)[0]['inputs']
    assert image[:, 112, 5].tolist() == [255, 0, 0] and image[:, 112, 218].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(holdout=0.1), 'it must be 0 or 0.2'),
        (dict(holdout='0.2'), 'it must be 0 or 0.2'),
        (dict(num_classes=0), 'num_classes of VTAB-1k must be'),
        (dict(num_classes=2), r'train800.txt, line 1: label 2 is outside the classes 0 to 1'),
        (dict(data_root='/nowhere'), r'/nowhere/train800.txt does not exist; tools/prepare_data.py vtab1k'),
    ],
)
def test_wrong_options(task, options, said):
    with pytest.raises(UserError, match=said):
        built(task, **options)


def test_a_broken_image_is_named(task):
    (task / 'images/val200/0.png').write_bytes(b'no image')
    cfg = load_config('vit_fc_vtabkitti_mae')
    with pytest.raises(UserError, match=r'val200/0\.png cannot be decoded'):
        built(task, holdout=0.2, held_out=True, pipeline=cfg.test_dataloader.dataset.pipeline)[0]


def test_the_19_tasks_and_their_configs():
    assert {t: a.classes for t, a in TASKS.items()} == CLASSES and len(TOKENS) == 19
    groups = [a.group for a in TASKS.values()]
    assert [groups.count(g) for g in ('natural', 'specialized', 'structured')] == [7, 4, 8]
    for token, task in TOKENS.items():
        cfg = load_config(f'vit_lora_{token}_r8_in21k')
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            assert loader.dataset.data_root == f'data/vtab1k/{task}'
            assert loader.dataset.num_classes == cfg.model.head.num_classes == CLASSES[task]


def test_a_hold_out_in_the_config_is_val200(task):
    """As tools/train.py sees it, before and after --cfg-options holdout.fraction=0.2."""
    for options, train, val in (({}, 4, None), ({'holdout.fraction': 0.2}, 3, 1)):
        cfg = prepare('vit_lora_vtabkitti_r8_in21k', Options(cfg_options=options))
        lengths = []
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            lengths.append(loader and len(built(task, **dict(loader.dataset, data_root=str(task), num_classes=3))))
        assert lengths == [train, val, 2]
