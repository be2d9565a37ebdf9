"""What every command line shares: options, and errors a person can act on."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from mmengine import DictAction

from .engine.launch import read_launcher, speaker
from .errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser with this project's habits."""

    def __init__(self, description: str, examples: str) -> None:
        super().__init__(
            description=description,
            epilog=f'examples:\n{examples}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument('--debug', action='store_true', help='show the traceback of an error')

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """argparse's, and an option that is no KEY=VALUE is a wrong option."""
        try:
            return super().parse_args(*args, **kwargs)
        except ValueError as error:  # mmengine's DictAction splits at "=" without looking
            self.error(f'options of the config are KEY=VALUE ({error})')

    def add_run_options(self) -> None:
        """The options of commands that run an experiment."""
        self.add_argument('config', help='the experiment, a file in configs/')
        self.add_argument('--work-dir', help="where the run's files go (default: work_dirs/<config name>)")
        self.add_argument(
            '--cfg-options',
            nargs='+',
            action=DictAction,
            metavar='KEY=VALUE',
            help='override the config, such as model.petl.deltas.patt.d_bottle=64',
        )
        self.add_argument(
            '--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='how processes were started'
        )
        # torchrun of older versions passes it
        self.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def message_of(error: UserError) -> str:
    """The sentence of an error, also when it comes out of a data loader's worker."""
    text = str(error)
    return text.rpartition('UserError: ')[2].strip() if text.startswith('Caught ') else text


def run(main: Callable[[argparse.Namespace], Any], parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 with a sentence for what the user can mend."""
    args = parser.parse_args(argv)
    # relative paths in a config and mmengine both expect it; torchrun sets it
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    try:
        if getattr(args, 'launcher', 'none') != 'none':
            read_launcher(args.launcher)
        main(args)
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        signature = speaker()
        if signature is not None:
            print(f'error{signature}: {message_of(error)}', file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        resumes = '; --resume continues from the last finished epoch' if hasattr(args, 'resume') else ''
        print(f'interrupted{resumes}', file=sys.stderr)
        return 130
    return 0
