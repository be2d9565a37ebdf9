"""The curves of several runs in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError
from ...files import check_new, written_whole
from .compare import WIDEST, ComparedRun

PANELS = {'loss': 'training loss', 'top1': 'top-1 on what was held out (%)'}
FORMATS = ('.png', '.pdf', '.svg')


def check_figure(file: Path) -> None:
    """Raise :class:`UserError` if a figure cannot be written to ``file``, or something is there already."""
    if file.suffix not in FORMATS:
        raise UserError(f'The name of the figure ends in {", ".join(FORMATS)}, and {file} does not.')
    check_new(file)


def draw_curves(runs: Sequence[ComparedRun], file: Path) -> bool:
    """Draw the training loss of each run, and top-1 on what was held out, by epoch, in the format of the suffix.

    Returns:
        Whether any run has a curve; without one nothing is written.
    """
    panels = [name for name in PANELS if any(getattr(run.tested.curves, name) for run in runs)]
    if not panels:
        return False
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    with plt.rc_context({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False}):
        figure, grid = plt.subplots(
            1, len(panels), figsize=(5 * len(panels), 3.4), squeeze=False, layout='constrained'
        )
        for axes, name in zip(grid[0], panels, strict=True):
            for k, run in enumerate(runs):
                epochs, values = run.tested.curves.thinned(name)
                if epochs:
                    axes.plot(epochs, values, f'C{k % 10}', linewidth=1.2, label=run.name[-WIDEST:])
            axes.set(xlabel='epoch', ylabel=PANELS[name])
            axes.grid(axis='y', linewidth=0.4, alpha=0.6)
            for text in axes.legend(frameon=False, fontsize=8).get_texts():
                text.set_parse_math(False)  # a name may hold any characters
        with written_whole(file) as partial:
            figure.savefig(partial, format=file.suffix[1:], dpi=160)
        plt.close(figure)
    return True
