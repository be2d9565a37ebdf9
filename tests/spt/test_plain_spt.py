"""SPT in plain PyTorch: sensitivities against double precision, and the same for q, k and v in one layer or three."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import timm
import tiny
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from vpetl_mm.errors import UserError
from vpetl_mm.petl import adapt
from vpetl_mm.spt.plain import allocate, sensitivity
from vpetl_mm.spt.tuning import SPT

D = 24
Batch = tuple[Tensor, Tensor]


def eva(name: str) -> nn.Module:
    sizes = dict(depth=2, embed_dim=D, num_heads=2, img_size=32, patch_size=8, num_classes=5, swiglu_mlp=False)
    return timm.create_model(name, **sizes)


def fused() -> nn.Module:
    """EVA-02 with q, k and v in one layer, whose biases are the attention's own."""
    return tiny.randomised(eva('eva02_tiny_patch14_224'), 1)


def apart(model: nn.Module) -> nn.Module:
    """The same model with three layers, of the same weights; the MLP has another form and is taken over."""
    other = eva('eva02_base_patch14_224')
    for mine, theirs in zip(model.blocks, other.blocks, strict=True):
        q, k, v = mine.attn.qkv.weight.data.chunk(3)
        theirs.mlp, theirs.norm1, theirs.norm2 = (copy.deepcopy(getattr(mine, n)) for n in ('mlp', 'norm1', 'norm2'))
        theirs.attn.norm = nn.Identity()
        parts = theirs.attn.q_proj, theirs.attn.k_proj, theirs.attn.v_proj
        for layer, weight in zip(parts, (q, k, v), strict=True):
            layer.weight.data.copy_(weight)
        theirs.attn.q_proj.bias.data.copy_(mine.attn.q_bias.data)
        theirs.attn.v_proj.bias.data.copy_(mine.attn.v_bias.data)
        theirs.attn.proj.load_state_dict(mine.attn.proj.state_dict())
    rest = {k: v for k, v in model.state_dict().items() if not k.startswith('blocks.')}
    other.load_state_dict(rest, strict=False)
    return other


def vit() -> nn.Module:
    """A small model of transformers, whose backbone lies inside it."""
    sizes = dict(hidden_size=D, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=5)
    return tiny.randomised(transformers.ViTForImageClassification(config), 1)


def batches() -> list[Batch]:
    torch.manual_seed(4)
    return [(torch.randn(n, 3, 32, 32), torch.arange(n) % 5) for n in (4, 4, 3)]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    y = model(batch[0])
    return F.cross_entropy(getattr(y, 'logits', y), batch[1])


@pytest.mark.parametrize('make', (fused, vit))
def test_sensitivities_equal_a_plain_computation_and_the_model_is_left_as_it_was(make):
    model = make().train()
    model.requires_grad_(True)
    next(model.parameters()).requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}, [p.requires_grad for p in model.parameters()]
    found = sensitivity(model, batches(), loss)
    plain = copy.deepcopy(model).double().eval().requires_grad_(True)
    squares = {n: torch.zeros_like(p) for n, p in plain.named_parameters()}
    losses = []
    for x, y in batches():
        plain.zero_grad()
        value = loss(plain, (x.double(), y))
        value.backward()
        losses.append(value.item())
        for name, p in plain.named_parameters():
            squares[name] += 0 if p.grad is None else p.grad**2
    at = 'vit.' if make is vit else ''
    for unit, part in zip(found.units, found.parts(), strict=True):
        rows = squares[at + unit.param][unit.start : unit.start + unit.shape[0]]
        np.testing.assert_allclose(part, rows.flatten().numpy(), rtol=1e-3, atol=1e-12)
    assert (found.batches, found.samples) == (3, 11) and math.isclose(found.loss, np.mean(losses), rel_tol=1e-5)
    after = model.state_dict(), [p.requires_grad for p in model.parameters()]
    assert after[1] == before[1] and all(torch.equal(v, before[0][k]) for k, v in after[0].items())
    assert all(m.training for m in model.modules()) and all(p.grad is None for p in model.parameters())


def test_one_layer_or_three_lead_to_the_same_choice_and_outputs():
    one = fused().eval()
    three = apart(one).eval()
    x = batches()[0][0]
    assert (one(x) - three(x)).abs().max() < 1e-6
    found = [sensitivity(m, batches(), loss) for m in (one, three)]
    assert found[0].values.sum() == pytest.approx(found[1].values.sum(), rel=1e-5)
    for structured in ('LoRA', 'AdaptMLP'):
        models = [copy.deepcopy(m) for m in (one, three)]
        chosen = [allocate(m, f, '1.5k', structured, rank=2, alpha=1) for m, f in zip(models, found, strict=True)]
        assert tuned(chosen[0]) == tuned(chosen[1])
        plans = [adapt(m, spt=c) for m, c in zip(models, chosen, strict=True)]
        counts = [p.count()['by'] for p in plans]
        assert counts[0] == counts[1] and {'spt', 'sparse'} <= {*counts[0]}
        plans[1].load_state_dict({as_three(n): v for n, v in plans[0].state_dict().items()})
        for model, plan in zip(models, plans, strict=True):
            step = torch.optim.SGD(plan.parameters(), lr=1.0)
            for batch in batches():
                step.zero_grad()
                loss(model, batch).backward()
                step.step()
        assert (models[0].eval()(x) - one(x)).abs().max() > 1e-2
        assert (models[0](x) - models[1].eval()(x)).abs().max() < 1e-5


def tuned(chosen: SPT) -> list[tuple]:
    """What is tuned of each part, in an order that does not depend on names."""
    return sorted((r.kind, r.block or 0, *r.shape, r.choice, r.params) for r in chosen.allocation.rows)


def as_three(name: str) -> str:
    """What a tensor of the fused form is called in the other."""
    for old, new in {'attn.qkv.deltas': 'attn.deltas', 'q_bias': 'q_proj.bias', 'v_bias': 'v_proj.bias'}.items():
        name = name.replace(old, new)
    return name


def test_an_allocation_of_lora_merges():
    model = fused().eval()
    plan = adapt(model, spt=allocate(model, sensitivity(model, batches(), loss), 3000, rank=2))
    tiny.randomised(model, 2)
    before = model(batches()[0][0])
    plan.merge()
    assert (model(batches()[0][0]) - before).abs().max() < 1e-5 * before.abs().max()


def test_what_a_loss_may_not_be():
    model = fused()
    for wrong in (lambda m, b: m(b[0]), lambda m, b: 3.0, lambda m, b: torch.tensor(1.0)):
        with pytest.raises(UserError, match='one number that depends on the model'):
            sensitivity(model, batches(), wrong)
    with pytest.raises(UserError, match='no training data'):
        sensitivity(model, [], loss)
    with pytest.raises(UserError, match=r'The gradient of blocks\.0.* is not finite'):
        sensitivity(model, batches(), lambda m, b: loss(m, b) * float('inf'))
    with pytest.raises(UserError, match='larger than the'):
        allocate(model, sensitivity(model, batches(), loss), '1M')
