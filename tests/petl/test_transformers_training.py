"""Models of transformers train with deltas: in a loop of one's own, by the library's Trainer, in half precision."""

from __future__ import annotations

import pytest
import torch
from hf_hosts import HOSTS, output, plain
from hf_methods import METHODS, copy_of
from mmengine.registry import MODELS
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, trainer

from vpetl_mm.petl import Plan, adapt

STEPS, BATCH = 12, 4
NAMES = ['vit', 'vjepa2']


def data(name: str) -> list[dict[str, Tensor]]:
    """Samples and their classes."""
    (key, values), *_ = HOSTS[name].inputs(BATCH).items()
    return [{key: value, 'labels': torch.tensor(i)} for i, value in enumerate(values)]


def ready(name: str) -> tuple[nn.Module, Plan]:
    """A model with BAPAT."""
    torch.manual_seed(0)
    model = copy_of(name)
    return model.train(), adapt(model, METHODS['bapat'])


def loss_of(model: nn.Module, name: str) -> Tensor:
    return model(**{key: torch.stack([s[key] for s in data(name)]) for key in data(name)[0]}).loss


def check(model: nn.Module, plan: Plan, name: str, before: float) -> None:
    """It has learned, and only what should has changed."""
    assert loss_of(model, name).item() < 0.9 * before
    theirs = plain(name).state_dict()
    trained = {n for n, _ in plan.named_parameters()}
    assert all(torch.equal(model.state_dict()[n], tensor) for n, tensor in theirs.items() if n not in trained)
    assert not any(
        torch.equal(model.state_dict()[n], theirs[n]) for n in trained & {*theirs} if 'k_proj.bias' not in n
    )


@pytest.mark.parametrize('name', NAMES)
def test_a_loop_of_ones_own(name):
    model, plan = ready(name)
    before = loss_of(model, name).item()
    optimizer = torch.optim.AdamW(plan.parameters(), lr=1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, name).backward()
        optimizer.step()
    check(model, plan, name, before)
    twin, other = ready(name)
    other.load_state_dict(plan.state_dict())
    assert torch.equal(output(twin, HOSTS[name].inputs(2)), output(model, HOSTS[name].inputs(2)))


@pytest.mark.parametrize('name', NAMES)
def test_the_trainer_of_transformers(name, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, 'is_datasets_available', lambda: False)  # tests/datasets is another
    model, plan = ready(name)
    before = loss_of(model, name).item()
    options = dict(per_device_train_batch_size=BATCH, learning_rate=1e-2, lr_scheduler_type='constant', report_to=[])
    options |= dict(save_strategy='steps', save_steps=STEPS, logging_strategy='no', disable_tqdm=True, use_cpu=True)
    arguments = TrainingArguments(tmp_path, max_steps=STEPS, **options)
    Trainer(model, arguments, train_dataset=data(name)).train()
    check(model, plan, name, before)

    if name == 'vit':  # 5.24 takes up no run of a ViT, plain or not: it saves it by version 4's names
        return
    twin, other = ready(name)
    resumed = Trainer(twin, arguments, train_dataset=data(name))
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == STEPS
    assert all(torch.equal(tensor, plan.state_dict()[n]) for n, tensor in other.state_dict().items())


@pytest.mark.parametrize('name', NAMES)
def test_in_mixed_precision(name):
    """Close to what single precision gives, with gradients in single precision."""
    model, plan = ready(name)
    expected = loss_of(model, name)
    with torch.autocast('cpu', torch.bfloat16):
        loss = loss_of(model, name)
    loss.backward()
    torch.testing.assert_close(loss.float(), expected, rtol=0.05, atol=0.05)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in plan.parameters())


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
def test_openmmlabs_own_are_there_beside_it(scope):
    assert MODELS.get(f'{scope}.VisionTransformer')
