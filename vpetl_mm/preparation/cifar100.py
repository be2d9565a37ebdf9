"""CIFAR-100, python version: the archive or its unpacked folder."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets.utils import check_md5

from ..datasets.cifar100 import HOMEPAGE, PETLCIFAR100
from ..errors import UserError
from .archives import unpack
from .found import Found, Request
from .lists import Sample
from .place import Place
from .progress import warn

FOLDER, ARCHIVE = PETLCIFAR100.base_folder, PETLCIFAR100.filename
OFFICIAL = {'trainval': 50_000, 'test': 10_000, 'classes': 100}
MD5 = dict([*PETLCIFAR100.train_list, *PETLCIFAR100.test_list, ['meta', PETLCIFAR100.meta['md5']]])
HOW = f'get {ARCHIVE} from {HOMEPAGE}'


def _array_parts() -> dict[tuple[str, str], Any]:
    """What the pickle of a numpy array asks for, under the names of numpy 1 and 2; nothing else can be called."""
    reconstruct = np.empty(0).__reduce__()[0]
    parts: dict[tuple[str, str], Any] = {('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype}
    for core in ('core', '_core'):
        parts[f'numpy.{core}.multiarray', '_reconstruct'] = reconstruct
        parts[f'numpy.{core}.numeric', '_frombuffer'] = np.empty(0).__reduce_ex__(5)[0]
    # how Python 3 writes bytes for Python 2
    parts['_codecs', 'encode'] = lambda text, encoding='latin1': str(text).encode('latin1')
    return parts


class ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, text and numpy arrays; a pickle that asks for anything else is refused unread."""

    parts = _array_parts()

    def find_class(self, module: str, name: str) -> Any:
        """One of the parts of an array."""
        if (module, name) not in self.parts:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}, which is no part of an array')
        return self.parts[module, name]


def read(src: Path, place: Place, request: Request) -> Found:
    """What the archive or folder ``src`` holds of CIFAR-100.

    Raises:
        UserError: when a file is missing, damaged, or holds something else.
    """
    folder = _folder(src, place)
    names = [_text(n) for n in _content(folder / 'meta', 'fine_label_names')]
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


def _content(path: Path, *keys: str) -> Any:
    """The value under one of ``keys`` (text or bytes) of a pickled dict."""
    if not path.is_file():
        raise UserError(f'{path} does not exist; {HOW}.')
    try:
        with open(path, 'rb') as stream:
            content = ArrayUnpickler(stream, encoding='latin1').load()
    except Exception as error:  # a damaged pickle raises nearly any exception
        if isinstance(error, OSError):
            raise
        raise UserError(f'{path} is damaged or not from CIFAR-100 ({str(error)[:200]}); {HOW}.') from error
    if isinstance(content, dict):
        for key in keys:
            value = content.get(key, content.get(key.encode()))
            if value is not None:
                return value
    raise UserError(f'{path} has no {" or ".join(keys)}; {HOW}.')


def _text(name: Any) -> str:
    return name.decode('utf-8', 'replace') if isinstance(name, bytes) else str(name)


def _samples(path: Path, names: list[str]) -> list[Sample]:
    labels, rows = _content(path, 'fine_labels', 'labels'), _content(path, 'data')
    if np.shape(rows) != (len(labels), 3072) or not len(labels):
        raise UserError(f'{path} should hold N x 3072 values and N labels; it has {np.shape(rows)}, {len(labels)}.')
    for index, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < len(names):
            raise UserError(f'{path}: the label {label!r} of image {index} is outside of the {len(names)} classes.')
    return [Sample(str(i), label) for i, label in enumerate(labels)]
