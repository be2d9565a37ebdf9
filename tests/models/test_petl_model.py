"""What both models share on every host: a backbone's options, and checkpointing behind a frozen stem."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import tiny
import torch
from mmengine.runner import turn_on_activation_checkpointing
from steps import step
from torch import Tensor, nn

from vpetl_mm import UserError, build_model

DELTAS = dict(
    lora=dict(type='LoRA', at='qkv', rank=2, dropout=0.2),
    adapter=dict(type='AdaptMLP', d_bottle=8, source='residual'),
    prompt=dict(type='Prompt', num_tokens=2),
)


def gradients(host: tiny.Host, checkpointed: Callable[[nn.Module], None], amp: bool, **backbone) -> dict[str, Tensor]:
    """Of everything trained, drawn drop-path and dropout included."""
    model = host.build(DELTAS, ['head', 'norm1'], **backbone).train()
    checkpointed(model)
    calls = []
    fc1 = host.part(host.blocks(model)[1], 'fc1')
    fc1.register_forward_pre_hook(lambda *_: calls.append(1))
    grads = step(model, host.sample(4), amp=amp)
    wanted = {f'backbone.{n}' for n, p in model.backbone.named_parameters() if p.requires_grad}
    return {n: g for n, g in grads.items() if n in wanted or n == 'y'} | dict(calls=torch.tensor(len(calls)))


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bf16'])
@pytest.mark.parametrize('how', ['activation_checkpointing', 'with_cp'])
@pytest.mark.parametrize('name', tiny.HOSTS)
def test_checkpointed_blocks_have_the_gradients_of_plain_ones(name, how, amp):
    host = tiny.HOSTS[name]
    drops = {} if 'swin' in name else dict(drop_path_rate=0.3)
    plain = gradients(host, lambda model: None, amp, **drops)
    if how == 'with_cp':
        ours = gradients(host, lambda model: None, amp, with_cp=True, **drops)
    else:
        blocks = [host.block.format(i) for i in range(2)]
        ours = gradients(host, lambda model: turn_on_activation_checkpointing(model, blocks), amp, **drops)
    assert not [key for key, grad in plain.items() if grad is None or not grad.any()]
    assert (plain.pop('calls'), ours.pop('calls')) == (1, 2)
    for key, value in plain.items():  # in bfloat16 a dropout may see what was rounded once less
        assert (ours[key] - value).norm() <= (0.15 if amp else 1e-5) * value.norm(), key


def test_a_module_with_keyword_arguments_can_be_checkpointed():
    host = tiny.HOSTS['vit']
    model = host.build(DELTAS)
    expected = tiny.features(model, host.sample())
    turn_on_activation_checkpointing(model, 'backbone.layers.0.ffn')
    torch.testing.assert_close(tiny.features(model, host.sample()), expected)


@pytest.mark.parametrize('name', ['videomae', 'vit'])
@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['deepcopy', 'pickle']
)
def test_a_copy_of_a_checkpointed_model_is_its_own(name, copied):
    host, x = tiny.HOSTS[name], tiny.HOSTS[name].sample()
    model = host.build(DELTAS, with_cp=True)
    before, twin = tiny.features(model, x), copied(model)
    tiny.randomised(twin, 5)
    assert torch.equal(tiny.features(model, x), before)
    assert not torch.equal(tiny.features(twin, x), before)


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_an_option_that_a_backbone_does_not_know(name):
    with pytest.raises(UserError, match=r"option in model\.backbone 'drop_path_rte'.*Did you mean 'drop_path_rate'"):
        build_model(tiny.HOSTS[name].config(drop_path_rte=0.1))


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_options_of_ancestors_and_of_all_are_known(name):
    build_model(tiny.HOSTS[name].config(init_cfg=None, with_cp=False, drop_path_rate=0.1))


@pytest.mark.parametrize('value', [0.5, 'yes', None])
def test_with_cp_is_a_yes_or_a_no(value):
    with pytest.raises(UserError, match=r'model\.backbone\.with_cp must be one of True, False'):
        build_model(tiny.HOSTS['videomae'].config(with_cp=value))
