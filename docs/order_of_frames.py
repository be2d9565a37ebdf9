"""Train and test configs/order, from the clips on, and write docs/order_of_frames.csv: [SEEDS [CONFIG ...]].

Runs that have a result are kept, and finished ones of other configs stay in the table.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

from vpetl_mm.datasets.demo_clips import make_demo_clips

CLIPS = dict(target_train=1200, target_test=400)
CONFIGS = [f'{method}_{task}' for task in ('motion', 'clutter') for method in ('st_adapter', 'aim', 'bapat')]
RUNS, TABLE = Path('work_dirs/order'), Path('docs/order_of_frames.csv')


def run(config, seed):
    """Train and test a config with a seed, unless that has been done."""
    work, source = RUNS / config / f'seed_{seed}', f'configs/order/{config}.py'
    if (work / 'result.json').exists():
        return
    options = ['--work-dir', str(work), '--cfg-options', f'randomness.seed={seed}']
    subprocess.run([sys.executable, 'tools/train.py', source, '--overwrite', *options], check=True)
    adapter = max(work.glob('adapter_epoch_*.pth'), key=lambda file: int(file.stem.rpartition('_')[2]))
    subprocess.run([sys.executable, 'tools/test.py', source, str(adapter), *options], check=True)


def write_table():
    """Write what every finished run has."""
    results = [json.loads(file.read_text()) for file in sorted(RUNS.glob('*/seed_*/result.json'))]
    columns = ['config', 'seed', 'top1', 'params', 'samples', 'machine']
    with TABLE.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerows([columns, *([r[c] for c in columns] for r in results)])


def main(seeds=3, *configs):
    """Make the clips, run everything seed by seed, and write the table after each run."""
    for task in ('motion', 'clutter'):
        make_demo_clips(Path('data/order', task), CLIPS, clutter=task == 'clutter')
    for seed in range(int(seeds)):
        for config in configs or CONFIGS:
            run(config, seed)
            write_table()


if __name__ == '__main__':
    main(*sys.argv[1:])
