"""The file: what is written comes back, the same bytes each time, and nothing else is read."""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chosen import SEEDS, by_hand, cost
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import HOSTS

from vpetl_mm import UserError, build_model
from vpetl_mm.spt.allocation import KEY, Allocation, read_allocation, rows_of, tensors_sha256, write_allocation
from vpetl_mm.spt.choice import Choice
from vpetl_mm.spt.units import Unit
from vpetl_mm.weights import files as module

BASE = dict(file='w.pth', sha256='0' * 64)


@pytest.fixture
def allocation() -> Allocation:
    return by_hand(build_model(HOSTS['vit'].config()).backbone, base=BASE)


def same(a: Allocation, b: Allocation) -> bool:
    rest = [{k: v for k, v in asdict(x).items() if k != 'sparse'} for x in (a, b)]
    equal = all(torch.equal(a.sparse[k], b.sparse[k]) and b.sparse[k].dtype == torch.int32 for k in a.sparse)
    return rest[0] == rest[1] and a.sparse.keys() == b.sparse.keys() and equal


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('structured', ['LoRA', 'AdaptMLP'])
def test_comes_back(structured, seed, tmp_path):
    for name in ('vit', 'videomae', 'swin3d'):
        before = by_hand(build_model(HOSTS[name].config()).backbone, structured, seed, base=BASE, control='random')
        write_allocation(tmp_path / 'a/b.safetensors', before)
        after = read_allocation(tmp_path / 'a/b.safetensors')
        assert same(before, after) and after.digest == before.digest
        assert sorted(p.name for p in (tmp_path / 'a').iterdir()) == ['b.safetensors']


def test_without_single_entries(allocation, tmp_path):
    rows = tuple(replace(r, choice='none', params=0) if r.choice == 'sparse' else r for r in allocation.rows)
    before = replace(allocation, rows=rows, sparse={}, params=sum(r.params for r in rows))
    write_allocation(tmp_path / 'a.safetensors', before)
    assert same(before, read_allocation(str(tmp_path / 'a.safetensors')))


def test_is_the_same_bytes_each_time_and_small(allocation, tmp_path):
    files = [tmp_path / f'{i}.safetensors' for i in range(2)]
    for file in files:
        write_allocation(file, allocation)
    assert files[0].read_bytes() == files[1].read_bytes()
    entries = sum(len(i) for i in allocation.sparse.values())
    assert files[0].stat().st_size < 4 * entries + 400 * len(allocation.rows)


def test_says_how_it_was_found_to_anyone_who_reads_it(allocation, tmp_path):
    write_allocation(tmp_path / 'a.safetensors', allocation)
    with safe_open(tmp_path / 'a.safetensors', 'np') as content:
        about = json.loads(content.metadata()[KEY])
    assert about['made']['config'] == 'by hand' and about['base'] == BASE and about['budget'] == allocation.budget
    assert {r['choice'] for r in about['rows']} == {'structured', 'whole', 'sparse', 'none'}


def test_what_was_there_stays_when_writing_fails(allocation, tmp_path, monkeypatch):
    file = tmp_path / 'a.safetensors'
    write_allocation(file, allocation)
    before = file.read_bytes()

    def full(tensors, partial, *rest):
        Path(partial).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(module, 'save_file', full)
    with pytest.raises(UserError, match=r'a\.safetensors cannot be written: .*No space'):
        write_allocation(file, replace(allocation, budget=1))
    assert file.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['a.safetensors']


