"""Tensors on their way from their authors' names to a host's, each with the keys that it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class _Entry:
    tensor: Tensor
    sources: tuple[str, ...]
    changes: tuple[str, ...] = ()


class Weights:
    """A file's tensors while they are translated; floating-point ones become single precision at once."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        plain = {k: v.detach().to_dense() for k, v in state.items()}
        self._entries = {k: _Entry(v.float() if v.is_floating_point() else v, (k,)) for k, v in plain.items()}
        self.dropped: dict[str, str] = {}
        """Each key of the file that is not used -> the reason."""
        self.made: dict[str, str] = {}
        """Each name that is not in the file -> its values, in words."""
        self.heads: int | None = None
        """The number of attention heads, where the file tells."""
        self.remarks: list[str] = []
        """Decisions that the user may want to check."""
        self.theirs: Callable[[str], str] = str
        """Turns a host's name into the authors'."""

    @property
    def tensors(self) -> StateDict:
        """The tensors under their present names."""
        return {k: e.tensor for k, e in self._entries.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._entries))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Tensor:
        return self._entries[name].tensor

    def has(self, pattern: str) -> bool:
        """Tell whether a name begins with ``pattern``."""
        return any(re.match(pattern, name) for name in self)

    def had(self, pattern: str) -> bool:
        """Tell whether the file's key of a tensor begins with ``pattern``, behind any prefix."""
        return any(re.match(rf'(.*\.)?{pattern}', key) for entry in self._entries.values() for key in entry.sources)

    def sources(self, name: str) -> tuple[str, ...]:
        """Return the keys of the file that ``name`` was made of."""
        return self._entries[name].sources

    def known_as(self, name: str) -> str:
        """Return what the file calls, or would call, the host's ``name``: as in another block, else by the table."""
        if name in self:
            return ', '.join(self.sources(name))
        block = re.fullmatch(r'(.*?\.)(\d+)(\..*)', name)
        same = block and re.compile(rf'{re.escape(block[1])}(\d+){re.escape(block[3])}')
        other = same and next(filter(None, map(same.fullmatch, self)), None)
        if not other:
            return self.theirs(name)
        there = rf'(?<=[._/]){other.group(1)}(?=[./])'
        keys = [re.sub(there, block.group(2), key, count=1) for key in self.sources(other.group())]
        known = {key for entry in self._entries.values() for key in entry.sources}
        return ', '.join(key for key in keys if key not in known)

    def drop(self, pattern: str, why: str) -> None:
        """Drop every tensor whose name begins with ``pattern``."""
        for name in self:
            if re.match(pattern, name):
                self.dropped |= dict.fromkeys(self._entries.pop(name).sources, why)

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Rename every tensor.

        Raises:
            UserError: when two would have the same name.
        """
        renamed: dict[str, _Entry] = {}
        for name, entry in self._entries.items():
            new = new_name(name)
            if new in renamed:
                both = ' and '.join((*renamed[new].sources, *entry.sources))
                raise UserError(f'{both} both stand for {new}.')
            renamed[new] = entry
        self._entries = renamed

    def fuse(self, names: Iterable[str], into: str) -> None:
        """Concatenate tensors along the first dimension.

        Raises:
            UserError: when their shapes do not allow it.
        """
        parts = [self._entries[n] for n in names]
        try:
            whole = torch.cat([p.tensor for p in parts])
        except RuntimeError as error:
            raise UserError(f'the shapes of {", ".join(names)} do not allow fusing them.') from error
        for name in names:
            del self._entries[name]
        self._entries[into] = _Entry(whole, tuple(s for p in parts for s in p.sources), parts[0].changes)

    def become(self, tensors: Mapping[str, Tensor], how: str) -> None:
        """Replace all tensors by those that another library made of them.

        Args:
            tensors: under their new names. One that is the same object as before, or has the same name, keeps its
                source.
            how: says what was done, such as "by timm's rules".
        """
        by_id = {id(e.tensor): e for e in self._entries.values()}
        entries: dict[str, _Entry] = {}
        for name, tensor in tensors.items():
            named = self._entries.get(name)
            as_before = named is not None and named.tensor is tensor
            entry = named if as_before else by_id.get(id(tensor)) or named or _Entry(tensor, ())
            same = tensor.shape == entry.tensor.shape
            changed = () if same else (f'{how}, from {_size(entry.tensor)} to {_size(tensor)}',)
            entries[name] = replace(entry, tensor=tensor, changes=(*entry.changes, *changed))
        used = {source for entry in entries.values() for source in entry.sources}
        for entry in self._entries.values():
            self.dropped |= {source: how for source in entry.sources if source not in used}
        self._entries = entries

    def drop_foreign(self, pattern: str, own: Iterable[str]) -> None:
        """Drop, with a remark, what begins with ``pattern`` and is none of ``own``, such as a classifier."""
        foreign = [name for name in self if re.match(pattern, name) and name not in {*own}]
        for name in foreign:
            self.drop(re.escape(name) + '$', 'not of the backbone')
        if foreign:
            self.remarks.append(f'{_listed(foreign, 3)} {"is" if len(foreign) == 1 else "are"} not of the backbone')

    def change(self, name: str, tensor: Tensor, how: str) -> None:
        """Replace the tensor called ``name``; ``how`` says what was done, such as 'resized'."""
        entry = self._entries[name]
        change = f'{how} from {_size(entry.tensor)} to {_size(tensor)}'
        self._entries[name] = replace(entry, tensor=tensor, changes=(*entry.changes, change))

    def make(self, name: str, tensor: Tensor, what: str) -> None:
        """Add a tensor that is not in the file; ``what`` describes its values."""
        self._entries[name] = _Entry(tensor, ())
        self.made[name] = what

    def fates(self, prefix: str = '') -> dict[str, dict[str, Any]]:
        """Return what became of each key: ``to`` (behind ``prefix``) and ``how``, or ``dropped`` with the reason."""
        fates: dict[str, dict[str, Any]] = {k: dict(dropped=why) for k, why in self.dropped.items()}
        for name, entry in self._entries.items():
            for source in entry.sources:
                how = 'fused' if len(entry.sources) > 1 else 'kept' if source == prefix + name else 'renamed'
                fates[source] = dict(to=prefix + name, how='; '.join((how, *entry.changes)))
        return dict(sorted(fates.items()))


def _size(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape)) or 'a number'


def check_complete(weights: Weights, backbone: nn.Module, hint: str = '') -> None:
    """Check that the weights are the whole backbone and nothing else, all of them finite numbers.

    Buffers may be missing: they follow from the settings.

    Args:
        weights: under the names of the backbone.
        backbone: on any device, also meta.
        hint: follows the error where names or shapes do not fit.

    Raises:
        UserError: listing what is missing, left over, of another shape, not floating-point or not finite.
    """
    wanted, derived = backbone.state_dict(), {name for name, _ in backbone.named_buffers()}
    there = [k for k in wanted if k in weights]
    other = [k for k in there if weights[k].shape != wanted[k].shape]
    floats = [k for k in there if wanted[k].is_floating_point()]
    misfits = {
        'missing': [_both(weights, k) for k in wanted if k not in weights and k not in derived],
        'left over': [', '.join(weights.sources(k)) for k in weights if k not in wanted],
        'of another shape': [
            f'{_both(weights, k)}, {tuple(weights[k].shape)} instead of {tuple(wanted[k].shape)}' for k in other
        ],
    }
    wrong = {
        'not floating-point': [_both(weights, k) for k in floats if not weights[k].is_floating_point()],
        'not finite': [_both(weights, k) for k in floats if not torch.isfinite(weights[k]).all()],
    }
    listed = '; '.join(f'{what}: {_listed(names)}' for what, names in (misfits | wrong).items() if names)
    if listed:
        fit = f'{len(there) - len(other)} of {len(wanted)} keys fit'
        raise UserError(f'it does not match the backbone: {fit}; {listed}.{hint if any(misfits.values()) else ""}')


def _both(weights: Weights, name: str) -> str:
    theirs = weights.known_as(name)
    return theirs if theirs.endswith(name) else f'{theirs} ({name})'


def _listed(names: list[str], most: int = 6) -> str:
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
