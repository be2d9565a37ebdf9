"""Predicts with a bundle."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine import Config
from mmengine.infer import BaseInferencer
from mmpretrain.structures import DataSample
from torch import nn

from ...engine.launch import available_cores
from ...errors import UserError, reason
from ...petl.checks import at_least_one
from ...preparation.workers import Failed
from ..bundle.bundle import Bundle, read_bundle
from ..bundle.model import bundled_model
from ..bundle.views import number_of_views, pipeline_of
from .inputs import find_inputs
from .pool import Pool
from .precision import precision_on
from .prediction import Prediction
from .reader import Reader, Sample, Source, is_path

Batch = list[tuple[Source, Sample | Failed]]
WRONG = (AssertionError, IndexError, RuntimeError, ValueError)  # what models raise at a size that they cannot take


class PETLInferencer(BaseInferencer):
    """Classifies videos or images with a bundle.

    ::

        inferencer = PETLInferencer('fight.safetensors')
        inferencer('clips/')['predictions'][0]['name']

    Inputs are the path of a file or a folder, a pattern such as ``'clips/*.mp4'``, an array or a tensor, or a list of
    these. Arrays are uint8 from 0 to 255 in RGB: a video (T, H, W, 3) or (T, 3, H, W), an image (H, W, 3) or
    (3, H, W). The test pipeline samples, resizes and crops them as it does those of a file.

    Args:
        bundle: its file, or a bundle that was read.
        base: the file of its pre-trained weights. Defaults to where the config had it.
        device: such as ``'cuda:1'``. Defaults to what the machine has.
        dtype: ``'float32'``, ``'bfloat16'``, or ``'auto'`` (default): bfloat16 where the hardware has it.
        views: ``'test'`` (default), those that the bundle's scores were measured with, averaged; ``'fast'``, one clip
            and one central crop.
        show_progress: show a bar. Defaults to True.

    Raises:
        UserError: when the bundle or its base cannot be used.
    """

    postprocess_kwargs = {'topk'}  # noqa: RUF012 - mmengine's way to name the options of a call

    def __init__(
        self,
        bundle: str | Path | Bundle,
        base: str | Path | None = None,
        device: str | None = None,
        dtype: str = 'auto',
        views: str = 'test',
        show_progress: bool = True,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        self.about, self._base = self.bundle.about, base
        self.steps, self.views = pipeline_of(self.about, views), number_of_views(self.about, views)
        super().__init__(Config(), device=device, scope=self.about.default_scope, show_progress=show_progress)
        self.device = next(self.model.parameters()).device
        self._bfloat16, self.precision = precision_on(self.device, dtype)

    def __call__(
        self, inputs: Source | Sequence[Source], return_datasamples: bool = False, batch_size: int = 8, **kwargs: Any
    ) -> dict[str, Any]:
        """Classify all inputs.

        Args:
            inputs: one, or a list.
            return_datasamples: return the library's data samples instead of dicts. Defaults to False.
            batch_size: views that go through the model at once; those of one input stay together. Defaults to 8.
            topk: how many of the likeliest classes to list. Defaults to 5.

        Returns:
            ``dict(predictions=[...], visualization=[])`` with, for each input in turn, ``dict(input, label, name,
            score, probability, topk=[dict(label, name, score, probability), ...])``, or ``dict(input, error)`` if it
            cannot be read. ``input`` is the path, None for an array. ``score`` is what ``tools/test.py`` writes.

        Raises:
            UserError: for an array that is no input, and paths of which none can be an input.
        """
        return super().__call__(inputs, return_datasamples, batch_size, **kwargs)

    def stream(
        self, inputs: Iterable[Source], batch_size: int = 8, keep_frames: bool = False
    ) -> Iterator[Prediction]:
        """Yield the predictions in the order of the inputs, as they come.

        Args:
            inputs: files and arrays, taken as they are needed.
            batch_size: views that go through the model at once.
            keep_frames: keep some frames of each input, for :func:`~.picture.draw`. Defaults to False.
        """
        for batch in self.preprocess(inputs, batch_size, keep_frames):
            yield from self.forward(batch)

    def preprocess(self, inputs: Iterable[Source], batch_size: int = 8, keep_frames: bool = False) -> Iterator[Batch]:
        """Yield the inputs in batches, read ahead in worker processes."""
        at_least_one('batch_size', batch_size)
        reader = Reader(self.steps, self.scope, keep_frames)
        with Pool(reader.read, self.workers) as pool:
            yield from batches(_read(inputs, reader, pool, ahead=2 * batch_size + self.workers), batch_size)

    def one(self, source: Source, name: str, keep_frames: bool = False) -> Prediction:
        """Classify one file or array in this process.

        Args:
            source: the file or array.
            name: what to call it.
            keep_frames: keep some frames. Defaults to False.
        """
        reader = Reader(self.steps, self.scope, keep_frames)
        return replace(self.forward([(source, reader.read(source))])[0], input=name)

    @property
    def span(self) -> int:
        """Number of frames that one clip of a video covers; 1 for images."""
        return self.pipeline.span

    @property
    def workers(self) -> int:
        """Processes that read: one for two cores beside a model on the CPU, or up to 16 beside one on a GPU."""
        cores = available_cores()
        return min(16, max(1, cores // 2 if self.device.type == 'cpu' else cores))

    @torch.no_grad()
    def forward(self, inputs: Batch, **_: Any) -> list[Prediction]:
        """Classify a batch; what the model cannot take becomes an error of that input alone."""
        good = [sample for _, sample in inputs if isinstance(sample, Sample)]
        try:
            scores = iter(self._scores(good))
        except torch.OutOfMemoryError as error:
            less = 'use a smaller batch size, or the fast views'
            raise UserError(f'{self.device} has too little memory for {len(good)} at once: {less}.') from error
        except WRONG as error:
            if len(good) > 1:
                return [prediction for pair in inputs for prediction in self.forward([pair])]
            failed = Failed(f'the model cannot take it ({reason(error)})')
            return [self._prediction(s, r if isinstance(r, Failed) else failed, None) for s, r in inputs]
        return [self._prediction(s, r, next(scores) if isinstance(r, Sample) else None) for s, r in inputs]

    def _scores(self, samples: list[Sample]) -> list[torch.Tensor]:
        if not samples:
            return []
        empty = ActionDataSample if self.about.is_video else DataSample
        data = dict(inputs=[torch.from_numpy(s.inputs) for s in samples], data_samples=[empty() for _ in samples])
        with torch.autocast(self.device.type, torch.bfloat16, self._bfloat16):
            return [result.pred_score.float().cpu() for result in self.model.test_step(data)]

    def _prediction(self, source: Source, read: Sample | Failed, scores: torch.Tensor | None) -> Prediction:
        name = os.fspath(source) if is_path(source) else None
        if scores is None:
            return Prediction(name, read, np.empty(0), np.empty(0))
        if scores.ndim != 1:
            raise UserError(f'{self.bundle.file} does not average its {len(scores)} views: use the fast views.')
        if not scores.isfinite().all():
            raise UserError(f'The scores of {name or "an array"} are not finite: the weights are broken.')
        certain = not self.about.is_video or self.model.cls_head.average_clips == 'prob'
        return Prediction(name, read, scores.numpy(), (scores if certain else scores.softmax(0)).numpy())

    def visualize(self, inputs: list, preds: Any, show: bool = False, **_: Any) -> list[np.ndarray]:
        """Return no pictures; ``tools/predict.py --show-dir`` draws them."""
        return []

    def postprocess(
        self,
        preds: list[Prediction],
        visualization: list[np.ndarray],
        return_datasamples: bool = False,
        topk: int = 5,
        **_: Any,
    ) -> dict[str, Any]:
        """Return what a call returns."""
        at_least_one('topk', topk)
        if return_datasamples:
            return dict(predictions=[self._data_sample(p) for p in preds], visualization=visualization)
        results = [p.as_dict(self.about.classes, topk) for p in preds]
        return dict(predictions=results, visualization=visualization)

    def _data_sample(self, prediction: Prediction) -> ActionDataSample | DataSample | None:
        if prediction.error:
            return None
        empty = ActionDataSample if self.about.is_video else DataSample
        scores = torch.from_numpy(prediction.scores)
        return empty(metainfo=dict(input=prediction.input)).set_pred_score(scores).set_pred_label(scores.argmax())

    # mmengine's own name, which its subclasses override: it would take a folder's files of any kind
    def _inputs_to_list(self, inputs: Source | Sequence[Source]) -> list[Source]:
        given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        found = iter(find_inputs([os.fspath(source) for source in given if is_path(source)], self.about))
        return [*chain.from_iterable(next(found) if is_path(source) else [source] for source in given)]

    # the next two are mmengine's hooks for subclasses: it would build a model and a pipeline from a config
    def _init_model(self, cfg: Config, weights: str | None, device: str = 'cpu') -> nn.Module:
        return bundled_model(self.bundle, self._base).to(device).eval()

    def _init_pipeline(self, cfg: Config) -> Reader:
        return Reader(self.steps, self.scope)


def _read(
    inputs: Iterable[Source], reader: Reader, pool: Pool, ahead: int
) -> Iterator[tuple[Source, Sample | Failed]]:
    """Yield each input with what was read, in order: files by the processes, arrays by their threads."""
    waiting: deque = deque()
    for source in inputs:
        waiting.append((source, pool.submit(source, here=not is_path(source))))
        if len(waiting) > ahead:
            first, result = waiting.popleft()
            yield first, result.result()
    for source, result in waiting:
        yield source, result.result()


def batches(samples: Iterable[tuple[Source, Sample | Failed]], size: int) -> Iterator[Batch]:
    """Yield runs of samples that have the same shape and at most ``size`` views, or a single sample."""
    batch: Batch = []
    views, shape = 0, None
    for source, sample in samples:
        if isinstance(sample, Sample):
            own = len(sample.inputs) if sample.inputs.ndim == 5 else 1
            if views and (sample.inputs.shape != shape or views + own > size):
                yield batch
                batch, views = [], 0
            views, shape = views + own, sample.inputs.shape
        batch.append((source, sample))
        if views >= size:
            yield batch
            batch, views = [], 0
    if batch:
        yield batch
