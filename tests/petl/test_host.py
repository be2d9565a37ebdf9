"""How a delta sits on a host: what is asked when, on every kind of host; keys, copies, names, and the way back."""

from __future__ import annotations

import ast
import copy
import pickle
import sys
from pathlib import Path

import pytest
import tiny
import torch
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor, nn

import vpetl_mm
from vpetl_mm.petl import AdaptMLP, Delta
from vpetl_mm.petl.host import attach, attach_branch, detach, reattach


class Scalar(Delta):
    """A delta of one number, which is drawn as it was given."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def reset_parameters(self) -> None:
        """Keep what it was built with."""


class Add(Scalar):
    """y + weight x."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class AddOutput(Add):
    """y + weight y."""

    reads = 'output'


class Outside(Add):
    """The stream + weight times it."""

    reads = 'stream'


class Before(Scalar):
    """The host of x + weight."""

    reads = None

    def before(self, x: Tensor) -> Tensor:
        return x + self.weight


class Times(Scalar):
    """y weight: the order with Add matters."""

    reads = None

    def after(self, y: Tensor) -> Tensor:
        return y * self.weight


class Tanh(Times):
    """A delta whose gradient is made from its output."""

    def after(self, y: Tensor) -> Tensor:
        return (self.weight * y).tanh()


class Update(Scalar):
    """W weight and b + weight."""

    reads = 'weights'

    def update(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight * self.weight, self.weight.expand(len(weight)) + (0 if bias is None else bias)


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


def hosted(host: nn.Module, **deltas: Delta) -> nn.Module:
    for name, delta in deltas.items():
        attach(host, name, delta)
    return host


def both(host: nn.Module, **deltas: Delta) -> tuple[Tensor, Tensor]:
    """The host's output before and after."""
    return host(X), hosted(host, **deltas)(X)


def test_adds_to_the_hosts_output_and_keeps_its_class_and_weights():
    host, other = nn.Linear(4, 4), nn.Linear(4, 4)
    weight = host.weight
    plain, ours = both(host, add=Add(2.0))
    torch.testing.assert_close(ours, plain + 2 * X)
    assert host.weight is weight and isinstance(host, nn.Linear)
    assert (host.in_features, host.out_features) == (4, 4)
    assert list(host.state_dict()) == ['weight', 'bias', 'deltas.add.weight']
    assert type(other) is nn.Linear and not hasattr(other, 'deltas')
    plain, ours = both(other, add=Add(3.0))  # of the same class, with a delta of its own
    torch.testing.assert_close(ours, plain + 3 * X)


# On every kind of host


def ffn(add_identity: bool) -> FFN:
    made = FFN(embed_dims=4, feedforward_channels=8, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type='GELU'))
    made.add_identity = add_identity
    return tiny.randomised(made)


KINDS = {
    'linear': lambda: tiny.randomised(nn.Linear(4, 4)),
    'no_bias': lambda: tiny.randomised(nn.Linear(4, 4, bias=False)),
    'norm': lambda: tiny.randomised(nn.LayerNorm(4, eps=0.1)),
    'ffn': lambda: ffn(False),
    'attention': lambda: tiny.VIT.part(tiny.VIT.blocks(tiny.VIT.build(depth=1))[0], 'attn'),
    'block': lambda: tiny.VIT.blocks(tiny.VIT.build(depth=1))[0],
}


@pytest.mark.parametrize('kind', KINDS)
def test_a_host_asks_before_forward_and_after_in_the_order_of_its_deltas(kind):
    host = KINDS[kind]()
    x = torch.randn(2, 3, 16 if kind in ('attention', 'block') else 4, generator=torch.Generator().manual_seed(1))
    plain = copy.deepcopy(host)
    hosted(host, add=Add(2.0), before=Before(0.5), times=Times(3.0), output=AddOutput(0.25), more=Before(1.0))
    seen = x + 0.5 + 1
    expected = (plain(seen) + 2 * seen) * 3 * 1.25
    torch.testing.assert_close(host(x), expected)
    grads = torch.autograd.grad(host(x).square().sum(), list(host.deltas.parameters()))
    assert all(grads)


@pytest.mark.parametrize('given', [False, True], ids=['its_input', 'given'])
def test_an_ffn_adds_the_stream_behind_its_deltas(given):
    """As it was before a delta changed the input; what reads the stream is added to it as well."""
    host, stream = ffn(True), torch.randn(5, 4, generator=torch.Generator().manual_seed(2)) if given else X
    branch = copy.deepcopy(host)
    branch.add_identity = False
    hosted(host, before=Before(0.5), add=Add(2.0), times=Times(3.0), outside=Outside(4.0))
    expected = stream + (branch(X + 0.5) + 2 * (X + 0.5)) * 3 + 4 * stream
    torch.testing.assert_close(host(X, identity=stream) if given else host(X), expected)


