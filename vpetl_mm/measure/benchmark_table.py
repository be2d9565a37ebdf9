"""Format the result of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator

from .benchmark import SIDE, BenchmarkResult, Job

MEMORY = dict(
    saved='saved activations',
    held='kept from step to step',
    peak='peak memory of a step',
    infer_peak='peak memory of inference',
)


def benchmark_table(result: BenchmarkResult) -> str:
    """Format the result as a Markdown table with the ratios to stock, and a line about the machine."""
    lines = ['| | experiment | stock, full tuning | ratio |', '| --- | ---: | ---: | ---: |']
    for title, ours, stock, unit in _rows(result):
        digits = 4 if unit == 's' and stock < 1 else 2
        ratio = f'{ours / stock:.2f}' if stock else ''
        lines.append(f'| {title} | {ours:,.{digits}f} {unit} | {stock:,.{digits}f} {unit} | {ratio} |')
    peaks = sorted(result.matmul.items())
    speeds = ', '.join(f'{"bf16" if bf16 else "float32"} {speed / 1e9:,.0f} GFLOP/s' for bf16, speed in peaks)
    lines += ['', f'A product of {SIDE} x {SIDE} matrices, in the same rounds: {speeds}.']
    first = {job.what: seconds for job, seconds in result.first.items() if job.model == 'variant' and not job.bf16}
    if first:
        lines.append(f"The variant's first runs: {', '.join(f'{k} {v:,.1f} s' for k, v in first.items())}.")
    return '\n'.join(lines)


def _rows(result: BenchmarkResult) -> Iterator[tuple[str, float, float, str]]:
    """Yield each row's title, the experiment's value, stock's value, and the unit."""
    for job, seconds in result.seconds.items():
        if job.model == 'stock':
            continue
        yield job.row, seconds, result.seconds[Job(job.what, 'stock', job.bf16)], 's'
        if job.bf16:
            yield f'{job.row} against stock float32', seconds, result.seconds[Job(job.what, 'stock')], 's'
    for what in ('training step', 'inference'):
        jobs = [Job(what, name) for name in ('experiment', 'stock')]
        yield f'{what}, work', *(result.flops[job] / 1e9 for job in jobs), 'GFLOP'
        shares = (100 * result.flops[job] / result.seconds[job] / result.matmul[False] for job in jobs)
        yield f'{what}, share of the matmul peak', *shares, '%'
    for key, title in MEMORY.items():
        figures = {name: getattr(footprint, key) / 2**20 for name, footprint in result.memory.items()}
        for name in (n for n in figures if n != 'stock'):
            yield title + f', {name}' * (name == 'variant'), figures[name], figures['stock'], 'MiB'
