"""From a config and a budget to an allocation: measure, choose, write."""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import nn

from ..engine.building import naming
from ..engine.experiment import Options, prepare
from ..engine.preflight import check_experiment
from ..errors import UserError
from ..models.build import build_model
from ..petl import check_petl, host_of
from ..spt.allocation import Allocation, rows_of, tensors_sha256, write_allocation
from ..spt.choice import Settings, check_budget, choose
from ..spt.sensitivity import Sensitivity, measure
from ..spt.tuning import budgets_of, check_spt
from ..spt.units import units_of
from ..weights.base import base_state

SHORT = {'lora': 'LoRA', 'adapter': 'AdaptMLP'}


@dataclass(frozen=True)
class Request:
    """What tools/sensitivity.py is asked for; None leaves it to the config's ``petl.spt``.

    Args:
        config: the experiment's file.
        budgets: in parameters, the head left out; with several, one is chosen on held-out training data.
        out: the file to write. Defaults to the config's, or ``work_dirs/<config name>/spt.safetensors``.
        structured: ``'lora'`` or ``'adapter'``.
        rank: of it.
        alpha, beta, rule: of :class:`Settings`.
        batches: at most how many. Defaults to 16.
        batch_size: samples of each. Defaults to 32.
        control: ``'random'`` or ``'shuffled'`` in the place of sensitivity.
        cfg_options: dotted keys to override in the config.
        force: replace ``out``.
    """

    config: str
    budgets: tuple[int, ...] = ()
    out: str | None = None
    structured: str | None = None
    rank: int | None = None
    alpha: float = 10.0
    beta: float = 5.0
    rule: str = 'within'
    batches: int = 16
    batch_size: int = 32
    control: str | None = None
    cfg_options: dict[str, Any] | None = None
    force: bool = False


@dataclass(frozen=True)
class Measured:
    """A pass over the training data.

    Args:
        sensitivity: what it found.
        model: the one it was measured in.
        base: ``file`` and ``sha256`` of the pre-trained weights; None for a random backbone.
        seconds: how long it took, the model's building left out.
        peak_bytes: the most memory held so far: of the GPU since it began, or of the process on the CPU.
    """

    sensitivity: Sensitivity
    model: nn.Module
    base: dict[str, str] | None
    seconds: float
    peak_bytes: int


def prepared(request: Request) -> tuple[Config, Request]:
    """The experiment, and the request with everything that the config leaves open or says.

    Raises:
        UserError: for what is missing or wrong, before anything is measured.
    """
    cfg = prepare(request.config, Options(cfg_options=request.cfg_options))
    petl = check_petl(cfg.model.get('petl'))
    spt = check_spt(petl['spt']) if petl.get('spt') is not None else {}
    budgets = request.budgets or tuple(budgets_of(spt))
    if not budgets:
        raise UserError('Say how many parameters may be tuned: --budget 0.4M (the config has no petl.spt.budget).')
    for name in ('batches', 'batch_size'):
        if getattr(request, name) < 1:
            raise UserError(f'--{name.replace("_", "-")} must be at least 1, got {getattr(request, name)}.')
    out = Path(request.out or spt.get('file') or Path(cfg.work_dir, 'spt.safetensors'))
    _check_out(out, request.force)
    short = {v: k for k, v in SHORT.items()}.get(spt.get('structured'), 'lora')
    request = replace(
        request,
        budgets=tuple(dict.fromkeys(budgets)),
        out=str(out),
        structured=request.structured or short,
        rank=spt.get('rank', 8) if request.rank is None else request.rank,
        control=request.control or spt.get('control'),
    )
    settings_of(request)
    if spt and out.resolve() == Path(spt['file']).resolve():
        _check_fits(spt, request)
    cfg.work_dir = str(out.parent)
    model = check_experiment(plain(cfg), ('train_dataloader',))
    check_budget(max(request.budgets), sum(u.numel for u in units_of(model.backbone)))
    return cfg, request


def _check_out(out: Path, force: bool) -> None:
    if out.suffix != '.safetensors' or out.is_dir():
        raise UserError(f'--out must be a file that ends in .safetensors, got {out}.')
    if out.exists() and not force:
        raise UserError(f'{out} exists, and adapters may have been trained with it; --force replaces it.')


