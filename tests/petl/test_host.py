"""How a delta sits on a host: keys, order, copies, names, and the way back."""

from __future__ import annotations

import ast
import copy
import keyword
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vpetl_mm
from vpetl_mm import UserError
from vpetl_mm.petl import AdaptMLP, Delta
from vpetl_mm.petl.host import attach, attach_branch, detach, reattach


class Add(Delta):
    """y + weight x."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def reset_parameters(self) -> None:
        """Keep what it was built with."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y + self.weight * x


class Times(Delta):
    """y * factor: order matters with Add."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def reset_parameters(self) -> None:
        """Keep what it was built with."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y * self.factor


class Outside(Add):
    stream = 'residual'


class Block(nn.Module):
    """A residual branch with something after the MLP, as drop-path is."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(4), nn.Linear(4, 4)

    def branch(self, x: Tensor) -> Tensor:
        return 0 * self.mlp(self.norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Scaled(nn.Linear):
    """A host whose forward takes more than x."""

    def forward(self, x: Tensor, factor: float = 1.0, *, shift: float = 0.0) -> Tensor:
        return super().forward(x) * factor + shift


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def test_adds_to_the_hosts_output_and_keeps_its_weights():
    host = nn.Linear(4, 4)
    plain, weight = host(X), host.weight
    attach(host, 'add', Add(2.0))
    torch.testing.assert_close(host(X), plain + 2 * X)
    assert host.weight is weight
    assert list(host.state_dict()) == ['weight', 'bias', 'deltas.add.weight']


def test_a_hosted_module_is_still_of_its_class():
    host = nn.Linear(4, 4)
    attach(host, 'add', Add(1.0))
    assert isinstance(host, nn.Linear)
    assert (host.in_features, host.out_features) == (4, 4)


def test_only_that_module_changes():
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    attach(one, 'add', Add(1.0))
    assert type(other) is nn.Linear
    assert not hasattr(other, 'deltas')


def test_two_hosts_of_one_class_have_deltas_of_their_own():
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    plain = one(X), other(X)
    attach(one, 'add', Add(1.0))
    attach(other, 'add', Add(3.0))
    torch.testing.assert_close(one(X), plain[0] + X)
    torch.testing.assert_close(other(X), plain[1] + 3 * X)


def test_deltas_stack_in_their_order():
    host = nn.Linear(4, 4)
    plain = host(X)
    attach(host, 'add', Add(2.0))
    attach(host, 'times', Times(3.0))
    torch.testing.assert_close(host(X), (plain + 2 * X) * 3)


class Tanh(Add):
    """A delta whose gradient is made from its output."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.weight * y).tanh()


def test_what_another_delta_returned_is_not_written_over():
    host = nn.Linear(4, 4)
    for name, delta in (('tanh', Tanh(0.5)), ('adapter', AdaptMLP(4, d_bottle=2))):
        attach(host, name, delta)
    nn.init.normal_(host.deltas['adapter'].up.weight)
    host(X).sum().backward()
    assert host.deltas['tanh'].weight.grad


def test_further_arguments_reach_the_host():
    host = Scaled(4, 4)
    plain = host(X, 2.0, shift=1.0)
    attach(host, 'add', Add(1.0))
    torch.testing.assert_close(host(X, 2.0, shift=1.0), plain + X)


def test_residual_deltas_act_after_the_branch_on_its_input():
    block = Block()
    attach(block.mlp, 'outside', Outside(2.0))
    attach(block.mlp, 'inside', Add(5.0))  # silenced by the branch
    attach_branch(block, 'branch', 'mlp')
    torch.testing.assert_close(block(X), X + 2 * X)


def test_detach_gives_the_plain_module_back_and_reattach_undoes_it():
    host = nn.Linear(4, 4)
    plain = host(X)
    attach(host, 'add', Add(2.0))
    hosted = host(X)
    deltas = detach(host)
    assert type(host) is nn.Linear
    assert list(host.state_dict()) == ['weight', 'bias']
    assert torch.equal(host(X), plain)
    reattach(host, deltas)
    assert torch.equal(host(X), hosted)


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['deepcopy', 'pickle']
)
def test_copies_are_hosted_too(copied):
    block = nn.Sequential(nn.Linear(4, 4), Block())
    attach(block[0], 'add', Add(2.0))
    attach(block[1].mlp, 'outside', Outside(2.0))
    attach_branch(block[1], 'branch', 'mlp')
    twin = copied(block)
    assert torch.equal(twin(X), block(X))
    assert [type(m) for m in twin.modules()] == [type(m) for m in block.modules()]
    before = block(X)
    with torch.no_grad():
        twin[0].deltas['add'].weight.zero_()
    assert torch.equal(block(X), before)
    assert not torch.equal(twin(X), before)


def test_a_shallow_copy_is_hosted():
    host = nn.Linear(4, 4)
    attach(host, 'add', Add(2.0))
    assert torch.equal(copy.copy(host)(X), host(X))


def test_state_of_the_host_survives_pickle():
    host = nn.Linear(4, 4)
    attach(host, 'add', Add(2.0))
    host.eval()
    host.note = 'kept'
    twin = pickle.loads(pickle.dumps(host))
    assert (twin.training, twin.note) == (False, 'kept')


NOT_NAMES = ['a-b', '', '0a', 'a.b', 'a b', 'keys', 'values', 'items', 'pop', 'forward', 'train', 'training']


@pytest.mark.parametrize('name', [*NOT_NAMES, '_modules', '_parameters'])
def test_names_that_cannot_be(name):
    host = nn.Linear(4, 4)
    with pytest.raises(UserError) as error:
        attach(host, name, Add(1.0))
    assert repr(name) in str(error.value)
    assert 'identifier' in str(error.value)


@pytest.mark.parametrize('name', [n for n in NOT_NAMES if n])
def test_a_refused_name_leaves_the_host_as_it_was(name):
    host = nn.Linear(4, 4)
    with pytest.raises((UserError, KeyError)):
        attach(host, name, Add(1.0))
    assert type(host) is nn.Linear
    assert list(host.state_dict()) == ['weight', 'bias']


@pytest.mark.parametrize('name', ['patt', 'adapter', 'a', 'A1', 'snake_case', 'ü'])
def test_names_that_can(name):
    assert not keyword.iskeyword(name)
    host = nn.Linear(4, 4)
    attach(host, name, Add(1.0))
    assert f'deltas.{name}.weight' in host.state_dict()


def test_torch_export():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    attach(model[0], 'add', Add(2.0))
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(exported(X), model(X))


@pytest.mark.parametrize('path', sorted(Path(vpetl_mm.__file__).parent.glob('petl/*.py')), ids=lambda p: p.name)
def test_petl_imports_torch_alone(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots = {a.name.split('.')[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots = {node.module.split('.')[0]}
        else:
            continue
        assert roots <= {'torch', '__future__', *sys.stdlib_module_names}


def test_a_delta_must_say_how_it_is_drawn():
    class Undrawn(Delta):
        places = ('qkv',)

    with pytest.raises(TypeError, match='reset_parameters'):
        Undrawn()
