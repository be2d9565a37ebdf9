"""The folder that is prepared: built beside it, put in its place at the end, what others made left alone."""

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
from .lists import read_json

STATE = 'dataset.json'
RECIPE, MOVES, MARK = 'recipe.json', 'moves.json', 'mark'


def to_json(content: Any) -> str:
    """Indented JSON text, the same for the same content."""
    return json.dumps(content, indent=2, ensure_ascii=False) + '\n'


def read_state(out: Path) -> dict[str, Any]:
    """The ``dataset.json`` of an earlier call, or an empty dict."""
    with suppress(OSError, UserError):
        state = read_json(out / STATE, dict)
        if isinstance(state.get('made'), list):
            return state
    return {}


def is_name(name: Any) -> bool:
    """Whether a value that a file gives is the name of something in a folder, and leads nowhere else."""
    return isinstance(name, str) and name not in ('', '.', '..') and not {'/', '\0'} & {*name}


class Place:
    """The folder ``out`` and the hidden one beside it where its new content is built.

    Args:
        out: the folder to prepare.
        recipe: what unpacked or re-encoded files follow from; those of an interrupted or earlier call are used
            again where it is the same.
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
        state = read_state(out)
        self.made: list[str] = [n for n in state.get('made', []) if is_name(n)]
        self.earlier = out if state.get('recipe') == recipe else None

    def new(self, name: str) -> Path:
        """Where to build the file or folder ``name``."""
        if self._lock is None:
            self._start()
            self._use_again()
        return self.building / name

    def inside(self, path: Path) -> bool:
        """Whether a path was built here."""
        return path.is_relative_to(self.building)

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
            wrong = f'Another prepare_data is at work on {self.out}; wait for it.'
        os.close(self._lock)
        self._lock = None
        raise UserError(wrong)

    def _noted(self) -> list[Any]:
        """The recipe of the call that was interrupted here, in a list; an empty one where it was none of ours.

        A folder like this may have come with somebody's data, and what is in it is moved, linked and believed. So the
        note holds the time when the mark beside it was last changed, which nobody can set.
        """
        with suppress(OSError, ValueError):  # a UserError is one
            time, recipe = read_json(self.building / RECIPE, list)
            if time == (self.building / MARK).lstat().st_ctime_ns:
                return [recipe]
        return []

    def _use_again(self) -> None:
        """Keep what an interrupted call built where this one would build the same."""
        if self._noted() != [self.recipe]:
            # these two last: a call that is killed here leaves a folder that is known as its own
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
        """Refuse to replace what another hand put below ``out``, or what the new result needs.

        Args:
            items: name below ``out`` to where it is now; one that is in its place already is left there.
        """
        real = [path.resolve() for path in (self.out / name for name in self.made) if not path.is_symlink()]
        for name, source in items.items():
            path = self.out / name
            if os.path.lexists(path) and name not in self.made and not _same_place(path, source):
                raise UserError(
                    f'{path} is there and was not made by this command; move it away, or choose another --out.'
                )
            if any(made in source.resolve().parents for made in real):
                raise UserError(
                    f'{source} lies in {self.out}, in what this call would replace; choose another --out.'
                )

    def install(self, items: dict[str, Path], stale: tuple[str, ...] = ()) -> None:
        """Put every item in its place: what was built here is moved, anything else is linked to.

        Args:
            items: as for :meth:`check`.
            stale: names below ``out`` that are no longer true.
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
                if not self.inside(source):
                    (links / name).symlink_to(source.resolve(), target_is_directory=source.is_dir())
                built = source if self.inside(source) else links / name
                moves.append((name, str(built.relative_to(self.building)), True))
        (self.building / f'{MOVES}.new').write_text(to_json(moves), encoding='utf-8')
        os.rename(self.building / f'{MOVES}.new', self.building / MOVES)
        try:
            for move in moves:
                os.replace(*self._ends(*move))
        except BaseException:
            self._undo()
            raise
        (self.building / MOVES).unlink()

    def _ends(self, name: Any, built: Any, outward: Any) -> tuple[Path, Path]:
        """The source and target of a move, which stays within the two folders."""
        if not (is_name(name) and isinstance(built, str) and all(map(is_name, built.split('/')))):
            raise ValueError('a name leads elsewhere')
        ends = self.building / built, self.out / name
        return ends if outward else ends[::-1]

    def _undo(self) -> None:
        """Take back the moves of an exchange that was not finished, also by a call that was killed."""
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
    """Remove a file, a link or a folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def opened(out: Path, recipe: dict[str, Any]) -> Iterator[Place]:
    """A :class:`Place`; after a mistake of the user's nothing of it stays, after an interruption what was built."""
    place = Place(out, recipe)
    keep = False
    try:
        yield place
    except UserError as error:
        # where it was unpacked is gone in a moment
        raise UserError(str(error).replace(f'{place.building}/', f'{recipe["source"]}: ')) from error
    except BaseException:
        keep = True
        raise
    finally:
        place.close(keep)
