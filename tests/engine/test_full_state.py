"""A full state that is broken: the one before is resumed, and told; one that the user names is never exchanged."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kill_campaign import differences
from mmengine import Config
from mmengine.optim import CosineAnnealingLR
from ranks import commands, over_ranks
from small_experiment import QUICK, content, prepared, write_config

from vpetl_mm import UserError
from vpetl_mm.engine.experiment import test as run_test
from vpetl_mm.engine.experiment import train
from vpetl_mm.engine.full_state import check_optimizer, check_schedulers, last_full_state
from vpetl_mm.engine.outcome import predictions_of
from vpetl_mm.engine.runner import PETLRunner


@pytest.fixture(scope='module')
def finished(clips, tmp_path_factory) -> tuple[Path, Path]:
    """The small experiment's config and a run of two epochs."""
    root = tmp_path_factory.mktemp('finished')
    config = write_config(clips, root / 'small.py')
    train(prepared(config, root / 'run', **QUICK))
    return config, root / 'run'


@pytest.fixture
def again(finished, tmp_path) -> Callable[..., PETLRunner]:
    """Resumes a copy of the run."""
    config, run = finished
    shutil.copytree(run, tmp_path / 'run')
    (tmp_path / 'run/adapter_epoch_2.pth').unlink()

    def start(resume: str = 'auto', **options) -> PETLRunner:
        return train(prepared(config, tmp_path / 'run', resume, **QUICK | options))

    return start


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zeros(path: Path) -> None:
    """As a power cut leaves a file whose size was written and whose content was not."""
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    """One bit of one tensor, as a bad disk does."""
    with zipfile.ZipFile(path) as parts:
        largest = max(parts.infolist(), key=lambda part: part.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 400] ^= 1
    path.write_bytes(content)


