"""Logging: the console shows progress and results, the log file holds everything."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from mmengine.logging import MMLogger

from ..compat import HARMLESS_WARNINGS
from .failures import raise_if_full

PACKAGE = str(Path(__file__).parents[1])
# libraries' lines that people want: progress with time left, scores, what was saved, why a run stops
SHOWN = ('logger_hook.py', 'checkpoint_hook.py', 'early_stopping_hook.py')
# libraries' warnings that need no action; they are in the log file
HIDDEN = (*HARMLESS_WARNINGS, '.*(Failed to search registry|"FileClient"|is not a meta file|is the alias of)')


def _for_people(record: logging.LogRecord) -> bool:
    if record.levelno >= logging.WARNING:
        return not any(re.match(p, record.getMessage(), re.DOTALL) for p in HIDDEN)
    ours = record.pathname.startswith(PACKAGE) or Path(record.pathname).name in SHOWN
    return ours and not record.getMessage().startswith('Exp name:')


class _PlainFormatter(logging.Formatter):
    """The message alone, with its level where it matters."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno < logging.WARNING else f'{record.levelname.lower()}: {text}'


def quiet(logger: MMLogger, errors_only: bool = False) -> MMLogger:
    """Show only what people need on the console, or only errors; the log file has everything."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            raise_if_full(handler)
        if type(handler) is logging.StreamHandler:
            handler.addFilter(_for_people)
            handler.setFormatter(_PlainFormatter())
            if errors_only:
                handler.setLevel(logging.ERROR)
    return logger
