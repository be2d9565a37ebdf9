"""From public downloads, or files of one's own, to a folder that the configs can train on."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import cifar100, food101, hmdb51, own, ssv2, svhn
from .found import MEDIA, Found, Request
from .lists import Lists, Sample, check_apart, check_path, tellable, without_repeats, write_list
from .manifest import sizes, write_manifest
from .place import CHECKED, STATE, Place, opened, to_json
from .progress import warn
from .split import GIVEN, PER_CLASS, WHOLE, hold_out, hold_out_per_class
from .summary import show

SOURCES: dict[str, Callable[[Path, Place, Request], Found]] = {
    'ssv2': ssv2.read,
    'hmdb51': hmdb51.read,
    'cifar100': cifar100.read,
    'svhn': svhn.read,
    'food101': food101.read,
}
PARTS = ('trainval', 'train', 'val', 'test')
TEST_SHARE = 0.2


def check_name(name: str) -> None:
    """Refuse a name that is no folder's, or that is nearly a known one.

    Raises:
        UserError: with the known name.
    """
    near = difflib.get_close_matches(name.casefold(), SOURCES, n=1, cutoff=0.75)
    if name not in SOURCES and near:
        raise UserError(
            f'Unknown data set {name!r}; did you mean {near[0]!r}? A name for your own data must differ more from '
            f'{", ".join(SOURCES)}.'
        )
    if not re.fullmatch(r'[A-Za-z0-9][\w.-]*', name, re.ASCII) or name == 'check':
        raise UserError(f'{name!r} is no name for a data set; letters, digits, "_", "-" and "." are.')


def prepare(request: Request) -> None:
    """Write lists, class names, manifest and ``dataset.json`` to ``request.out``, and the media or links to them.

    What is there from an earlier call stays as it is until the new is complete; what others put there is never
    replaced.

    Raises:
        UserError: for anything the user can mend, such as a wrong folder, a missing list or a damaged archive.
    """
    _check_request(request)
    source = Path(os.path.abspath(request.src))
    recipe = dict(name=request.name, source=str(source), split=request.split, short_side=request.short_side)
    try:
        if not source.exists():
            raise UserError(f'--src {tellable(source)} does not exist.')
        # the real folder, as what is built beside it must be on the same disk
        with opened(request.out.resolve(), recipe) as place:
            found = SOURCES.get(request.name, own.read)(source, place, request)
            state = _build(found, place, request)
    except OSError as error:
        where = f'{tellable(error.filename)}: ' if error.filename else ''
        raise UserError(f'{where}{error.strerror or error}.') from error
    show(request, state)


def _check_request(request: Request) -> None:
    check_name(request.name)
    for option, share in (('--val', request.val), ('--test', request.test)):
        if share is not None and not 0 < share < 1:
            raise UserError(f'{option} must lie between 0 and 1, got {share}.')
    if request.seed < 0:
        raise UserError(f'--seed must be at least 0, got {request.seed}.')
    if request.workers < 1:
        raise UserError(f'--workers must be at least 1, got {request.workers}.')
    if request.short_side is not None and request.short_side < 16:
        raise UserError(f'--short-side must be at least 16 pixels, got {request.short_side}.')
    if request.split and request.name != 'hmdb51':
        raise UserError(f'--split is for hmdb51, and this is {request.name}.')
    if request.short_side and request.name in ('cifar100', 'svhn', 'food101'):
        raise UserError(f'--reencode is for videos, and {request.name} has images.')
    for option, value in (('--classes', request.classes), ('--test', request.test)):
        if value is not None and request.name in SOURCES:
            raise UserError(f'{option} is for data of your own; the classes and lists of {request.name} are fixed.')


def _build(found: Found, place: Place, request: Request) -> dict[str, Any]:
    """Write everything beside its place and put it there; the state that ``dataset.json`` tells."""
    _check_lists(found, request)
    media = {} if found.root is None else {MEDIA[found.kind]: found.root}
    place.check({**media, **found.others, **dict.fromkeys((*_files(), STATE), place.building)})
    files, missing = _look(found, request)
    if request.short_side:
        files = _reencode(found, files, place, request)
        media = {MEDIA[found.kind]: found.root}
    lists, rule = _parts(found, request)
    items = {**media, **found.others}
    for name in PARTS:
        write_list(place.new(f'{name}.txt'), lists[name])
    place.new('classes.txt').write_text('\n'.join(found.classes) + '\n', encoding='utf-8')
    write_manifest(place.new('manifest.csv'), files, found.locate, request.sha256, request.workers)
    if missing:
        place.new('missing.txt').write_text('\n'.join(missing) + '\n', encoding='utf-8')
    items |= {name: place.new(name) for name in _files() if place.new(name).exists()}
    state = _state(found, lists, rule, len(missing), place, request)
    state['made'] = [n for n in (*items, STATE) if n in place.made or not (place.out / n).exists()]
    place.new(STATE).write_text(to_json(state), encoding='utf-8')
    changed = any(_differ(place.out / f'{n}.txt', place.new(f'{n}.txt')) for n in PARTS)
    place.install({**items, STATE: place.new(STATE)}, CHECKED if changed else ())
    return state


def _files() -> tuple[str, ...]:
    return (*(f'{name}.txt' for name in PARTS), 'classes.txt', 'manifest.csv', 'missing.txt', 'unreadable.txt')


def _differ(one: Path, other: Path) -> bool:
    return not one.is_file() or one.read_bytes() != other.read_bytes()


def _check_lists(found: Found, request: Request) -> None:
    """Each file once, in one list, under a name that a list can hold; counts other than the official are told."""
    if found.kind != 'array':
        for name, samples in found.lists.items():
            for sample in samples:
                check_path(sample.path, f'the {name} list of {request.src}')
            found.lists[name], repeats = without_repeats(samples, f'the {name} list of {request.src}')
            if repeats:
                warn(f'{repeats} lines of the {name} list repeat an earlier one and are left out.')
        check_apart(found.lists, request.src)
    counts = {**{name: len(samples) for name, samples in found.lists.items()}, 'classes': len(found.classes)}
    for name, official in found.official.items():
        if counts[name] != official:
            what = 'classes' if name == 'classes' else f'samples in the {name} list'
            warn(f'{request.name} has {counts[name]:,} {what}; officially it has {official:,}.')


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
        media=MEDIA.get(found.kind, '.'),
        source=place.recipe['source'],
        counts={name: len(lists[name]) for name in PARTS},
        classes=len(found.classes),
        classes_in={name: len({s.label for s in lists[name]}) for name in PARTS},
        val=dict(**drawn, rule=rule),
        official=found.official,
        missing=missing,
    )
    if found.own and 'test' not in found.lists:
        state['test'] = dict(fraction=request.test or TEST_SHARE, seed=request.seed + 1, rule=PER_CLASS)
    if found.split:
        state['split'] = found.split
    if request.short_side:
        state['short_side'] = request.short_side
    return dict(**state, recipe=place.recipe)
