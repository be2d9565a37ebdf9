"""Accuracies of a worked example; over ranks they are those of one process, whatever the number of samples."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from ranks import over_ranks
from torch import distributed
from torch.utils.data import Dataset

from vpetl_mm.engine.accuracy import PETLAccuracy
from vpetl_mm.engine.experiment import test as run_test
from vpetl_mm.engine.experiment import train


def evaluate(scores, labels, skipped=()):
    metric = PETLAccuracy(topk=(1, 2))
    samples = [
        dict(pred_score=torch.tensor(s), gt_label=torch.tensor([label]), skipped=('x',) if i in skipped else ())
        for i, (s, label) in enumerate(zip(scores, labels, strict=True))
    ]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_a_worked_example():
    scores = [[0.9, 0.05, 0.05], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.1, 0.7, 0.2]]
    got = evaluate(scores, [0, 1, 0, 1])
    # first and last are right; the second's label comes second; the third's last; class means 1/2 and 1/2
    assert got == pytest.approx({'acc/top1': 50.0, 'acc/top2': 75.0, 'acc/mean_class': 50.0})


def test_mean_class_weighs_classes_alike():
    got = evaluate([[1.0, 0.0]] * 4, [0, 0, 0, 1])
    assert got['acc/top1'] == 75.0 and got['acc/mean_class'] == 50.0


def test_what_could_not_be_read_is_wrong_in_every_figure():
    got = evaluate([[1.0, 0.0], [1.0, 0.0]], [0, 0], skipped={1})
    assert got == pytest.approx({'acc/top1': 50.0, 'acc/top2': 50.0, 'acc/mean_class': 50.0})


CLASSES = 6


class Scored(Dataset):
    """Samples with scores of their own; every fourth could not be read."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(size)
        self.scores = torch.randn(size, CLASSES, generator=generator)
        self.labels = torch.randint(CLASSES, (size, 1), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> int:
        return index

    def sample(self, index: int) -> dict:
        skipped = ('gone',) if index % 4 == 3 else ()
        about = dict(filename=f'{index}.mp4', skipped=skipped)
        return dict(pred_score=self.scores[index], gt_label=self.labels[index], **about)


def evaluated(size: int, batch: int, dump: Path, round_up: bool = True) -> dict[str, float]:
    """What this rank is told after its share."""
    samples = Scored(size)
    sampler = dict(type='DefaultSampler', shuffle=False, round_up=round_up)
    loader = dict(dataset=samples, batch_size=batch, num_workers=0, sampler=sampler)
    metric = PETLAccuracy(dump=str(dump))
    for indices in Runner.build_dataloader(loader, seed=0):
        metric.process(None, [samples.sample(i) for i in indices])
    return metric.evaluate(size)


CASES = [(size, batch, up) for size in range(1, 8) for batch in (1, 2, 3) for up in (True, False)]


@pytest.mark.parametrize('world', [2, 3])
def test_any_number_of_samples(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def on(rank: int) -> list[dict]:
        distributed.init_process_group('gloo')
        return [evaluated(n, b, tmp_path / f'{world}_{n}_{b}_{up}.csv', up) for n, b, up in CASES]

    found = over_ranks(world, on)
    for case, (size, batch, up) in enumerate(CASES):
        alone = evaluated(size, batch, tmp_path / 'alone.csv')
        assert [found[rank][case] for rank in range(world)] == [alone] * world
        assert (tmp_path / f'{world}_{size}_{batch}_{up}.csv').read_text() == (tmp_path / 'alone.csv').read_text()
    assert {p.suffix for p in tmp_path.iterdir()} == {'.csv'}, 'nothing passes through the current folder'


def rows(path: Path) -> list[list[str]]:
    with open(path, newline='') as stream:
        return list(csv.reader(stream))


def test_a_test_over_ranks_is_the_test_of_one_process(ready, tmp_path):
    """Six views of a clip, a video that cannot be decoded, a rest, fewer samples than ranks."""
    views = ready().test_dataloader.dataset.pipeline
    views[1].update(num_clips=2, clip_len=4, test_mode=True)
    views[2:3] = [views[2], dict(type='Resize', scale=(-1, 32)), dict(type='ThreeCrop', crop_size=32)]
    broken = tmp_path / 'broken.txt'
    broken.write_text('no/such.mp4 3\n' + Path(ready().test_dataloader.dataset.ann_file).read_text())
    options = {'test_dataloader__dataset__ann_file': str(broken), 'test_dataloader__dataset__pipeline': views}
    options |= {f'{loader}_dataloader__num_workers': 0 for loader in ('train', 'test')}
    train(ready(**options, train_cfg__max_epochs=1, model__backbone__drop_path_rate=0.0))
    cases, file = (2, 7), tmp_path / 'run/adapter_epoch_1.pth'

    def on(rank: int | None) -> list[dict[str, float]]:
        found = []
        for samples in cases:
            name = f'{"alone" if rank is None else "ranks"}_{samples}'
            launcher = 'none' if rank is None else 'pytorch'
            cfg = ready(name, launcher=launcher, test_dataloader__dataset__indices=samples, **options)
            found.append(run_test(cfg, file, str(tmp_path / f'{name}.csv')))
        return found

    assert over_ranks(3, on) == [on(None)] * 3
    for samples in cases:
        one, other = (rows(tmp_path / f'{name}_{samples}.csv') for name in ('alone', 'ranks'))
        assert [row[:4] for row in one] == [row[:4] for row in other]
        assert len(one) == samples + 1 and one[1][3] == '0'
        for row, same in zip(one[1:], other[1:], strict=True):
            scores = [[float(v) for v in r[4].split()] for r in (row, same)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-4)
        results = [next((tmp_path / f'{name}_{samples}').glob('result_*.json')) for name in ('alone', 'ranks')]
        said = [json.loads(result.read_text()) for result in results]
        assert said[0]['samples'] == said[1]['samples'] == samples
