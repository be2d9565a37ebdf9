"""Method x host: the counts are those of the built experiments, and what a host refuses is said."""

from __future__ import annotations

import json

import pytest

from tools import REPO, call, refused
from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.measure.count_methods import BY_BUDGET, HostColumn, _shipped, count_methods, methods_table
from vpetl_mm.measure.methods import methods_of, on_host

VIT, SWIN = (REPO / f'configs/{name}.py' for name in ('vits14_fc_cifar100n50_dinov2', 'demo_fc'))
SOME = 'lora,vpt,prefix,bapat,norm1,full,adaptformer'


@pytest.mark.parametrize('config', [VIT, SWIN], ids=lambda path: path.stem)
def test_counts_are_those_of_experiments_with_these_methods(config):
    """Methods follow one another on one model, which nothing of the one before may stay on."""
    (column,) = count_methods(SOME, [config])
    cfg = load_config(config)
    for name, petl in methods_of(SOME).items():
        plan = build_model(on_host(cfg, petl), meta=True).plan
        by, model = plan.count()['by'], plan.model
        head = sum(p.numel() for n, p in model.named_parameters() if n.startswith(f'{model.head_name}.'))
        assert column.trains[name] == sum(n for label, n in by.items() if label != 'head') - head * (name == 'full')


def test_what_a_host_refuses_and_what_a_budget_decides():
    columns = {c.host: c for c in count_methods('all', [VIT, SWIN])}
    vit, swin = columns[VIT.stem], columns[SWIN.stem]
    assert not vit.video and swin.video
    assert vit.trains['attnrpb'] == "Unknown petl.train name 'attn.rpb'" and swin.trains['attnrpb'] == 67_500
    assert vit.trains['sptlora'] == BY_BUDGET and 'num_frames' in vit.trains['st_adapter']
    assert 'bapat_vit_image' in vit.trains and 'bapat_vit_image' not in swin.trains
    assert (
        {*vit.trains} | {*swin.trains}
        == {*methods_of('all')}
        == {f.stem for f in (REPO / 'configs/_base_/methods').glob('*.py')}
    )


def test_every_host_of_the_configs_has_a_column():
    assert [n for n, _ in _shipped()] == sorted(f.stem for f in (REPO / 'configs/_base_/models').glob('*.py'))


def test_hosts_that_agree_share_a_column_and_reasons_stand_below():
    why = 'it has no windows.'
    columns = [HostColumn('a', True, dict(x=1000, y=why)), HostColumn('b', True, dict(x=2, y=why))]
    table = methods_table([*columns, HostColumn('c', True, dict(x=1000, y=why))])
    assert '| method | a | b |' in table and '| x | 1,000 | 2 |' in table and '| y | (1) | (1) |' in table
    assert 'a stands for c too.' in table and f'- (1) {why}' in table and 'Hosts of images' not in table


def test_the_command(elsewhere, capsys):
    assert call('count_params', '--methods', 'lora', 'configs/demo_fc.py') == 0
    assert '| lora | 20,480 |' in capsys.readouterr().out
    assert call('count_params', '--methods', 'lora', 'demo_fc', '--json') == 0
    assert json.loads(capsys.readouterr().out) == [dict(host='demo_fc', video=True, trains=dict(lora=20_480))]
    assert 'lorra' in refused(capsys, 'count_params', '--methods', 'lorra', 'demo_fc')
    with pytest.raises(SystemExit) as stopped:
        call('count_params')
    assert stopped.value.code == 2 and '--methods' in capsys.readouterr().err
