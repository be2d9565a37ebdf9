"""Lists of "path label" lines: what is read, and the errors of wrong ones."""

from __future__ import annotations

import os

import pytest

from vpetl_mm import UserError
from vpetl_mm.datasets.list_file import Sample, read_list, write_list

SAMPLES = [Sample('a b/c d.mp4', 3), Sample('üöä/短.webm', 0)]


def test_what_is_written_is_read(tmp_path):
    write_list(tmp_path / 'list.txt', SAMPLES)
    assert (tmp_path / 'list.txt').read_text() == 'a b/c d.mp4 3\nüöä/短.webm 0\n'
    assert read_list(tmp_path / 'list.txt', 4) == read_list(tmp_path / 'list.txt', None) == SAMPLES


def test_other_delimiters_line_ends_and_bytes(tmp_path):
    (tmp_path / 'list.txt').write_bytes('\ufeffa b,c.mp4,3\r\n\r\n  d.mp4,0\r\n'.encode() + b'caf\xe9\x0b.mp4,1')
    expected = [('a b,c.mp4', 3), ('d.mp4', 0), (os.fsdecode(b'caf\xe9\x0b.mp4'), 1)]
    assert read_list(tmp_path / 'list.txt', 4, ',') == expected


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'is empty'),
        ('\n \n', 'is empty'),
        ('a.mp4 0\nb.mp4\n', 'line 2 has no label'),
        ('a.mp4 walk\n', 'line 1 has no label'),
        ('a.mp4\0 0\n', 'line 1 has no label'),
        ('a.mp4 1e3\n', 'line 1 has no label'),
        ('a.mp4 --5\n', 'line 1 has no label'),
        (f'a.mp4 {"9" * 5000}\n', 'line 1 has no label'),
        ('a.mp4 0\nb.mp4 4\n', 'line 2: label 4 is outside the classes 0 to 3'),
        ('a.mp4 -1\n', 'line 1: label -1 is outside'),
    ],
)
def test_wrong_lists_are_refused(tmp_path, text, said):
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises(UserError, match=f'list.txt.*{said}'):
        read_list(tmp_path / 'list.txt', 4)


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'none\.txt does not exist'):
        read_list(tmp_path / 'none.txt', 4)
