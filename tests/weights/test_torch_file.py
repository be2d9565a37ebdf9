"""Hostile files of torch: none is run, follows a pointer, or takes more memory than its size allows."""

from __future__ import annotations

import copyreg
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
from hostile import (
    built,
    call,
    legacy,
    legacy_tensor,
    listed,
    mapping,
    name,
    number,
    raw,
    several,
    tensor,
    text,
    write,
)
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from vpetl_mm.engine.checkpoint import as_plain, history_of, read_checkpoint
from vpetl_mm.errors import UserError
from vpetl_mm.spt.allocation import read_allocation
from vpetl_mm.weights.converted import KEY, record_of
from vpetl_mm.weights.source import read_source
from vpetl_mm.weights.torch_file import read_torch

HISTORY, CORE = 'mmengine.logging.history_buffer.HistoryBuffer', 'numpy._core.multiarray'
FLAGS = several(number(3), text('|'), *[b'N'] * 3, number(-1), number(-1), number(63))
OBJECTS = call('numpy.dtype', text('O'))  # numpy's type of pointers
POINTER = raw(b'A' * 8)
EMPTY_ARRAY = call(f'{CORE}._reconstruct', name('numpy.ndarray'), several(number(0)), raw(b'b'))
ARRAY = call('numpy.ndarray', several(number(1)), text('O'), POINTER)
CODE = {
    'an array of pointers': ARRAY,
    'an array of records with a pointer': call(
        'numpy.ndarray', several(number(1)), listed(several(text('a'), text('O'))), POINTER
    ),
    'a history of pointers': call(HISTORY, ARRAY, ARRAY),
    'a number that is a pointer': call(f'{CORE}.scalar', OBJECTS, POINTER),
    'a type that becomes one of pointers': call(f'{CORE}.scalar', built(OBJECTS, FLAGS), POINTER),
    'a number of a type whose flags say pointer': call(
        f'{CORE}.scalar', built(call('numpy.dtype', text('V8'), b'\x89', b'\x88'), FLAGS), POINTER
    ),
    'an array that is filled afterwards': built(
        EMPTY_ARRAY, several(number(1), several(number(1)), OBJECTS, b'\x89', listed(POINTER))
    ),
    'a history with attributes of its own': built(call(HISTORY, b']', b']'), mapping(update=text('x'))),
    'a history without a constructor': call('copyreg._reconstructor', name(HISTORY), name('builtins.object'), b'N'),
    'a class of the host library': call('mmengine.config.config.Config.fromstring', text('a = 1'), text('.py')),
    'a function of python': call('builtins.eval', text('1')),
}


def expanded(times: int) -> bytes:
    """Bytes that each call doubles."""
    value = raw(b'a' * 16)
    for _ in range(times):
        value = call('_codecs.encode', value, text('hex'))
    return value


def sparse(path: Path) -> Path:
    layout = call('torch.serialization._get_layout', text('torch.sparse_coo'))
    place = tensor(1, key='1', kind='LongStorage').replace(several(number(1)) * 2, several(number(1), number(1)) * 2)
    parts = several(place, tensor(1), several(number(1 << 31)))
    body = call('torch._utils._rebuild_sparse_tensor', layout, parts)
    return write(path, mapping(w=body), {'0': hostile.ZEROS, '1': bytes(8)})


def nested(path: Path) -> Path:
    return write(path, mapping(w=tensor(1), a=b']' * 5000 + b'a' * 4999))


def in_a_dict(value: bytes, **records: bytes) -> Callable[[Path], Path]:
    return lambda path: write(path, mapping(w=value), {'0': hostile.ZEROS, **records})


LARGE = {
    'a number that stands for many': lambda path: write(
        path, mapping(**{f'w{k}': tensor(1 << 30, 0) for k in range(12)})
    ),
    'one tensor a thousand times': lambda path: write(
        path, mapping(**{f'w{k}': tensor(1 << 18, 1, 1 << 18) for k in range(1000)}), {'0': bytes(1 << 20)}
    ),
    'sparse': sparse,
    'on the meta device': in_a_dict(
        call(
            'torch._utils._rebuild_meta_tensor_no_storage',
            *(name('torch.float32'), several(number(1 << 40)), several(number(1)), b'\x89'),
        )
    ),
    'deflated': lambda path: write(
        path, mapping(w=tensor(1 << 24, 1, 1 << 24)), {'0': bytes(1 << 26)}, zipfile.ZIP_DEFLATED
    ),
    'bytes by their number': in_a_dict(call('builtins.bytearray', number(6 << 30))),
    'bytes that each call doubles': in_a_dict(expanded(27)),
    'converted while it is read': in_a_dict(
        call(
            'torch._utils._rebuild_device_tensor_from_cpu_tensor',
            *(tensor(1 << 30, 0), name('torch.float64'), text('cpu'), b'\x89'),
        )
    ),
    'older than zip': lambda path: legacy(
        path, mapping(**{f'w{k}': legacy_tensor(1 << 30, str(k)) for k in range(12)})
    ),
    'nested without end': nested,
}


@pytest.fixture
def taken() -> Callable[[], int]:
    """How many bytes more than before were held at once; nothing where the system does not tell."""

    def status(field: str) -> int:
        lines = Path('/proc/self/status').read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) << 10

    try:
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts again
        before = status('VmRSS')
    except OSError:
        return lambda: 0
    return lambda: status('VmHWM') - before


