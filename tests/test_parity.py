"""Right to the number: outputs and gradients of the reference implementation (random weights)."""

from __future__ import annotations

import pytest
import tiny
import torch
from golden import DATA, GoldenViT, golden, vit_by_hand

from vpetl_mm import build_model
from vpetl_mm.petl.exchange import Exchanged
from vpetl_mm.weights.kinds import KINDS
from vpetl_mm.weights.tensors import Weights

SWINS, VITS = sorted(DATA.glob('swin_*.npz')), sorted(DATA.glob('vit_*.npz'))
WAYS = {
    f'{attention}{"" if fast else "-plain"}': dict(options, fast=fast)
    for attention, options in (('host', dict(attention=None)), ('ours', {}))
    for fast in (True, False)
}
CASES = {f'{p.stem}-{name}': (p, options) for p in SWINS + VITS for name, options in WAYS.items()}
# buffers that follow from the settings
DERIVED = ('relative_position_index', 'backbone.pos_embed')


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm().clamp_min(1e-12)).item()


def split(grads: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With q, k and v apart: one could hide behind the others. A bias of k has no gradient but rounding's."""
    parts = {n: g for n, g in grads.items() if not n.endswith('.qkv.weight')}
    for name in grads.keys() - parts.keys():
        parts |= {f'{name}.{slot}': part for slot, part in zip('qkv', grads[name].chunk(3), strict=True)}
    return parts


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def loaded(path, petl: dict) -> tuple:
    """The reference and our model with its weights, in eval mode."""
    reference = golden(path)
    config = reference.model_config()
    config['model']['petl'] |= petl
    model = build_model(config).eval()
    keys = model.load_state_dict(reference.weights, strict=False)
    assert not keys.unexpected_keys
    assert all(k.endswith(DERIVED) for k in keys.missing_keys)
    return reference, model


@pytest.mark.parametrize(('path', 'petl'), CASES.values(), ids=CASES.keys())
def test_features_logits_and_gradients(path, petl):
    reference, model = loaded(path, petl)
    assert isinstance(model.backbone, Exchanged) == petl['fast']
    features = model.backbone(reference.input)
    features = features[-1] if isinstance(features, tuple) else features
    logits = tiny.classify(model, reference.input)
    loss = logits.square().sum()
    loss.backward()

    close(features, reference.features)
    close(logits, reference.logits)
    torch.testing.assert_close(loss, reference.loss, atol=1e-4, rtol=1e-5)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert set(grads) == set(reference.grads)
    theirs = split(reference.grads)
    worst = {n: relative(g, theirs[n]) for n, g in split(grads).items()}
    assert max(worst.values()) < 1e-4, sorted(worst.items(), key=lambda i: -i[1])[:3]


# AdaptFormer's ViT written out: as the references say, and then where there is no reference


def own_weights(reference: GoldenViT, pooled: bool) -> dict[str, torch.Tensor]:
    """The reference's weights with adapters and, when pooling, another name of the norm."""
    w = dict(reference.theirs)
    generator = torch.Generator().manual_seed(0)
    for block in range(2):
        for name, shape in {'down': (4, 32), 'up': (32, 4)}.items():
            key = f'blocks.{block}.adaptmlp.{name}_proj'
            w.setdefault(f'{key}.weight', torch.randn(shape, generator=generator))
            w.setdefault(f'{key}.bias', torch.randn(shape[0], generator=generator))
    return {k.replace('norm.', 'fc_norm.') if k.startswith('norm.') and pooled else k: v for k, v in w.items()}


@pytest.mark.parametrize('path', VITS, ids=lambda p: p.stem)
def test_written_out_it_is_the_reference(path):
    reference, model = loaded(path, {})
    w = dict(reference.theirs)
    w.setdefault('pos_embed', model.state_dict().get('backbone.pos_embed'))
    mode = 'parallel' if reference.config['ffn_adapt'] else ''
    close(vit_by_hand(w, reference.input, mode, reference.video), reference.logits)


@pytest.mark.parametrize('pooled', [False, True], ids=['token', 'pooled'])
@pytest.mark.parametrize('mode', ['parallel', 'sequential', ''])
@pytest.mark.parametrize('path', VITS, ids=lambda p: p.stem)
def test_sequential_and_pooled(path, mode, pooled):
    reference = golden(path)
    pooled = pooled or reference.video
    config = reference.model_config(mode, pooled)
    config['model']['petl'] = dict(deltas=config['model']['petl']['deltas'] if mode else {}, train=['all'])
    model = build_model(config).eval()
    w = own_weights(reference, pooled)
    ours = reference._ours({k: v for k, v in w.items() if mode or 'adaptmlp' not in k})
    assert not model.load_state_dict(ours, strict=False).unexpected_keys
    w.setdefault('pos_embed', model.state_dict()['backbone.pos_embed'])
    theirs = {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in w.items()}

    logits, expected = tiny.classify(model, reference.input), vit_by_hand(theirs, reference.input, mode, pooled)
    close(logits, expected)
    logits.square().sum().backward()
    expected.square().sum().backward()
    grads = split(reference._ours({k: v.grad for k, v in theirs.items() if v.grad is not None}))
    for name, parameter in split({n: p.grad for n, p in model.named_parameters()}).items():
        assert relative(parameter, grads[name]) < 1e-4, name


@pytest.mark.parametrize('path', VITS, ids=lambda p: p.stem)
def test_the_authors_names_are_translated(path):
    reference, model = loaded(path, {})
    theirs = {k: v for k, v in reference.theirs.items() if 'adaptmlp' not in k}
    plain = {k.removeprefix('backbone.'): v for k, v in reference.weights.items() if 'deltas' not in k}
    kind, weights = KINDS['videomae' if reference.video else 'timm_vit'], Weights(theirs)
    kind.names(weights)
    kind.fit(weights, model.backbone)
    ours = weights.tensors
    assert set(ours) == {k for k in plain if not k.startswith(('head.', 'cls_head.'))}
    assert all(torch.equal(v, plain[k]) for k, v in ours.items())


def test_there_are_references():
    assert len(SWINS) >= 3 and len(VITS) >= 3
    assert {golden(p).video for p in VITS} == {True, False}
    assert all(isinstance(golden(p), GoldenViT) for p in VITS)
