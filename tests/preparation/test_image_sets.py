"""CIFAR-100, SVHN and Food-101 in their official layouts, read back by the data sets that train on them."""

from __future__ import annotations

import json
import os
import pickle
import struct

import numpy as np
import pytest
from trees import CIFAR_NAMES, REAL, call, cifar_files, lines, make_official, put_all, tar, write_svhn

from vpetl_mm.datasets.cifar100 import PETLCIFAR100
from vpetl_mm.datasets.food101 import PETLFood101
from vpetl_mm.datasets.svhn import SVHN

SUBSET = REAL / 'cifar100/cifar100_subset.npz'


def python2_pickle(rows, labels):
    """``dict(data=array, fine_labels=list)`` opcode by opcode as the official files have it."""

    def text(t):
        return b'U' + bytes([len(t)]) + t

    dtype = (
        b'cnumpy\ndtype\n('
        + text(b'u1')
        + b'K\x00K\x01tR(K\x03'
        + text(b'|')
        + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
    )
    shape = b'(K' + bytes([len(rows)]) + b'M\x00\x0ct'
    raw = b'T' + struct.pack('<I', rows.size) + rows.tobytes()
    array = b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t' + text(b'b') + b'tR'
    array += b'(K\x01' + shape + dtype + b'\x89' + raw + b'tb'
    numbers = b''.join(b'K' + bytes([v]) for v in labels)
    return b'\x80\x02}(' + text(b'data') + array + text(b'fine_labels') + b'](' + numbers + b'eu.'


