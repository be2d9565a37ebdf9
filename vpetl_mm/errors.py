"""The exception that a command turns into a sentence and exit status 2; defined where a command starts."""

from vpetl_cli.errors import UserError, did_you_mean, is_line, reason, shortened, tellable, unknown

__all__ = ['UserError', 'did_you_mean', 'is_line', 'reason', 'shortened', 'tellable', 'unknown']
