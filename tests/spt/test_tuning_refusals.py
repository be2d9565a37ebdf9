"""Options, files and configs that SPT refuses, each in one sentence, and what it accepts beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chosen import SEEDS, by_hand, options, written
from test_tuning import build
from tiny import HOSTS

from vpetl_mm import UserError, build_model
from vpetl_mm.spt.allocation import UnitAllocation, write_allocation
from vpetl_mm.spt.tuning import check_spt


@pytest.mark.parametrize(
    ('spt', 'said'),
    [
        ('x.safetensors', ['petl.spt must be dict']),
        (dict(structured='LoRA'), ['petl.spt needs file']),
        (dict(file='', structured='LoRA'), ['petl.spt needs file']),
        (dict(file=3, structured='LoRA'), ['petl.spt needs file', '3']),
        (dict(file='x', structured='lora'), ["'lora'", 'LoRA', 'AdaptMLP']),
        (dict(file='x'), ['structured', 'LoRA']),
        (dict(file='x', structured='LoRA', ranks=8), ["'ranks'", "Did you mean 'rank'"]),
        (dict(file='x', structured='LoRA', rank=0), ['rank', 'at least 1']),
        (dict(file='x', structured='LoRA', dropout=1.0), ['petl.spt.dropout', '1.0']),
        (dict(file='x', structured='LoRA', dropout='x'), ['petl.spt.dropout']),
        (dict(file='x', structured='LoRA', control='shuffle'), ['petl.spt.control', "'shuffle'", "'shuffled'"]),
        (dict(file='x', structured='LoRA', budget='much'), ['0.4M', "'much'"]),
        (dict(file='x', structured='LoRA', budget=['0.4M', 0]), ['less than one']),
        (dict(file='/nowhere/x.safetensors', structured='LoRA'), ['/nowhere/x.safetensors', 'does not exist']),
    ],
    ids=str,
)
def test_wrong_options_are_named(spt, said):
    with pytest.raises(UserError) as error:
        build_model(HOSTS['vit'].config(petl=dict(spt=spt)))
    assert all(word in str(error.value) for word in said) and '\n' not in str(error.value), str(error.value)


AS_PUBLISHED = dict(head='start', gradients='batch')


def test_options_have_defaults():
    checked = check_spt(dict(file='x', structured='LoRA'))
    assert checked == dict(
        file='x', structured='LoRA', rank=8, dropout=0.1, budget=None, control=None, **AS_PUBLISHED
    )


@pytest.mark.parametrize(
    ('changes', 'spt', 'said'),
    [
        (dict(), dict(rank=4), 'made with rank=2, but petl.spt.rank is 4'),
        (dict(), dict(structured='AdaptMLP'), "made with structured='LoRA', but petl.spt.structured is 'AdaptMLP'"),
        (dict(budget=500), dict(budget='1k'), 'made with budget=500, but petl.spt.budget is 1000'),
        (dict(), dict(control='random'), "made with control=None, but petl.spt.control is 'random'"),
        (dict(control='shuffled'), dict(), "made with control='shuffled', but petl.spt.control is None"),
        (dict(base=dict(file='w.pth', sha256='0' * 64)), dict(), 'measured on the weights of w.pth'),
    ],
    ids=str,
)
def test_a_file_for_another_config_is_refused(changes, spt, said, tmp_path):
    host = HOSTS['vit']
    file = written(host, tmp_path, **changes)
    with pytest.raises(UserError) as error:
        build(host, file, spt=spt)
    assert said in str(error.value) and 'safetensors' in str(error.value) and '\n' not in str(error.value)


def test_one_of_several_budgets_is_accepted(tmp_path):
    host = HOSTS['vit']
    build(host, written(host, tmp_path, budget=500), spt=dict(budget=['0.3k', 500, '1M']))


def test_a_file_for_another_backbone_is_refused(tmp_path):
    vit, videomae = HOSTS['vit'], HOSTS['videomae']
    wide = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    for host, config, said in (
        (videomae, {}, 'was made for mmpretrain.VisionTransformer, but the backbone is mmaction.VisionTransformer'),
        (vit, dict(depth=3), r'layers.2\S* is missing there and \('),
        (vit, dict(depth=1), r'layers.1\S* is \(.* there and missing here'),
        (vit, dict(qkv_bias=False), r'layers.0.attn.qkv.bias\S* is \(16,\) there and missing here'),
        (vit, dict(arch=wide), r'layers\.0\.ffn\.layers\.0\.0\.weight is \(64, 16\) there and \(32, 16\) here'),
    ):
        with pytest.raises(UserError, match=said) as error:
            build(host, written(vit, tmp_path), **config)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize('train', [['all'], ['bias'], ['norm', 'head'], ['attn.qkv'], ['mlp.fc1']], ids='-'.join)
def test_train_that_overlaps_is_refused(train, tmp_path):
    host = HOSTS['vit']
    with pytest.raises(UserError, match=r'petl\.train .* also tunes') as error:
        build(host, written(host, tmp_path, seed=2), train=train)
    assert '\n' not in str(error.value)


def test_what_does_not_overlap_is_trained_as_well(tmp_path):
    host = HOSTS['vit']
    model = build(host, written(host, tmp_path), train=['head', 'patch_embed'])
    assert model.backbone.patch_embed.projection.weight.requires_grad


def test_deltas_may_not_be_called_as_spts_own(tmp_path):
    host = HOSTS['vit']
    for name in ('spt', 'sparse', 'vectors'):
        deltas = {name: dict(type='AdaptMLP', at='mlp', d_bottle=2)}
        with pytest.raises(UserError, match=f'petl.deltas.{name}'):
            build(host, written(host, tmp_path), deltas=deltas)


def test_videomaes_own_attention_would_pass_it_by(tmp_path):
    host = HOSTS['videomae']
    for seed in SEEDS:
        petl = dict(options(written(host, tmp_path, seed=seed)), attention=None)
        with pytest.raises(UserError, match=r'petl\.attention=None.*default'):
            build_model(host.config(petl=petl))


def test_a_row_that_was_changed_by_hand(tmp_path):
    """What the rows say is tuned must be something that can be."""
    host = HOSTS['vit']
    allocation = by_hand(build_model(host.config()).backbone)

    def changed(name: str, choice: str) -> tuple[UnitAllocation, ...]:
        return tuple(replace(r, choice=choice) if r.name == name else r for r in allocation.rows)

    taken = next(r.name for r in allocation.rows if r.choice == 'none' and r.kind == 'fc1')
    vector = next(r.name for r in allocation.rows if r.choice == 'none' and r.kind == 'norm')
    for name, choice in ((taken, 'whole'), (vector, 'structured')):
        file = tmp_path / 'changed.safetensors'
        write_allocation(file, replace(allocation, rows=changed(name, choice)))
        with pytest.raises(UserError, match='corrupt'):
            build(host, file)
