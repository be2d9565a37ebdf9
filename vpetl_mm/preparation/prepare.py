"""Turns public downloads, or your own files, into a folder that the configs can train on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..datasets.list_file import Sample, write_list
from ..errors import UserError, tellable
from ..files import os_errors_explained
from . import own, vtab1k
from .found import MEDIA, Found, PrepareArgs
from .lists import Lists, check_apart, check_path, without_repeats, write_lines
from .manifest import sizes, write_manifest
from .next_steps import show, show_tasks
from .place import STATE, Place, opened, to_json
from .progress import warn
from .sources import SOURCES, check_args
from .split import GIVEN, PER_CLASS, WHOLE, hold_out, hold_out_per_class

TEST_SHARE = 0.2


@os_errors_explained()
def prepare(args: PrepareArgs) -> None:
    """Write lists, class names, manifest and ``dataset.json`` to ``args.out``, and the media or links to them.

    An earlier result stays until the new one is complete; what others put there is never replaced.

    Raises:
        UserError: for anything the user can mend, such as a wrong folder, a missing list or a damaged archive.
    """
    check_args(args)
    source = Path(os.path.abspath(args.src))
    if not source.exists():
        raise UserError(f'--src {tellable(source)} does not exist.')
    if args.name == vtab1k.NAME:
        show_tasks(args, _prepare_tasks(source, args))
    else:
        read = SOURCES.get(args.name, own.read)
        show(args, _prepare(lambda place: _checked(read(source, place, args), args), source, args))


def _prepare(read: Callable[[Place], Found], source: Path, args: PrepareArgs) -> dict[str, Any]:
    recipe = dict(name=args.name, source=tellable(source), split=args.split, short_side=args.short_side)
    # the real folder, as what is built beside it must be on the same disk
    with opened(args.out.resolve(), recipe) as place:
        return _build(read(place), place, args)


def _prepare_tasks(source: Path, args: PrepareArgs) -> dict[str, dict[str, Any]]:
    """Prepare each task of VTAB-1k as a data set of its own in a folder of ``args.out``; return their states.

    All lists are read before the first of them is prepared: a mistake in one leaves everything as it was.
    """
    tasks = {
        task: replace(args, name=f'{args.name}/{task}', src=source / task, out=args.out / task)
        for task in vtab1k.tasks(source)
    }
    founds = {task: _checked(vtab1k.read(one.src, task), one) for task, one in tasks.items()}
    return {task: _prepare(lambda _, task=task: founds[task], one.src, one) for task, one in tasks.items()}


def _build(found: Found, place: Place, args: PrepareArgs) -> dict[str, Any]:
    """Write everything to the building folder and install it; return the content of ``dataset.json``."""
    media = {} if found.root is None or found.media else {MEDIA[found.kind]: found.root}
    place.check({**media, **found.others, **dict.fromkeys((*_files(found), STATE), place.building)})
    files, missing = _look(found)
    if args.short_side:
        files = _reencode(found, files, place, args)
        media = {MEDIA[found.kind]: found.root}
    lists, rule = _parts(found, args)
    items = {**media, **found.others}
    for name, file in found.files.items():
        write_list(place.new(f'{file}.txt'), lists[name])
    write_lines(place.new('classes.txt'), found.classes)
    write_manifest(place.new('manifest.csv'), files, found.locate, args.sha256, args.workers)
    if missing:
        write_lines(place.new('missing.txt'), missing)
    items |= {name: place.new(name) for name in _files(found) if place.new(name).exists()}
    state = _state(found, lists, rule, len(missing), place, args)
    state['made'] = [n for n in (*items, STATE) if n in place.made or not (place.out / n).exists()]
    place.new(STATE).write_text(to_json(state), encoding='utf-8')
    pairs = [(place.out / f'{file}.txt', place.new(f'{file}.txt')) for file in found.files.values()]
    changed = any(not old.is_file() or old.read_bytes() != new.read_bytes() for old, new in pairs)
    stale = ('check.json', *(f'{file}_clean.txt' for file in found.files.values())) if changed else ()
    place.install({**items, STATE: place.new(STATE)}, stale)
    return state


def _files(found: Found) -> tuple[str, ...]:
    lists = (f'{file}.txt' for file in found.files.values())
    return (*lists, 'classes.txt', 'manifest.csv', 'missing.txt', 'unreadable.txt')


def _checked(found: Found, args: PrepareArgs) -> Found:
    """Check names and labels, list each file once, and warn of counts other than the official ones."""
    if found.kind != 'array':
        for name, samples in found.lists.items():
            where = f'the {name} list of {args.src}'
            for sample in samples:
                check_path(sample.path, where)
            found.lists[name] = without_repeats(samples, where)
            if repeats := len(samples) - len(found.lists[name]):
                warn(f'{repeats} lines of the {name} list repeat an earlier one and are left out.')
        check_apart(found.lists, args.src)
    for name in found.classes:
        if name.strip() != name or name.splitlines() != [name]:
            raise UserError(f'{args.src}: the class name {tellable(repr(name))} has a line break or outer space.')
    counts = {name: len(samples) for name, samples in found.lists.items()} | {'classes': len(found.classes)}
    for name, official in found.official.items():
        if counts[name] != official:
            what = 'classes' if name == 'classes' else f'samples in the {name} list'
            warn(f'{args.name} has {counts[name]:,} {what}; officially it has {official:,}.')
    return found


def _look(found: Found) -> tuple[dict[str, int], list[str]]:
    """Return the size of each file, and the listed files that are missing."""
    if found.root is None:
        files = {}
        for name, path in found.others.items():
            inside = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else ()
            files |= {f'{name}/{p.name}': p.stat().st_size for p in inside} or {name: path.stat().st_size}
        return files, []
    paths = [s.path for samples in found.lists.values() for s in samples]
    files = sizes(found.root, paths)
    missing = [p for p in paths if p not in files]
    if not files:
        raise UserError(f'None of the {len(paths):,} listed files is in {found.root}, {missing[0]} being the first.')
    if missing:
        warn(f'{len(missing):,} of {len(paths):,} listed files are missing from {found.root}, such as {missing[0]}.')
    return files, missing


def _reencode(found: Found, files: dict[str, int], place: Place, args: PrepareArgs) -> dict[str, int]:
    """Make small copies of the videos, which the lists then name; return their sizes.

    A video that cannot be read leaves the training lists and stays in the test list, where it counts as wrong.
    """
    if found.kind != 'video':
        raise UserError(f'--reencode is for videos, and {args.src} has images.')
    from .reencode import reencode

    folder = MEDIA[found.kind]
    if (place.out / folder).exists() and (place.out / folder).samefile(found.root):
        raise UserError(f'The small copies would replace {found.root}; choose another --out.')
    target = place.new(folder)
    if place.earlier and not target.exists() and not (place.out / folder).is_symlink():
        _link_tree(place.out / folder, target)
    paths = list(files)
    renamed = dict(zip(paths, reencode(paths, found.root, target, args.short_side, args.workers), strict=True))
    if unreadable := [p for p in paths if not renamed[p]]:
        write_lines(place.new('unreadable.txt'), unreadable)
    for name, samples in found.lists.items():
        kept = [s for s in samples if name == 'test' or renamed.get(s.path, s.path)]
        found.lists[name] = [Sample(renamed.get(s.path) or s.path, s.label) for s in kept]
    found.root = target
    return sizes(target, filter(None, renamed.values()))


def _link_tree(source: Path, target: Path) -> None:
    """Link the same files below ``target``, if the file system has hard links; links to folders are left out."""
    for folder, _, names in os.walk(source):
        below = target / os.path.relpath(folder, source)
        below.mkdir(parents=True, exist_ok=True)
        for name in names:
            try:
                os.link(os.path.join(folder, name), below / name)
            except OSError:
                return  # the copies are then made again


def _parts(found: Found, args: PrepareArgs) -> tuple[Lists, str]:
    """Return the lists trainval, train, val and test, drawn from the training list if missing, and the rule."""
    lists = dict(found.lists)
    draw = hold_out_per_class if found.own else hold_out
    whole = lists.pop('trainval', None) or lists.pop('train')
    if 'test' not in lists:
        # another seed, or validation would draw the same places in each class
        whole, lists['test'] = draw(whole, args.test or TEST_SHARE, args.seed + 1)
    elif args.test:
        raise UserError('--test draws a test list, and the source has one; leave it out.')
    if 'val' in lists:
        return dict(trainval=whole + lists['val'], train=whole, **lists), GIVEN
    train, val = draw(whole, args.val, args.seed)
    return dict(trainval=whole, train=train, val=val, **lists), PER_CLASS if found.own else WHOLE


def _state(found: Found, lists: Lists, rule: str, missing: int, place: Place, args: PrepareArgs) -> dict[str, Any]:
    drawn = dict(fraction=args.val, seed=args.seed) if rule != GIVEN else {}
    state: dict[str, Any] = dict(
        name=args.name,
        kind=found.kind,
        media=found.media or MEDIA.get(found.kind, '.'),
        source=place.recipe['source'],
        counts={file: len(lists[name]) for name, file in found.files.items()},
        classes=len(found.classes),
        classes_in={file: len({s.label for s in lists[name]}) for name, file in found.files.items()},
        val=dict(**drawn, rule=rule),
        official={found.files.get(name, name): count for name, count in found.official.items()},
        missing=missing,
    )
    if found.own and 'test' not in found.lists:
        state['test'] = dict(fraction=args.test or TEST_SHARE, seed=args.seed + 1, rule=PER_CLASS)
    if found.split:
        state['split'] = found.split
    if args.short_side:
        state['short_side'] = args.short_side
    return dict(**state, recipe=place.recipe)
