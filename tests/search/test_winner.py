"""The winner's config holds what was chosen, whatever config it inherits."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from searching import write_experiment

import tools
from vpetl_cli.shipped import find_config
from vpetl_mm import UserError, build_model
from vpetl_mm.campaign.claim import claimed
from vpetl_mm.config import load_config
from vpetl_mm.engine.experiment import Options, prepare
from vpetl_mm.engine.sensitivity_command import sensitivity_command
from vpetl_mm.search.checks import planned
from vpetl_mm.search.finalists import Finalist
from vpetl_mm.search.settings import Search
from vpetl_mm.search.winner import choose_winner, tuned_config, write_winner
from vpetl_mm.spt.allocation import read_allocation

REPO = Path(__file__).parents[2]
LR = 'optim_wrapper.optimizer.lr'
PART = 'optim_wrapper.paramwise_cfg.groups.{}.lr_mult'
HEAD = 'optim_wrapper.paramwise_cfg.groups.head.lr_mult'
PATT, LORA = 'model.petl.deltas.patt', 'model.petl.deltas.lora'


@pytest.mark.parametrize(
    ('name', 'chosen'),
    [
        (
            'demo_bapat',
            {LR: 0.01234, f'{PATT}.d_bottle': 4, f'{PATT}.slots': 'qv', HEAD: 2.0},
        ),
        ('demo_full', {'param_scheduler.0.start_factor': 0.5, 'train_dataloader.batch_size': 16}),
        (
            'vit_lora_vtabdtd_r8_in21k',
            {LR: 1e-5, f'{LORA}.rank': 16, f'{LORA}.alpha': None},
        ),
    ],
)
def test_a_child_of_a_shipped_config(name, chosen, tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    options = {'train_dataloader.num_workers': 0}
    search = Search(str(find_config(name)), str(tmp_path), dict.fromkeys(chosen, '[1,2]'), options)
    path = write_winner(search, Finalist(3, chosen, {0: 50.0, 1: 60.0}), 20)
    assert path.name == f'{name}_tuned.py' and len(path.read_text().splitlines()) < 12
    assert (
        'Trial 3, the best of 20 on held-out training data: acc/top1 55.00 ± 7.07 over 2 seed(s)' in path.read_text()
    )
    wanted = load_config(name)
    wanted.merge_from_dict({**options, **chosen, 'trials': 20})
    assert load_config(path).to_dict() == wanted.to_dict()
    build_model(path, meta=True)


def test_another_winner_begins_anew_and_the_same_goes_on(tmp_path):
    """Else the adapter of one would be tested, or go on, with the settings of the other."""
    search = Search(str(find_config('demo_bapat')), str(tmp_path), {LR: '[0.1,0.2]'})
    first, second = (Finalist(k, {LR: lr}, {0: 50.0}) for k, lr in enumerate((0.1, 0.2)))
    choose_winner(search, first, 4)
    names = ('epoch_1.pth', 'adapter_epoch_2.pth', 'spt.safetensors')
    files = [tmp_path / 'winner' / name for name in names]
    for file in files:
        file.touch()
    choose_winner(search, first, 4)
    assert all(file.exists() for file in files)
    begun, over = multiprocessing.Event(), multiprocessing.Event()

    def use() -> None:
        with claimed(tmp_path / 'winner'):
            begun.set()
            over.wait(60)

    process = multiprocessing.get_context('fork').Process(target=use)
    process.start()
    begun.wait(60)
    with pytest.raises(UserError, match='winner is in use'):
        choose_winner(search, second, 4)
    assert all(file.exists() for file in files) and '0.1' in tuned_config(search).read_text()
    over.set()
    process.join()
    choose_winner(search, second, 4)
    assert not any(file.exists() for file in files) and '0.2' in tuned_config(search).read_text()


SPT = """
_spt = dict(file='{root}/none.safetensors', structured='LoRA', rank=2, budget=700)
model['petl'] = dict(_delete_=True, train=['head'], spt=_spt)
"""


def test_spt_is_measured_without_what_is_held_out(experiment, tmp_path):
    """By the command that a run calls; the winner, which is given no option, measures with all training data."""
    config = write_experiment(experiment.parent, SPT.format(root=tmp_path), 'spt')
    search = Search(str(config), str(tmp_path), {LR: '[1,2]'}, fraction=0.5)
    samples = []
    for name, cfg in dict(
        trial=search.run(tmp_path / 'a', {}), winner=prepare(config, Options(str(tmp_path)))
    ).items():
        file = tmp_path / f'{name}.safetensors'
        command = sensitivity_command(config, file, [f'{k}={v}' for k, v in cfg.given_options.items()])
        assert tools.call('sensitivity', *command[2:]) == 0
        samples.append(read_allocation(file).made['samples'])
    assert samples == [12, 24]


def test_spts_parts_have_rates_to_search(experiment, tmp_path, monkeypatch, capsys):
    """Its parts are not there yet when the search is planned."""
    monkeypatch.chdir(tmp_path)
    config, key = write_experiment(experiment.parent, SPT.format(root=tmp_path), 'spt'), PART.format('entries')
    options = dict(sampler='grid', work_dir=tmp_path / 'tune', options={PART.format('vectors'): 0.5})
    search, _ = planned(config, {key: '[0.1,1]'}, **options)
    assert search.run(tmp_path / 'a', {key: 0.1}).optim_wrapper.paramwise_cfg.groups.entries.lr_mult == 0.1
    said = tools.refused(capsys, 'tune', config, '--search', f'{key}=[-1,1]')
    assert 'must be a number of at least 0, got -1' in said and not said.rstrip().endswith('..')
