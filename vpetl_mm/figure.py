"""The style of all figures here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .files import written_whole


@contextmanager
def styled(files: Sequence[Path], panels: int = 1, size: tuple[float, float] = (4.6, 3.2)) -> Iterator[list[Any]]:
    """Give ``panels`` axes side by side, in the style of all figures here; on leaving, write the figure.

    ``size`` is that of one panel, its width and its height in inches.

    Each of ``files`` is written in the format of its suffix, whole or not at all.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    with plt.rc_context({'font.size': 9, 'font.family': 'serif', 'axes.linewidth': 0.8, 'pdf.fonttype': 42}):
        figure, grid = plt.subplots(
            1, panels, figsize=(size[0] * panels, size[1]), layout='constrained', squeeze=False
        )
        try:
            yield list(grid[0])
            for axes in grid[0]:
                axes.grid(True, which='major', linewidth=0.4, alpha=0.5)
                axes.spines[['top', 'right']].set_visible(False)
            for file in files:
                with written_whole(file) as partial:
                    figure.savefig(partial, format=file.suffix[1:], dpi=300)
        finally:
            plt.close(figure)
