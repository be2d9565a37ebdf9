"""Tensors on their way from their authors' names to a host's, each with the keys that it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class _Entry:
    tensor: Tensor
    sources: tuple[str, ...]
    changes: tuple[str, ...] = ()


class Weights:
    """A file's tensors under translation; floating-point ones are single precision from the start.

    Args:
        state: the file's tensors under its own names.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        plain = {k: v.detach().to_dense() for k, v in state.items()}
        self._entries = {k: _Entry(v.float() if v.is_floating_point() else v, (k,)) for k, v in plain.items()}
        self.dropped: dict[str, str] = {}
        """A key of the file -> why it goes nowhere."""
        self.made: dict[str, str] = {}
        """A name that the file has not -> what its values are."""
        self.heads: int | None = None
        """How many the attention has, where the file says so."""
        self.remarks: list[str] = []
        """What was done that may not be meant."""
        self.theirs: Callable[[str], str] = str
        """The authors' name of one of the host's names."""

    @property
    def tensors(self) -> StateDict:
        """The tensors under the names that they have by now."""
        return {k: e.tensor for k, e in self._entries.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._entries))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Tensor:
        return self._entries[name].tensor

    def sources(self, name: str) -> tuple[str, ...]:
        """The keys of the file that ``name`` was made of."""
        return self._entries[name].sources

    def known_as(self, name: str) -> str:
        """What the file calls, or would call, the host's ``name``: as in another block, else by the table."""
        if name in self:
            return ', '.join(self.sources(name))
        block = re.fullmatch(r'(.*?\.)(\d+)(\..*)', name)
        other = block and self._in_another_block(block.group(1), block.group(3))
        if not other:
            return self.theirs(name)
        there = rf'(?<=[._/]){other.group(1)}(?=[./])'
        keys = [re.sub(there, block.group(2), key, count=1) for key in self.sources(other.group())]
        known = {key for entry in self._entries.values() for key in entry.sources}
        return ', '.join(key for key in keys if key not in known)

    def _in_another_block(self, before: str, after: str) -> re.Match[str] | None:
        pattern = re.compile(rf'{re.escape(before)}(\d+){re.escape(after)}')
        return next((m for m in map(pattern.fullmatch, self) if m), None)

    def drop(self, pattern: str, why: str) -> None:
        """Leave out what ``pattern`` matches from its beginning on."""
        for name in self:
            if re.match(pattern, name):
                self.dropped |= dict.fromkeys(self._entries.pop(name).sources, why)

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Give every tensor its new name.

        Raises:
            UserError: when two would have the same.
        """
        renamed: dict[str, _Entry] = {}
        for name, entry in self._entries.items():
            new = new_name(name)
            if new in renamed:
                both = ' and '.join((*renamed[new].sources, *entry.sources))
                raise UserError(f'{both} are two tensors for the same place, {new}.')
            renamed[new] = entry
        self._entries = renamed

    def fuse(self, names: Iterable[str], into: str) -> None:
        """Put tensors on top of each other, along the first dimension."""
        parts = [self._entries[n] for n in names]
        try:
            whole = torch.cat([p.tensor for p in parts])
        except RuntimeError as error:
            raise UserError(f'{", ".join(names)} do not fit on top of each other.') from error
        for name in names:
            del self._entries[name]
        self._entries[into] = _Entry(whole, tuple(s for p in parts for s in p.sources), parts[0].changes)

    def change(self, name: str, tensor: Tensor, how: str) -> None:
        """Put ``tensor`` in the place of ``name``; ``how`` says what was done, such as 'resized'."""
        entry = self._entries[name]
        said = f'{how} from {_size(entry.tensor)} to {_size(tensor)}'
        self._entries[name] = replace(entry, tensor=tensor, changes=(*entry.changes, said))

    def make(self, name: str, tensor: Tensor, what: str) -> None:
        """Add a tensor that the file has not."""
        self._entries[name] = _Entry(tensor, ())
        self.made[name] = what

    def fates(self, prefix: str = '') -> dict[str, dict[str, Any]]:
        """What became of every key of the file: ``to`` a name behind ``prefix``, or ``dropped`` with why."""
        fates: dict[str, dict[str, Any]] = {k: dict(dropped=why) for k, why in self.dropped.items()}
        for name, entry in self._entries.items():
            for source in entry.sources:
                how = ['fused' if len(entry.sources) > 1 else 'kept' if source == prefix + name else 'renamed']
                fates[source] = dict(to=prefix + name, how='; '.join((*how, *entry.changes)))
        return dict(sorted(fates.items()))


def _size(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape)) or 'a number'
