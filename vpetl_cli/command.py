"""What every command line shares: options, and errors a person can act on."""

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
    """An argument parser with this project's habits."""

    def __init__(self, description: str, examples: str) -> None:
        super().__init__(
            prog=spoken(f'tools/{Path(sys.argv[0]).name}'),
            description=spoken(description),
            epilog=spoken(f'examples:\n{examples}'),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument('--debug', action='store_true', help='show the traceback of an error')
        self.settings: list[str] = []

    def add_settings(self, option: str, what: str) -> None:
        """An option that takes KEY=VALUE pairs; :func:`run` gives them to the command as a dict."""
        dest = self.add_argument(option, nargs='+', action='extend', type=_pair, metavar='KEY=VALUE', help=what).dest
        self.settings.append(dest)

    def add_run_options(self) -> None:
        """The options of commands that run an experiment."""
        self.add_argument('config', help='the experiment: a file, or the name of one of those in configs/')
        self.add_argument('--work-dir', help="where the run's files go (default: work_dirs/<config name>)")
        self.add_settings('--cfg-options', 'override the config, such as model.petl.deltas.patt.d_bottle=64')
        self.add_argument(
            '--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='how processes were started'
        )
        # torchrun of older versions passes it
        self.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)

    def read_settings(self, args: argparse.Namespace) -> None:
        """Turn the pairs of every such option into a dict, their values into Python's."""
        from mmengine import DictAction

        for name in self.settings:
            pairs = getattr(args, name)
            setattr(args, name, None)
            try:
                DictAction([], name)(self, args, pairs)
            except (ValueError, AssertionError) as error:
                self.error(f'options of the config are KEY=VALUE ({error})')
            except RecursionError:  # mmengine's answer to brackets behind a name, such as dict(a=1, b=2)
                self.error('options of the config take numbers, words and lists; a dict is given as KEY.NAME=VALUE')


def _pair(text: str) -> str:
    if '=' not in text.lstrip('='):
        raise argparse.ArgumentTypeError(f'options of the config are KEY=VALUE, got {text!r}')
    key, value = text.split('=', 1)
    if value.startswith(('{', 'dict(')):
        raise argparse.ArgumentTypeError(f'a dict is given key by key, such as {key}.type=NAME, got {text!r}')
    return text


def message_of(error: UserError) -> str:
    """The sentence of an error, also when it comes out of a data loader's worker."""
    text = str(error)
    return text.rpartition('UserError: ')[2].strip() if text.startswith('Caught ') else text


def speaker() -> str | None:
    """How this process signs its errors: '' for the only or first one, None where it leaves them to another.

    Before the processes have met, the first on each machine speaks, as what is missing may be missing there alone.
    """
    rank, local = os.environ.get('RANK', '0'), os.environ.get('LOCAL_RANK', '0')
    if rank == '0':
        return ''
    distributed = sys.modules.get('torch.distributed')
    return f' (rank {rank})' if local == '0' or (distributed and distributed.is_initialized()) else None


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """Leave at once while libraries are being imported: they turn a KeyboardInterrupt into errors of their own."""
    if not hasattr(sys.modules.get('vpetl_mm'), 'build_model'):
        print('interrupted', file=sys.stderr, flush=True)
        os._exit(130)
    signal.default_int_handler(number, frame)


def run(main: Callable[[argparse.Namespace], Any], parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 with a sentence for what the user can mend.

    Args:
        main: the command, which imports what it needs itself, as that takes seconds.
        parser: of its options.
        argv: the arguments. Defaults to the process's.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    args = parser.parse_args(argv)
    # relative paths in a config and mmengine both expect it; torchrun sets it
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    try:
        for config in getattr(args, 'configs', [args.config] if getattr(args, 'config', None) is not None else []):
            find_config(config)
        if any(getattr(args, name) for name in parser.settings):
            parser.read_settings(args)
        if getattr(args, 'launcher', 'none') != 'none':
            from vpetl_mm.engine.launch import read_launcher

            read_launcher(args.launcher)
        main(args)
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        signature = '' if getattr(args, 'launcher', 'none') == 'none' else speaker()
        if signature is not None:
            text = '\n'.join(map(tellable, spoken(message_of(error)).split('\n')))
            print(f'error{signature}: {text}', file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        resumes = '; --resume continues from the last finished epoch' if hasattr(args, 'resume') else ''
        print(f'interrupted{resumes}', file=sys.stderr)
        return 130
    return 0