def flip_compressed(path: Path) -> None:
    """The same in a file that something has packed anew, whose parts then cannot be unpacked."""
    with zipfile.ZipFile(path) as parts:
        content = {part.filename: parts.read(part) for part in parts.infolist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as parts:
        for name, data in content.items():
            parts.writestr(name, data)
    with zipfile.ZipFile(path) as parts:
        part = max(parts.infolist(), key=lambda part: part.compress_size)
    packed = bytearray(path.read_bytes())
    start = part.header_offset + 30 + len(part.filename)
    packed[start : start + 16] = b'\xff' * 16
    path.write_bytes(packed)


def garbage(path: Path) -> None:
    path.write_bytes(b'\x80\x02garbage' * 1000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def saved(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        before = content(path)
        torch.save(change(before) or before, path)

    return spoil


def without(*names: str) -> Callable[[Path], None]:
    def remove(content: dict) -> None:
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]

    return saved(remove)


def info(content: dict) -> dict:
    return content['message_hub']['runtime_info']


SCREEN = {'train/\x1b[2J': dict(log=[1.0], count=[1], max_length=1)}
ENDLESS = {'train/loss': dict(log=[1.0], count=[10**400], max_length=1)}
BROKEN = {
    'truncated': truncate,
    'empty': empty,
    'zeros': zeros,
    'one bit': flip,
    'bits of what is compressed': flip_compressed,
    'garbage': garbage,
    'a folder': folder,
    'no optimizer': without('optimizer'),
    'no meta': without('meta'),
    'no epoch': without('meta', 'epoch'),
    'no history': without('message_hub', 'runtime_info'),
    'no groups': without('optimizer', 'param_groups'),
    'a list': saved(lambda content: list(content.values())),
    'no tensors': saved(lambda content: dict(content, state_dict={'a': 1})),
    'an epoch of text': saved(lambda content: content['meta'].update(epoch='2')),
    'an epoch below 0': saved(lambda content: content['meta'].update(epoch=-5)),
    'an iter below 0': saved(lambda content: content['meta'].update(iter=-1)),
    'a seed of text': saved(lambda content: content['meta'].update(seed='x')),
    'a seed below 0': saved(lambda content: content['meta'].update(seed=-1)),
    'groups of numbers': saved(lambda content: content['optimizer'].update(param_groups=[1])),
    'a group without parameters': saved(lambda content: content['optimizer']['param_groups'][-1].pop('params')),
    'schedulers by name': saved(lambda content: content.update(param_schedulers={'a': 1})),
    'a best that is any file': saved(lambda content: info(content).update(best_ckpt='/home/a/best.txt')),
    'one of two bests that is any file': saved(lambda content: info(content).update({'best_ckpt_acc/top1': 'a.pth'})),
    'epochs to delete that are paths': saved(lambda content: info(content).update(keep_ckpt_ids=['1/../../a', 2])),
    'a best score of text': saved(lambda content: info(content).update(best_score='1')),
    'a history of text': saved(lambda content: content['message_hub']['log_scalars'].update({'train/loss': 'x'})),
    'a scalar that clears the screen': saved(lambda content: content['message_hub']['log_scalars'].update(SCREEN)),
    'a history of endless numbers': saved(lambda content: content['message_hub']['log_scalars'].update(ENDLESS)),
    'a value by number': saved(lambda content: info(content).update({5: 1})),
    'a config that mmengine would run': saved(lambda content: content['meta'].update(config='import os')),
    'momenta of text': saved(lambda content: content['optimizer']['state'].update({0: 'x'})),
    'a group of tensors': saved(lambda content: content['optimizer']['param_groups'][0].update(lr=[torch.ones(1)])),
    'averages of numbers': saved(lambda content: content.update(ema_state_dict={'steps': 1})),
    'schedulers of numbers': saved(lambda content: content.update(param_schedulers=[1])),
}


@pytest.mark.parametrize('spoil', BROKEN.values(), ids=BROKEN)
def test_a_named_one_that_is_broken_is_an_error_and_changes_nothing(again, tmp_path, spoil):
    spoil(tmp_path / 'run/epoch_2.pth')
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(UserError, match=r'epoch_2\.pth'):
        again(str(tmp_path / 'run/epoch_2.pth'))
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('spoil', [truncate, flip, BROKEN['no epoch']], ids=['truncated', 'one bit', 'no epoch'])
def test_the_one_before_is_resumed_with_a_warning_and_the_end_is_the_same(again, finished, tmp_path, capsys, spoil):
    spoil(tmp_path / 'run/epoch_2.pth')
    (tmp_path / 'run/epoch_2_old.pth').write_bytes(b'not of the run')
    assert again().epoch == 2
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith('warning: The checkpoint')]
    assert len(said) == 1 and re.search(
        r'epoch_2\.pth is broken.*Resuming from the one before.*epoch_1\.pth', said[0]
    )
    logs = ''.join(p.read_text() for p in (tmp_path / 'run').glob('*/*.log'))
    assert said[0].removeprefix('warning: ') in logs and 'Resuming after epoch 1 from' in logs
    (tmp_path / 'run/epoch_2_old.pth').unlink()
    assert differences(finished[1], tmp_path / 'run') == []


@pytest.mark.parametrize('spoil', BROKEN.values(), ids=BROKEN)
def test_each_kind_is_passed_over(finished, tmp_path, spoil):
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        shutil.copy(finished[1] / name, tmp_path)
    last, state, reasons = last_full_state(tmp_path)
    assert (last.name, state['meta']['epoch'], reasons) == ('epoch_2.pth', 2, [])
    spoil(tmp_path / 'epoch_2.pth')
    last, state, reasons = last_full_state(tmp_path)
    assert (last.name, state['meta']['epoch'], len(reasons)) == ('epoch_1.pth', 1, 1)
    shutil.copy(tmp_path / 'epoch_1.pth', tmp_path / 'epoch_10.pth')
    assert last_full_state(tmp_path)[0] == tmp_path / 'epoch_10.pth', 'numbers, not names, are in order'


def test_where_all_are_broken_one_sentence_says_so(finished, again, tmp_path):
    for path in (tmp_path / 'run').glob('epoch_*.pth'):
        truncate(path)
    before = sorted((tmp_path / 'run').rglob('*'))
    command = [sys.executable, 'tools/train.py', str(finished[0]), '--work-dir', str(tmp_path / 'run'), '--resume']
    ((status, output),) = commands([(command, {})], tmp_path)
    assert status == 2 and output.count('\n') == 1, output
    assert 'every full state' in output and 'epoch_2.pth, epoch_1.pth' in output
    assert sorted((tmp_path / 'run').rglob('*')) == before


def test_another_config_or_base_is_an_error_and_no_reason_to_fall_back(again, tmp_path, clips):
    (tmp_path / 'run/epoch_1.pth').write_bytes((tmp_path / 'run/epoch_2.pth').read_bytes())
    with pytest.raises(UserError, match=r'epoch_2\.pth is for another config'):
        again(model__petl__deltas__patt__d_bottle=3)
    with pytest.raises(UserError, match=r'epoch_2\.pth was trained on the base .*random'):
        again(model__base=None)
    with pytest.raises(UserError, match=r'epoch_2\.pth is for another config: .* not SGD'):
        again(resume_with='new', optim_wrapper__optimizer=dict(type='SGD', lr=0.1, _delete_=True))
    without('state_dict', 'cls_head.fc_cls.bias')(tmp_path / 'run/epoch_2.pth')
    with pytest.raises(UserError, match=r'epoch_2\.pth is for another config: it lacks cls_head\.fc_cls\.bias'):
        again()
    assert not list((tmp_path / 'run').glob('adapter_*'))


def test_every_group_of_the_optimizer_has_to_be_whole():
    optimizer = torch.optim.AdamW([dict(params=[torch.nn.Parameter(torch.zeros(1))]) for _ in range(2)])
    state = optimizer.state_dict()
    check_optimizer('a.pth', state, optimizer)
    del state['param_groups'][1]['eps']
    with pytest.raises(UserError, match=r'a\.pth is for another config: its optimizer is not AdamW'):
        check_optimizer('a.pth', state, optimizer)


@pytest.mark.parametrize(
    'spoil',
    [
        lambda state: state['state'][0].update(exp_avg=torch.ones(4)),
        lambda state: state['state'][0].pop('exp_avg_sq'),
        lambda state: state['state'][0].update(exp_avg=5),
        lambda state: state['state'][0].update(step=torch.tensor(-1.0)),
        lambda state: state['param_groups'][0].update(lr='x'),
        lambda state: state['param_groups'][0].update(betas=[0.9]),
        lambda state: state['param_groups'][0].update(params=[[]]),
    ],
)
def test_an_optimizer_goes_on_with_what_it_keeps_itself_and_nothing_else(spoil):
    weight = torch.nn.Parameter(torch.ones(2, 3))
    weight.grad = torch.ones(2, 3)
    optimizer = torch.optim.AdamW([weight])
    optimizer.step()
    before, state = weight.clone(), optimizer.state_dict()
    check_optimizer('a.pth', state, optimizer)
    assert torch.equal(weight, before) and optimizer.state[weight]['step'] == 1
    state = copy.deepcopy(state)
    spoil(state)
    with pytest.raises(UserError, match=r'a\.pth is broken: AdamW cannot continue'):
        check_optimizer('a.pth', state, optimizer)


@pytest.mark.parametrize('wrong', [dict(step=1), dict(optimizer='x'), dict(begin='x'), dict(last_step=[])])
def test_a_schedule_takes_its_own_attributes_alone(wrong):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    schedule = CosineAnnealingLR(optimizer, T_max=3)
    check_schedulers('a.pth', [schedule.state_dict()], [schedule])
    with pytest.raises(UserError, match=rf"a\.pth is for another config: '{next(iter(wrong))}' in its param_sched"):
        check_schedulers('a.pth', [schedule.state_dict() | wrong], [schedule])


def with_best(state: Path, **best: object) -> None:
    """Let a full state name a best checkpoint."""
    changed = content(state)
    changed['message_hub']['runtime_info'].update(best)
    changed['message_hub']['resumed_keys'].update(dict.fromkeys(best, True))
    torch.save(changed, state)


def test_a_resumed_run_leaves_another_runs_best_alone(again, tmp_path):
    best = tmp_path / 'elsewhere/best_acc_top1_epoch_1.pth'
    state = Path(shutil.move(tmp_path / 'run', best.parent), best.with_name('epoch_1.pth'))
    best.write_bytes(b'of the other run')
    with_best(state, best_ckpt=str(best), best_score=-1.0)
    runner = again(str(state))
    assert best.read_bytes() == b'of the other run'
    own = tmp_path / 'run/best_acc_top1_epoch_1.pth'
    assert runner.message_hub.get_info('best_ckpt') == str(own)
    assert own.read_bytes() == b'of the other run'
    assert not list(own.parent.glob('*.partial'))


def test_a_best_that_is_nowhere_is_sought_anew(again, tmp_path):
    state = tmp_path / 'run/epoch_1.pth'
    with_best(state, best_ckpt='/gone/best_acc_top1_epoch_1.pth', best_score=101.0)
    info = again(str(state)).message_hub.runtime_info
    assert info.get('best_score') != 101.0
    assert 'best_ckpt' not in info or Path(info['best_ckpt']).is_file()


def test_testing_leaves_alone_what_a_run_is_writing(finished, again, tmp_path):
    config, run = finished
    partial = tmp_path / 'run/epoch_3.pth.partial'
    partial.write_bytes(b'half')
    run_test(prepared(config, tmp_path / 'run', **QUICK), run / 'adapter_epoch_2.pth')
    assert partial.read_bytes() == b'half'


def test_a_test_on_another_list_leaves_the_result_alone(finished, tmp_path):
    config, run = finished
    own = Config.fromfile(config).test_dataloader.dataset.ann_file
    (tmp_path / 'one.txt').write_text(Path(own).read_text().splitlines()[0])
    for options in ({}, {'test_dataloader__dataset__ann_file': str(tmp_path / 'one.txt')}):
        cfg = prepared(config, tmp_path / 'run', **QUICK | options)
        run_test(cfg, run / 'adapter_epoch_2.pth', predictions_of(cfg, run / 'adapter_epoch_2.pth'))
    found = {p.name: json.loads(p.read_text())['samples'] for p in (tmp_path / 'run').glob('result*.json')}
    other = next(name for name in found if name != 'result.json')
    assert found == {'result.json': 12, other: 1} and re.fullmatch(r'result_one_[0-9a-f]{6}\.json', other)
    rows = {p.name: len(p.read_text().splitlines()) for p in (tmp_path / 'run').glob('predictions*.csv')}
    assert rows == {'predictions.csv': 13, other.replace('result', 'predictions').replace('json', 'csv'): 2}


def test_half_written_files_go_and_a_full_disk_is_a_sentence(again, tmp_path, monkeypatch):
    import errno

    from mmengine.fileio import LocalBackend

    run = tmp_path / 'run'
    (run / 'epoch_7.pth.partial').write_bytes(b'half')
    (run / 'epoch_2.pth').unlink()
    (run / 'last_checkpoint').write_text('')
    before = (run / 'epoch_1.pth').read_bytes()

    def full(self, content, path):
        Path(path).write_bytes(content[:100])
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, 'put', full)
        with pytest.raises(UserError, match=r'epoch_2\.pth cannot be written .*No space left'):
            again()
    assert (run / 'epoch_1.pth').read_bytes() == before
    assert not list(run.glob('*.partial')) and not (run / 'epoch_2.pth').exists()
    assert Path((run / 'last_checkpoint').read_text()).name == 'epoch_1.pth'