def _check_fits(spt: dict[str, Any], request: Request) -> None:
    """Refuse to write, to where the config reads it, a file that the config would refuse."""
    asked = dict(structured=SHORT[request.structured], rank=request.rank, control=request.control)
    wrong = [name for name, value in asked.items() if spt[name] != value]
    wanted = budgets_of(spt)
    if wanted and not set(request.budgets) <= set(wanted):
        wrong.append('budget')
    if wrong:
        raise UserError(
            f'petl.spt.{wrong[0]} of {request.config} is {spt[wrong[0]]!r}, and another was asked for: say '
            f'--cfg-options model.petl.spt.{wrong[0]}=..., here and in training, or write elsewhere with --out.'
        )


def settings_of(request: Request, class_token: int = 0) -> Settings:
    """The rule's settings."""
    return Settings(SHORT[request.structured], request.rank, request.alpha, request.beta, request.rule, class_token)


def plain(cfg: Config) -> Config:
    """The experiment with its backbone plain and all of it trained, as sensitivity is measured."""
    cfg = copy.deepcopy(cfg)  # Config.copy() shares what is nested
    petl = cfg.model.petl
    cfg.model.petl = dict(train=['all'], **({'attention': petl.attention} if 'attention' in petl else {}))
    cfg.cache_features = None
    return cfg


def measured(cfg: Config, request: Request, advance: Callable[[], None] = lambda: None) -> Measured:
    """Measure sensitivity on the config's training data.

    Args:
        cfg: of :func:`prepared`.
        request: likewise.
        advance: called after each batch.
    """
    cfg = plain(cfg)
    seed = cfg.get('randomness', {}).get('seed') or 0
    set_random_seed(seed)
    model = build_model(cfg, init_weights=True).to(get_device())
    base = cfg.model.base and dict(
        file=str(cfg.model.base.file), sha256=tensors_sha256(base_state(model.backbone, model.base))
    )
    cfg.train_dataloader.update(batch_size=request.batch_size, drop_last=False)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    with DefaultScope.overwrite_default_scope(cfg.default_scope), naming(cfg, 'train_dataloader'):
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        sensitivity = measure(model, loader, request.batches, advance)
    if request.control:
        sensitivity = sensitivity.control(request.control, seed)
    return Measured(sensitivity, model, base, time.monotonic() - started, _peak())


def _peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def allocate(result: Measured, budget: int, cfg: Config, request: Request) -> Allocation:
    """What to tune under a budget.

    Raises:
        UserError: for a budget that is too small, or larger than the backbone.
    """
    sensitivity, backbone = result.sensitivity, result.model.backbone
    token = getattr(backbone, 'cls_token', None)
    settings = settings_of(request, token.numel() if isinstance(token, nn.Parameter) else 0)
    choice = choose(sensitivity.units, sensitivity.values, budget, settings)
    made = dict(
        config=str(request.config),
        options=cfg.get('given_options', {}),
        seed=cfg.get('randomness', {}).get('seed') or 0,
        tau=choice.tau,
        batches=sensitivity.batches,
        samples=sensitivity.samples,
        loss=sensitivity.loss,
        **{k: v for k, v in asdict(settings).items() if k in ('alpha', 'beta', 'rule')},
    )
    return Allocation(
        host=host_of(backbone),
        structured=settings.structured,
        rank=settings.rank,
        budget=budget,
        params=choice.params,
        class_token=choice.class_token,
        rows=rows_of(sensitivity.units, sensitivity.parts(), choice, settings.cost),
        base=result.base,
        control=request.control,
        made=made,
        sparse={name: torch.from_numpy(index) for name, index in choice.sparse.items()},
    )


def find(cfg: Config, request: Request, advance: Callable[[], None] = lambda: None) -> tuple[Allocation, Measured]:
    """Measure, choose for the one budget of ``request``, and write its file.

    Raises:
        UserError: as :func:`allocate`.
    """
    result = measured(cfg, request, advance)
    allocation = allocate(result, request.budgets[0], cfg, request)
    write_allocation(Path(request.out), allocation)
    return allocation, replace(result, peak_bytes=_peak())
