"""Every method on one host: what is measured, against what, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from mmengine import Config

from tools import call, refused
from vpetl_mm.measure import benchmark, method_table
from vpetl_mm.measure.benchmark import BenchmarkResult
from vpetl_mm.measure.method_benchmark import HOST, Measured, _models, benchmark_methods
from vpetl_mm.measure.methods import methods_of, on_host
from vpetl_mm.paper.method_figure import LARGEST, draw_methods

SSF = dict(deltas=dict(ssf=dict(type='SSF')), train=['head'])
LORA = methods_of('lora')['lora']
FULL = methods_of('full')['full']


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setattr(benchmark, 'SIDE', 32)
    monkeypatch.setattr(method_table, 'SIDE', 32)


def test_methods_are_measured_against_full_tuning_of_the_same_host():
    cfg = Config(tiny.config({}, drop_path_rate=0.5))
    found, result = benchmark_methods(cfg, 'vpt,lora,aim', batch=2, frames=4, size=32, rounds=3)
    assert [*found] == ['full', HOST, 'aim', 'lora', 'vpt'] and set(result.matmul) == {False}
    assert 'one row of tokens' in found['aim'].refused and not found['aim'].step
    for name in ('full', HOST, 'lora', 'vpt'):
        assert len(found[name].step) == len(found[name].inference) == 3 and found[name].refused == ''
    assert [n for n, one in found.items() if one.merged] == ['lora'] and len(found['lora'].merged) == 3
    # q and v of two blocks of width 16 with rank 16; a token of width 16 in each block
    assert found['lora'].trains == 2 * 2 * 16 * 2 * 16 and found['vpt'].trains == 2 * 16
    assert 0 < found['lora'].saved < found['full'].saved < found[HOST].saved
    assert cfg.model.backbone.drop_path_rate == 0.5


def test_models_share_the_frozen_weights_and_merging_leaves_them_alone():
    cfg, x = Config(tiny.config({}, drop_path_rate=0.5)), tiny.clip(2, (4, 32, 32))
    plain = _models('full', on_host(cfg, FULL), x, None)['full']
    assert [m.drop_prob for m in plain.modules() if hasattr(m, 'drop_prob')] == [0.0]
    before = {n: p.clone() for n, p in plain.named_parameters()}
    models = {
        k: m
        for name, petl in dict(ssf=SSF, lora=LORA).items()
        for k, m in _models(name, on_host(cfg, petl), x, plain).items()
    }
    assert set(models) == {'ssf', 'ssf, merged', 'lora', 'lora, merged'}
    own = {p.data_ptr() for p in plain.parameters()}
    for name, model in models.items():
        apart = {n for n, p in model.named_parameters() if p.data_ptr() not in own}
        assert apart == {n for n in dict(model.named_parameters()) if '.deltas.' in n}, name
    assert all(p.equal(before[n]) for n, p in plain.named_parameters()), 'what was merged went into a copy'


FIGURES = {
    'full': Measured(8_000_000, 2**22, [2.0, 2.0, 4.0], [1.0, 1.0, 1.0]),
    HOST: Measured(8_000_000, 2**23, [3.0, 2.0, 4.0], [1.0, 2.0, 1.0]),
    'aim': Measured(refused='frames lie in windows.'),
    'ssf': Measured(200_000, 2**21, [1.0, 4.0, 4.0], [0.9, 1.5, 1.2], [1.0, 1.1, 0.9]),
}


def test_ratios_are_of_one_round_and_the_spread_is_told():
    lines = method_table.method_table(FIGURES, BenchmarkResult(matmul={False: 5e9})).splitlines()
    rows = {
        cells[0]: cells[1:] for cells in ([c.strip() for c in ln[1:-1].split('|')] for ln in lines if ln[:1] == '|')
    }
    assert rows['ssf'][:5] == ['200,000', '4.000', '1.00 (0.50 to 2.00)', '2.0', '0.50']
    # inference in the three rounds: 0.9 / 1, 1.5 / 1, 1.2 / 1
    assert rows['ssf'][5:] == ['1.200', '1.20 (0.90 to 1.50)', '1.00 (0.90 to 1.10)']
    assert rows['full'][2] == rows['full'][6] == '1.00 (1.00 to 1.00)' and rows['full'][-1] == ''
    assert rows['aim'][0] == 'refused: frames lie in windows.' and not any(rows['aim'][1:])
    assert len({len(cells) for cells in rows.values()}) == 1 and lines[-1].endswith(': 5 GFLOP/s.')


def test_the_figure_is_time_against_memory_with_parameters_as_area(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen, real = [], Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda self, *a, **k: (seen.append(self), real(self, *a, **k))[1])
    for suffix, start in (('.png', b'\x89PNG'), ('.svg', b'<?xml')):
        draw_methods(FIGURES, tmp_path / f'methods{suffix}')
        assert (tmp_path / f'methods{suffix}').read_bytes().startswith(start)
    axes = seen[0].axes[0]
    discs = {tuple(c.get_offsets()[0]): c.get_sizes()[0] for c in axes.collections[::-1] if len(c.get_offsets())}
    assert discs == pytest.approx({(1, 1): LARGEST, (1, 2): LARGEST, (1, 0.5): LARGEST / 40})
    assert {t.get_text() for t in axes.texts} == {'full', HOST, 'ssf'}
    boxes = [t.get_window_extent() for t in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_command(elsewhere, capsys):
    options = ['--batch', 2, '--size', 32, '--rounds', 1]
    assert call('benchmark', 'configs/demo_fc.py', '--methods', 'lora,aim', *options, '--out', 'out.svg') == 0
    shown = capsys.readouterr()
    assert '| lora | 20,480 |' in shown.out and '| aim | refused: ' in shown.out and '\x1b' not in shown.err
    assert Path('out.svg').read_text().startswith('<?xml')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ([None, '--out', 'figure.png'], ['--methods']),
        (['lorra'], ['lorra', "Did you mean 'lora'", 'st_adapter']),
        (['lora', '--bf16'], ['--bf16']),
        (['lora', '--out', 'figure.jpg'], ['figure.jpg', '.svg']),
        (['lora', '--out', 'nowhere/figure.png'], ['nowhere', 'does not exist']),
        (['lora', '--rounds', 0], ['--rounds']),
    ],
)
def test_what_cannot_be_measured_is_refused_first(elsewhere, capsys, options, said):
    methods = ['--methods', options[0]] if options[0] else []
    error = refused(capsys, 'benchmark', 'configs/demo_fc.py', *methods, *options[1:])
    assert all(words in error for words in said), error
