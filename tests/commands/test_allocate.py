"""From a config and a budget to a file: what is read, what is found, and that it is found again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from small_vtab import COUNTS, write_base, write_config

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.allocate import (
    AllocationRequest,
    allocate,
    find_allocation,
    measure_experiment,
    peak_bytes,
    resolve,
)
from vpetl_mm.config import load_config
from vpetl_mm.engine.experiment import Options, prepare, train
from vpetl_mm.engine.plain import plain_experiment
from vpetl_mm.engine.preflight import check_experiment
from vpetl_mm.engine.probe import features_of
from vpetl_mm.spt.allocation import read_allocation, tensors_sha256

OPENED: list[str] | None = None


def _note(event: str, args: tuple) -> None:
    if OPENED is not None and event == 'open' and isinstance(args[0], (str, Path)):
        OPENED.append(str(args[0]))


sys.addaudithook(_note)  # it cannot be taken off again


@contextmanager
def spied() -> Iterator[list[str]]:
    """The paths of all files that are opened meanwhile."""
    global OPENED  # noqa: PLW0603
    OPENED = opened = []
    try:
        yield opened
    finally:
        OPENED = None


def run(config: Path, *budgets: int, **options):
    request = AllocationRequest(str(config), budgets or (500,), **options)
    return find_allocation(*resolve(request))


@pytest.mark.parametrize(('fraction', 'lists'), [(0.0, ('train800', 'val200')), (0.2, ('train800',))])
def test_only_training_data_is_read(config, task, fraction, lists):
    with spied() as opened:
        run(config, cfg_options={'holdout.fraction': fraction})
    inside = {str(Path(p).relative_to(task)) for p in opened if Path(p).is_relative_to(task)}
    images = {f'images/{name}/{i}.png' for name in lists for i in range(COUNTS[name])}
    assert inside == images | {f'{name}.txt' for name in lists}


def test_what_is_held_out_of_a_common_list_is_not_read(config, task, tmp_path):
    """As of data sets whose held-out part is drawn."""
    data = tmp_path / 'data'
    shutil.copytree(task / 'images/train800', data / 'images')
    (data / 'train.txt').write_text(''.join(f'{i}.png {i % 4}\n' for i in range(24)))
    named = dict(_delete_=True, type='PETLImageList', ann_file='train.txt', classes=list('abcd'))
    named |= dict(data_root=str(data), data_prefix='images', serialize_data=False)
    pipeline = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='PackInputs')]
    with config.open('a') as file:
        file.write(f'_d = dict({named!r}, pipeline={pipeline!r})\n')
        file.write("train_dataloader['dataset'] = _d\nval_dataloader = dict(dataset=dict(_d, held_out=True))\n")
    cfg = prepare(str(config), Options(cfg_options={'holdout.fraction': 0.25}))
    assert cfg.train_dataloader.dataset.holdout == cfg.val_dataloader.dataset.holdout == 0.25
    with spied() as opened:
        run(config, cfg_options={'holdout.fraction': 0.25})
    read = {Path(p).name for p in opened if Path(p).is_relative_to(data / 'images')}
    assert len(read) == 18
    with spied() as opened:
        run(config, force=True)
    assert len({p for p in opened if Path(p).is_relative_to(data / 'images')}) == 24


def test_sensitivities_equal_a_plain_computation_from_the_images(config, task, base):
    """One batch of all, so that their order is nothing to it."""
    allocation, measurement = run(config, batches=3, batch_size=32)
    assert (measurement.sensitivity.batches, measurement.sensitivity.samples) == (1, 32)
    rows = [
        line.split() for name in ('train800', 'val200') for line in (task / f'{name}.txt').read_text().splitlines()
    ]
    pictures = np.stack([np.asarray(Image.open(task / path)) for path, _ in rows]).astype(np.float64)
    pictures = pictures[..., ::-1]  # as mmcv loads them; the small config does not turn them round
    pictures = (pictures - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    model = build_model(plain_experiment(load_config(config)), init_weights=True).double().eval()
    logits = model(torch.from_numpy(pictures).permute(0, 3, 1, 2), mode='tensor')
    loss = F.cross_entropy(logits, torch.tensor([int(label) for _, label in rows]))
    loss.backward()
    assert allocation.made['loss'] == pytest.approx(loss.item(), rel=1e-5)
    for row in allocation.rows:
        param, _, slot = row.name.partition('[')
        grad = model.backbone.get_parameter(param).grad
        part = grad.chunk(3)['qkv'.index(slot[0])] if slot else grad
        if not row.name.endswith('bias[k]'):
            assert row.sensitivity == pytest.approx((part**2).sum().item(), rel=1e-4), row.name


@pytest.mark.parametrize('head', ['start', 'probe'])
def test_gradients_of_samples_equal_a_plain_computation(config, head):
    """Each of the 32 alone, behind a BatchNorm with the statistics of all of them."""
    asked = {'model.petl.spt.head': head, 'model.petl.spt.gradients': 'sample', 'model.head.bn': True}
    allocation, measurement = run(config, batches=2, batch_size=16, cfg_options=asked)
    assert (measurement.sensitivity.batches, measurement.sensitivity.samples) == (32, 32)
    assert (allocation.made['head'], allocation.made['gradients']) == (head, 'sample')
    model, cfg = measurement.model.double(), plain_experiment(load_config(config))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        data = model.data_preprocessor(pseudo_collate([dataset[i] for i in range(32)]))
    pictures, labels = data['inputs'].double(), torch.cat([s.gt_label for s in data['data_samples']])
    with torch.no_grad():
        features = model.extract_feat(pictures)[-1]
    assert torch.allclose(model.head.bn.running_mean, features.mean(0), atol=1e-5)
    assert torch.allclose(model.head.bn.running_var, features.var(0), rtol=1e-4)
    model.backbone.requires_grad_(True)
    sums = {name: torch.zeros_like(p) for name, p in model.backbone.named_parameters()}
    losses = []
    for picture, label in zip(pictures, labels, strict=True):
        model.zero_grad()
        loss = F.cross_entropy(model(picture[None], mode='tensor'), label[None])
        loss.backward()
        losses.append(loss.item())
        for name, p in model.backbone.named_parameters():
            sums[name] += p.grad**2 if p.grad is not None else 0
    assert allocation.made['loss'] == pytest.approx(np.mean(losses), rel=1e-4)
    for row in allocation.rows:
        param, _, slot = row.name.partition('[')
        part = sums[param].chunk(3)['qkv'.index(slot[0])] if slot else sums[param]
        if not row.name.endswith('bias[k]'):
            assert row.sensitivity == pytest.approx(part.sum().item(), rel=1e-3), row.name


def test_a_probe_lowers_the_loss_and_leaves_the_backbone(config, base):
    plain, probed = run(config), run(config, head='probe', out='probed.safetensors')
    assert probed[0].made['loss'] < plain[0].made['loss'] - 0.05
    assert probed[0].base == plain[0].base and probed[0].digest != plain[0].digest
    state = torch.load(base, weights_only=True)
    assert all(torch.equal(state[k], v) for k, v in probed[1].model.backbone.state_dict().items() if k in state)
    again = run(config, head='probe', out='probed.safetensors', force=True)[0]
    assert again.digest == probed[0].digest and again.made == probed[0].made


def test_a_config_takes_only_a_file_that_was_measured_as_it_says(config):
    options = {'model.petl.spt.head': 'probe'}
    with pytest.raises(UserError, match=r"petl\.spt\.head of .* is 'start', unlike the requested value"):
        run(config, head='probe')
    run(config, cfg_options=options)
    with pytest.raises(UserError, match=r"made with head='probe', but petl\.spt\.head is 'start'"):
        build_model(load_config(config))
    assert build_model(prepare(str(config), Options(cfg_options=options))).spt.allocation.made['head'] == 'probe'


def test_a_wrong_measurement_is_refused_before_anything_is_read(config):
    for wrong in (dict(head='Probe'), dict(gradients='samples')):
        with pytest.raises(UserError, match=f'{next(iter(wrong))} must be '), spied() as opened:
            run(config, **wrong)
        assert not any(path.endswith('.png') for path in opened)


def test_no_probe_of_one_sample():
    """It would have no variance; the same sentence for none."""
    model = SimpleNamespace(eval=lambda: None, data_preprocessor=lambda batch, training: batch)
    model.extract_feat = lambda inputs: (inputs,)
    for samples in ([], ['one']):
        batches = [dict(inputs=torch.ones(1, 3), data_samples=samples)] if samples else []
        with pytest.raises(UserError, match=f'two training samples or more, and there are {len(samples)}'):
            features_of(model, batches)


def test_the_file_says_where_it_is_from(config, base):
    allocation, measurement = run(config, batches=2, batch_size=8, alpha=4.0, cfg_options={'randomness.seed': 3})
    read = read_allocation(config.with_name('spt.safetensors'))
    assert read.digest == allocation.digest and read.rows == allocation.rows and read.made == allocation.made
    assert read.base == dict(file=str(base), sha256=tensors_sha256(torch.load(base, weights_only=True)))
    assert (read.budget, read.structured, read.rank, read.control) == (500, 'LoRA', 2, None)
    assert 350 < read.params <= 500 and read.host == 'mmpretrain.VisionTransformer'
    wanted = dict(
        config=str(config), options={'randomness.seed': 3}, seed=3, batches=2, samples=16, alpha=4.0, beta=5.0
    )
    assert {k: read.made[k] for k in wanted} == wanted and read.made['rule'] == 'within'
    assert peak_bytes() > 1 << 20 and measurement.seconds > 0


def test_the_same_file_twice_and_another_of_another_seed(config):
    contents = []
    for seed in (0, 0, 1, None, None):
        torch.manual_seed(len(contents))  # to which it must be nothing
        run(config, batches=2, batch_size=8, force=True, cfg_options={'randomness.seed': seed})
        contents.append(config.with_name('spt.safetensors').read_bytes())
    assert contents[0] == contents[1] != contents[2] and contents[3] == contents[4]


def test_other_pretrained_weights_are_refused_by_the_file(config, task, tmp_path):
    run(config)
    other = write_base(task, tmp_path / 'other.pth', seed=8)
    cfg = prepare(str(config), Options())
    check_experiment(cfg, ('train_dataloader',))
    cfg.model.base.file = str(other)
    with pytest.raises(ValueError, match=r'spt\.safetensors was measured on the weights of .*base\.pth'):
        check_experiment(cfg, ('train_dataloader',))
    cfg.model.base = None
    with pytest.raises(ValueError, match='was measured on the weights of'):
        build_model(cfg, init_weights=True)


def test_the_weights_may_move_or_be_stored_in_another_way(config, base, tmp_path):
    run(config)
    state = torch.load(base, weights_only=True)
    torch.save({k: state[k].double() for k in reversed(state)}, tmp_path / 'moved.pth')
    cfg = prepare(str(config), Options(cfg_options={'model.base.file': str(tmp_path / 'moved.pth')}))
    check_experiment(cfg, ('train_dataloader',))


@pytest.mark.parametrize('structured', ['lora', 'adapter'])
def test_a_run_trains_what_was_found(config, structured, tmp_path):
    kind = {'lora': 'LoRA', 'adapter': 'AdaptMLP'}[structured]
    options = {'model.petl.spt.structured': kind, 'train_cfg.max_epochs': 1}
    allocation, _ = run(config, cfg_options=options)
    assert allocation.structured == kind
    runner = train(prepare(str(config), Options(str(tmp_path / 'run'), cfg_options=options)))
    count = runner.plain_model.plan.count()
    assert count['trainable'] - count['by']['head'] == allocation.params
    state = torch.load(tmp_path / 'run/adapter_epoch_1.pth', weights_only=True)['state_dict']
    values = [v for k, v in state.items() if k.endswith('_value')]
    assert values and any(v.any() for v in values)


def test_the_config_is_left_as_it_was(config):
    cfg, request = resolve(AllocationRequest(str(config), (500,), batch_size=5))
    before = repr(cfg.to_dict())
    plain_experiment(cfg)
    measurement = measure_experiment(cfg, request)
    assert repr(cfg.to_dict()) == before and cfg.model.petl.spt.file == 'spt.safetensors'
    assert not any(hasattr(m, 'deltas') for m in measurement.model.modules())


def test_learning_rates_by_group_do_not_matter_to_it(config):
    """The groups are what SPT trains, and nothing is trained yet."""
    key = 'optim_wrapper.paramwise_cfg.groups.{}.lr_mult'
    plain = measure_experiment(*resolve(AllocationRequest(str(config), (500,)))).sensitivity
    apart = {key.format(group): 0.1 for group in ('entries', 'vectors', 'deltas')}
    found = measure_experiment(*resolve(AllocationRequest(str(config), (500,), cfg_options=apart))).sensitivity
    assert np.array_equal(found.values, plain.values)
    with pytest.raises(UserError, match="Did you mean 'entries'"):
        resolve(AllocationRequest(str(config), (500,), cfg_options={key.format('entry'): 0.1}))


def test_a_file_that_another_process_wrote_meanwhile_stays(config, tmp_path):
    out = tmp_path / 'spt.safetensors'
    cfg, request = resolve(AllocationRequest(str(config), (500,), out=str(out)))
    with pytest.raises(UserError, match='exists, and adapters may have been trained with it'):
        find_allocation(cfg, request, lambda: out.write_text('of another'))
    assert out.read_text() == 'of another'


def test_one_measurement_serves_several_budgets(config):
    cfg, request = resolve(AllocationRequest(str(config), (500,)))
    measurement = measure_experiment(cfg, request)
    params = [allocate(measurement, budget, cfg, request).params for budget in (100, 500, 2000)]
    assert params == sorted(params) and params[0] <= 100 < params[1] <= 500 < params[2] <= 2000


@pytest.mark.parametrize('control', ['random', 'shuffled'])
def test_a_control_is_measured_and_then_forgotten(config, control):
    real, _ = run(config)
    allocation, _ = run(config, control=control, out='control.safetensors')
    assert allocation.control == control and allocation.digest != real.digest
    if control == 'shuffled':
        by_shape: dict = {}
        for a, b in zip(real.rows, allocation.rows, strict=True):
            pair = by_shape.setdefault(tuple(a.shape), ([], []))
            pair[0].append(round(a.sensitivity, 9))
            pair[1].append(round(b.sensitivity, 9))
        assert all(sorted(a) == pytest.approx(sorted(b)) for a, b in by_shape.values())


def test_a_plain_experiment_can_be_asked_about_as_well(config, task, base, tmp_path):
    """One without petl.spt; its file goes to its work dir."""
    other = write_config(task, tmp_path / 'fc.py', 'fc', base=base)
    allocation, _ = run(other)
    assert read_allocation('work_dirs/fc/spt.safetensors').digest == allocation.digest
    assert (allocation.structured, allocation.rank) == ('LoRA', 8)


def test_a_random_backbone_is_said(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    allocation, _ = run(write_config(task, tmp_path / 'fc.py', 'fc'))
    assert allocation.base is None
