"""Food-101: images/ and meta/ of food-101.tar.gz."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ..datasets.food101 import HOMEPAGE, PETLFood101
from ..datasets.list_file import Sample
from ..errors import UserError
from .archives import unpack
from .found import Found, PrepareArgs
from .lists import index_of, read_json, read_text, write_lines
from .place import Place

ARCHIVE, FOLDER = 'food-101.tar.gz', 'food-101'
OFFICIAL = {'trainval': 75_750, 'test': 25_250, 'classes': 101}


def read(src: Path, place: Place, args: PrepareArgs) -> Found:
    """Read the lists of Food-101 in the archive or folder ``src``.

    Raises:
        UserError: if the images or a list are missing or damaged, or a class is not one of the 101.
    """
    folder = _folder(src, place)
    meta = folder / 'meta'
    classes = list(PETLFood101.METAINFO['classes'])  # in the order of the labels that training sees
    labels = {name: index for index, name in enumerate(classes)}
    images = {part: _images(meta, part) for part in ('train', 'test')}
    lists = {}
    for part, name in (('trainval', 'train'), ('test', 'test')):
        where = f'the {name} list of {meta}'
        lists[part] = [Sample(f'{i}.jpg', index_of(labels, i.partition('/')[0], where)) for i in images[name]]
    return Found('image', classes, lists, folder / 'images', {'meta': _meta(meta, images, place)}, OFFICIAL)


def _folder(src: Path, place: Place) -> Path:
    """Return the folder that holds ``images`` and ``meta``, unpacked if only the archive exists."""
    for folder in (src, src / FOLDER):
        if (folder / 'images').is_dir() and (folder / 'meta').is_dir():
            return folder
    archive = src if src.is_file() else src / ARCHIVE
    if not archive.is_file():
        raise UserError(f'{src} has neither images/ and meta/, nor {ARCHIVE}; get it from {HOMEPAGE}')

    def wanted(name: str) -> str | None:
        inside = PurePosixPath(name).parts[1:] if name.startswith(f'{FOLDER}/') else ()
        return '/'.join(inside) if len(inside) > 1 and inside[0] in ('images', 'meta') else None

    unpack(archive, place.new('unpacked'), wanted, place.earlier)
    return place.new('unpacked')


def _images(meta: Path, name: str) -> list[str]:
    """Read the ``class/image`` lines of a list, from its text or its JSON."""
    if (meta / f'{name}.txt').is_file() or not (meta / f'{name}.json').is_file():
        found = [line.strip() for line in read_text(meta / f'{name}.txt').splitlines() if line.strip()]
    else:
        lists = read_json(meta / f'{name}.json', dict).values()
        found = [str(i) for images in lists if isinstance(images, list) for i in images]
    wrong = [i for i in found if i.count('/') != 1 or not all(i.split('/'))]
    if wrong or not found:
        raise UserError(f'The {name} list in {meta} should have lines "class/image", and {wrong[:1] or "is empty"}.')
    return found


def _meta(meta: Path, images: dict[str, list[str]], place: Place) -> Path:
    """Return the folder ``meta`` as mmpretrain reads it: with text lists."""
    if (meta / 'train.txt').is_file() and (meta / 'test.txt').is_file():
        return meta
    target = place.new('meta')
    target.mkdir(exist_ok=True)
    for part, found in images.items():
        write_lines(target / f'{part}.txt', found)
    return target
