"""What the runs of a campaign are doing, for a terminal and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment
from rich.table import Table
from rich.text import Text

from ..errors import tellable
from ..files import written_whole
from .watch import DONE, FAILED, RUNNING, STATES, RunStatus

COLOURS = {RUNNING: 'yellow', FAILED: 'red', DONE: 'green'}
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="30">
<title>{{ counts }}</title>
<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
td { overflow-wrap: anywhere; }
.running { color: #b8860b; } .failed { color: #c1272d; } .done { color: #2e7d32; } .waiting { color: #888; }
</style>
</head>
<body>
<h1>{{ counts }}</h1>
<p>As of {{ now }}. The page loads itself again every 30 seconds; --watch writes it.</p>
<table>
<tr><th>run</th><th>state</th><th></th></tr>
{% for s in runs %}<tr><td>{{ s.name }}</td><td class="{{ s.state }}">{{ s.state }}</td><td>{{ s.detail }}</td></tr>
{% endfor %}</table>
</body>
</html>
"""


def summary(runs: Sequence[RunStatus]) -> str:
    """Return how many runs are in which state, in a line."""
    counts = Counter(s.state for s in runs)
    return f'{len(runs)} runs: ' + ', '.join(f'{counts[state]} {state}' for state in STATES if counts[state])


def in_order(runs: Sequence[RunStatus]) -> list[RunStatus]:
    """Return what runs first, then what failed, what waits, and what is done."""
    return sorted(runs, key=lambda s: STATES.index(s.state))


def terminal_table(runs: Sequence[RunStatus], rows: int) -> Table:
    """Return a table of at most ``rows`` runs, the most interesting first."""
    table = Table('run', 'state', '', title=summary(runs), title_justify='left', box=None)
    for run in in_order(runs)[:rows]:
        state = Text(run.state, COLOURS.get(run.state, ''))
        table.add_row(Text(tellable(run.name)), state, Text(tellable(run.detail)))
    return table


def write_page(runs: Sequence[RunStatus], file: Path) -> None:
    """Write the page, whole or not at all; names and reasons are escaped."""
    page = Environment(autoescape=True).from_string(PAGE)
    now = f'{datetime.now():%Y-%m-%d %H:%M:%S}'
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file, shared=True) as partial:
        partial.write_text(page.render(runs=in_order(runs), counts=summary(runs), now=now), encoding='utf-8')