def test_pickles_of_python_2_are_read(here, tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    files = cifar_files()
    files['cifar-100-python/train'] = python2_pickle(rows, [3, 1, 4, 1, 5, 9])
    loaded = pickle.loads(files['cifar-100-python/train'], encoding='latin1')
    assert np.array_equal(loaded['data'], rows), 'the builder is wrong'
    assert call('cifar100', '--src', tar(tmp_path / 'x.tar.gz', files)) == 0
    assert lines(here / 'data/cifar100/trainval.txt') == ['0 3', '1 1', '2 4', '3 1', '4 5', '5 9']


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_the_archive_of_cifar100(here, tmp_path, monkeypatch, capsys, protocol):
    files = cifar_files(protocol=protocol)
    src = tar(tmp_path / 'cifar-100-python.tar.gz', {**files, 'cifar-100-python/file.txt~': b''})
    assert call('cifar100', '--src', src) == 0
    out = here / 'data/cifar100'
    assert lines(out / 'classes.txt') == CIFAR_NAMES and lines(out / 'trainval.txt') == [
        f'{i} {i}' for i in range(20)
    ]
    assert {n: (out / n).read_bytes() for n in files} == files
    said = capsys.readouterr().err
    assert f'{src} is not the official file' in said and 'train is not the official file' in said
    assert 'officially it has 50,000' in said
    make_official(monkeypatch, files)
    for part, held_out in (('train', False), ('val', True)):
        data = PETLCIFAR100(str(out), holdout=0.1, held_out=held_out)
        # what training holds out is what the lists say
        assert data.get_gt_labels().tolist() == [int(line.split()[1]) for line in lines(out / f'{part}.txt')]


@pytest.mark.skipif(not SUBSET.exists(), reason='the real images are not at hand')
def test_real_images_of_cifar100_from_the_unpacked_folder(here, tmp_path):
    real = np.load(SUBSET)
    train, test = ((real[f'{part}_images'][:200], real[f'{part}_labels'][:200]) for part in ('train', 'test'))
    put_all(tmp_path, cifar_files(train, test, names=real['classes'].tolist()))
    assert call('cifar100', '--src', tmp_path) == 0
    out = here / 'data/cifar100'
    assert (out / 'cifar-100-python').readlink() == tmp_path / 'cifar-100-python'
    expected = [f'{i} {v}' for i, v in enumerate(real['test_labels'][:200])]
    assert lines(out / 'test.txt') == expected and lines(out / 'classes.txt') == real['classes'].tolist()
    assert 'cifar-100-python/train,' in (out / 'manifest.csv').read_text()


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('owned',)


def test_a_pickle_that_would_run_code_is_refused(refused, here, tmp_path):
    files = cifar_files()
    for evil in (Evil(), np.array([Evil()], dtype=object)):
        files['cifar-100-python/train'] = pickle.dumps({'data': evil, 'fine_labels': [0]}, 2)
        src = tar(tmp_path / 'cifar-100-python.tar.gz', files)
        assert 'asks for posix.mkdir' in refused('cifar100', '--src', src)
    assert not (here / 'owned').exists()


def pickled(*parts):
    """``dict(data=..., fine_labels=[0])``, the data of these opcodes."""
    return b'\x80\x02}(X\x04\0\0\0data' + b''.join(parts) + b'X\x0b\0\0\0fine_labels]K\0au.'


def array_pickle(shape=b'K\x01M\0\x0c\x86', dtype=b'u1', content=bytes(3072), call=b'_reconstruct'):
    """The state of an array, as protocol 2 has it."""
    kind = b'cnumpy\ndtype\n(U' + bytes([len(dtype)]) + dtype + b'K\0K\x01tR'
    raw = b'T' + struct.pack('<I', len(content)) + content
    return (
        b'cnumpy.core.multiarray\n'
        + call
        + b'\n(cnumpy\nndarray\n(K\0tU\x01btR(K\x01'
        + shape
        + kind
        + b'\x89'
        + raw
        + b'tb'
    )


POINTER = b'cnumpy\nndarray\nK\x01\x85U\x01OC\x08\x08' + bytes(7) + b'\x87'  # ndarray((1,), 'O', bytes)
HOSTILE = {
    'an object at an address': pickled(array_pickle()).replace(b']K\0au.', POINTER + b'Ru.'),
    'an object at an address, by __new__': pickled(array_pickle()).replace(b']K\0au.', POINTER + b'\x81u.'),
    'objects': pickled(array_pickle(dtype=b'O')),
    'floats': pickled(array_pickle(dtype=b'f4', content=bytes(4 * 3072))),
    'fewer bytes than the shape': pickled(array_pickle(content=bytes(3071))),
    'a huge shape': pickled(array_pickle(shape=b'\x8a\x08' + b'\xff' * 7 + b'\x7f\x85')),
    'a memo that takes 64 GB': pickled(b'K\0r', struct.pack('<I', (1 << 32) - 1)),
    'a tuple of itself, as a key': pickled(
        b'}K\0\x85q\0', b''.join(b'h%c\x86q%c' % (i, i + 1) for i in range(30)), b'K\0s'
    ),
    'a deep tuple, as a key': pickled(b'}K\0', b'\x85' * 1_000_000, b'K\0s'),
    'deep lists': pickled(b']' * 5000, b'a' * 4999),
    'an attribute of a function': pickled(b'cnumpy\ndtype\n}U\x03newK\x01sb'),
    'labels that are lists': pickled(array_pickle()).replace(b'fine_labels]K\0a', b'fine_labels]]a'),
    'a label of many digits': pickled(array_pickle()).replace(
        b'K\0au.', b'\x8b\x88\x13\0\0' + b'\x7f' * 5000 + b'au.'
    ),
}


@pytest.mark.parametrize('content', HOSTILE.values(), ids=HOSTILE)
def test_a_pickle_that_would_read_or_take_memory_is_refused(refused, tmp_path, content):
    good = pickled(array_pickle())
    assert pickle.loads(good)['data'].shape == (1, 3072), 'the builder is wrong'
    put_all(tmp_path, cifar_files() | {'cifar-100-python/test': good, 'cifar-100-python/train': content})
    assert 'cifar-100-python/train' in refused('cifar100', '--src', tmp_path)


def test_what_is_wrong_with_cifar100_is_said(refused, tmp_path):
    assert 'has neither cifar-100-python' in refused('cifar100', '--src', tmp_path)
    path = tar(tmp_path / 'cifar-100-python.tar.gz', cifar_files())
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert 'truncated or damaged' in refused('cifar100', '--src', tmp_path)
    files = cifar_files()
    tar(path, {n: c for n, c in files.items() if not n.endswith('test')})
    assert 'should hold cifar-100-python/train' in refused('cifar100', '--src', path)
    tar(path, cifar_files(names=CIFAR_NAMES[:7]))
    assert 'the label 7 of image 7 is outside of the 7 classes' in refused('cifar100', '--src', path)
    put_all(tmp_path / 'folder', {**files, 'cifar-100-python/train': files['cifar-100-python/train'][:-50]})
    assert 'cifar-100-python/train is damaged' in refused('cifar100', '--src', tmp_path / 'folder')


def svhn(src):
    for name, count in (('train', 12), ('test', 4)):
        write_svhn(src, name, np.zeros((count, 32, 32, 3), np.uint8))
    return src


def test_svhn_is_linked_and_reads_back(here, tmp_path):
    src = svhn(tmp_path / 'src')
    assert call('svhn', '--src', src, '--val', 0.25, '--seed', 2) == 0
    out = here / 'data/svhn'
    assert lines(out / 'trainval.txt') == [f'{i} {(i % 10 + 1) % 10}' for i in range(12)]
    for part, held_out in (('train', False), ('val', True)):
        data = SVHN(str(out), holdout=0.25, held_out=held_out, holdout_seed=2)
        assert data.get_gt_labels().tolist() == [int(line.split()[1]) for line in lines(out / f'{part}.txt')]
    assert (out / 'train_32x32.mat').readlink() == src / 'train_32x32.mat'
    assert json.loads((out / 'dataset.json').read_text())['kind'] == 'array'


def test_svhn_where_it_is_to_be_already(here):
    (here / 'data').mkdir()
    src = svhn(here / 'data/svhn')
    before = (src / 'train_32x32.mat').read_bytes()
    for _ in range(2):
        assert call('svhn', '--src', src) == 0
        assert not (src / 'train_32x32.mat').is_symlink() and (src / 'train_32x32.mat').read_bytes() == before
    assert 'train_32x32.mat' not in json.loads((src / 'dataset.json').read_text())['made']


def test_what_is_wrong_with_svhn_is_said(refused, tmp_path):
    """What may be wrong with a file is in the tests of the data set."""
    src = svhn(tmp_path / 'src')
    (src / 'train_32x32.mat').write_bytes(b'')
    assert 'train_32x32.mat is damaged' in refused('svhn', '--src', src)
    write_svhn(src, 'train', np.zeros((2, 32, 32, 3), np.uint8), labels=[1, 11])
    assert 'has the label 11' in refused('svhn', '--src', src)
    (src / 'train_32x32.mat').unlink()
    assert 'does not exist; download' in refused('svhn', '--src', src)


TRAIN = {f'{c}/{i}' for c in ('cheesecake', 'waffles') for i in range(10)}
TEST = {f'{c}/{i}' for c in ('cheesecake', 'waffles') for i in range(10, 13)}


def food_files(kind='txt'):
    files = {f'images/{name}.jpg': name.encode() for name in sorted(TRAIN | TEST)}
    for part, names in (('train', TRAIN), ('test', TEST)):
        by_class = {c: sorted(n for n in names if n.startswith(c)) for c in ('cheesecake', 'waffles')}
        text = json.dumps(by_class) if kind == 'json' else ''.join(f'{n}\n' for n in sorted(names))
        files[f'meta/{part}.{kind}'] = text.encode()
    return {f'food-101/{name}': content for name, content in files.items()}


@pytest.mark.parametrize('kind', ['txt', 'json'])
@pytest.mark.parametrize('packed', [True, False])
def test_food101_reads_back(here, tmp_path, kind, packed):
    files = food_files(kind)
    src = tar(tmp_path / 'food-101.tar.gz', files) if packed else put_all(tmp_path, files)
    assert call('food101', '--src', src) == call('food101', '--src', src) == 0
    out = here / 'data/food101'
    assert (out / 'images').is_symlink() is not packed and len(lines(out / 'classes.txt')) == 101
    for part, expected, options in (('trainval', TRAIN, {}), ('val', None, dict(holdout=0.1, held_out=True))):
        data = PETLFood101(str(out), **options)
        read = [
            (d['img_path'].removeprefix(f'{out}/images/'), d['gt_label'])
            for d in map(data.get_data_info, range(len(data)))
        ]
        assert [f'{path} {label}' for path, label in read] == lines(out / f'{part}.txt')
        assert expected is None or {path for path, _ in read} == {f'{n}.jpg' for n in expected}
    assert len(PETLFood101(str(out), 'test')) == 6 and not list((here / 'data').glob('.*'))


def test_what_is_wrong_with_food101_is_said(refused, tmp_path):
    src = tmp_path / 'food-101.tar.gz'
    assert 'neither images/ and meta/' in refused('food101', '--src', tmp_path)
    tar(src, {**food_files(), 'food-101/meta/train.txt': b'pizzas/1\n'})
    assert "'pizzas' is not among the 101 classes. Did you mean 'pizza'?" in refused('food101', '--src', src)
    tar(src, {**food_files(), 'food-101/meta/train.txt': b'pizza\n'})
    assert 'should have lines "class/image"' in refused('food101', '--src', src)
    tar(src, {n: c for n, c in food_files().items() if 'meta/test' not in n})
    assert 'meta/test.txt does not exist' in refused('food101', '--src', src)
    tar(src, {**food_files(), 'food-101/images/../../../x.jpg': b'x'})
    assert 'would land outside' in refused('food101', '--src', src)
    assert '--reencode is for videos' in refused('food101', '--src', src, '--reencode')
