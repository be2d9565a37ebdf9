"""The cost of a step against real tensors, published figures and the file that keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine import Config
from tiny import FAST, HOST, clip, config
from torch.utils.flop_counter import FlopCounterMode

from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.errors import UserError
from vpetl_mm.measure.cost import FILE, FORMAT, Line, cost_of, input_shape, key_of, refreshed, stored
from vpetl_mm.measure.fake_step import fake_step
from vpetl_mm.measure.live_bytes import loss_of

CONFIGS = Path(__file__).parents[2] / 'configs'
PATT = dict(patt=dict(type='PATT', at='qkv', d_bottle=4))
NAME = 'vit_fc_svhn_mae'
NAMES = ('trained', 'held', 'saved', 'forward', 'step')


@pytest.mark.parametrize(
    ('attention', 'deltas', 'train'),
    [(FAST, PATT, ('head',)), (HOST, PATT, ('head',)), (HOST, {}, ('all',)), (FAST, {}, ('head',))],
)
def test_the_flops_are_those_of_real_tensors(attention, deltas, train):
    """Written with ``fast=False``: what is added in place is no product that torch's counter knows."""
    cfg = config(deltas, train, depths=(2, 2), attention=attention)
    cfg['model']['petl']['fast'] = False
    model = build_model(cfg).train()
    with FlopCounterMode(display=False) as counter:
        loss = loss_of(model, clip(2))
        forward = counter.get_total_flops()
        loss.backward()
    found = fake_step(build_model(cfg, meta=True), tuple(clip(2).shape), mixed=False)
    assert (found.forward, found.step) == (forward, counter.get_total_flops())


def test_swin_bapat_takes_what_the_benchmark_counted():
    """docs/performance.md, run C, without drop-path."""
    cost = cost_of(load_config('swin_bapat_ssv2_b128'))
    assert [round(line.at(1) / 1e9, 2) for line in (cost.step, cost.forward)] == [312.88, 143.73]
    # 196 tokens and a class token of ViT-B/16: 17.58 G multiplications and additions in its paper's reports
    assert cost_of(load_config('vit_full_cifar100_mae')).forward.at(1) / 2e9 == pytest.approx(17.58, rel=0.01)


def test_the_key_is_of_what_decides_the_cost():
    cfg = load_config(NAME)
    same = dict(base=dict(file='other.pth'), head=dict(num_classes=7))
    assert key_of(load_config(cfg, {f'model.{k}': v for k, v in same.items()})) == key_of(cfg)
    assert cfg.model.head.num_classes == 10, 'the config stays as it was'
    crop = [dict(type='torchvision/RandomResizedCrop', size=112)]
    for other in (
        {'model.backbone.drop_path_rate': 0.1},
        {'optim_wrapper.type': 'OptimWrapper'},
        {'train_dataloader.dataset.pipeline': crop},
        {'model.petl.train': ['all']},
    ):
        assert key_of(load_config(cfg, other)) != key_of(cfg), other
    spt = load_config('vit_sptlora_vtabdtd_in21k')
    assert key_of(load_config(spt, {'model.petl.spt.file': 'b'})) == key_of(spt)


def test_the_file_is_kept_up_to_date_and_an_edited_config_is_computed(tmp_path):
    (tmp_path / '_base_').symlink_to(CONFIGS / '_base_')
    (tmp_path / f'{NAME}.py').write_text((CONFIGS / f'{NAME}.py').read_text())
    shipped = stored(CONFIGS / FILE)[key := key_of(load_config(NAME))]
    other = {name: [*line] for name, line in vars(shipped).items()} | {'saved': [1, 2]}
    stale = dict(format=FORMAT, code='of an older forward pass', costs={key: other, 'unused': other})
    (tmp_path / FILE).write_text(json.dumps(stale))
    (tmp_path / FILE).write_text(refreshed(tmp_path))
    assert stored(tmp_path / FILE) == {key: shipped}, 'what is shipped is what is computed here and now'
    code = json.loads((tmp_path / FILE).read_text())['code']
    (tmp_path / FILE).write_text(json.dumps(stale | dict(code=code)))
    text = refreshed(tmp_path)
    (tmp_path / FILE).write_text(text)
    assert [*stored(tmp_path / FILE)] == [key] and stored(tmp_path / FILE)[key].saved == Line(1, 2)
    edited = load_config('vits14_lora_cifar100n50_r16_dinov2', {'model.petl.deltas.lora.rank': 3})
    assert key_of(edited) not in stored(CONFIGS / FILE)
    assert cost_of(edited).trained.at(100) == 12 * 2 * 3 * (384 + 384) + 385 * 100


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('{"format": "vp', 'Unterminated'),
        ('[' * 100_000, 'nested too deeply'),
        ('[]', 'format'),
        (json.dumps(dict(format='vpetl_mm costs 2', costs={})), 'format'),
        (json.dumps(dict(format=FORMAT)), 'costs'),
        (json.dumps(dict(format=FORMAT, costs=[])), 'items'),
        (json.dumps(dict(format=FORMAT, costs=dict(k=dict(saved=[1, 2])))), 'k has not'),
        *(
            (json.dumps(dict(format=FORMAT, costs=dict(k=dict.fromkeys(NAMES, pair)))), 'two counts')
            for pair in ([1], [1, -2], [1, 2.5], [True, 1], [0, 10**30], 7)
        ),
        (' ' * (2**22 + 1), 'bytes'),
    ],
)
def test_a_corrupt_file_is_a_sentence(tmp_path, text, why):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=rf'costs\.json is corrupt \(.*{why}.*\): restore it'):
        stored(tmp_path / FILE)
    assert stored(tmp_path / 'none.json') == {}


def test_the_inputs_size_is_the_pipelines():
    shapes = {'swin_fc_ssv2': (3, 8, 224, 224), 'swin_bapat_hmdb51_b128_f32': (3, 32, 224, 224)}
    shapes['vit_fc_cifar100_mae'] = (3, 224, 224)
    for name, shape in shapes.items():
        assert input_shape(load_config(name)) == shape
    steps = dict(train_dataloader=dict(dataset=dict(pipeline=[dict(type='PackInputs')])))
    with pytest.raises(UserError, match='states its output size'):
        input_shape(Config(steps))
