"""What is told of work that takes long."""

from __future__ import annotations

from rich.progress import Progress

from vpetl_mm.preparation import progress
from vpetl_mm.preparation.progress import TimeLeft


def test_without_a_terminal_a_line_tells_now_and_then_how_far_it_is(monkeypatch, capsys):
    clock = iter([0, 30, 61, 100, 122, 130])
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
    with progress.progress('Re-encoding', 1000) as advance:
        for _ in range(4):
            advance(100)
    assert capsys.readouterr().err.splitlines() == [
        'Re-encoding: 20%, about 4 minutes left',
        'Re-encoding: 40%, about 3 minutes left',
        'Re-encoding: 130 s',
    ]


def test_the_time_left_and_in_the_end_the_time_it_took():
    times = [0.0]
    bar = Progress(get_time=lambda: times[-1])
    bar.add_task('clips', total=300)
    (task,) = bar.tasks
    said = []
    for time in (10.0, 20.0, 30.5):
        times.append(time)
        bar.advance(task.id, 100)
        said.append(str(TimeLeft().render(task)))
    # 100 clips between two looks that lie 10 s apart leave 10 s for the last 100
    assert said == ['', '0:00:10 left', 'in 0:00:30']
