"""Parse options and report errors, for every command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from .errors import UserError, tellable
from .shipped import find_config, spoken


class Parser(argparse.ArgumentParser):
    """An argument parser with examples, ``--debug`` and KEY=VALUE options."""

    def __init__(self, description: str, examples: str) -> None:
        super().__init__(
            prog=spoken(f'tools/{Path(sys.argv[0]).name}'),
            description=spoken(description),
            epilog=spoken(f'examples:\n{examples}'),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument('--debug', action='store_true', help='show the traceback of an error')
        self.settings: list[str] = []
        self.commands: Any = None

    def add_settings(self, option: str, what: str, command: argparse.ArgumentParser | None = None) -> None:
        """Add an option, maybe of one command, that takes KEY=VALUE pairs; :func:`run` passes them on as a dict."""
        options = dict(nargs='+', action='extend', type=_pair, metavar='KEY=VALUE', help=what)
        self.settings.append((command or self).add_argument(option, **options).dest)

    def add_command(
        self, name: str, call: Callable[[argparse.Namespace], None], about: str
    ) -> argparse.ArgumentParser:
        """Add a command of this tool, such as ``pack`` of tools/adapter.py; ``args.call`` is then its function."""
        if self.commands is None:
            self.commands = self.add_subparsers(
                title='commands', metavar='COMMAND', required=True, parser_class=argparse.ArgumentParser
            )
        command = self.commands.add_parser(name, help=about, description=spoken(f'{about[0].upper()}{about[1:]}.'))
        command.add_argument('--debug', action='store_true', default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.set_defaults(call=call)
        return command

    def add_config(self) -> None:
        """Add the experiment."""
        self.add_argument('config', help='the experiment: a file, or the name of one in configs/')

    def add_run_options(self, config: bool = True) -> None:
        """Add the options of commands that run an experiment, and the experiment itself if ``config``."""
        if config:
            self.add_config()
        self.add_argument('--work-dir', metavar='DIR', help='where its files go (default: work_dirs/<its name>)')
        self.add_settings('--cfg-options', 'override the config, such as model.petl.deltas.patt.d_bottle=64')
        launchers = ['none', 'pytorch', 'slurm']
        self.add_argument('--launcher', choices=launchers, default='none', help='how the processes are started')
        # older versions of torchrun pass it
        self.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)

    def read_settings(self, args: argparse.Namespace) -> None:
        """Turn the pairs of every KEY=VALUE option into a dict with Python values."""
        from mmengine import DictAction

        for name in dict.fromkeys(self.settings):  # several commands may have the same
            pairs = getattr(args, name, None)
            setattr(args, name, None)
            try:
                DictAction([], name)(self, args, pairs)
            except (ValueError, AssertionError) as error:
                self.error(f'options of the config are KEY=VALUE ({error})')
            except RecursionError:  # how mmengine fails at a name with brackets, such as dict(a=1, b=2)
                self.error('options of the config take numbers, words and lists; a dict is given as KEY.NAME=VALUE')


def _pair(text: str) -> str:
    if '=' not in text.lstrip('='):
        raise argparse.ArgumentTypeError(f'options of the config are KEY=VALUE, got {text!r}')
    key, value = text.split('=', 1)
    if value.startswith(('{', 'dict(')):
        raise argparse.ArgumentTypeError(f'a dict is given key by key, such as {key}.type=NAME, got {text!r}')
    return text


def speaker() -> str | None:
    """Return how this process signs its errors: '' as the only or first rank, None if it leaves them to another.

    The first process of each machine reports until they have met: a file may be missing on that machine alone.
    """
    rank, local = os.environ.get('RANK', '0'), os.environ.get('LOCAL_RANK', '0')
    if rank == '0':
        return ''
    distributed = sys.modules.get('torch.distributed')
    return f' (rank {rank})' if local == '0' or (distributed and distributed.is_initialized()) else None


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """Exit at once during the imports, as libraries turn a KeyboardInterrupt into errors of their own."""
    if not hasattr(sys.modules.get('vpetl_mm'), 'build_model'):
        print('interrupted', file=sys.stderr, flush=True)
        os._exit(130)
    signal.default_int_handler(number, frame)


def run(main: Callable[[argparse.Namespace], Any], parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: its own, or 2 with a sentence for what the user can mend, or 130.

    Args:
        main: the command; it imports the package itself, as that takes seconds. It may return a status; None is 0.
        parser: parses its options.
        argv: the arguments. Defaults to the process's.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    args = parser.parse_args(argv)
    # configs with relative paths and mmengine both expect it; torchrun sets it
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    launcher = getattr(args, 'launcher', 'none')
    try:
        for config in getattr(args, 'configs', [getattr(args, 'config', None)]):
            if config is not None:
                find_config(config)
        if any(getattr(args, name, None) for name in parser.settings):
            parser.read_settings(args)
        if launcher != 'none':
            from vpetl_mm.engine.launch import read_launcher

            read_launcher(launcher)
        return main(args) or 0
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        signature = '' if launcher == 'none' else speaker()
        if signature is not None:
            text = str(error)
            if text.startswith('Caught '):  # in a data loader's worker
                text = text.rpartition('UserError: ')[2].strip()
            text = '\n'.join(map(tellable, spoken(text).split('\n')))
            print(f'error{signature}: {text}', file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        resumes = '; --resume continues from the last finished epoch' if hasattr(args, 'resume') else ''
        print(f'interrupted{resumes}', file=sys.stderr)
        return 130
    return 0
