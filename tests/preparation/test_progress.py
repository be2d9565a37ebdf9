"""What a progress bar says of time."""

from __future__ import annotations

from rich.progress import Progress

from vpetl_mm.preparation.progress import TimeLeft


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
