"""Archives: what is unpacked, what is refused before anything is written, and what is not done twice."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import tracemalloc
import zipfile
from types import SimpleNamespace

import pytest
from trees import put, rar, snapshot, tar

from vpetl_mm import UserError
from vpetl_mm.preparation import archives
from vpetl_mm.preparation.archives import unpack

FILES = {'a/one.avi': b'1' * 2000, 'a/two.avi': b'2' * 30, 'b/empty.avi': b''}


def make(path, files=FILES):
    if path.suffix == '.rar':
        return rar(path, files)
    if path.suffix == '.zip':
        with zipfile.ZipFile(path, 'w') as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    return tar(path, files)


NAMES = ['x.tar', 'x.tar.gz', 'x.zip', 'x.rar']


@pytest.mark.parametrize('name', NAMES)
def test_the_wanted_files_are_unpacked(tmp_path, name):
    archive = make(tmp_path / name)
    names = unpack(archive, tmp_path / 'out', lambda n: f'new/{n}' if 'empty' not in n else None)
    assert names == ['new/a/one.avi', 'new/a/two.avi']
    assert {n: (tmp_path / 'out' / n).read_bytes() for n in names} == {f'new/{n}': FILES[n] for n in [*FILES][:2]}
    assert not (tmp_path / 'out/new/b').exists()


def refused(archive, text):
    target = archive.parent / 'out'
    before = snapshot(archive.parent)
    with pytest.raises(UserError, match=text) as error:
        unpack(archive, target, lambda n: n)
    assert str(archive) in str(error.value) and '\n' not in str(error.value)
    assert snapshot(archive.parent) == before, 'something was written'


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    'entry', ['../out.avi', 'a/../../out.avi', '/tmp/out.avi', 'C:/out.avi', 'a\\..\\..\\out.avi']
)
def test_an_entry_outside_of_the_target_is_refused(tmp_path, name, entry):
    refused(make(tmp_path / name, {'good.avi': b'good', entry: b'bad'}), 'would land outside of the target')


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path, kind):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, 'good.avi'
    refused(tar(tmp_path / 'x.tar', {'good.avi': b'good', 'bad.avi': info}), r"'bad\.avi' is a link or a device")


def test_links_in_zip_and_rar_are_refused(tmp_path):
    info = zipfile.ZipInfo('bad.avi')
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
        archive.writestr(info, '/etc/passwd')
    refused(tmp_path / 'x.zip', 'is a link')
    refused(rar(tmp_path / 'x.rar', {'bad.avi': b'/etc/passwd'}, mode=stat.S_IFLNK | 0o777), 'is a link')


@pytest.mark.parametrize('name', NAMES)
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path, name):
    whole = make(tmp_path / name).read_bytes()
    # past the last byte of content a tar is zeros and a rar has its end mark, which old ones lack
    end = {'x.tar': len(whole) - 9 * 1024, 'x.rar': len(whole) - 8}.get(name, len(whole))
    for size in {0, 10, end // 3, end // 2, end - 600, end - 20, end - 1}:
        if 0 <= size < end:
            (tmp_path / name).write_bytes(whole[:size])
            refused(tmp_path / name, 'truncated or damaged')


def test_a_tar_cut_between_two_entries_is_refused(tmp_path):
    archive = make(tmp_path / 'x.tar')
    archive.write_bytes(archive.read_bytes()[: 512 + 2048])  # the first header and its content
    refused(archive, 'truncated')


def test_a_compressed_rar_needs_a_program_which_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', '')
    refused(rar(tmp_path / 'x.rar', {'a.avi': b'x'}, method=0x33), 'install unrar, unar, 7z or bsdtar')


def test_a_name_that_is_not_utf8_and_two_of_the_same_are_refused(tmp_path):
    refused(tar(tmp_path / 'x.tar', {'bad\udcff.avi': b'x'}), r"'bad\\udcff\.avi' is not UTF-8")
    refused(tar(tmp_path / 'y.tar', {'a.avi': b'x', './a.avi': b'y'}), "'a.avi' twice")


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    archive = make(tmp_path / 'x.tar')
    (tmp_path / 'out').mkdir()
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda _: SimpleNamespace(free=100))
    refused(archive, 'GB left')


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = bytes([128 if size >= 0 else 255]) + (size % (1 << 88)).to_bytes(11, 'big')  # in base 256
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    return bytes(block)


ZEROS, GB6 = bytes(10_000_000), 6_000_000_000
HOLES = b'22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n'


def bomb(compress, before, block=ZEROS, times=8):
    """Compressed streams one after the other, which decompress as one."""
    return compress(before) + compress(block) * times


def quick(content):
    return gzip.compress(content, 1)


TARS = {
    'pax header': (lambda: bomb(quick, header('x', GB6, tarfile.XHDTYPE)), 'headers of an entry take more'),
    'long name': (lambda: bomb(quick, header('x', GB6, tarfile.GNUTYPE_LONGNAME)), 'headers of an entry take more'),
    'map of holes': (
        lambda: bomb(
            quick,
            header('x', len(HOLES), tarfile.XHDTYPE) + HOLES.ljust(512, b'\0') + header('a', GB6) + b'999999999\n',
            b'0\n' * 5_000_000,
        ),
        'headers of an entry take more',
    ),
    'file in gz': (lambda: bomb(quick, header('a', GB6)), 'GB unpacked, 100 times its own size'),
    'file in bz2': (lambda: bomb(bz2.compress, header('a', GB6)), 'GB unpacked, 100 times its own size'),
    'file in xz': (lambda: bomb(lzma.compress, header('a', GB6)), 'GB unpacked, 100 times its own size'),
    'behind the end': (lambda: bomb(quick, header('a', 0)), 'GB unpacked, 100 times its own size'),
    'not compressed': (lambda: header('a', 1 << 80) + bytes(1024), 'GB unpacked, 100 times its own size'),
    'negative size': (lambda: header('a', 0) + header('b', -1024) + bytes(1024), 'headers that no archive needs'),
    'headers of headers': (lambda: header('x', 0, tarfile.XHDTYPE) * 5000, 'is refused|damaged'),
    'global headers': (
        lambda: (
            header('g', 1024, tarfile.XGLTYPE)
            + b''.join(b'6 %02x=\n' % i for i in range(140)).ljust(1024, b'\0')
            + header('a', 0)
            + bytes(1024)
        ),
        'headers that no archive needs',
    ),
}


@pytest.mark.parametrize(('content', 'said'), TARS.values(), ids=TARS)
def test_a_small_tar_that_promises_much_is_refused_before_it_takes_memory(tmp_path, content, said):
    (tmp_path / 'x.tar.gz').write_bytes(content())
    tracemalloc.start()
    try:
        refused(tmp_path / 'x.tar.gz', said)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_more_entries_than_an_archive_of_that_size_has_are_refused(tmp_path):
    (tmp_path / 'x.tar.gz').write_bytes(quick(header('a', 0) * 20_000))
    refused(tmp_path / 'x.tar.gz', 'more than 10,000 entries')


def test_zips_and_rars_that_promise_much_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a', ZEROS * 7)
    refused(tmp_path / 'x.zip', '0.1 GB unpacked, more than 100 times its own size')
    refused(rar(tmp_path / 'x.rar', {'a': b'x'}, promised=(1 << 32) - 1), '4.3 GB unpacked, more than 100 times')


def test_finished_files_are_not_unpacked_again_and_half_ones_are(tmp_path):
    archive, out = make(tmp_path / 'x.tar'), tmp_path / 'out'
    unpack(archive, out, lambda n: n)
    numbers = {n: (out / n).stat().st_ino for n in FILES}
    put(out / 'a/two.avi', FILES['a/two.avi'][:9])  # as a killed call leaves it
    unpack(archive, out, lambda n: n)
    assert (out / 'a/two.avi').read_bytes() == FILES['a/two.avi']
    assert (out / 'a/one.avi').stat().st_ino == numbers['a/one.avi']
    unpack(archive, tmp_path / 'again', lambda n: n, earlier=out)
    assert (tmp_path / 'again/a/one.avi').samefile(out / 'a/one.avi')


def test_another_archive_with_files_of_the_same_size_is_unpacked(tmp_path):
    unpack(make(tmp_path / 'x.tar', {'a': b'one'}), tmp_path / 'out', lambda n: n)
    os.utime(make(tmp_path / 'x.tar', {'a': b'two'}), ns=(1, 1))
    unpack(tmp_path / 'x.tar', tmp_path / 'out', lambda n: n)
    assert (tmp_path / 'out/a').read_bytes() == b'two'
