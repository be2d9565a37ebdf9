"""From a run to a bundle: what is packed, what is refused, and that nothing is lost or half-written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from pathlib import Path

import packed
import pytest
import torch
from cases import adapter, both, patt
from packed import content_of, run_of, write
from safetensors.torch import save_file
from tiny import HOSTS

from tools import call, refused
from vpetl_mm import build_model
from vpetl_mm.engine.adapter import FORMAT, adapter_keys
from vpetl_mm.engine.record import Record, write_record
from vpetl_mm.engine.run_folder import remove_run

DELTAS = both(patt(), adapter()).deltas


@pytest.fixture(scope='module')
def once(tmp_path_factory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp('run')
    base = dict(file=str(packed.base_of(HOSTS['vit'], folder)), url=packed.URL)
    run_of(folder, HOSTS['vit'].config(DELTAS, base=base, seed=1))
    return folder


@pytest.fixture
def run(once, tmp_path, monkeypatch) -> Path:
    """A copy of it, ``run`` in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(once, 'run'))


BUNDLE = Path('run/small.safetensors')


# What is written


def test_the_bundle_lies_in_the_run_and_is_replaced(run, capsys):
    assert call('adapter', 'pack', run) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f'bundle: {BUNDLE} (') and f'tools/predict.py {BUNDLE} INPUT' in printed
    before = BUNDLE.read_bytes()
    assert call('adapter', 'pack', run, '--license', 'CC-BY-4.0', '--cfg-options', 'model.petl.fast=False') == 0
    header = content_of(BUNDLE)[0]
    assert BUNDLE.read_bytes() != before and header['license'] == 'CC-BY-4.0'
    assert header['model']['petl']['fast'] is False and not [*run.glob('*.partial')]


def test_its_header_is_the_config_and_the_run(run):
    call('adapter', 'pack', run)
    header = content_of(BUNDLE)[0]
    assert header['model'] == dict(
        type='PETLImageClassifier',
        backbone=dict(
            type='VisionTransformer',
            arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=64),
            img_size=16,
            patch_size=8,
        ),
        head=dict(type='PETLImageHead', num_classes=3, in_channels=16),
        data_preprocessor=packed.PREPROCESSORS['mmpretrain'],
        petl=dict(deltas=DELTAS, train=['head']),
    )
    assert header['pipeline'] == packed.PIPELINES['mmpretrain']
    base = dict(name='base_11.pth', url=packed.URL, sha256=header['base']['sha256'], convert=None)
    told = dict(name='small', default_scope='mmpretrain', classes=packed.CLASSES, base=base, epoch=3, seed=1)
    told |= dict(scores=None, options={}, license='unknown', spt=None, format=1)
    assert {name: header[name] for name in told} == told


def test_what_only_trains_is_left_out(run):
    """A loss, a schedule and a path of the training machine are nobody else's."""
    config = run / 'small.py'
    loss = "'loss': {'type': 'LabelSmoothLoss', 'label_smooth_val': 0.1}"
    text = config.read_text().replace("'num_classes': 3", f"'num_classes': 3, {loss}")
    text = text.replace("'backbone': {", "'backbone': {'frozen_stages': -1, 'with_cp': True, ")
    text = text.replace("'LoadImageFromFile'", "'LoadImageFromFile', 'backend_args': None")
    config.write_text(text)
    assert call('adapter', 'pack', run) == 0
    text = BUNDLE.read_bytes()[:10_000]
    assert not [w for w in (b'LabelSmooth', b'with_cp', b'backend_args', str(run.absolute()).encode()) if w in text]


def test_the_best_checkpoint_comes_first_then_the_last(run):
    for name in ('adapter_epoch_10.pth', 'epoch_12.pth', 'best_acc_top1_epoch_2.pth'):
        shutil.copy(run / 'adapter_epoch_3.pth', run / name)
    for wanted in ('best_acc_top1_epoch_2.pth', 'epoch_12.pth', 'adapter_epoch_10.pth', 'adapter_epoch_3.pth'):
        scores = dict(config='small', seed=1, top1=50.0, top5=90.0, mean_class=40.0, params=1, total=2)
        record = Record(**scores, checkpoint=wanted, epoch=3, samples=7, finished='2026-01-02')
        write_record(run, record)
        assert call('adapter', 'pack', run) == 0
        told = dict(top1=50.0, top5=90.0, mean_class=40.0, samples=7, list='test.txt', checkpoint=wanted)
        assert content_of(BUNDLE)[0]['scores'] == told
        (run / wanted).unlink()


