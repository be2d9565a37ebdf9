"""Reads adapter_config.json: the settings of plain LoRA; anything else is refused.

PEFT takes several of its fields for regular expressions. None is run here: some take longer than anyone waits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError, tellable
from ...files import from_json

CONFIG = 'adapter_config.json'
LARGEST = 1 << 20  # bytes; PEFT's own are about a thousand
# fields that do not change what a trained LoRA computes; the initialisers' settings are among them
WITHOUT_EFFECT = {
    'auto_mapping',
    'base_model_name_or_path',
    'corda_config',
    'eva_config',
    'inference_mode',
    'layers_pattern',
    'loftq_config',
    'lora_ga_config',
    'megatron_config',
    'megatron_core',
    'modules_to_save',
    'peft_version',
    'qalora_group_size',
    'revision',
    'runtime_config',
    'task_type',
}
READ = {
    'peft_type',
    'r',
    'lora_alpha',
    'lora_dropout',
    'use_rslora',
    'rank_pattern',
    'alpha_pattern',
    'target_modules',
    'exclude_modules',
    'layers_to_transform',
    'bias',
    'init_lora_weights',
}
INITIALISERS = (True, False, None, 'gaussian', 'eva', 'orthogonal')  # the others change the base's weights
PLAIN = re.compile(r'\^?(\w|\.|\\\.)+')


@dataclass(frozen=True)
class LoRAConfig:
    """The settings of plain LoRA.

    Args:
        rank: of layers that no pattern names.
        alpha: likewise.
        dropout: on the update's input, in training.
        rslora: the scale is alpha / sqrt(rank), not alpha / rank.
        ranks: name, or the end of one -> rank; None where a pattern tells.
        alphas: name, or the end of one -> alpha.
        targets: the names, or ends of names, of the layers that have LoRA; None where a pattern tells.
        excluded: likewise of those among them that have none.
        blocks: the numbers of the blocks that have LoRA; None for all.
    """

    rank: int
    alpha: float
    dropout: float
    rslora: bool
    ranks: Mapping[str, int] | None
    alphas: Mapping[str, float]
    targets: tuple[str, ...] | None
    excluded: tuple[str, ...] | None
    blocks: tuple[int, ...] | None

    def scale(self, layer: str, rank: int) -> float:
        """Return what B A is multiplied by on a layer.

        Raises:
            UserError: when the file gives the layer another rank.
        """
        named = self.rank if self.ranks is None else _of_layer(self.ranks, layer, self.rank)
        if rank != named and self.ranks is not None:
            raise UserError(f'{layer} has the rank {rank} in its tensors and {named} in {CONFIG}.')
        return _of_layer(self.alphas, layer, self.alpha) / (math.sqrt(rank) if self.rslora else rank)

    def wanted(self, layers: Iterable[tuple[int, str]]) -> set[str] | None:
        """Return which of ``layers``, each with its block's number, have LoRA; None where only a pattern tells."""
        if self.targets is None or self.excluded is None:
            return None
        return {
            name
            for block, name in layers
            if (self.blocks is None or block in self.blocks)
            and any(name == end or name.endswith(f'.{end}') for end in self.targets)
            and not any(name == end or name.endswith(f'.{end}') for end in self.excluded)
        }


def read_config(file: Path) -> LoRAConfig:
    """Read and check an adapter_config.json.

    Raises:
        UserError: when it is not JSON, or says anything that plain LoRA does not know.
    """
    if file.stat().st_size > LARGEST:
        raise UserError(
            f'it has {file.stat().st_size:,} bytes, and no adapter_config.json has more than {LARGEST:,}.'
        )
    try:
        given = from_json(file.read_bytes())
    except ValueError as error:
        raise UserError(f'it is not JSON ({tellable(error)}).') from error
    if not isinstance(given, dict):
        raise UserError('it is not a JSON object.')
    if given.get('peft_type') != 'LORA':
        raise UserError(f'its peft_type is {given.get("peft_type")!r:.80}, and only LORA can be read.')
    _refuse_others(given)
    _check(given)
    blocks, ranks = given.get('layers_to_transform'), given.get('rank_pattern') or {}
    return LoRAConfig(
        rank=given.get('r', 8),
        alpha=given.get('lora_alpha', 8),
        dropout=given.get('lora_dropout', 0.0),
        rslora=bool(given.get('use_rslora')),
        ranks=ranks if all(map(PLAIN.fullmatch, ranks)) else None,
        alphas=given.get('alpha_pattern') or {},
        targets=_names(given.get('target_modules')),
        excluded=_names(given.get('exclude_modules') or []),
        blocks=None if blocks in (None, []) else tuple(blocks if isinstance(blocks, list) else [blocks]),
    )


def _refuse_others(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in READ | WITHOUT_EFFECT and value not in (None, False, '', [], {}):
            raise UserError(f'its {name!r:.60} is {value!r:.60}, which plain LoRA does not have.')
    for name, valid in (('bias', ('none', None)), ('init_lora_weights', INITIALISERS)):
        value = given.get(name)
        if not any(value is v or (isinstance(v, str) and value == v) for v in valid):
            raise UserError(f'its {name} is {value!r:.60}, which changes weights beside LoRA.')


def _check(given: Mapping[str, Any]) -> None:
    """Check the types and ranges of what is read."""
    ranks, alphas = given.get('rank_pattern') or {}, given.get('alpha_pattern') or {}
    blocks = given.get('layers_to_transform')
    for name, right, what in (
        ('r', _is_rank(given.get('r', 8)), 'a rank'),
        ('lora_alpha', _is_number(given.get('lora_alpha', 8)), 'a number'),
        ('lora_dropout', _is_number(given.get('lora_dropout', 0.0)), 'a number'),
        ('use_rslora', type(given.get('use_rslora', False)) is bool, 'true or false'),
        ('rank_pattern', isinstance(ranks, dict) and all(map(_is_rank, ranks.values())), 'ranks by name'),
        ('alpha_pattern', isinstance(alphas, dict) and all(map(_is_number, alphas.values())), 'numbers by name'),
        ('layers_to_transform', blocks is None or _are_numbers(blocks), 'numbers of blocks'),
    ):
        if not right:
            raise UserError(f'its {name} is {given[name]!r:.80}, not {what}.')
    if not 0 <= given.get('lora_dropout', 0.0) < 1:
        raise UserError(f'its lora_dropout is {given["lora_dropout"]!r}, not from 0 to below 1.')
    pattern = next((name for name in alphas if not PLAIN.fullmatch(name)), None)
    if pattern is not None:
        raise UserError(
            f"its alpha_pattern has the regular expression {pattern!r:.80}, and a stranger's is not run here: write "
            'the names of the layers instead.'
        )


def _is_rank(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # NaN is not


def _are_numbers(value: Any) -> bool:
    return all(type(v) is int for v in (value if isinstance(value, list) else [value]))


def _names(value: Any) -> tuple[str, ...] | None:
    """Return a list of names; None for a regular expression, which PEFT writes as text."""
    listed = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return tuple(value) if listed else None


def _of_layer(values: Mapping[str, Any], layer: str, default: Any) -> Any:
    """Return the value of the first name that is a layer's or its end, as PEFT finds it; a dot is any character."""
    for name, value in values.items():
        plain = name.removeprefix('^').replace('\\.', '\0')
        start = len(layer) - len(plain)
        if start < 0 or not all(map(_matches, plain, layer[start:])):
            continue
        if start == 0 or (layer[start - 1] == '.' and not name.startswith('^')):
            return value
    return default


def _matches(pattern: str, character: str) -> bool:
    return pattern in (character, '.') or (pattern, character) == ('\0', '.')
