"""Classifies files or a camera with a bundle, and reports as it goes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UserError, tellable
from ..files import check_new, os_errors_explained
from ..petl.checks import at_least_one
from ..use.bundle.bundle import About, read_about, read_bundle
from ..use.predict.camera import Camera
from ..use.predict.inferencer import PETLInferencer
from ..use.predict.inputs import find_inputs, listed_paths
from ..use.predict.line import line_of, terminal_width, widths
from ..use.predict.memory import keep_all_memory
from ..use.predict.picture import draw
from ..use.predict.prediction import Prediction
from ..use.predict.writers import check_output, prediction_writer


@dataclass(frozen=True)
class PredictArgs:
    """Arguments of ``tools/predict.py``.

    Args:
        bundle: its file.
        inputs: files, folders and patterns; ``'-'`` for a list on standard input; or one camera's number.
        base: the pre-trained weights. Defaults to the file of that name in ``data/weights/`` or ``data/demo/``.
        topk: how many classes to list. Defaults to 5.
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
    at_least_one('--topk', args.topk)
    at_least_one('--batch-size', args.batch_size)
    _check_outputs(args)
    camera = camera_number(args.inputs)
    files = [] if camera is not None else _files(args.inputs, about)
    views = args.views or ('test' if camera is None else 'fast')
    inferencer = PETLInferencer(read_bundle(args.bundle), args.base, dtype=args.dtype, views=views)
    _introduce(inferencer)
    if inferencer.device.type == 'cpu':
        keep_all_memory()
    with ExitStack() as stack:
        stack.enter_context(os_errors_explained())
        if camera is None:
            predictions = inferencer.stream(files, args.batch_size, keep_frames=args.show_dir is not None)
            predictions = stack.enter_context(closing(predictions))
        else:
            source = stack.enter_context(Camera(camera, inferencer.span))
            predictions = watch(inferencer, source, camera, args.show_dir is not None)
        write = stack.enter_context(prediction_writer(args.json, args.csv, args.topk))
        return _report(predictions, files, inferencer, write, args)


def _check_outputs(args: PredictArgs) -> None:
    if args.json == args.csv == '-':
        raise UserError('Only one of --json and --csv can go to standard output.')
    for file in (args.json, args.csv):
        if file:
            check_output(file)
    if args.json and args.json != '-' and args.json == args.csv:
        raise UserError(f'--json and --csv are both {args.json}: give two names.')
    if args.show_dir and not (args.show_dir.is_dir() and not any(args.show_dir.iterdir())):
        check_new(args.show_dir)


def camera_number(inputs: Sequence[str]) -> int | None:
    """Return the number of the camera if the input is one; a file of that name comes first.

    Raises:
        UserError: for a camera beside other inputs.
    """
    numbers = [text for text in inputs if text.isascii() and text.isdecimal() and not os.path.lexists(text)]
    if numbers and len(inputs) > 1:
        raise UserError(f'{numbers[0]} is the number of a camera, which has to be the only input.')
    return int(numbers[0]) if numbers else None


def _files(inputs: Sequence[str], about: About) -> list[str]:
    if inputs.count('-') > 1:
        raise UserError('Standard input, -, is given twice.')
    given = []
    for text in inputs:
        given += listed_paths(sys.stdin.buffer.read()) if text == '-' else [text]
    if not given:
        raise UserError('The list on standard input is empty.')
    return [path for paths in find_inputs(given, about) for path in paths]


def _introduce(inferencer: PETLInferencer) -> None:
    about, views = inferencer.about, inferencer.views
    many = 'one view' if views == 1 else f'{views} views'
    print(
        f'{tellable(about.name)}: {about.num_classes} classes; {many} of each {about.media}; '
        f'{inferencer.precision}; on {inferencer.device}',
        file=sys.stderr,
        flush=True,
    )


def watch(inferencer: PETLInferencer, camera: Camera, number: int, keep_frames: bool = False) -> Iterator[Prediction]:
    """Yield predictions of a camera's latest frames, as fast as the model makes them."""
    began = time.monotonic()
    for window in camera:
        name = f'camera {number}, {time.monotonic() - began:.1f} s'
        yield inferencer.one(window if inferencer.about.is_video else window[-1], name, keep_frames)


def _report(
    predictions: Iterable[Prediction],
    files: Sequence[str],
    inferencer: PETLInferencer,
    write: Callable[[dict], None],
    args: PredictArgs,
) -> int:
    """Write and print the predictions, and at the end how many there were."""
    classes, began, read, bad = inferencer.about.classes, time.monotonic(), 0, 0
    names = classes or [str(inferencer.about.num_classes - 1)]
    columns = widths(files or ['camera 0, 1000.0 s'], names)
    silent = '-' in (args.json, args.csv)
    try:
        with _bar(len(files), inferencer.about) as (advance, say):
            for prediction in predictions:
                result = prediction.as_dict(classes, args.topk)
                read, bad = (read, bad + 1) if prediction.error else (read + 1, bad)
                write(result)
                if prediction.error:
                    say(f'error: {tellable(prediction.input)}: {prediction.error}', sys.stderr)
                else:
                    if not silent:
                        say(line_of(result, *columns, terminal_width(sys.stdout)), sys.stdout)
                    if args.show_dir:
                        _draw(result, prediction, args.show_dir, read + bad, len(files))
                advance()
    finally:
        _conclude(read, bad, time.monotonic() - began, inferencer.about)
    return bad


def _draw(result: dict, prediction: Prediction, folder: Path, number: int, total: int) -> None:
    folder.mkdir(exist_ok=True)
    stem = tellable(Path(prediction.input).stem)
    stem = stem.encode()[:150].decode(errors='ignore')  # names have at most 255 bytes
    draw(result, prediction.read, folder / f'{number:0{max(4, len(str(total)))}}_{stem}.png')


def _conclude(read: int, bad: int, seconds: float, about: About) -> None:
    line = f'{read:,} {about.media}{"s" * (read != 1)} in {seconds:.1f} s'
    if read:
        line += f', {read / seconds:.2f} a second'
    if bad:
        line += f'; {bad:,} could not be read'
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _bar(total: int, about: About) -> Iterator[tuple[Callable[[], None], Callable[[str, object], None]]]:
    """Show a progress bar on a terminal; yield a function that advances it, and one that prints a line above it."""
    console = Console(stderr=True)
    both = console.is_terminal and sys.stdout.isatty()
    rate = TextColumn('{task.fields[rate]}')
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    options = dict(console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    began, done = time.monotonic(), 0

    def advance() -> None:
        nonlocal done
        done += 1
        bar.update(task, advance=1, rate=f'{done / (time.monotonic() - began):.2f} {what}/s')

    def say(line: str, stream: object) -> None:
        if console.is_terminal and (both or stream is sys.stderr):
            bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=stream, flush=True)

    what = 'clips' if about.is_video else 'images'
    with Progress(*columns, **options, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total or None, rate='')
        yield advance, say
