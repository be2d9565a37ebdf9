"""The table of the real transfer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from small_vtab import FURTHER

from vpetl_mm.commands.grid import batch_options
from vpetl_mm.config import load_config
from vpetl_mm.paper.metafile import Entry, Ours
from vpetl_mm.paper.tables import Tables
from vpetl_mm.paper.transfer import EXPERIMENTS, transfer_table

REPO = Path(__file__).parents[2]
CONFIGS = REPO / 'configs'
load = cache(load_config)
COUNTS = {name: 1000 // (n + 1) for n, name in enumerate(EXPERIMENTS)}


def test_every_experiment_has_a_config_and_no_method_is_missing():
    assert all((CONFIGS / f'{name}.py').is_file() for name in EXPERIMENTS)
    methods = [name.split('_')[1] for name in EXPERIMENTS]
    spt = [f'{m}{c}' for m in ('sptlora', 'sptadapter') for c in ('', 'shuffled', 'random')]
    assert methods == ['full', 'fc', 'lora', 'adaptformer', 'bapat', 'bapatzero', *spt, *FURTHER, 'bapat']
    assert EXPERIMENTS[-1].endswith('_random') and all(n.endswith('_dinov2') for n in EXPERIMENTS[:-1])


def test_the_same_budget_of_steps_for_each():
    budgets, further = set(), set()
    for name in EXPERIMENTS:
        cfg = load(CONFIGS / f'{name}.py')
        loader = cfg.train_dataloader
        assert cfg.optim_wrapper.type == 'AutocastOptimWrapper' and batch_options(cfg, 1) == []
        budgets.add((cfg.train_cfg.max_epochs, loader.batch_size, str(loader.dataset), str(cfg.param_scheduler)))
        if name.split('_')[1] in FURTHER:
            further.add(str(cfg.optim_wrapper))
    assert len(budgets) == 1 and len(further) == 1, 'nothing is tuned for one of them'


def test_rows_show_what_was_run_and_what_was_not():
    ours = {
        EXPERIMENTS[1]: Ours(31.25, 60.5, 31.0, 500, 3, 0.75),
        EXPERIMENTS[2]: Ours(54.2, 85.9, 54.0, 333, 1, 0.0),
    }
    rows = transfer_table(ours, COUNTS, CONFIGS).rows
    assert [r[0] for r in rows][:3] == ['full', 'fc', 'lora']
    assert rows[0][5:8] == ['not run', '-', '-']
    assert rows[1][2:4] == ['500', '50.0%'] and rows[1][5:8] == ['31.25 ± 0.75', '60.50', '3']
    assert rows[2][5:8] == ['54.20', '85.90', '1']
    for row, name in zip(rows, EXPERIMENTS, strict=True):
        assert float(row[4]) == load(CONFIGS / f'{name}.py').optim_wrapper.optimizer.lr


def test_a_result_of_another_parameter_count_is_left_out():
    entry = Entry(EXPERIMENTS[1], ours=Ours(31.25, 60.5, 31.0, 499, 3, 0.75))
    tables = Tables([entry], None, CONFIGS, counts=COUNTS)
    assert tables.names('transfer') == list(EXPERIMENTS)
    assert tables.table('transfer').rows[1][5] == 'not run'
