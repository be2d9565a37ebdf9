"""The benchmark's rows, ratios, work and memory, against arithmetic and against runs by hand."""

from __future__ import annotations

import re

import pytest
import tiny
import torch
from mmaction.models import SwinTransformer3D
from mmengine import Config
from torch import nn

from tools import call
from vpetl_mm import UserError, build_model
from vpetl_mm.measure import benchmark as module
from vpetl_mm.measure.benchmark import BenchmarkResult, Job, benchmark
from vpetl_mm.measure.benchmark_table import benchmark_table
from vpetl_mm.measure.live_bytes import Footprint, LiveBytes, alive_after_forward, footprint_of, loss_of

PATT = dict(patt=dict(type='PATT', d_bottle=2))
LORA = dict(lora=dict(type='LoRA', rank=2))
STEP, INFER = 'training step', 'inference'
MIB = 2**20


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setattr(module, 'SIDE', 32)


def measured(deltas: dict = PATT, bf16: bool = False) -> BenchmarkResult:
    return benchmark(Config(tiny.config(deltas)), batch=2, frames=4, size=32, rounds=1, bf16=bf16)


def rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line[:2] == '| ']
    return {cells[0]: cells[1:] for cells in lines}


FIGURES = BenchmarkResult(
    seconds={
        Job(STEP, 'experiment'): 0.6, Job(STEP, 'stock'): 0.8,
        Job(INFER, 'experiment'): 0.3, Job(INFER, 'stock'): 0.2, Job(INFER, 'merged'): 0.1,
        Job(STEP, 'experiment', True): 0.2, Job(STEP, 'stock', True): 0.4,
        Job(INFER, 'experiment', True): 0.1, Job(INFER, 'stock', True): 0.1, Job(INFER, 'merged', True): 0.05,
    },
    flops={
        Job(STEP, 'experiment'): 6e9, Job(STEP, 'stock'): 12e9,
        Job(INFER, 'experiment'): 5e9, Job(INFER, 'stock'): 4e9,
    },
    memory=dict(stock=Footprint(4 * MIB, 0, 40 * MIB, 6 * MIB),
                experiment=Footprint(MIB, 2 * MIB, 30 * MIB, 9 * MIB)),
    matmul={False: 100e9, True: 800e9},
)  # fmt: skip


def test_ratios_are_those_of_the_figures():
    assert rows(benchmark_table(FIGURES)) == {
        '': ['experiment', 'stock, full tuning', 'ratio'],
        '---': ['---:', '---:', '---:'],
        'training step': ['0.6000 s', '0.8000 s', '0.75'],
        'inference': ['0.3000 s', '0.2000 s', '1.50'],
        'inference, merged': ['0.1000 s', '0.2000 s', '0.50'],
        'training step, bf16': ['0.2000 s', '0.4000 s', '0.50'],
        'training step, bf16 against stock float32': ['0.2000 s', '0.8000 s', '0.25'],
        'inference, bf16': ['0.1000 s', '0.1000 s', '1.00'],
        'inference, bf16 against stock float32': ['0.1000 s', '0.2000 s', '0.50'],
        'inference, merged, bf16': ['0.0500 s', '0.1000 s', '0.50'],
        'inference, merged, bf16 against stock float32': ['0.0500 s', '0.2000 s', '0.25'],
        'training step, work': ['6.00 GFLOP', '12.00 GFLOP', '0.50'],
        'training step, share of the matmul peak': ['10.00 %', '15.00 %', '0.67'],
        'inference, work': ['5.00 GFLOP', '4.00 GFLOP', '1.25'],
        'inference, share of the matmul peak': ['16.67 %', '20.00 %', '0.83'],
        'saved activations': ['1.00 MiB', '4.00 MiB', '0.25'],
        'kept from step to step': ['2.00 MiB', '0.00 MiB', ''],
        'peak memory of a step': ['30.00 MiB', '40.00 MiB', '0.75'],
        'peak memory of inference': ['9.00 MiB', '6.00 MiB', '1.50'],
    }
    assert benchmark_table(FIGURES).endswith('in the same rounds: float32 100 GFLOP/s, bf16 800 GFLOP/s.')


