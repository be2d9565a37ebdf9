"""Whatever a file is called: it is read by its content, or called what it is."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from convert_command import refused, timm, write
from safetensors.torch import save_file
from test_wrappings import plain, same

from vpetl_mm import UserError
from vpetl_mm.weights.source import read_source


def as_torch(name: str) -> None:
    write(timm(), name)


def as_safetensors(name: str) -> None:
    save_file(timm(), name)


def as_npz(name: str) -> None:
    with open(name, 'wb') as file:
        np.savez(file, **{k: v.numpy() for k, v in timm().items()})


@pytest.mark.parametrize('name', ['src.pth', 'src.safetensors', 'src.npz', 'src'])
@pytest.mark.parametrize('save', [as_safetensors, as_npz, as_torch])
def test_a_file_is_what_is_in_it(name, save):
    save(name)
    same(name, plain(timm()))


@pytest.mark.parametrize(
    ('name', 'save', 'said'),
    [
        ('src.pth', as_torch, 'a file of torch.save'),
        ('src.npz', as_npz, 'an .npz archive of numbers'),
        ('src.safetensors', as_safetensors, 'a .safetensors file'),
        ('src.pth', as_safetensors, 'a .safetensors file'),
    ],
)
def test_a_truncated_file(capsys, name, save, said):
    save(name)
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[: len(content) * 2 // 3])
    assert f'{name} cannot be read as {said}; is it complete?' in refused(capsys, name)


def archive(of: str) -> bytes:
    buffer = io.BytesIO()
    if of == 'zip':
        with zipfile.ZipFile(buffer, 'w') as file:
            file.writestr('vit/config.json', '{}')
    else:
        with tarfile.open(fileobj=buffer, mode='w:gz' if of == 'gz' else 'w') as file:
            file.addfile(tarfile.TarInfo('vit.pth'))
    return buffer.getvalue()


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 88253672\n' % (b'0' * 64)
FILES = {
    'git lfs pull': POINTER,
    'web page': b'\n<!DOCTYPE html><html><body>Sign in</body></html>',
    'web page (': b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "text, not weights: 'Not Found'": b'Not Found',
    'gunzip': archive('gz'),
    'tar archive': archive('tar'),
    'vit/config.json': archive('zip'),
    'HDF5': b'\x89HDF\r\n\x1a\n' + bytes(600),
    'is empty': b'',
    'is it complete?': b'PK\x03\x04' + bytes(50),
}


@pytest.mark.parametrize('suffix', ['pth', 'safetensors', 'npz'])
@pytest.mark.parametrize('said', FILES)
def test_what_is_no_file_of_weights_is_called_what_it_is(capsys, said, suffix):
    Path(f'src.{suffix}').write_bytes(FILES[said])
    assert said in refused(capsys, f'src.{suffix}')


def test_a_folder_says_which_files_are_in_it(capsys):
    Path('vit').mkdir()
    assert 'vit is a folder.' in refused(capsys, 'vit')
    save_file(timm(), 'vit/model.safetensors')
    assert 'vit/model.safetensors' in refused(capsys, 'vit')
    with pytest.raises(UserError, match=r'vit/model\.safetensors'):
        read_source('vit')
