"""Classify files or a camera with a bundle, and say so while it happens."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UserError, tellable
from ..use.bundle import About, read_about, read_bundle
from ..use.camera import Camera
from ..use.inferencer import PETLInferencer
from ..use.inputs import MEANT, find_inputs, listed
from ..use.line import line_of, terminal_width, widths
from ..use.picture import draw
from ..use.prediction import Prediction
from ..use.writers import check_new, written


@dataclass(frozen=True)
class PredictArgs:
    """Arguments of ``tools/predict.py``.

    Args:
        bundle: its file.
        inputs: files, folders and patterns; ``'-'`` for a list on standard input; or one camera's number.
        base: the pre-trained weights. Defaults to where the config had them.
        topk: how many classes to tell. Defaults to 5.
        batch_size: views that go through the model at once. Defaults to 8.
        views: ``'test'`` or ``'fast'``. Defaults to None: ``'fast'`` for a camera, ``'test'`` otherwise.
        dtype: ``'auto'``, ``'float32'`` or ``'bfloat16'``. Defaults to 'auto'.
        json: a new file for JSON lines, or ``'-'``. Defaults to None.
        csv: a new file for a table, or ``'-'``. Defaults to None.
        show_dir: a folder for pictures. Defaults to None.
    """

    bundle: Path
    inputs: Sequence[str]
    base: Path | None = None
    topk: int = 5
    batch_size: int = 8
    views: str | None = None
    dtype: str = 'auto'
    json: str | None = None
    csv: str | None = None
    show_dir: Path | None = None


def predict(args: PredictArgs) -> int:
    """Classify, write and print each prediction as it comes; return the number of inputs that could not be read.

    Raises:
        UserError: when the bundle, the inputs or the outputs cannot be used.
    """
    about = read_about(args.bundle)
    _check_outputs(args)
    camera = camera_number(args.inputs)
    files = [] if camera is not None else _files(args.inputs, about)
    views = args.views or ('test' if camera is None else 'fast')
    inferencer = PETLInferencer(read_bundle(args.bundle), args.base, dtype=args.dtype, views=views)
    _introduce(inferencer)
    with ExitStack() as stack:
        if camera is None:
            predictions = inferencer.stream(files, args.batch_size, keep_frames=args.show_dir is not None)
            predictions = stack.enter_context(closing(predictions))
        else:
            source = stack.enter_context(Camera(camera, inferencer.span))
            predictions = watch(inferencer, source, camera, args.show_dir is not None)
        write = stack.enter_context(written(args.json, args.csv, args.topk))
        return _report(predictions, files, inferencer, write, args)
