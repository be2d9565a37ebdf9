"""Bundles that are tested without their config, and that other runs start from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from chosen import RANK, by_hand
from ranks import over_ranks
from small_experiment import QUICK, REPO, SGD, adapter, assert_same, content, prepared, write_config

from tools import call, refused
from vpetl_mm import UserError, build_model
from vpetl_mm.config import load_config
from vpetl_mm.engine.adapter import adapter_state, trained_meta
from vpetl_mm.engine.experiment import Options, prepare, train
from vpetl_mm.engine.initial import initial_state
from vpetl_mm.engine.record import is_as_printed, read_record
from vpetl_mm.spt.allocation import tensors_sha256, write_allocation
from vpetl_mm.use.bundle.bundle import read_bundle
from vpetl_mm.use.bundle.model import trained_weights

NAMES = [f'motion {n}' for n in range(8)]
SCALE = 'model.petl.deltas.patt.scale=0.5'
NO_WORKERS = 'test_dataloader.num_workers=0'


def named(config: Path, names: list[str]) -> Path:
    """A config of the small experiment whose data have class names."""
    config.write_text(config.read_text().replace('dataset=dict(', f'dataset=dict(metainfo=dict(classes={names}), '))
    return config


def packed_in(root: Path, config: Path, **options: Any) -> Path:
    """Random trained weights of a config, tested with it into ``run``, and their bundle."""
    model = build_model(load_config(config, options), init_weights=True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    meta = dict(adapter_format=1, epoch=2, seed=0, dataset_meta=dict(classes=NAMES), **trained_meta(model))
    torch.save(dict(state_dict=dict(adapter_state(model)), meta=meta), root / 'adapter_epoch_2.pth')
    argv, given = [config, root / 'adapter_epoch_2.pth'], [f'{k}={v}' for k, v in options.items()]
    assert call('test', *argv, '--work-dir', root / 'run', '--cfg-options', NO_WORKERS, *given) == 0
    bundle = root / 'small.safetensors'
    assert call('adapter', 'pack', *argv, '-o', bundle, *(['--cfg-options', *given] if given else [])) == 0
    return bundle


@pytest.fixture(scope='module')
def bundle(clips, tmp_path_factory) -> Path:
    """A bundle of BAPAT on the small experiment's base."""
    root = tmp_path_factory.mktemp('packed')
    return packed_in(root, named(write_config(clips, root / 'small.py'), NAMES))


def outcome(folder: Path, name: str = '') -> tuple[tuple[float, ...], list[dict[str, str]]]:
    """The scores and the predictions that a test has left."""
    record = read_record(folder / f'result{name}.json')
    with open(folder / f'predictions{name}.csv', newline='') as stream:
        return (record.top1, record.top5, record.mean_class, record.samples), list(csv.DictReader(stream))


def test_a_bundle_gives_the_numbers_of_its_checkpoint(bundle, clips, elsewhere, capsys):
    """Without its config: the same scores, and the same logits for each clip; another list gets its own files."""
    argv = [bundle, '--base', clips / 'base.pth', '--cfg-options', NO_WORKERS]
    assert call('test', *argv, '--data', clips / 'target_test.txt') == 0
    assert 'predictions: work_dirs/small/predictions.csv' in capsys.readouterr().out
    own = outcome(Path('work_dirs/small'))
    assert own == outcome(bundle.parent / 'run')
    assert len({row['scores'] for row in own[1]}) == 12, 'clips have scores of their own'
    record = read_record(Path('work_dirs/small/result.json'))
    assert (record.config, record.checkpoint, record.epoch) == ('small', 'small.safetensors', 2)
    assert not is_as_printed(record), 'a list of anybody is not the experiment that the tables show'
    lines = (clips / 'target_test.txt').read_text().splitlines()
    Path('two.txt').write_text('\n'.join(f'{clips}/{line}' for line in lines[:2]))
    assert call('test', *argv, '--data', 'two.txt') == 0
    second = capsys.readouterr().out.partition('predictions: ')[2].splitlines()[0]
    assert len(Path(second).read_text().splitlines()) == 3 and 'predictions_two_' in second
    assert outcome(Path('work_dirs/small')) == own


