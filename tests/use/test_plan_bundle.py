"""Bundles of plans: what was trained comes back on the same frozen weights, and nothing in a file is trusted."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import tiny
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tools import call, refused
from vpetl_mm.errors import UserError
from vpetl_mm.petl import LoRA, adapt
from vpetl_mm.spt.plain import allocate, sensitivity
from vpetl_mm.use.bundle.opening import PLAIN
from vpetl_mm.use.plain import adapt_from, load, read_about, save

D, CLASSES = 24, ['a', 'b', 'c', 'd', 'e']
DELTAS = dict(
    patt=dict(type='PATT', d_bottle=4, slots='qv'),
    adapter=dict(type='AdaptMLP', d_bottle=4, source='residual'),
    time=dict(type='STAdapter', d_bottle=4, kernel=(1, 3, 3), num_frames=2),
)


def vit(seed: int = 1) -> nn.Module:
    """A small model with frozen weights of this seed, and another head each time."""
    sizes = dict(depth=2, embed_dim=D, num_heads=2, img_size=32, patch_size=8, num_classes=5)
    model = tiny.randomised(timm.create_model('vit_tiny_patch16_224', **sizes), seed).eval()
    model.head.reset_parameters()
    return model


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def trained(**options) -> tuple[nn.Module, object]:
    model = vit()
    plan = adapt(model, DELTAS, train=['head', 'norm1'], **options)
    state = {n: torch.randn_like(p) for n, p in plan.named_parameters()}
    model.load_state_dict(state, strict=False)
    return model, plan


@pytest.fixture
def file(tmp_path) -> Path:
    """A bundle."""
    return save(trained()[1], tmp_path / 'mine.safetensors', classes=CLASSES, license='CC0-1.0')


def test_a_plan_comes_back_on_a_plain_model_and_on_a_plan(tmp_path):
    model, plan = trained()
    file = save(plan, tmp_path / 'mine.safetensors', classes=CLASSES)
    other = vit()
    again = adapt_from(other, file)
    assert torch.equal(other(images()), model(images())) and again.count() == plan.count()
    assert {n for n, p in other.named_parameters() if p.requires_grad} == {n for n, _ in plan.named_parameters()}
    third = vit()
    about = load(adapt(third, DELTAS, train=['head', 'norm1']), file)
    assert torch.equal(third(images()), model(images()))
    assert about == read_about(file) and about.classes == CLASSES and about.host == 'timm.VisionTransformer'
    assert about.trainable == plan.count()['trainable'] and about.total == plan.count()['total']
    with safe_open(file, 'pt') as opened:
        assert {*opened.keys()} == {*plan.state_dict()}


def test_the_frozen_weights_are_those_that_it_was_trained_on(file):
    for change in (lambda m: m.patch_embed.proj.bias.data.add_(1e-6), lambda m: m.bfloat16()):
        model = vit()
        change(model)
        plan = adapt(model, DELTAS, train=['head', 'norm1'])
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(UserError, match='with other frozen weights than this model has') as refusal:
            load(plan, file)
        assert '\n' not in str(refusal.value)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model = vit()  # what it trains may be anything
    model.head.weight.data.add_(1)
    model.blocks[0].norm1.weight.data.add_(1)
    load(adapt(model, DELTAS, train=['head', 'norm1']), file)


OTHERS: dict[str, tuple[Callable[[], nn.Module], dict, list[str], str]] = {
    'deltas': (
        vit,
        dict(patt=DELTAS['patt']),
        ['head', 'norm1'],
        'has the deltas patt, adapter, time, and the model',
    ),
    'an option': (vit, dict(DELTAS, patt=dict(DELTAS['patt'], scale=1.0)), ['head', 'norm1'], 'patt.scale=0.8, and'),
    'what trains': (vit, DELTAS, ['head'], 'The state has 4 tensors that do not train here'),
    'more trains': (vit, DELTAS, ['head', 'norm'], 'The state lacks'),
}


@pytest.mark.parametrize('case', OTHERS)
def test_another_plan(case, file):
    make, deltas, train, words = OTHERS[case]
    with pytest.raises(UserError, match=words):
        load(adapt(make(), deltas, train=train), file)


def test_another_model(file):
    larger = timm.create_model('vit_tiny_patch16_224', depth=3, embed_dim=D, num_heads=2, num_classes=5)
    hosts = {
        'timm.Eva': timm.create_model('eva02_tiny_patch14_224', depth=1, embed_dim=D, num_heads=2),
        'does not fit this model: The state lacks': larger,
    }
    for words, model in hosts.items():
        before = [*model.state_dict()]
        with pytest.raises(UserError, match=words):
            adapt_from(model, file)
        assert [*model.state_dict()] == before, 'it is unchanged'


def test_spt_comes_back_with_its_choice(tmp_path):
    model = vit()
    batches = [(images(), torch.tensor([0, 1]))]
    found = sensitivity(model, batches, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    plan = adapt(model, spt=allocate(model, found, 3000, rank=2))
    tiny.randomised(model, 2)
    other = vit()
    other.load_state_dict({k: v for k, v in model.state_dict().items() if '.deltas.' not in k}, strict=False)
    file = save(plan, tmp_path / 'spt.safetensors')
    assert adapt_from(other, file).settings() == plan.settings()
    assert torch.equal(other(images()), model(images()))
    assert plan.count()['trainable'] <= 3000 + 5 * (D + 1)
    content, text = load_file(file), safe_open(file, 'pt').metadata()
    index = next(k for k in content if '.deltas.sparse.' in k and content[k].dtype == torch.int32)
    content[index] += 1  # not those of the choice
    save_file(content, file, text)
    with pytest.raises(UserError, match='is not that of this model'):
        adapt_from(vit_like(other), file)


def vit_like(model: nn.Module) -> nn.Module:
    """A plain model with the plain weights of an adapted one."""
    plain = vit()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if '.deltas.' not in k})
    return plain


def test_a_delta_of_ones_own_comes_back_on_a_plan(tmp_path):
    class Own(LoRA):
        pass

    deltas = dict(own=dict(type=Own, rank=2))
    file = save(adapt(vit(), deltas), tmp_path / 'own.safetensors')
    load(adapt(vit(), deltas), file)
    with pytest.raises(UserError, match="does not fit this model: Unknown delta type 'Own'"):
        adapt_from(vit(), file)


# what save refuses


def test_what_cannot_be_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = trained()[1]
    Path('other.safetensors').write_bytes(b'mine')
    save_file({'x': torch.ones(1)}, 'tensors.safetensors')
    for name in ('a.pth', 'other.safetensors', 'tensors.safetensors'):
        words = 'ends in .safetensors' if name == 'a.pth' else 'exists and is not the bundle of a plan'
        with pytest.raises(UserError, match=words):
            save(plan, name)
    with pytest.raises(UserError, match='classes has 3 names, and head has 5 outputs'):
        save(plan, 'a.safetensors', classes='abc')
    with pytest.raises(UserError, match=r'its classes is .*not up to 100,000 names of one line'):
        save(plan, 'a.safetensors', classes=['a', 'b', 'c', 'd', 'e\n'])
    with torch.device('meta'):
        empty = adapt(timm.create_model('vit_tiny_patch16_224'), DELTAS)
    with pytest.raises(UserError, match='it is on the meta device'):
        save(empty, 'a.safetensors')
    merged = adapt(vit(), dict(lora=dict(type='LoRA', rank=2)))
    merged.merge()
    with pytest.raises(UserError, match='trains nothing, or is merged'):
        save(merged, 'a.safetensors')
    assert not Path('a.safetensors').exists() and Path('other.safetensors').read_bytes() == b'mine'
    assert save(plan, save(plan, 'a.safetensors')) == Path('a.safetensors'), 'a bundle of a plan is replaced'


def test_saving_needs_safetensors(tmp_path, monkeypatch):
    monkeypatch.setattr('vpetl_mm.files.find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install safetensors'):
        save(trained()[1], tmp_path / 'a.safetensors')


# a stranger's file


def changed(file: Path, **parts) -> None:
    """Rewrite the header of a bundle; None removes a part."""
    about = json.loads(safe_open(file, 'pt').metadata()[PLAIN])
    about = {k: v for k, v in {**about, **parts}.items() if not (k in parts and parts[k] is ...)}
    save_file(load_file(file), file, {PLAIN: json.dumps(about)})


LONG = 'x' * 1001
HOSTILE = {
    'format': (2, 'update vpetl_mm'),
    'spare': (1, "'spare' is unknown"),
    'train': (..., "'train' is missing"),
    'name': ('../x', 'not a name'),
    'head': (['head\x1b[2J'], 'not paths in a model'),
    'backbone': ('a/b', 'not a path in a model'),
    'license': (LONG, 'not text of one line'),
    'frozen_sha256': ('0', 'not a SHA-256'),
    'trainable': (-1, 'not a whole number'),
    'deltas': (dict(patt=dict(type='PATT', at='qkv', d_bottle=1 << 40)), 'd_bottle'),
    'classes': ([1], 'names of one line'),
    'spt': (dict(allocation={}), "not SPT's allocation"),
    'versions': ({'a': 1}, 'not texts by name'),
    'created': ('now', 'not a time'),
}


@pytest.mark.parametrize('part', HOSTILE)
def test_a_header_that_no_bundle_may_have(part, file):
    value, words = HOSTILE[part]
    changed(file, **{part: value})
    with pytest.raises(UserError, match=words) as refusal:
        adapt_from(vit(), file)
    assert str(refusal.value).isprintable()


def test_sizes_are_tried_without_memory(file):
    """A bottleneck of a million takes gigabytes; the tensors of the file are not of its size."""
    about = read_about(file)
    deltas = {n: dict(d, d_bottle=1_000_000) if n == 'patt' else d for n, d in about.deltas.items()}
    changed(file, deltas=deltas)
    model, before = vit(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r'has the shape \(4, 24\) in the state, and \(1000000, 24\)'):
        adapt_from(model, file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, 'in KB'


def test_numbers_that_are_not_finite(file):
    content, metadata = load_file(file), safe_open(file, 'pt').metadata()
    content['head.bias'][0] = float('nan')
    save_file(content, file, metadata)
    with pytest.raises(UserError, match=r'head\.bias holds numbers that are not finite'):
        load(trained()[1], file)


# from a terminal


def test_info_tells_of_it_and_other_commands_refuse_it(file, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call('adapter', 'info', file) == 0
    told = capsys.readouterr().out
    for fact in ('timm.VisionTransformer', 'patt (PATT, at qkv, d_bottle 4)', 'norm1', '5: a, b, c, ...', 'CC0-1.0'):
        assert fact in told
    for command in (('adapter', 'verify', file), ('adapter', 'card', file), ('predict', file, 'x.png')):
        assert 'is the bundle of a model in plain PyTorch' in refused(capsys, *command)
