"""Builds a prepared folder beside its place and installs it at the end, without touching what others made."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import written_whole
from .lists import read_json

STATE = 'dataset.json'
RECIPE, MOVES, MARK = 'recipe.json', 'moves.json', 'mark'


def to_json(content: Any) -> str:
    """Return indented JSON text, the same for the same content."""
    return json.dumps(content, indent=2, ensure_ascii=False) + '\n'


def is_name(name: Any) -> bool:
    """Check that a value from a file is the name of something in a folder and leads nowhere else."""
    return isinstance(name, str) and name not in ('', '.', '..') and not {'/', '\0'} & {*name}


class Place:
    """The folder ``out`` and the hidden folder beside it in which its new content is built.

    Args:
        out: the folder to prepare.
        recipe: what unpacked or re-encoded files depend on; those of an interrupted or earlier call with the same
            recipe are used again.
    """

    def __init__(self, out: Path, recipe: dict[str, Any]) -> None:
        self.out, self.recipe = out, recipe
        self.building = out.with_name(f'.{out.name}.partial')
        self._lock: int | None = None
        self._above: list[Path] = []  # folders made only to build in, the outermost first
        if (self.building / MOVES).is_file():
            self._start()
            self._undo()
            self._use_again()
        self.made: list[str] = []
        self.earlier: Path | None = None
        with suppress(OSError, UserError):
            state = read_json(out / STATE, dict)
            if isinstance(state.get('made'), list):
                self.made = [n for n in state['made'] if is_name(n)]
                self.earlier = out if state.get('recipe') == recipe else None

    def new(self, name: str) -> Path:
        """Return the path at which to build the file or folder ``name``."""
        if self._lock is None:
            self._start()
            self._use_again()
        return self.building / name

    def _start(self) -> None:
        self._above = [p for p in reversed(self.building.parents) if not p.exists()]
        self.building.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.building, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            wrong = f'{self.building} was not left by an earlier call on this machine; move it away.'
            if not self.building.is_symlink() and (self._noted() or {*os.listdir(self.building)} <= {MARK, RECIPE}):
                return
        except BlockingIOError:
            wrong = f'Another prepare_data is working on {self.out}; wait for it.'
        os.close(self._lock)
        self._lock = None
        raise UserError(wrong)

    def _noted(self) -> list[Any]:
        """Return the recipe of the call that was interrupted here, in a list; an empty one if it was not ours.

        Such a folder may have come with somebody's data, and its content is moved, linked and trusted. So the note
        holds the time at which the mark beside it was last changed, which nobody can set.
        """
        with suppress(OSError, ValueError):  # a UserError is one
            time, recipe = read_json(self.building / RECIPE, list)
            if time == (self.building / MARK).lstat().st_ctime_ns:
                return [recipe]
        return []

    def _use_again(self) -> None:
        """Keep what an interrupted call built where this one would build the same."""
        if self._noted() != [self.recipe]:
            # these two last, so that a call killed here leaves a folder that is known as its own
            for entry in sorted(self.building.iterdir(), key=lambda entry: entry.name in (MARK, RECIPE)):
                remove(entry)
            (self.building / MARK).touch()
            note = [(self.building / MARK).stat().st_ctime_ns, self.recipe]
            (self.building / RECIPE).write_text(to_json(note), encoding='utf-8')

    def close(self, keep: bool) -> None:
        """End the work; ``keep`` leaves what was built for the next call."""
        if self._lock is None:
            return
        if not keep:
            shutil.rmtree(self.building, ignore_errors=True)
            with suppress(OSError):  # they hold something by now
                for folder in reversed(self._above):
                    folder.rmdir()
        os.close(self._lock)
        self._lock = None

    def check(self, items: dict[str, Path]) -> None:
        """Refuse to replace what others put below ``out``, or what the new result needs.

        Args:
            items: present path by name below ``out``; what is in its place already stays.
        """
        real = [path.resolve() for path in (self.out / name for name in self.made) if not path.is_symlink()]
        for name, source in items.items():
            path = self.out / name
            if os.path.lexists(path) and name not in self.made and not _same_place(path, source):
                raise UserError(
                    f'{path} exists and was not made by this command; move it away, or choose another --out.'
                )
            if any(made in source.resolve().parents for made in real):
                raise UserError(
                    f'{source} lies in {self.out}, in what this call would replace; choose another --out.'
                )

    def install(self, items: dict[str, Path], stale: tuple[str, ...] = ()) -> None:
        """Put every item in its place: what was built here is moved, everything else is linked.

        Args:
            items: as for :meth:`check`.
            stale: names below ``out`` that are outdated.
        """
        self.check(items)
        self.out.mkdir(parents=True, exist_ok=True)
        kept = {n for n, source in items.items() if _same_place(self.out / n, source)}
        old = [n for n in dict.fromkeys((*self.made, *stale)) if n not in kept and os.path.lexists(self.out / n)]
        aside, links = self.new('replaced'), self.new('links')
        for folder in (aside, links):
            remove(folder)
            folder.mkdir()
        moves = [(n, f'{aside.name}/{n}', False) for n in old]
        for name, source in items.items():
            if name not in kept:
                built = source
                if not source.is_relative_to(self.building):
                    built = links / name
                    built.symlink_to(source.resolve(), target_is_directory=source.is_dir())
                moves.append((name, str(built.relative_to(self.building)), True))
        with written_whole(self.building / MOVES) as file:
            file.write_text(to_json(moves), encoding='utf-8')
        try:
            for move in moves:
                os.replace(*self._ends(*move))
        except BaseException:
            self._undo()
            raise
        (self.building / MOVES).unlink()

    def _ends(self, name: Any, built: Any, outward: Any) -> tuple[Path, Path]:
        """Return the source and target of a move, which must stay within the two folders."""
        if not (is_name(name) and isinstance(built, str) and all(map(is_name, built.split('/')))):
            raise ValueError('a name leads elsewhere')
        ends = self.building / built, self.out / name
        return ends if outward else ends[::-1]

    def _undo(self) -> None:
        """Take back the moves of an unfinished installation, also of a call that was killed."""
        try:
            ends = [self._ends(*move) for move in read_json(self.building / MOVES, list)]
        except (ValueError, TypeError) as error:
            raise UserError(f'{self.building / MOVES} is damaged; move {self.building} away.') from error
        for start, end in reversed(ends):
            if os.path.lexists(end) and not os.path.lexists(start):
                os.rename(end, start)
        (self.building / MOVES).unlink()


def _same_place(path: Path, source: Path) -> bool:
    return os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def opened(out: Path, recipe: dict[str, Any]) -> Iterator[Place]:
    """Yield a :class:`Place`; what was built stays after an interruption, but not after a :class:`UserError`."""
    place = Place(out, recipe)
    keep = False
    try:
        yield place
    except UserError as error:
        # the folder in which it was unpacked is about to go
        raise UserError(str(error).replace(f'{place.building}/', f'{recipe["source"]}: ')) from error
    except BaseException:
        keep = True
        raise
    finally:
        place.close(keep)
