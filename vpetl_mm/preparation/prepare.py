"""From public downloads, or files of one's own, to a folder that the configs can train on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError, tellable
from . import own, vtab1k
from .found import MEDIA, Found, Request
from .lists import Lists, Sample, check_apart, check_path, without_repeats, write_list
from .manifest import sizes, write_manifest
from .place import STATE, Place, opened, to_json
from .progress import warn
from .sources import SOURCES, check_request
from .split import GIVEN, PER_CLASS, WHOLE, hold_out, hold_out_per_class
from .summary import show, show_tasks

TEST_SHARE = 0.2


def prepare(request: Request) -> None:
    """Write lists, class names, manifest and ``dataset.json`` to ``request.out``, and the media or links to them.

    What is there from an earlier call stays as it is until the new is complete; what others put there is never
    replaced.

    Raises:
        UserError: for anything the user can mend, such as a wrong folder, a missing list or a damaged archive.
    """
    check_request(request)
    source = Path(os.path.abspath(request.src))
    try:
        if not source.exists():
            raise UserError(f'--src {tellable(source)} does not exist.')
        if request.name == vtab1k.NAME:
            show_tasks(request, _prepare_tasks(source, request))
            return
        read = SOURCES.get(request.name, own.read)
        state = _prepare(lambda place: _checked(read(source, place, request), request), source, request)
    except OSError as error:
        where = f'{tellable(error.filename)}: ' if error.filename else ''
        raise UserError(f'{where}{error.strerror or error}.') from error
    show(request, state)


def _prepare(read: Callable[[Place], Found], source: Path, request: Request) -> dict[str, Any]:
    recipe = dict(name=request.name, source=tellable(source), split=request.split, short_side=request.short_side)
    # the real folder, as what is built beside it must be on the same disk
    with opened(request.out.resolve(), recipe) as place:
        return _build(read(place), place, request)


def _prepare_tasks(source: Path, request: Request) -> dict[str, dict[str, Any]]:
    """Each task of VTAB-1k as a data set of its own in a folder of ``request.out``; the state of each.

    All lists are read before the first of them is prepared: a mistake in one leaves everything as it was.
    """
    requests = {
        task: replace(request, name=f'{request.name}/{task}', src=source / task, out=request.out / task)
        for task in vtab1k.tasks(source)
    }
    founds = {task: _checked(vtab1k.read(one.src, task), one) for task, one in requests.items()}
    return {task: _prepare(lambda _, task=task: founds[task], one.src, one) for task, one in requests.items()}


def _build(found: Found, place: Place, request: Request) -> dict[str, Any]:
    """Write everything beside its place and put it there; the state that ``dataset.json`` tells."""
    media = {} if found.root is None or found.media else {MEDIA[found.kind]: found.root}
    place.check({**media, **found.others, **dict.fromkeys((*_files(found), STATE), place.building)})
    files, missing = _look(found, request)
    if request.short_side:
        files = _reencode(found, files, place, request)
        media = {MEDIA[found.kind]: found.root}
    lists, rule = _parts(found, request)
    items = {**media, **found.others}
    for name, file in found.files.items():
        write_list(place.new(f'{file}.txt'), lists[name])
    place.new('classes.txt').write_text('\n'.join(found.classes) + '\n', encoding='utf-8')
    write_manifest(place.new('manifest.csv'), files, found.locate, request.sha256, request.workers)
    if missing:
        place.new('missing.txt').write_text('\n'.join(missing) + '\n', encoding='utf-8')
    items |= {name: place.new(name) for name in _files(found) if place.new(name).exists()}
    state = _state(found, lists, rule, len(missing), place, request)
    state['made'] = [n for n in (*items, STATE) if n in place.made or not (place.out / n).exists()]
    place.new(STATE).write_text(to_json(state), encoding='utf-8')
    changed = any(_differ(place.out / f'{n}.txt', place.new(f'{n}.txt')) for n in found.files.values())
    stale = ('check.json', *(f'{file}_clean.txt' for file in found.files.values())) if changed else ()
    place.install({**items, STATE: place.new(STATE)}, stale)
    return state


def _files(found: Found) -> tuple[str, ...]:
    lists = (f'{file}.txt' for file in found.files.values())
    return (*lists, 'classes.txt', 'manifest.csv', 'missing.txt', 'unreadable.txt')


def _differ(one: Path, other: Path) -> bool:
    return not one.is_file() or one.read_bytes() != other.read_bytes()


def _checked(found: Found, request: Request) -> Found:
    """Each file once, in one list, under a name that a list can hold; counts other than the official are told."""
    if found.kind != 'array':
        for name, samples in found.lists.items():
            for sample in samples:
                check_path(sample.path, f'the {name} list of {request.src}')
            found.lists[name], repeats = without_repeats(samples, f'the {name} list of {request.src}')
            if repeats:
                warn(f'{repeats} lines of the {name} list repeat an earlier one and are left out.')
        check_apart(found.lists, request.src)
    for name in found.classes:
        if name.strip() != name or name.splitlines() != [name]:
            raise UserError(f'{request.src}: the class name {tellable(repr(name))} has a line break or outer space.')
    counts = {**{name: len(samples) for name, samples in found.lists.items()}, 'classes': len(found.classes)}
    for name, official in found.official.items():
        if counts[name] != official:
            what = 'classes' if name == 'classes' else f'samples in the {name} list'
            warn(f'{request.name} has {counts[name]:,} {what}; officially it has {official:,}.')
    return found


def _look(found: Found, request: Request) -> tuple[dict[str, int], list[str]]:
    """The size of each file, and the listed ones that are missing."""
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


def _reencode(found: Found, files: dict[str, int], place: Place, request: Request) -> dict[str, int]:
    """Small copies of the videos that are there; the lists then name them.

    One that cannot be read leaves the lists to train on and stays in the test list, where it counts as wrong.
    """
    if found.kind != 'video':
        raise UserError(f'--reencode is for videos, and {request.src} has images.')
    from .reencode import reencode

    folder = MEDIA[found.kind]
    if (place.out / folder).exists() and (place.out / folder).samefile(found.root):
        raise UserError(f'The small copies would replace {found.root}; choose another --out.')
    target = place.new(folder)
    if place.earlier and not target.exists() and not (place.out / folder).is_symlink():
        _link_tree(place.out / folder, target)
    paths = list(files)
    renamed = dict(zip(paths, reencode(paths, found.root, target, request.short_side, request.workers), strict=True))
    if unreadable := [p for p in paths if not renamed[p]]:
        place.new('unreadable.txt').write_text('\n'.join(unreadable) + '\n', encoding='utf-8')
    for name, samples in found.lists.items():
        kept = [s for s in samples if name == 'test' or renamed.get(s.path, s.path)]
        found.lists[name] = [Sample(renamed.get(s.path) or s.path, s.label) for s in kept]
    found.root = target
    return sizes(target, filter(None, renamed.values()))


def _link_tree(source: Path, target: Path) -> None:
    """The same files under ``target``, as hard links where the file system has them."""
    for folder, _, names in os.walk(source):
        below = target / os.path.relpath(folder, source)
        below.mkdir(parents=True, exist_ok=True)
        for name in names:
            try:
                os.link(os.path.join(folder, name), below / name)
            except OSError:
                return  # they are then made again


def _parts(found: Found, request: Request) -> tuple[Lists, str]:
    """The lists trainval, train, val and test, what the source lacks drawn out of its training list; and the rule."""
    lists = dict(found.lists)
    draw = hold_out_per_class if found.own else hold_out
    whole = lists.pop('trainval', None) or lists.pop('train')
    if 'test' not in lists:
        # a seed of its own, or validation would take the same places in each class
        whole, lists['test'] = draw(whole, request.test or TEST_SHARE, request.seed + 1)
    elif request.test:
        raise UserError('--test draws a test list, and the source has one; leave it out.')
    if 'val' in lists:
        return dict(trainval=whole + lists['val'], train=whole, **lists), GIVEN
    train, val = draw(whole, request.val, request.seed)
    return dict(trainval=whole, train=train, val=val, **lists), PER_CLASS if found.own else WHOLE


def _state(found: Found, lists: Lists, rule: str, missing: int, place: Place, request: Request) -> dict[str, Any]:
    drawn = dict(fraction=request.val, seed=request.seed) if rule != GIVEN else {}
    state: dict[str, Any] = dict(
        name=request.name,
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
        state['test'] = dict(fraction=request.test or TEST_SHARE, seed=request.seed + 1, rule=PER_CLASS)
    if found.split:
        state['split'] = found.split
    if request.short_side:
        state['short_side'] = request.short_side
    return dict(**state, recipe=place.recipe)