def test_a_bundle_of_spt_gives_the_numbers_of_its_checkpoint(clips, elsewhere):
    config = write_config(clips, Path('spt.py'), 'sptlora')
    with_file = {'model.petl.spt.file': 'spt.safetensors', 'model.petl.spt.rank': RANK}
    with_file['model.petl.spt.head'] = 'probe'
    backbone = build_model(load_config(write_config(clips, Path('plain.py'), 'fc'))).backbone
    base = dict(file='base.pth', sha256=tensors_sha256(torch.load(clips / 'base.pth')))
    write_allocation(Path('spt.safetensors'), allocation := by_hand(backbone, base=base, made=dict(head='probe')))
    made = packed_in(Path(), config, **with_file, **{'model.petl.spt.budget': allocation.budget})
    Path('spt.safetensors').unlink()
    argv = ['--base', clips / 'base.pth', '--data', clips / 'target_test.txt', '--work-dir', 'bundle']
    assert call('test', made, *argv, '--cfg-options', NO_WORKERS) == 0
    assert outcome(Path('bundle')) == outcome(Path('run'))


def test_what_does_not_fit_a_bundle_is_refused(bundle, clips, elsewhere, capsys):
    base = ['--base', clips / 'base.pth']
    first = (clips / 'target_test.txt').read_text().split('\n')[0].rpartition(' ')[0]
    for name, text in (('ninth', f'{first} 8'), ('image', 'a.jpg 0'), ('lost', 'lost.mp4 0'), ('none', '')):
        Path(f'{name}.txt').write_text(text)
    torch.save({k: v + 1 for k, v in content(clips / 'base.pth').items()}, 'other.pth')
    good = ['--data', clips / 'target_test.txt']
    for words, *argv in (
        (['label 8', '0 to 7'], bundle, *base, '--data', 'ninth.txt', '--data-prefix', clips),
        (['a.jpg is an image', 'videos'], bundle, *base, '--data', 'image.txt'),
        (['lost.mp4', '--data-prefix'], bundle, *base, '--data', 'lost.txt'),
        (['empty'], bundle, *base, '--data', 'none.txt'),
        (['nowhere.txt', 'not exist'], bundle, *base, '--data', 'nowhere.txt'),
        (['nowhere', 'not exist'], bundle, *base, *good, '--data-prefix', 'nowhere'),
        (['base.pth', '--base'], bundle, *good),
        (['a config comes first'], bundle, 'a.pth', *good),
        (['nowhere.safetensors', 'not exist'], 'nowhere.safetensors', *good),
    ):
        error = refused(capsys, 'test', *argv)
        assert all(word in error for word in words), error
    error = refused(capsys, 'test', bundle, '--base', 'other.pth', *good)
    assert error.count('SHA-256') == 2 and 'other.pth' in error
    for wrong in ([bundle], ['configs/demo_bapat.py', 'a.pth', *good], ['configs/demo_bapat.py'], []):
        with pytest.raises(SystemExit) as status:
            call('test', *wrong)
        assert status.value.code == 2


# starting from one


def start(config: Path, run: str, file: Path, *more: Any, **options: Any) -> dict[str, torch.Tensor]:
    """What a run of an epoch leaves that starts from a file."""
    resume, resume_with = more or (None, None)
    given = {'train_cfg__max_epochs': 1, 'train_dataloader__dataset__indices': 8, **SGD, **QUICK, **options}
    dotted = {k.replace('__', '.'): v for k, v in given.items()}
    source = None if resume else str(file)
    cfg = prepare(config, Options(run, resume, False, 'none', dotted, resume_with, False, source))
    train(cfg, initial=None if resume else trained_weights(file))
    return adapter(Path(run), cfg.train_cfg.max_epochs)


STILL = {'optim_wrapper__optimizer': dict(type='SGD', lr=0.0, _delete_=True)}


