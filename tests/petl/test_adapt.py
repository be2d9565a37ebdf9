"""A plan on a plain model: what it saves and merges, and what it refuses without a change."""

from __future__ import annotations

import copy
from dataclasses import replace

import own_models
import pytest
import timm
import tiny
import torch
import transformers
from torch import Tensor, nn

from vpetl_mm.errors import UserError
from vpetl_mm.petl import LAYOUTS, LoRA, adapt, layout_of, register_layout, transformer

D, CLASSES = 24, 5
BAPAT = dict(patt=dict(type='PATT', d_bottle=4), adapter=dict(type='AdaptMLP', d_bottle=4, source='residual'))
LORA = {f'on_{place}': dict(type='LoRA', at=place, rank=2) for place in ('qkv', 'proj', 'fc1', 'fc2')}
LORA['on_qkv']['slots'] = 'qkv'


def vit(name: str = 'vit_tiny_patch16_224', **options) -> nn.Module:
    """A small model of timm, with random weights."""
    sizes = dict(depth=2, embed_dim=D, num_heads=2, img_size=32, patch_size=8, num_classes=CLASSES)
    return tiny.randomised(timm.create_model(name, **{**sizes, **options}), 1).eval()


def hf() -> nn.Module:
    """A small model of transformers."""
    sizes = dict(hidden_size=D, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=CLASSES)
    return tiny.randomised(transformers.ViTForImageClassification(config), 1).eval()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def output(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = model(x)
    return getattr(y, 'logits', y)


def looks(model: nn.Module) -> tuple:
    """All of a model that adapt could change: classes, attributes, keys, and what trains."""
    modules = {n: (type(m), {*m.__dict__}) for n, m in model.named_modules()}
    return modules, [*model.state_dict()], [p.requires_grad for p in model.parameters()]


# merging

KINDS = {
    'fused': vit,
    'passed_by': lambda: vit('eva02_tiny_patch14_224'),
    'apart': lambda: vit('eva02_base_patch14_224'),
    'hf': hf,
}


@pytest.mark.parametrize('kind', KINDS)
def test_merged_is_the_plain_model(kind):
    plain = KINDS[kind]()
    model = copy.deepcopy(plain)
    plan = adapt(model, LORA, train=['head', 'norm'])
    tiny.randomised(model, 2)
    before = output(model, images())
    assert (before - output(plain, images())).abs().max() > 1e-3
    assert plan.merge() is model and plan.count()['trainable'] == 0
    assert (output(model, images()) - before).abs().max() < 1e-5 * before.abs().max()
    assert looks(model)[:2] == looks(plain)[:2]
    plain.load_state_dict(model.state_dict())
    assert torch.equal(output(plain, images()), output(model, images()))


def test_what_cannot_be_merged_is_left_as_it_is():
    model = vit()
    plan = adapt(model, {**LORA, **BAPAT})
    before = looks(model), output(model, images())
    with pytest.raises(UserError, match=r'PATT on blocks\.0\.attn\.qkv does not update weights and cannot be merged'):
        plan.merge()
    assert looks(model) == before[0] and torch.equal(output(model, images()), before[1])


# what a plan saves


def test_a_batch_norm_that_changes_in_training_is_saved():
    """It is frozen; its statistics are not."""
    model = vit()
    model.norm_pre = Normed()
    plan = adapt(model, BAPAT)
    saved = plan.state_dict()
    assert {'norm_pre.norm.running_mean', 'norm_pre.norm.num_batches_tracked'} <= {*saved}
    assert 'norm_pre.norm.weight' not in saved
    model.train()(images(4))
    other = vit()
    other.norm_pre = Normed()
    adapt(other, BAPAT).load_state_dict(plan.state_dict())
    assert torch.equal(other.norm_pre.norm.running_mean, model.norm_pre.norm.running_mean)
    assert model.norm_pre.norm.running_mean.any()


class Normed(nn.Module):
    """A BatchNorm of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(D)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def test_a_delta_is_in_the_mode_of_its_model():
    lora = dict(lora=dict(type='LoRA', dropout=0.5))
    for model in (vit().eval(), vit().train()):
        adapt(model, lora)
        assert {m.training for m in model.modules()} == {model.training}


# refusals

QUANTISED = torch.ao.quantization.quantize_dynamic
REFUSED = {
    'unknown delta': (dict(deltas=dict(p=dict(type='PAT'))), "Unknown delta type 'PAT'.*Did you mean 'PATT'"),
    'no type': (dict(deltas=dict(p=dict(d_bottle=4))), 'needs a type'),
    'unknown option': (dict(deltas=dict(BAPAT, lora=dict(type='LoRA', ranks=3))), "Unknown option of LoRA 'ranks'"),
    'unknown place': (dict(deltas=dict(p=dict(type='PATT', d_bottle=1, at='head'))), 'Unknown position at= of PATT'),
    'unknown head': (dict(head='hed'), "has no 'hed'; it has: patch_embed, .*head"),
    'no head': (dict(head=3), 'the path of the head, or a list of paths, got 3'),
    'unknown train': (dict(train=['heads']), "Unknown petl.train name 'heads'.*Did you mean 'head'"),
    'a word': (dict(train='head'), 'train, a list of names'),
    'nothing matches': (
        dict(train=['layer_scale']),
        "'layer_scale' matches nothing in this model; it has: all,",
    ),
    'a train name': (dict(deltas=dict(head=BAPAT['patt'])), "'head' is a train name"),
    'no dict': (dict(deltas=[BAPAT]), 'petl.deltas must be a dict'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_a_refusal_changes_nothing(case):
    options, words = REFUSED[case]
    model = vit()
    model.cls_token.requires_grad_(False)
    before = looks(model)
    with pytest.raises(UserError, match=words) as refusal:
        adapt(model, **{**dict(deltas=BAPAT), **options})
    assert '\n' not in str(refusal.value)
    assert looks(model) == before
    adapt(model, BAPAT)


def test_a_place_that_a_host_lacks(monkeypatch):
    own = layout_of(vit())
    places = {k: v for k, v in own.places.items() if k != 'attn'}
    monkeypatch.setitem(LAYOUTS, 'timm.VisionTransformer', replace(own, places=places))
    with pytest.raises(UserError, match="sits at 'attn' here, which VisionTransformer does not have; it has: qkv,"):
        adapt(vit(), dict(prefix=dict(type='Prefix')))


class Packed(nn.Linear):
    """A layer whose weight is packed into whole numbers, as bitsandbytes' is."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.weight = nn.Parameter(torch.zeros(layer.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)


def packed() -> nn.Module:
    model = vit()
    model.blocks[0].attn.qkv = Packed(model.blocks[0].attn.qkv)
    return model


def adapted() -> nn.Module:
    model = vit()
    adapt(model, BAPAT)
    return model


MODELS = {
    'no model': (lambda: 'vit', 'A model is an nn.Module'),
    'unknown': (lambda: timm.create_model('resnet10t'), 'timm.ResNet is not in the place table.*tools/host.py'),
    'compiled': (lambda: torch.compile(vit()), 'wrapped by torch.compile: adapt the plain model first'),
    'parallel': (lambda: nn.DataParallel(vit()), 'wrapped by DataParallel'),
    'in eight bits': (lambda: QUANTISED(vit(), {nn.Linear}), 'quantised .torch.ao.nn.quantized'),
    'packed': (packed, 'quantised .*Packed'),
    'adapted': (adapted, 'has deltas already: name all of them in one call'),
}


@pytest.mark.parametrize('case', MODELS)
def test_a_model_that_cannot_be_adapted(case):
    make, words = MODELS[case]
    model = make()
    with pytest.raises(UserError, match=words) as refusal:
        adapt(model, BAPAT)
    assert '\n' not in str(refusal.value)


def test_a_model_in_two_processes_is_wrapped_after_it_is_adapted(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    try:
        model = vit()
        with pytest.raises(UserError, match='wrapped by DistributedDataParallel'):
            adapt(nn.parallel.DistributedDataParallel(model), BAPAT)
        plan = adapt(model, BAPAT)
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped(images()).sum().backward()
        assert all(p.grad is not None for p in plan.parameters())
    finally:
        torch.distributed.destroy_process_group()


# layouts of one's own


@pytest.fixture
def _table_of_its_own():
    before = dict(LAYOUTS)
    yield
    LAYOUTS.clear()
    LAYOUTS.update(before)


@pytest.mark.usefixtures('_table_of_its_own')
def test_a_layout_is_registered_by_class_or_key_and_found_in_a_model_and_in_subclasses():
    entry = transformer(r'layers\.\d+', norms=r'norm', attn='attention', qkv='to_q', proj='attention.out')

    class Mine(own_models.OwnViT):
        pass

    for name in (own_models.OwnViT, 'own_models.OwnViT'):
        register_layout(name, entry)
        assert layout_of(nn.Sequential(Mine())).places == entry.places
        del LAYOUTS['own_models.OwnViT']
    with pytest.raises(UserError, match='registered for a class'):
        register_layout('OwnViT', entry)
    with pytest.raises(UserError, match='is what transformer'):
        register_layout(own_models.OwnViT, dict(blocks='layers'))


def test_a_delta_may_be_a_class_of_ones_own():
    class Mine(LoRA):
        pass

    plan = adapt(vit(), dict(mine=dict(type=Mine, rank=2, slots='q')), train=[])
    assert plan.count()['by'] == {'mine': 2 * 2 * 2 * D} and plan.settings()['mine']['type'] == 'Mine'