@pytest.mark.parametrize('other', [dict(checkpoint='epoch_9.pth'), dict(epoch=2), dict(seed=2), dict(config='b')])
def test_scores_of_another_test_are_not_this_ones(run, other):
    told = dict(config='small', seed=1, top1=50.0, top5=90.0, mean_class=40.0, params=1, total=2, samples=7)
    told |= dict(checkpoint='adapter_epoch_3.pth', epoch=3, finished='2026-01-02')
    write_record(run, Record(**told | other))
    assert call('adapter', 'pack', run) == 0 and content_of(BUNDLE)[0]['scores'] is None


def checkpoint_with(run: Path, **meta) -> None:
    content = torch.load(run / 'adapter_epoch_3.pth')
    content['meta'] |= meta
    torch.save(content, run / 'adapter_epoch_3.pth')


def test_class_names_come_from_the_file_that_the_config_names(run):
    """And from none that a checkpoint, maybe a stranger's, names: a pipe would be read for ever."""
    os.mkfifo('pipe')
    checkpoint_with(run, dataset_meta=dict(classes='pipe'))
    for content, names in (
        (None, None),
        ('a\n\tb  c\n\u200bd\n', ['a', 'b c', 'd']),
        ('a\nb\n', None),
        (b'\xff', None),
    ):
        if content is not None:
            Path('classes.txt').write_bytes(content if isinstance(content, bytes) else content.encode())
        text = (run / 'small.py').read_text()
        new = text + "test_dataloader['dataset']['metainfo'] = dict(classes='classes.txt')\n"
        config = Path('small.py')
        config.write_text(new)
        Path('b.safetensors').unlink(missing_ok=True)
        checkpoint = run / 'adapter_epoch_3.pth'
        assert call('adapter', 'pack', config, checkpoint, '-o', 'b.safetensors') == 0
        assert content_of(Path('b.safetensors'))[0]['classes'] == names


def test_swin_bapat_of_174_classes_stays_under_27_mb(tmp_path):
    name = 'swin_bapat_ssv2_b128'
    model = build_model(name, meta=True)
    shapes = {k: v.shape for k, v in model.state_dict().items() if k in {*adapter_keys(model)}}
    base = dict(file='swin_base_patch244_window877_kinetics400_22k.pth', sha256='0' * 64)
    about = dict(base=base, frozen_sha256='0' * 64, deltas=model.plan.settings(), adapter_format=FORMAT, epoch=70)
    classes = [f'Pretending to put [something number {i}] behind [something]' for i in range(174)]
    state = {k: torch.rand(shape) for k, shape in shapes.items()}
    checkpoint = tmp_path / 'adapter_epoch_70.pth'
    torch.save(dict(state_dict=state, meta=dict(about, dataset_meta=dict(classes=classes))), checkpoint)
    file = tmp_path / 'b.safetensors'
    assert call('adapter', 'pack', name, checkpoint, '-o', file) == 0
    assert 4 * sum(v.numel() for v in state.values()) < file.stat().st_size < 27e6
    assert content_of(file)[0]['classes'] == classes


# What is refused


def no_config(run: Path) -> None:
    (run / 'small.py').unlink()


def two_configs(run: Path) -> None:
    shutil.copy(run / 'small.py', run / 'other.py')


def no_checkpoint(run: Path) -> None:
    (run / 'adapter_epoch_3.pth').unlink()


def no_test(run: Path) -> None:
    text = (run / 'small.py').read_text()
    (run / 'small.py').write_text(text + 'test_dataloader = None\n')


def of_another_library(run: Path) -> None:
    text = (run / 'small.py').read_text()
    (run / 'small.py').write_text(
        text + "test_dataloader['dataset']['pipeline'][1] = dict(type='albumentations.Blur')\n"
    )


def with_an_option_of_its_own(run: Path) -> None:
    text = (run / 'small.py').read_text()
    (run / 'small.py').write_text(text + "model['backbone']['patch_cfg'] = dict()\n")