def test_a_folder_that_is_a_file(allocation, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot be written'):
        write_allocation(tmp_path / 'file/a.safetensors', allocation)


# the digest


def test_the_digest_is_of_what_is_tuned(allocation):
    name = next(iter(allocation.sparse))
    moved = dict(allocation.sparse, **{name: torch.arange(len(allocation.sparse[name]), dtype=torch.int32)})
    rows = list(allocation.rows)
    a, b = (
        next(i for i, r in enumerate(rows) if r.choice == c and len(r.shape) == 2) for c in ('structured', 'none')
    )
    rows[a], rows[b] = replace(rows[a], choice='none'), replace(rows[b], choice='structured')
    others = [
        replace(allocation, sparse=moved),
        replace(allocation, rows=tuple(rows)),
        replace(allocation, rank=3),
        replace(allocation, structured='AdaptMLP'),
        replace(allocation, class_token=True),
        replace(allocation, host='mmaction.VisionTransformer'),
    ]
    assert len({x.digest for x in [allocation, *others]}) == 7
    equal = [
        replace(allocation, budget=7),
        replace(allocation, base=None, control='random', made={}),
        replace(allocation, rows=tuple(replace(r, sensitivity=0.0) for r in allocation.rows)),
        replace(allocation, sparse=dict(reversed(allocation.sparse.items()))),
    ]
    assert {x.digest for x in equal} == {allocation.digest}


def test_the_hash_of_tensors_is_of_names_and_values():
    state = dict(a=torch.tensor([1.0, 2.0]), b=torch.tensor([[3, 4]]))
    first = tensors_sha256(state)
    assert tensors_sha256(dict(reversed(state.items()))) == first, 'in any order'
    assert tensors_sha256(dict(state, a=state['a'].double())) == first, 'in any number format'
    assert tensors_sha256(dict(state, b=torch.tensor([[3, 4], [0, 0]])[:1])) == first
    assert tensors_sha256(dict(state, a=torch.tensor([1.0, 2.0000002]))) != first
    assert tensors_sha256(dict(c=state['a'], b=state['b'])) != first
    turned = torch.arange(6.0).view(2, 3)
    assert tensors_sha256(dict(a=turned.T)) == tensors_sha256(dict(a=turned.T.contiguous()))


# its rows


def test_rows_say_what_was_chosen_of_each_unit():
    units = [
        Unit('m', (4, 6), 'fc1', 'h', block=0),
        Unit('n', (4, 6), 'fc2', 'h', block=1),
        Unit('v', (3,), 'norm', 'h'),
    ]
    units.append(Unit('w', (2,), 'bias', 'h'))
    parts = [np.full(24, 0.5, np.float32), np.arange(24, dtype=np.float32), np.ones(3, np.float32), np.zeros(2)]
    choice = Choice(9, ('m',), ('v',), {'n': np.array([3, 5], np.int32)}, False, 15)
    rows = rows_of(units, parts, choice, lambda unit: cost(unit.shape, 'LoRA', 1))
    assert [(r.name, r.choice, r.params, r.sensitivity) for r in rows] == [
        ('m', 'structured', 10, 12.0), ('n', 'sparse', 2, 276.0), ('v', 'whole', 3, 3.0), ('w', 'none', 0, 0.0),
    ]  # fmt: skip
    assert [(r.kind, r.block, r.shape) for r in rows] == [
        ('fc1', 0, [4, 6]), ('fc2', 1, [4, 6]), ('norm', None, [3]), ('bias', None, [2]),
    ]  # fmt: skip


# broken files


def refused(file: Path, match: str = 'is corrupt') -> str:
    """Read a file, which must fail in one sentence that names it, and return the sentence."""
    with pytest.raises(UserError, match=match) as error:
        read_allocation(file)
    assert str(file) in str(error.value) and '\n' not in str(error.value)
    return str(error.value)


def test_a_missing_file(tmp_path):
    refused(tmp_path / 'a.safetensors', r'does not exist; create it with tools/sensitivity\.py')


class Evil:
    def __reduce__(self):
        return (Path('/tmp/evil_was_here').touch, ())


def no_metadata() -> bytes:
    header = json.dumps({'a': dict(dtype='I32', shape=[1], data_offsets=[0, 4])}).encode()
    return struct.pack('<Q', len(header)) + header + b'\0' * 4


FOREIGN = dict(empty=b'', zeros=b'\0' * 8, text=b'no file of ours', pickle=pickle.dumps(Evil()))
FOREIGN |= dict(huge_header=struct.pack('<Q', 2**60), no_metadata=no_metadata())


@pytest.mark.parametrize('content', FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_file_of_ours(content, tmp_path):
    file = tmp_path / 'a.safetensors'
    file.write_bytes(content)
    refused(file, r'is broken, or was not written by tools/sensitivity\.py')
    assert not Path('/tmp/evil_was_here').exists()


@pytest.mark.parametrize('kept', [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(allocation, tmp_path, kept):
    file = tmp_path / 'a.safetensors'
    write_allocation(file, allocation)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    refused(file, 'broken')


def rewritten(allocation: Allocation, folder: Path, about: dict | None = None, sparse: dict | None = None) -> Path:
    """The file with other metadata or tensors."""
    file = folder / 'a.safetensors'
    write_allocation(file, allocation)
    with safe_open(file, 'pt') as content:
        said = json.loads(content.metadata()[KEY])
        tensors = {k: content.get_tensor(k) for k in content.keys()}  # noqa: SIM118
    save_file(tensors | (sparse or {}), file, {KEY: json.dumps(said | (about or {}))})
    return file


WRONG = dict(
    format=[2, None],
    structured=['lora', None, []],
    rank=[0, '8', True],
    rows=[[], None, [1], [dict(name='x')]],
    params=[3, '3', 10**9],
    budget=['500', None],
    base=[dict(file='x'), 'x', 3],
    surprise=[1],
)


@pytest.mark.parametrize(('key', 'value'), [(k, v) for k, values in WRONG.items() for v in values], ids=str)
def test_metadata_that_we_cannot_have_written(allocation, tmp_path, key, value):
    refused(rewritten(allocation, tmp_path, {key: value}))


@pytest.mark.parametrize('change', ['params', 'choice', 'budget', 'class_token'])
def test_counts_that_are_not_those_of_the_choice(allocation, tmp_path, change):
    rows = [asdict(r) for r in allocation.rows]
    row = next(r for r in rows if r['choice'] == 'structured')
    about = dict(rows=rows)
    if change == 'params':
        row['params'] += 5
        about['params'] = allocation.params + 5
    elif change == 'choice':
        next(r for r in rows if r['choice'] == 'none').update(choice='structured')
    elif change == 'budget':
        about |= dict(budget=allocation.params - 1, made=allocation.made | dict(rule='within'))
    else:
        about['class_token'] = True
    refused(rewritten(allocation, tmp_path, about))


@pytest.mark.parametrize('about', ['[]', '3', 'null', 'x', '"x"'])
def test_metadata_that_is_no_dict(allocation, tmp_path, about):
    file = tmp_path / 'a.safetensors'
    save_file(dict(allocation.sparse), file, {KEY: about})
    refused(file, r'corrupt|broken')


def test_indices_that_we_cannot_have_written(allocation, tmp_path):
    name = next(n for n in allocation.sparse if 'fc' not in n and len(allocation.sparse[n]) > 2)
    index = allocation.sparse[name]
    size = next(np.prod(r.shape) for r in allocation.rows if r.name == name)
    beyond, negative, twice, last = (index.clone() for _ in range(4))
    beyond[-1], negative[0], twice[0], last[-1] = size, -1, index[1], size - 1
    wrong = [beyond, negative, twice, index.flip(0), index.long(), index.float(), index[:-1], index[None], index[:0]]
    for tensor in wrong:
        error = refused(rewritten(allocation, tmp_path, sparse={name: tensor.contiguous()}))
        assert f'is corrupt (the indices of {name}' in error
    read_allocation(rewritten(allocation, tmp_path, sparse={name: last}))
    refused(rewritten(allocation, tmp_path, dict(rows=[asdict(r) | dict(shape=[10**400]) for r in allocation.rows])))
    for other in ('x', next(r.name for r in allocation.rows if r.choice == 'none')):
        refused(rewritten(allocation, tmp_path, sparse={other: index}), 'indices and its rows are of different units')
    without = {n: i for n, i in allocation.sparse.items() if n != name}
    refused(rewritten(replace(allocation, sparse=without), tmp_path), 'different units')
