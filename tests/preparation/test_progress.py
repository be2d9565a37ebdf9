"""What is told of work that takes long."""

from __future__ import annotations

from vpetl_mm.preparation import progress


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