def that_is_no_bundle(run: Path) -> None:
    save_file({'a': torch.ones(1)}, BUNDLE)


def from_a_random_backbone(run: Path) -> None:
    checkpoint_with(run, base=None)


def with_another_delta(run: Path) -> None:
    text = (run / 'small.py').read_text()
    (run / 'small.py').write_text(text + "model['petl']['deltas']['patt']['scale'] = 0.1\n")


UNFIT = {
    no_config: 'run is not the folder of one run: it has no config. Give the config and the checkpoint',
    two_configs: 'run is not the folder of one run: it has 2 configs',
    no_checkpoint: 'run has no checkpoint: train first, or name one',
    no_test: 'small.py has no test_dataloader with a pipeline',
    of_another_library: "small cannot be a bundle: pipeline[1].type is 'albumentations.Blur', and a bundle may have",
    with_an_option_of_its_own: "small cannot be a bundle: model.backbone (VisionTransformer) has 'patch_cfg', which",
    that_is_no_bundle: f'{BUNDLE} exists and is not a bundle: move it',
    from_a_random_backbone: 'small cannot be a bundle: it needs a base and does not name one',
    with_another_delta: 'adapter_epoch_3.pth is for another config: petl.deltas.patt.scale is 0.8 there and 0.1 here',
}


@pytest.mark.parametrize(('change', 'said'), UNFIT.items(), ids=lambda v: getattr(v, '__name__', ''))
def test_a_run_that_is_not_fit_is_refused_with_the_reason(run, capsys, change, said):
    change(run)
    line = refused(capsys, 'adapter', 'pack', run)
    assert said in line and line.count('\n') == 1


@pytest.mark.parametrize(
    ('args', 'said'),
    [
        (['-o', 'there.safetensors'], 'there.safetensors exists: give a new name'),
        (['-o', 'link.safetensors'], 'link.safetensors exists: give a new name'),
        (['-o', 'none/b.safetensors'], 'its folder does not exist'),
        (['-o', 'b.pth'], 'ends in .safetensors, and b.pth does not'),
        (['none.pth'], 'The checkpoint none.pth does not exist'),
        (['--license', 'a\nb'], 'its license is'),
        (['--cfg-options', 'modle.petl.fast=False'], 'Did you mean'),
    ],
)
def test_so_is_a_wrong_argument(run, capsys, args, said):
    Path('there.safetensors').write_text('kept')
    Path('link.safetensors').symlink_to('nowhere')
    assert said in refused(capsys, 'adapter', 'pack', run, *args)


def packed_in_a_process(run: Path, size: int, on_limit: signal.Handlers) -> int:
    """The exit status, or minus the signal, of packing where no file may be larger than ``size`` bytes."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, on_limit)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        os._exit(call('adapter', 'pack', run))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize('exists', [False, True])
def test_a_full_disk_and_a_kill_leave_no_half_bundle(run, capfd, exists):
    if exists:
        call('adapter', 'pack', run)
    before = BUNDLE.read_bytes() if exists else None
    assert packed_in_a_process(run, 4000, signal.SIG_DFL) == -signal.SIGXFSZ
    assert (BUNDLE.read_bytes() if BUNDLE.exists() else None) == before
    assert packed_in_a_process(run, 4000, signal.SIG_IGN) == 2
    assert 'cannot be written' in capfd.readouterr().err and not [*run.glob('*.partial')]
    assert (BUNDLE.read_bytes() if BUNDLE.exists() else None) == before
    assert call('adapter', 'pack', run) == 0


# The next run


def test_overwrite_removes_the_bundle_of_the_run_and_no_other(run):
    call('adapter', 'pack', run)
    Path('run/small.safetensors.partial').write_text('cut short')
    kept = {
        'other.safetensors': lambda file: shutil.copy(BUNDLE, file),
        'spt.safetensors': lambda file: write(file, '{}'),
        'none.safetensors.partial': lambda file: file.touch(),
    }
    for name, make in kept.items():
        make(run / name)
    remove_run(run)
    assert {p.name for p in run.iterdir()} == {*kept, 'small.py', 'base_11.pth'}
    save_file({'a': torch.ones(1)}, BUNDLE)  # somebody's, by chance of this name
    remove_run(run)
    assert BUNDLE.is_file()
