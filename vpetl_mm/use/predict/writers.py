"""Predictions as JSON lines and as CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from ...files import check_new

Result = dict[str, Any]  # of Prediction.as_dict


def check_output(file: str) -> None:
    """Raise :class:`UserError` unless ``file`` is ``'-'``, a device or a pipe, or a new file in a folder."""
    path = Path(file)
    if file != '-' and (not path.exists() or path.is_file() or path.is_dir()):
        check_new(path)


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    """Open a file to write to, line by line; ``'-'`` is standard output."""
    if file == '-':
        yield sys.stdout
        return
    # bytes of file names that are not UTF-8 stay as they are
    options = dict(encoding='utf-8', errors='surrogateescape', newline='', buffering=1)
    with open(file, 'w', **options) as stream:
        yield stream


@contextmanager
def json_lines(file: str) -> Iterator[Callable[[Result], None]]:
    """Open a file of JSON lines; the function that this yields writes one prediction, at once."""
    with _opened(file) as stream:
        yield lambda result: print(json.dumps(result), file=stream, flush=True)


@contextmanager
def table(file: str, topk: int) -> Iterator[Callable[[Result], None]]:
    """Open a CSV file of ``input``, ``error``, and label, name, score and probability of the ``topk`` classes."""
    kept = ('label', 'name', 'score', 'probability')
    numbered = [f'{name}{place}' for place in range(1, topk + 1) for name in kept]
    with _opened(file) as stream:
        rows = csv.writer(stream)

        def write(result: Result) -> None:
            top = [entry[name] for entry in result.get('topk', ()) for name in kept]
            rows.writerow([result['input'], result.get('error', ''), *top, *[''] * (len(numbered) - len(top))])
            stream.flush()

        rows.writerow(['input', 'error', *numbered])
        yield write


@contextmanager
def prediction_writer(json_file: str | None, csv_file: str | None, topk: int) -> Iterator[Callable[[Result], None]]:
    """Open the files that were asked for; the function that this yields writes a prediction to each."""
    with ExitStack() as stack:
        writers = [stack.enter_context(json_lines(json_file))] if json_file else []
        writers += [stack.enter_context(table(csv_file, topk))] if csv_file else []

        def write(result: Result) -> None:
            for writer in writers:
                writer(result)

        yield write
