"""Top-1, top-5 and mean class accuracy, with the predictions on request."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric

from ..errors import UserError
from ..files import written_whole

COLUMNS = ('file', 'label', 'prediction', 'readable', 'scores')  # of the CSV file


class PETLAccuracy(BaseMetric):
    """Accuracies in percent over videos or images; what could not be decoded counts as wrong in each.

    Args:
        topk: the k of each top-k accuracy. Defaults to (1, 5).
        dump: a CSV file to write the predictions to (file, label, prediction, scores). Defaults to None.
        kwargs: of mmengine's BaseMetric.
    """

    default_prefix = 'acc'

    def __init__(self, topk: Sequence[int] = (1, 5), dump: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(topk, str) or not isinstance(topk, Sequence) or not all(type(k) is int and k > 0 for k in topk):
            raise UserError(f'topk of PETLAccuracy must be a list of whole numbers of at least 1, got {topk!r}.')
        self.topk, self.dump = tuple(topk), dump

    @property
    def names(self) -> list[str]:
        """The names of its scores, such as ``'acc/top1'``."""
        return [self._named(name) for name in (*(f'top{k}' for k in self.topk), 'mean_class')]

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep each sample's scores, label and origin; raise :class:`UserError` for scores that are not finite."""
        for sample in data_samples:
            file = sample.get('filename') or sample.get('img_path') or ''
            if not sample['pred_score'].isfinite().all():
                of = f' of {file}' if file else ''
                raise UserError(f'The scores{of} are not finite: the weights are broken, or the training went wrong.')
            self.results.append(
                dict(
                    file=file,
                    label=int(sample['gt_label']),
                    scores=sample['pred_score'].float().cpu().numpy(),
                    readable=not sample.get('skipped'),
                )
            )

    def evaluate(self, size: int) -> dict[str, float]:
        """Return the accuracies over all ranks' samples, the same on each rank.

        Args:
            size: samples in the data set. DefaultSampler gives rank r of W the samples r, r + W, ...; what it adds
                so that all ranks have the same number comes last and is cut.
        """
        # through the process group: mmengine's own way needs a folder that all machines share, the current one
        ranks = all_gather_object(self.results)
        in_order = [r for turn in zip_longest(*ranks) for r in turn if r is not None]
        self.results.clear()
        metrics = [self.compute_metrics(in_order[:size]) if is_main_process() else None]
        broadcast_object_list(metrics)
        return {self._named(name): value for name, value in metrics[0].items()}

    def _named(self, name: str) -> str:
        return f'{self.prefix}/{name}' if self.prefix else name

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute ``top1``, ``top5`` and ``mean_class`` over all samples."""
        labels = np.array([r['label'] for r in results])
        readable = np.array([r['readable'] for r in results])
        order = np.stack([np.argsort(-r['scores'], kind='stable') for r in results])
        hits = (order == labels[:, None]) & readable[:, None]
        metrics = {f'top{k}': 100.0 * hits[:, :k].any(1).mean() for k in self.topk}
        per_class = [hits[labels == c, 0].mean() for c in np.unique(labels)]
        metrics['mean_class'] = 100.0 * float(np.mean(per_class))
        if self.dump:
            self._write(results, order)
        return {k: float(v) for k, v in metrics.items()}

    def _write(self, results: list[dict], order: np.ndarray) -> None:
        rows = [COLUMNS]
        for result, ranked in zip(results, order, strict=True):
            scores = ' '.join(f'{s:.6g}' for s in result['scores'])
            prediction = int(ranked[0]) if result['readable'] else ''
            rows.append((result['file'], result['label'], prediction, int(result['readable']), scores))
        try:
            with (
                written_whole(Path(self.dump)) as partial,
                open(partial, 'w', newline='', encoding='utf-8', errors='surrogateescape') as stream,
            ):
                csv.writer(stream).writerows(rows)
        except OSError as error:
            raise UserError(f'The predictions cannot be written to {self.dump} ({error.strerror}).') from error