def test_every_row_is_measured():
    result = measured(bf16=True)
    assert set(result.seconds) == {
        Job(w, m, b) for w in (STEP, INFER) for m in ('experiment', 'stock') for b in (False, True)
    }
    assert set(result.flops) == {Job(w, m) for w in (STEP, INFER) for m in ('experiment', 'stock')}
    assert all(v > 0 for v in (*result.seconds.values(), *result.flops.values(), *result.matmul.values()))
    assert set(result.matmul) == {False, True}
    assert set(measured().seconds) == {job for job in result.seconds if not job.bf16}


def test_what_merges_is_timed_merged():
    result = measured(LORA)
    assert Job(INFER, 'merged') in result.seconds and Job(STEP, 'merged') not in result.seconds
    assert not any(job.model == 'merged' for job in measured({}).seconds)


# Times


def test_the_median_of_all_rounds_but_the_first(monkeypatch):
    clock = iter([9.0, 5.0, 1.0, 3.0])
    job, result = Job(STEP, 'experiment'), BenchmarkResult()
    monkeypatch.setattr(module, '_timed', lambda work: next(clock) if work is todo else 1.0)
    monkeypatch.setattr(module, '_work', lambda *_: todo)
    monkeypatch.setattr(module, '_flops', lambda work: 0.0)

    def todo() -> None:
        raise AssertionError('only its time is asked for')

    module.time_jobs([job], {}, torch.zeros(1), 3, result)
    assert result.seconds == {job: 3.0}


def test_experiment_and_stock_drop_the_same_paths(monkeypatch):
    """A job's random numbers depend on the round alone, and rounds are shuffled."""
    drawn: dict[str, list[float]] = {}
    order = []

    def work(job, models, inputs):
        def draw():
            drawn.setdefault(job.model, []).append(float(torch.rand(())))
            order.append(job.model)

        return draw

    monkeypatch.setattr(module, '_work', work)
    jobs = [Job(STEP, m) for m in ('experiment', 'stock', 'merged')]
    module.time_jobs(jobs, {}, torch.zeros(1), 12, BenchmarkResult())
    one, *others = drawn.values()
    assert len(set(one[:13])) == 13
    assert all(other[:13] == one[:13] for other in others)
    rounds = [tuple(order[i : i + 3]) for i in range(0, 39, 3)]
    assert all(set(r) == {'experiment', 'stock', 'merged'} for r in rounds) and len(set(rounds)) > 1


# Work


def test_the_work_of_linear_layers_is_arithmetic():
    stack = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4, bias=False))
    x = torch.randn(2, 3, 8)
    once = 2 * 6 * (8 * 16 + 16 * 4)
    assert module._flops(lambda: stack(x)) == once
    # backward: both products of the second layer, and of the first the weight's alone
    assert module._flops(lambda: stack(x).sum().backward()) == once + 2 * 6 * (2 * 16 * 4 + 8 * 16)


def test_the_work_of_a_product_added_in_place():
    from vpetl_mm.fast.addition import _AddProduct

    y, h, w = torch.zeros(5, 12), torch.randn(5, 3), torch.randn(4, 3)
    assert module._flops(lambda: _AddProduct.apply(y, h, w, None, 0.5, 2)) == 2 * 5 * 3 * 4
    bias = torch.zeros(4)  # one more column
    assert module._flops(lambda: _AddProduct.apply(y, h, w, bias, 0.5, 2)) == 2 * 5 * 4 * 4


def swin_by_hand(volume: int, window: int, d: int, heads_in: int, classes: int, bottle: int) -> int:
    """FLOPs of a one-stage Video Swin of two blocks: patches, then per token qkv, attention, proj and a 4 d MLP."""
    patches = 2 * volume * d * 3 * 2 * 4 * 4
    block = 2 * volume * (3 * d * d + 2 * window * d + d * d + 8 * d * d)
    patt = 2 * volume * (d * bottle + (bottle + 1) * 2 * d)
    return patches + 2 * (block + patt * bool(bottle)) + 2 * heads_in * d * classes


