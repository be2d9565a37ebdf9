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
from .watch import DONE, FAILED, RUNNING, STATES, Sight

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
{% for s in sights %}<tr><td>{{ s.name }}</td><td class="{{ s.state }}">{{ s.state }}</td><td>{{ s.detail }}</td></tr>
{% endfor %}</table>
</body>
</html>
"""


def counted(sights: Sequence[Sight]) -> str:
    """Return how many runs are in which state, in a line."""
    counts = Counter(s.state for s in sights)
    return f'{len(sights)} runs: ' + ', '.join(f'{counts[state]} {state}' for state in STATES if counts[state])


def in_order(sights: Sequence[Sight]) -> list[Sight]:
    """Return what runs first, then what failed, what waits, and what is done."""
    return sorted(sights, key=lambda s: STATES.index(s.state))


def terminal_table(sights: Sequence[Sight], rows: int) -> Table:
    """Return a table of at most ``rows`` runs, the most interesting first."""
    table = Table('run', 'state', '', title=counted(sights), title_justify='left', box=None)
    for sight in in_order(sights)[:rows]:
        state = Text(sight.state, COLOURS.get(sight.state, ''))
        table.add_row(Text(tellable(sight.name)), state, Text(tellable(sight.detail)))
    return table


def write_page(sights: Sequence[Sight], file: Path) -> None:
    """Write the page, whole or not at all; names and reasons are escaped."""
    page = Environment(autoescape=True).from_string(PAGE)
    now = f'{datetime.now():%Y-%m-%d %H:%M:%S}'
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file, shared=True) as partial:
        partial.write_text(page.render(sights=in_order(sights), counts=counted(sights), now=now), encoding='utf-8')
