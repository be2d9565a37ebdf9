"""Failures from outside a run, reported in a sentence: a killed worker, a full disk."""

from __future__ import annotations

import errno
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError, reason

# the disk is full, or cannot be written
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def told_plainly(resumes: bool) -> Iterator[None]:
    """Raise :class:`UserError` instead of what torch and the system raise; ``resumes`` if --resume can continue."""
    again = ', and continue with --resume' if resumes else ''
    try:
        with _threads_told():
            yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f'{error.filename or "A file of the run"} cannot be written ({error.strerror}); free some space{again}.'
        ) from error
    except RuntimeError as error:
        if not re.search(r'DataLoader\s+worker\s+\(pid', str(error)):
            raise
        raise UserError(
            f'A process that loads data has ended ({reason(error)}). It was killed from outside, most often because '
            f'memory ran out: set num_workers of the data loader lower, or free some memory{again}.'
        ) from error


@contextmanager
def _threads_told() -> Iterator[None]:
    """At the end, raise the errors that threads met on a full disk, such as TensorBoard's; print no traceback."""
    before, failed = threading.excepthook, []

    def keep(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, OSError) and args.exc_value.errno in FULL:
            failed.append(args.exc_value)
        else:
            before(args)

    threading.excepthook = keep
    try:
        yield
    finally:
        threading.excepthook = before
    if failed:
        raise failed[0]


def raise_if_full(handler: logging.Handler) -> None:
    """End the run if its log file cannot be written; logging would print a traceback for each line."""
    report = handler.handleError

    def tell(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in FULL:
            error.filename = getattr(handler, 'baseFilename', None)
            raise error
        report(record)

    handler.handleError = tell