def test_the_heads_rows_go_by_the_names_of_the_classes(bundle, clips, elsewhere, capsys):
    names = ['a new one', *NAMES[:0:-1]]
    config = named(write_config(clips, Path('other.py')), names)
    state, theirs = start(config, 'run', bundle, **STILL), read_bundle(bundle).tensors
    said = capsys.readouterr().out
    assert 'takes 7 (motion 7, motion 6' in said and 'new are 1 (a new one)' in said
    drawn = build_model(config, init_weights=True).state_dict()
    for part in ('weight', 'bias'):
        name = f'cls_head.fc_cls.{part}'
        assert torch.equal(state.pop(name), torch.cat([drawn[name][:1], theirs.pop(name).flip(0)[:7]]))
    assert_same(state, theirs)


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(bundle, clips, elsewhere):
    config = named(write_config(clips, Path('again.py')), NAMES)
    whole = start(config, 'whole', bundle, train_cfg__max_epochs=2)
    start(config, 'cut', bundle)
    resumed = start(config, 'cut', bundle, 'auto', 'new', train_cfg__max_epochs=2)
    assert_same(whole, resumed)
    assert not torch.equal(whole['cls_head.fc_cls.weight'], read_bundle(bundle).tensors['cls_head.fc_cls.weight'])
    options = content(Path('cut/adapter_epoch_2.pth'))['meta']['options']
    assert options['init_from.file'] == 'small.safetensors' and len(options['init_from.sha256']) == 64


def test_two_ranks_start_from_a_bundle(bundle, clips, elsewhere):
    """At a learning rate of zero they end with the very tensors that they started from."""
    config = named(write_config(clips, Path('again.py')), NAMES)

    def one(rank: int) -> dict[str, torch.Tensor]:
        given = {'train_cfg.max_epochs': 1, 'train_dataloader.dataset.indices': 8, 'train_dataloader.num_workers': 0}
        dotted = given | {'optim_wrapper.optimizer': STILL['optim_wrapper__optimizer']}
        cfg = prepare(config, Options('ranks', None, False, 'pytorch', dotted, init_from=str(bundle)))
        runner = train(cfg, initial=trained_weights(bundle))
        return {k: v.numpy() for k, v in adapter_state(runner.plain_model).items()}

    expected = read_bundle(bundle).tensors
    for state in over_ranks(2, one):
        assert not isinstance(state, str), state
        assert_same({k: torch.from_numpy(v) for k, v in state.items()}, expected)


@pytest.mark.parametrize(
    ('method', 'options', 'words'),
    [
        ('bapat', dict(model__petl__deltas__patt__scale=0.5), ['patt.scale', '0.8', '0.5']),
        ('bapat', dict(model__petl__deltas__adapter=None), ['adapter', 'does not have']),
        ('bapat', dict(model__petl__train=['head', 'bias']), ['lacks', 'bias']),
        ('bapat', dict(model__base=None), ['base.pth', 'random']),
        ('lora', {}, ['another config']),
    ],
)
def test_another_experiment_does_not_start_from_it(bundle, clips, elsewhere, method, options, words):
    config = named(write_config(clips, Path('again.py'), method), NAMES)
    cfg = prepared(config, 'run', **options)
    with pytest.raises(UserError) as error:
        initial_state(cfg, trained_weights(bundle))
    assert all(word in str(error.value) for word in words), error.value


def test_a_resumed_run_does_not_start_from_it(bundle, clips, elsewhere, capsys):
    config = named(write_config(clips, Path('again.py')), NAMES)
    assert '--init-from' in refused(capsys, 'train', config, '--resume', '--init-from', bundle)
    assert 'another config' in refused(capsys, 'train', config, '--init-from', bundle, '--cfg-options', SCALE)
    assert 'nowhere' in refused(capsys, 'train', config, '--init-from', 'nowhere.safetensors')
    assert 'it is text' in refused(capsys, 'train', config, '--init-from', REPO / 'README.md')