@pytest.mark.parametrize('kind', ['linear', 'no_bias', 'norm'])
def test_updates_add_their_changes_of_the_hosts_own_weights_before_anything_reads_the_output(kind):
    host = KINDS[kind]()
    plain = copy.deepcopy(host)
    hosted(host, times=Times(3.0), one=Update(2.0), before=Before(0.5), two=Update(5.0))
    y = plain(X + 0.5)
    product = y if plain.bias is None else y - plain.bias
    torch.testing.assert_close(host(X), 3 * (y + (2 - 1) * product + 2 + (5 - 1) * product + 5))


def test_what_another_delta_returned_is_not_written_over():
    host = hosted(nn.Linear(4, 4), tanh=Tanh(0.5), adapter=AdaptMLP(4, d_bottle=2))
    nn.init.normal_(host.deltas['adapter'].up.weight)
    host(X).sum().backward()
    assert host.deltas['tanh'].weight.grad


def test_further_arguments_reach_the_host():
    host = Scaled(4, 4)
    plain = host(X, 2.0, shift=1.0)
    torch.testing.assert_close(hosted(host, add=Add(1.0))(X, 2.0, shift=1.0), plain + X)


def test_stream_deltas_act_after_the_branch_on_its_input():
    block = Block()
    hosted(block.mlp, outside=Outside(2.0), inside=Add(5.0))  # silenced by the branch
    attach_branch(block, 'branch', 'mlp')
    torch.testing.assert_close(block(X), X + 2 * X)
    detach(block.mlp)
    torch.testing.assert_close(block(X), X)


def test_detach_gives_the_plain_module_back_and_reattach_undoes_it():
    host = nn.Linear(4, 4)
    plain, ours = both(host, add=Add(2.0))
    deltas = detach(host)
    assert type(host) is nn.Linear
    assert list(host.state_dict()) == ['weight', 'bias']
    assert torch.equal(host(X), plain)
    reattach(host, deltas)
    assert torch.equal(host(X), ours)


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['deepcopy', 'pickle']
)
def test_copies_are_hosted_too(copied):
    block = nn.Sequential(hosted(nn.Linear(4, 4), add=Add(2.0)), Block())
    hosted(block[1].mlp, outside=Outside(2.0))
    attach_branch(block[1], 'branch', 'mlp')
    block.eval()[0].note = 'kept'
    twin = copied(block)
    assert torch.equal(twin(X), block(X))
    assert [type(m) for m in twin.modules()] == [type(m) for m in block.modules()]
    assert (twin[0].training, twin[0].note) == (False, 'kept')
    before = block(X)
    with torch.no_grad():
        twin[0].deltas['add'].weight.zero_()
    assert torch.equal(block(X), before)
    assert not torch.equal(twin(X), before)
    assert torch.equal(copy.copy(block[0])(X), block[0](X)), 'a shallow copy'


NOT_NAMES = ['a-b', '', '0a', 'a.b', 'a b', 'keys', 'values', 'items', 'pop', 'forward', 'train', 'training']


@pytest.mark.parametrize('name', [*NOT_NAMES, '_modules', '_parameters'])
def test_names_that_cannot_be_leave_the_host_as_it_was(name):
    host = nn.Linear(4, 4)
    with tiny.refused(repr(name), 'identifier'):
        attach(host, name, Add(1.0))
    assert type(host) is nn.Linear
    assert list(host.state_dict()) == ['weight', 'bias']


@pytest.mark.parametrize('name', ['patt', 'adapter', 'a', 'A1', 'snake_case', 'ü'])
def test_names_that_can(name):
    host = hosted(nn.Linear(4, 4), **{name: Add(1.0)})
    assert f'deltas.{name}.weight' in host.state_dict()


@pytest.mark.parametrize('path', sorted(Path(vpetl_mm.__file__).parent.glob('petl/*.py')), ids=lambda p: p.name)
def test_petl_imports_torch_alone(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        assert {n.split('.')[0] for n in names} <= {'torch', '__future__', *sys.stdlib_module_names}


def test_a_delta_must_say_how_it_is_drawn():
    class Undrawn(Delta):
        places = ('qkv',)

    with pytest.raises(TypeError, match='reset_parameters'):
        Undrawn()
