"""What is proposed for models that the place table does not know works when it is pasted."""

from __future__ import annotations

from collections.abc import Callable

import own_models
import pytest
import timm
import tiny
import torch
import transformers
from torch import Tensor, nn

from vpetl_mm.petl import LAYOUTS, adapt, find
from vpetl_mm.petl.proposal import Proposal, propose
from vpetl_mm.petl.proposal.methods import METHODS, tensors_in, tried

SMALL = dict(depth=2, embed_dim=24, num_heads=2, num_classes=3)
OF_HF = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32)


def hf(config: str, model: str) -> Callable[[], nn.Module]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**OF_HF, patch_size=8))


# name -> how it is made, and the methods that do not fit
MODELS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    'own': (own_models.OwnViT, {'MHPA'}),  # its attention does not say how many heads it has
    'torch': (own_models.TorchViT, set()),
    'beit': (lambda: timm.create_model('beit_base_patch16_224', img_size=32, patch_size=8, **SMALL), set()),
    'relpos': (
        lambda: timm.create_model('vit_relpos_base_patch16_224', img_size=32, patch_size=8, **SMALL),
        set(),
    ),
    'cait': (
        lambda: timm.create_model('cait_xxs24_224', img_size=32, patch_size=8, **SMALL),
        {"PATT, mode='concat'", 'Prefix', 'Prompt'},
    ),
    'xcit': (
        lambda: timm.create_model('xcit_nano_12_p8_224', img_size=32, **SMALL),
        {"PATT, mode='concat'", 'Prefix', 'Prompt'},
    ),
    'hf_beit': (hf('BeitConfig', 'BeitModel'), set()),
    'hf_clip': (hf('CLIPVisionConfig', 'CLIPVisionModel'), set()),
}
# without a word from the reader
NEVER = {
    "AdaptMLP, source='residual'",
    'Prompt, deep=False',
    *('STAdapter', 'AIMTime', 'Convpass', 'Mona', 'AdapterPlus', 'DTL', 'DTL, kernel=3'),
}


@pytest.fixture(autouse=True)
def _table_of_its_own(monkeypatch):
    """What a test registers is gone after it."""
    before = dict(LAYOUTS)
    yield
    LAYOUTS.clear()
    LAYOUTS.update(before)


def pasted(model: nn.Module) -> Proposal:
    """The proposal for a model, after its code has been run."""
    assert find(model) is None
    proposal = propose(model)
    assert isinstance(proposal, Proposal), proposal
    exec(proposal.code, {})
    return proposal


def run(model: nn.Module) -> Tensor:
    """All that a model returns for two images, whatever it is called."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return torch.cat([t.flatten() for t in tensors_in(model(x))])


@pytest.mark.parametrize('name', MODELS)
def test_a_pasted_entry_serves_what_it_says(name):
    """Every method starts as the plain model or changes it, gets gradients everywhere, and leaves it plain."""
    make, unfit = MODELS[name]
    model = tiny.randomised(make(), 1).eval().requires_grad_(False)
    assert pasted(model).key == find(model).key
    before = run(model)
    for method, count, why in tried(model, run, {m: d for m, d in METHODS.items() if m not in NEVER}):
        assert bool(why) == (method in unfit), f'{method}: {why}'
        assert count > 0 or why
    assert torch.equal(run(model), before)


@pytest.mark.parametrize('name', MODELS)
def test_q_k_and_v_of_a_pasted_entry_count_as_its_weights_say(name):
    model = MODELS[name][0]()
    pasted(model)
    width = find(model).layout.width(model)
    plan = adapt(
        model, dict(lora=dict(type='LoRA', rank=3, slots='qkv'), patt=dict(type='PATT', d_bottle=4)), train=[]
    )
    assert plan.count()['by'] == {'lora': 2 * 3 * 3 * 2 * width, 'patt': 2 * (3 * 4 * width + 4 + 2 * width)}


def test_merged_lora_of_a_pasted_entry_is_the_plain_model():
    for make in (own_models.OwnViT, own_models.TorchViT):
        model = make().eval()
        pasted(model)
        plain = {k: v.shape for k, v in model.state_dict().items()}, {n: type(m) for n, m in model.named_modules()}
        deltas = {f'on_{place}': dict(type='LoRA', at=place, rank=2) for place in ('qkv', 'proj', 'fc1', 'fc2')}
        plan = adapt(model, deltas)
        tiny.randomised(model, 2)
        before = run(model)
        assert plan.merge() is model
        assert (run(model) - before).abs().max() < 1e-5 * before.abs().max()
        after = {k: v.shape for k, v in model.state_dict().items()}, {n: type(m) for n, m in model.named_modules()}
        assert after == plain


def test_a_gated_mlp_has_two_first_layers():
    options = propose(own_models.TorchViT()).options
    assert options['fc'] == (r'mlp\.(gate|up)', r'mlp\.down') and options['proj'] == 'attn.out_proj'


def test_norms_behind_the_attention_are_told_by_running_it():
    model = own_models.PostNormViT()
    assert 'post_norm' not in propose(model).options
    assert propose(model, run).options['post_norm'] == ('PostNormBlock',)
    assert 'post_norm' not in propose(own_models.OwnViT(), run).options


def test_leading_tokens_are_told_by_running_it():
    """CaiT's class token enters behind the blocks; BEiT's stands in front of the patches."""
    assert propose(MODELS['beit'][0](), run).options['leading'] == ('num_prefix_tokens',)
    assert 'leading' not in propose(MODELS['cait'][0](), run).options
    assert 'leading' not in propose(MODELS['beit'][0]()).options


def test_a_key_names_the_class_and_groups_its_parts():
    model = own_models.OwnViT()
    proposal = pasted(model)
    assert proposal.key == 'own_models.OwnViT'
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    of = {group: sum(sizes[n] for n in names) for group, names in adapt(model, train=[]).groups().items() if names}
    d = own_models.D
    assert of['patch_embed'] == d * (3 * 64 + 1) and of['norm'] == 4 * d + 2 * d and of['head'] == 3 * (d + 1)
    assert of['attn.qkv'] == 2 * (3 * d * d + 2 * d) and of['attn.proj'] == 2 * d * (d + 1)
    assert of['mlp.fc1'] == 2 * 2 * d * (d + 1) and of['mlp.fc2'] == 2 * d * (2 * d + 1)


MISSING = {
    'resnet': (lambda: timm.create_model('resnet10t'), 'no repeated block holds an attention'),
    'encoder': (own_models.EncoderViT, 'TransformerEncoderLayer passes its layers by'),
    'maxvit': (lambda: timm.create_model('maxvit_pico_rw_256'), 'not two norms of its own'),
}


@pytest.mark.parametrize('name', MISSING)
def test_what_is_missing_for_an_entry(name):
    make, words = MISSING[name]
    with torch.device('meta'):
        model = make()
    missing = propose(model)
    assert isinstance(missing, list) and words in ' '.join(missing)
