"""CIFAR-100, python version: the archive or its unpacked folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpretrain.datasets.utils import check_md5

from ..datasets.cifar100 import HOMEPAGE, PETLCIFAR100
from ..datasets.list_file import Sample
from ..errors import UserError
from .archives import unpack
from .found import Found, PrepareArgs
from .pickled_arrays import PickledArray, load
from .place import Place
from .progress import warn

FOLDER, ARCHIVE = PETLCIFAR100.base_folder, PETLCIFAR100.filename
OFFICIAL = {'trainval': 50_000, 'test': 10_000, 'classes': 100}
MD5 = dict([*PETLCIFAR100.train_list, *PETLCIFAR100.test_list, ['meta', PETLCIFAR100.meta['md5']]])
HOW = f'get {ARCHIVE} from {HOMEPAGE}'


def read(src: Path, place: Place, args: PrepareArgs) -> Found:
    """Read the labels of CIFAR-100 in the archive or folder ``src``.

    Raises:
        UserError: if a file is missing, damaged, or holds something else.
    """
    folder = _folder(src, place)
    names = _names(folder / 'meta')
    lists = {ours: _samples(folder / theirs, names) for ours, theirs in (('trainval', 'train'), ('test', 'test'))}
    for name, md5 in MD5.items():
        if not check_md5(str(folder / name), md5):
            warn(f'{name} is not the official file of CIFAR-100 (its md5 differs), which training refuses.')
    return Found('array', names, lists, others={FOLDER: folder}, official=OFFICIAL)


def _folder(src: Path, place: Place) -> Path:
    for folder in (src, src / FOLDER):
        if (folder / 'meta').is_file() and (folder / 'train').is_file():
            return folder
    archive = src if src.is_file() else src / ARCHIVE
    if not archive.is_file():
        raise UserError(f'{src} has neither {FOLDER} with train, test and meta, nor {ARCHIVE}; {HOW}.')
    if not check_md5(str(archive), PETLCIFAR100.tgz_md5):
        warn(f'{archive} is not the official file (its md5 differs).')
    target = place.new(FOLDER)
    wanted = {f'{FOLDER}/{name}': name for name in MD5}
    names = unpack(archive, target, wanted.get, place.earlier and place.earlier / FOLDER)
    if len(names) < len(wanted):
        raise UserError(f'{archive} should hold {", ".join(wanted)}, and has {", ".join(names) or "none"}; {HOW}.')
    return target


def _content(path: Path, kind: type, *keys: str) -> Any:
    """Return the value, a ``kind``, under one of ``keys`` (text or bytes) of a pickled dict."""
    if not path.is_file():
        raise UserError(f'{path} does not exist; {HOW}.')
    pickled = path.read_bytes()
    try:
        content = load(pickled)
    except Exception as error:  # a damaged pickle raises nearly any exception
        raise UserError(f'{path} is damaged or not from CIFAR-100 ({str(error)[:200]}); {HOW}.') from error
    if isinstance(content, dict):
        for key in keys:
            value = content.get(key, content.get(key.encode()))
            if isinstance(value, kind):
                return value
    raise UserError(f'{path} has no {" or ".join(keys)} as CIFAR-100 has; {HOW}.')


def _names(path: Path) -> list[str]:
    names = _content(path, list, 'fine_label_names')
    if not all(isinstance(name, str | bytes) for name in names):
        raise UserError(f'{path} has a class name that is not text; {HOW}.')
    return [name.decode('utf-8', 'replace') if isinstance(name, bytes) else name for name in names]


def _samples(path: Path, names: list[str]) -> list[Sample]:
    labels, rows = _content(path, list, 'fine_labels', 'labels'), _content(path, PickledArray, 'data').array
    shape = getattr(rows, 'shape', None)
    if shape != (len(labels), 3072) or not labels:
        raise UserError(f'{path} should hold N x 3072 values and N labels; it has {shape}, {len(labels)}.')
    for index, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < len(names):
            said = label if isinstance(label, int) and abs(label) < 1e9 else type(label).__name__
            raise UserError(f'{path}: the label {said} of image {index} is outside of the {len(names)} classes.')
    return [Sample(str(i), label) for i, label in enumerate(labels)]
