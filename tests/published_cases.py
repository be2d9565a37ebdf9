"""Every method as its authors ran it; ``python tests/published_cases.py`` prints the errors as a table."""

from __future__ import annotations

from fnmatch import fnmatch

import published_adapters
import published_updates
from published import FILES, Case, Published, errors

CASES = published_updates.CASES + published_adapters.CASES
# of methods that are not here
OTHERS = ('adalora_*', 'bi_*', 'lorand_*')


def found() -> list[tuple[str, Case]]:
    """Every case with each of its files."""
    return [(name, case) for case in CASES for name in FILES if fnmatch(name, case.files)]


def main() -> None:
    """Print the errors of every case."""
    print('| method | case | host | output | worst gradient | input gradient | merged output | merged weights |')
    print('| --- | --- | --- | --- | --- | --- | --- | --- |')
    for name, case in sorted(found(), key=lambda pair: pair[0]):
        e = errors(name, case)
        told = [e.output, e.gradient, e.input, e.merged_output, e.merged_weight]
        columns = ['' if value is None else f'{value:.0e}' for value in told]
        print(f'| {" | ".join([Published(FILES[name]).told["method"], name, case.host, *columns])} |')


if __name__ == '__main__':
    main()
