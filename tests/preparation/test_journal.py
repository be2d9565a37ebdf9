"""Findings outlive an interruption, and hold for the file as it was."""

from __future__ import annotations

import os

import pytest

from vpetl_mm.preparation.journal import Finding, Journal

FINDINGS = {
    'a b/c.mp4': Finding(48, 49, '0123abcd'),
    'bytes\udcff.avi': Finding(problem='cannot "be"\nread'),
    'picture.png': Finding(digest='ff'),
}


@pytest.fixture
def stat(tmp_path) -> os.stat_result:
    (tmp_path / 'file').write_text('content')
    return os.stat(tmp_path / 'file')


def write(file, stat) -> None:
    with Journal(file) as journal:
        for path, finding in FINDINGS.items():
            journal.add(path, stat, finding)


def test_what_was_found_is_known(tmp_path, stat):
    write(tmp_path / 'j', stat)
    with Journal(tmp_path / 'j') as journal:
        assert {path: journal.get(path, stat) for path in FINDINGS} == FINDINGS
        assert journal.get('other', stat) is None


def test_a_changed_file_is_not_known(tmp_path, stat):
    write(tmp_path / 'j', stat)
    (tmp_path / 'file').write_text('contenT')
    os.utime(tmp_path / 'file', ns=(0, stat.st_mtime_ns + 1))
    with Journal(tmp_path / 'j') as journal:
        assert journal.get('picture.png', os.stat(tmp_path / 'file')) is None
        journal.add('picture.png', os.stat(tmp_path / 'file'), Finding(digest='00'))
    with Journal(tmp_path / 'j') as journal:
        assert journal.get('picture.png', os.stat(tmp_path / 'file')) == Finding(digest='00'), 'the later line holds'


def test_cut_anywhere_it_reads_what_is_whole_and_goes_on(tmp_path, stat):
    write(tmp_path / 'whole', stat)
    content = (tmp_path / 'whole').read_bytes()
    for length in range(len(content)):
        (tmp_path / 'j').write_bytes(content[:length])
        lines = content[:length].count(b'\n')
        with Journal(tmp_path / 'j') as journal:
            known = [path for path in FINDINGS if journal.get(path, stat)]
            assert known == list(FINDINGS)[:lines]
            journal.add('new', stat, Finding(1))
        with Journal(tmp_path / 'j') as journal:
            assert journal.get('new', stat) == Finding(1) and len(known) == lines


TYPES = (b'"frames":"48"', b'"promised":true', b'"problem":["x"]', b'"digest":1', b'"frames":1e300', b'"reader":1')
TYPES += (b'"reader":2,"promised":1' + b'0' * 400,)


@pytest.mark.parametrize(
    'line',
    [
        b'[' * 100_000,
        *(b'{"path":"a","size":7,"mtime":0,' + b + b'}' for b in TYPES),
        b'{"path": "a"}',
        b'[1]',
        b'null',
        b'\xff',
        b'{',
        b'{"path":1,"size":2,"mtime":3,"x":4}',
    ],
)
def test_damaged_lines_are_left_out(tmp_path, stat, line):
    write(tmp_path / 'whole', stat)
    (tmp_path / 'j').write_bytes(line + b'\n' + (tmp_path / 'whole').read_bytes())
    with Journal(tmp_path / 'j') as journal:
        assert {path: journal.get(path, stat) for path in FINDINGS} == FINDINGS
        assert len(journal._known) == len(FINDINGS)