def test_the_work_of_inference_is_arithmetic():
    result = measured()
    volume = 2 * 2 * 8 * 8  # clips, frames, height, width in tokens
    for name, bottle in (('experiment', 2), ('stock', 0)):
        expected = swin_by_hand(volume, 32, 16, 2, 3, bottle)
        assert result.flops[Job(INFER, name)] == pytest.approx(expected, rel=0.01)
    assert result.flops[Job(STEP, 'stock')] == pytest.approx(3 * result.flops[Job(INFER, 'stock')], rel=0.15)
    assert result.flops[Job(STEP, 'experiment')] < result.flops[Job(STEP, 'stock')]


# Memory


def test_memory_is_that_of_a_step_without_drop_path():
    x = tiny.clip(2, (4, 32, 32))
    dropping = build_model(tiny.config(PATT, drop_path_rate=0.5))
    ours, stock = footprint_of(dropping, x), footprint_of(build_model(tiny.config({}, ['all'])), x)
    assert [m.drop_prob for m in dropping.modules() if hasattr(m, 'drop_prob')] == [0.5], 'as it was'
    model = build_model(tiny.config(PATT)).train()
    alive_after_forward(model, x)
    model.zero_grad()
    assert ours.saved == pytest.approx(alive_after_forward(model, x), rel=0.05)  # give or take a kept bias
    live = LiveBytes()
    with live:
        loss_of(model, x).backward()
    own = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert ours.peak == pytest.approx(live.peak + own, rel=0.05)
    assert ours.saved < stock.saved < stock.peak and own < ours.infer_peak < ours.peak


def test_stock_is_the_host_librarys_own_and_trains_all():
    models = module._models(Config(tiny.config(LORA, attention=tiny.FAST, base=dict(file='/nowhere/base.pth'))))
    stock = models['stock']
    assert all(p.requires_grad for p in stock.parameters()) and not list(stock.plan.deltas())
    plain = SwinTransformer3D(**{k: v for k, v in tiny.config()['model']['backbone'].items() if k != 'type'})
    assert {type(m) for m in stock.backbone.modules()} == {type(m) for m in plain.modules()}
    assert list(models['merged'].state_dict()) == list(stock.state_dict())


# What is refused, and the command


def test_one_image_before_a_batch_norm_is_refused():
    with pytest.raises(UserError, match='--batch 2'):
        benchmark(Config(tiny.VIT.config(PATT)), batch=1, size=16, rounds=1)
    assert set(benchmark(Config(tiny.VIT.config(PATT)), batch=2, size=16, rounds=1).memory) == {'experiment', 'stock'}


def test_the_command(elsewhere, capsys):
    options = ['--batch', 2, '--size', 32, '--rounds', 1, '--variant', 'model.backbone.drop_path_rate=0']
    assert call('benchmark', 'configs/demo_bapat.py', *options) == 0
    shown = capsys.readouterr()
    table = rows(shown.out)
    titles = [f'{STEP}{part}' for part in ('', ', variant', ', work', ', share of the matmul peak')]
    for title in (*titles, 'saved activations'):
        ours, stock, ratio = table[title]
        a, b = (float(re.match(r'[\d,.]+', cell).group().replace(',', '')) for cell in (ours, stock))
        assert abs(a - float(ratio) * b) <= 0.006 * (1 + float(ratio)) + 0.005 * b
    assert re.search(r'2048 x 2048 matrices.*: float32 [\d,]+ GFLOP/s\.', shown.out)
    assert re.search(r"variant's first runs: .*training step [\d.]+ s", shown.out)
    assert '\x1b' not in shown.err, 'no progress bar in a file'


@pytest.mark.parametrize(('wrong', 'value'), [('batch', 0), ('frames', -1), ('size', 0), ('rounds', -1)])
def test_numbers_below_one_are_refused(wrong, value):
    with pytest.raises(UserError, match=wrong):
        benchmark(Config(tiny.config(PATT)), **dict(dict(batch=2, frames=4, size=32, rounds=1), **{wrong: value}))