@pytest.mark.parametrize('body', CODE.values(), ids=CODE)
@pytest.mark.parametrize('read', [read_torch, read_source, read_checkpoint])
def test_nothing_is_called_that_is_not_harmless(tmp_path, body, read):
    file = write(tmp_path / 'a.pth', mapping(state_dict=mapping(w=tensor(1)), x=body))
    with pytest.raises(Exception) as error:
        read(file)
    assert read == read_torch or isinstance(error.value, UserError)


@pytest.mark.parametrize('make', LARGE.values(), ids=LARGE)
def test_a_small_file_takes_little_memory(tmp_path, make, taken):
    file = make(tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'a\.pth'):
        read_source(file)
    assert taken() < 1 << 30


def test_numbers_of_numpy_that_are_packed_are_bounded_too(tmp_path):
    np.savez_compressed(tmp_path / 'a.npz', w=np.zeros(1 << 23))
    with pytest.raises(UserError, match='would unpack to 67,'):
        read_source(tmp_path / 'a.npz')


@pytest.mark.parametrize('where', ['vpetl_mm', 'vpetl_mm_spt'])
def test_metadata_nested_without_end(tmp_path, where):
    file = tmp_path / 'a.safetensors'
    save_file({'w': torch.zeros(1)}, file, {where: '[' * 100_000 + ']' * 100_000})
    with pytest.raises(UserError, match=r'convert it again|make it again'):
        record_of(read_source(file).metadata) if where == KEY else read_allocation(file)
    header = b'{"__metadata__":' + b'{"a":' * 100_000
    file.write_bytes(len(header).to_bytes(8, 'little') + header)
    with pytest.raises(UserError, match=r'a\.safetensors'):
        read_source(file) if where == KEY else read_allocation(file)


def test_a_list_that_holds_itself_many_times_is_not_followed(tmp_path):
    """40 lists of two make 2^40 parts, for whoever compares or prints them."""
    lists: list = []
    for _ in range(40):
        lists = [lists, lists]
    torch.save(dict(state_dict=dict(w=torch.zeros(1)), a=lists), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'a\.\S* is nested too deeply, or holds one part too often'):
        read_source(tmp_path / 'a.pth')


def test_a_tensor_has_no_methods_of_the_files(tmp_path):
    about = several(
        several(text('storage'), name('torch.FloatStorage'), text('0'), text('cpu'), number(1)) + b'Q',
        *(number(0), several(number(1)), several(number(1)), b'\x89', call('collections.OrderedDict')),
    )
    own = mapping(detach=name('collections.OrderedDict'), element_size=name('collections.OrderedDict'))
    kind = name('torch._utils._rebuild_tensor_v2'), name('torch.Tensor')
    body = call('torch._tensor._rebuild_from_type_v2', *kind, about, own)
    state = built(call('collections.OrderedDict') + b'(' + text('w') + body + b'u', mapping(items=b'N'))
    read = read_source(write(tmp_path / 'a.pth', state)).state
    assert torch.equal(read['w'].detach(), torch.zeros(1)) and read['w'].element_size() == 4


def test_honest_files_are_read(tmp_path):
    """Weights that are tied or views, numpy's numbers beside them, in a zip and in torch's older format."""
    weight = torch.nn.Parameter(torch.randn(300, 300))
    content = dict(
        model=OrderedDict(a=weight, tied=weight, half=weight.detach().half(), view=weight.detach()[3:5]),
        best=[np.float64(0.25), np.float32(0.5), np.int64(-7), np.bool_(True), np.array(1.5)[()]],
        size=weight.shape,
        rest={1, 2},
    )
    for old in (False, True):
        torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=not old)
        source = read_source(tmp_path / 'a.pth')
        assert source.beside == ('best', 'size', 'rest')
        assert all(torch.equal(v, content['model'][k]) for k, v in source.state.items()) and len(source.state) == 4
        best = read_torch(tmp_path / 'a.pth')['best']
        assert best == [0.25, 0.5, -7, True, 1.5] and [type(b) for b in best] == [float, float, int, bool, float]


def test_histories_are_lists_in_a_file_and_come_back_from_old_ones(tmp_path, monkeypatch):
    buffer = HistoryBuffer([1.5, float('nan'), 3.0], [1, 2, 1], 7)
    torch.save(as_plain(dict(new=buffer, best=np.float64(3), table=np.eye(2))), tmp_path / 'new.pth')
    monkeypatch.setitem(  # as files were written before
        copyreg.dispatch_table,
        HistoryBuffer,
        lambda b: (HistoryBuffer, (b.data[0].tolist(), b.data[1].tolist(), b.max_length)),
    )
    torch.save(dict(new=buffer), tmp_path / 'old.pth')
    new = torch.load(tmp_path / 'new.pth', weights_only=True)
    assert new['best'] == 3.0 and new['table'] == [[1.0, 0.0], [0.0, 1.0]]
    for content in (new, read_torch(tmp_path / 'old.pth')):
        back = history_of(tmp_path, 'loss', content['new'])
        assert [part.dtype for part in back.data] == [part.dtype for part in buffer.data] and back.max_length == 7
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(back.data, buffer.data, strict=True))
    for wrong in (3, {}, dict(log=[1], count=[], max_length=3), dict(log=[[1]], count=[1], max_length=3)):
        with pytest.raises(UserError, match=r'loss.* is not a history'):
            history_of(tmp_path, 'loss', wrong)


def test_reading_leaves_memory_limit_and_safe_globals_as_they_were(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(UserError):
        read_torch(in_a_dict(call('builtins.bytearray', number(6 << 30)))(tmp_path / 'a.pth'))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    allowed = {getattr(f, '__module__', 'numpy').partition('.')[0] for f in torch.serialization.get_safe_globals()}
    assert not allowed & {'numpy', 'mmengine', 'vpetl_mm'}