def test_what_was_written_is_on_the_disk_before_it_has_its_name(again, tmp_path, monkeypatch):
    done: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda fd: (done.append(('sync', os.readlink(f'/proc/self/fd/{fd}'))), sync(fd)))
    monkeypatch.setattr(os, 'replace', lambda a, b: (done.append(('rename', str(b))), replace(a, b)))
    (tmp_path / 'run/epoch_2.pth').unlink()
    again()
    run = tmp_path / 'run'
    for name in ('epoch_2.pth', 'adapter_epoch_2.pth'):
        at = done.index(('rename', str(run / name)))
        assert done[at - 1] == ('sync', f'{run / name}.partial') and done[at + 1] == ('sync', str(run))


def test_every_rank_takes_the_same_one_or_none(finished, again, tmp_path):
    run, other = tmp_path / 'run', tmp_path / 'other'
    shutil.copytree(run, other)
    for folder in (run, other):
        truncate(folder / 'epoch_2.pth')

    def on_two_ranks(*work_dirs: Path) -> list[str]:
        """The last epoch, or the error, of each of two ranks that resume, each in a work dir."""

        def resume(rank: int) -> str:
            try:
                cfg = prepared(finished[0], work_dirs[rank], 'auto', 'new', launcher='pytorch', **QUICK)
                return f'epoch {train(cfg).epoch}'
            except UserError as error:
                return str(error)

        return over_ranks(2, resume)

    assert on_two_ranks(run, run) == ['epoch 2', 'epoch 2']
    logs = ''.join(p.read_text() for p in run.glob('*/*.log'))
    assert logs.count('Resuming from the one before') == 1
    whole = (run / 'epoch_2.pth').read_bytes()
    said = on_two_ranks(run, other)
    assert said[0] == said[1] and said[0].startswith('The ranks would resume from different checkpoints: rank 0 from')
    assert 'epoch_2.pth' in said[0] and 'epoch_1.pth' in said[0]
    assert (run / 'epoch_2.pth').read_bytes() == whole
