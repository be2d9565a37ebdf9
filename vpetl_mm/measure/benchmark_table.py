"""A benchmark's result as a table."""

from __future__ import annotations

from collections.abc import Iterator

from .benchmark import SIDE, Job, Result


def render(result: Result) -> str:
    """The result as a Markdown table with the ratio to stock, and a line about the machine."""
    lines = ['| | experiment | stock, full tuning | ratio |', '| --- | ---: | ---: | ---: |']
    for title, ours, stock, unit in _rows(result):
        digits = 4 if unit == 's' and stock < 1 else 2
        lines.append(f'| {title} | {ours:,.{digits}f} {unit} | {stock:,.{digits}f} {unit} | {_ratio(ours, stock)} |')
    peaks = sorted(result.matmul.items())
    speeds = ', '.join(f'{"bf16" if bf16 else "float32"} {speed / 1e9:,.0f} GFLOP/s' for bf16, speed in peaks)
    lines += ['', f'A product of {SIDE} x {SIDE} matrices, in the same rounds: {speeds}.']
    first = {job.what: seconds for job, seconds in result.first.items() if job.model == 'variant' and not job.bf16}
    if first:
        lines.append(f"The variant's first runs: {', '.join(f'{k} {v:,.1f} s' for k, v in first.items())}.")
    return '\n'.join(lines)


def _ratio(ours: float, stock: float) -> str:
    return f'{ours / stock:.2f}' if stock else ''


def _rows(result: Result) -> Iterator[tuple[str, float, float, str]]:
    """Title, the experiment's figure, stock's, and the unit."""
    for job, seconds in result.seconds.items():
        if job.model == 'stock':
            continue
        stock = result.seconds[Job(job.what, 'stock')]
        if job.bf16:
            yield job.row, seconds, result.seconds[Job(job.what, 'stock', True)], 's'
            yield f'{job.row} against stock float32', seconds, stock, 's'
        else:
            yield job.row, seconds, stock, 's'
    for what in ('training step', 'inference'):
        ours, stock = (Job(what, name) for name in ('experiment', 'stock'))
        yield f'{what}, work', result.flops[ours] / 1e9, result.flops[stock] / 1e9, 'GFLOP'
        shares = (100 * result.flops[j] / result.seconds[j] / result.matmul[False] for j in (ours, stock))
        yield f'{what}, share of the matmul peak', *shares, '%'
    memory = (('saved activations', result.saved), ('kept from step to step', result.held))
    peaks = (('peak memory of a step', result.peak), ('peak memory of inference', result.infer_peak))
    for title, figures in (*memory, *peaks):
        for name in (n for n in figures if n != 'stock'):
            variant = f', {name}' * (name == 'variant')
            yield title + variant, figures[name] / 2**20, figures['stock'] / 2**20, 'MiB'
