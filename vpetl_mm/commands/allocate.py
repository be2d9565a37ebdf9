"""Finds what to tune in an experiment: measures sensitivity, chooses under a budget, and writes the result."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
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
from ..engine.plain import plain_experiment
from ..engine.preflight import check_experiment
from ..engine.probe import SAMPLES, features_of, has_batch_norm, settle, train_head
from ..errors import UserError
from ..models.build import build_model
from ..petl import check_petl
from ..petl.checks import one_of
from ..spt.allocation import Allocation, allocated, tensors_sha256, write_allocation
from ..spt.choice import Settings, check_budget
from ..spt.sensitivity import GRADIENTS, HEADS, Sensitivity, measure
from ..spt.tuning import MEASURED, budgets_of, check_spt
from ..spt.units import class_token_of, units_of
from ..weights.base import base_state


@dataclass(frozen=True)
class AllocationRequest:
    """The options of tools/sensitivity.py; None leaves one to the config's ``petl.spt``.

    Args:
        config: the experiment's file.
        budgets: in parameters, without the head; of several, one is chosen on held-out training data.
        out: the file to write. Defaults to the config's, or ``work_dirs/<config name>/spt.safetensors``.
        structured: ``'LoRA'`` or ``'AdaptMLP'``.
        rank: of LoRA, or the adapter's bottleneck.
        alpha, beta, rule: of :class:`Settings`.
        batches: at most how many. Defaults to 16.
        batch_size: in samples. Defaults to 32.
        control: ``'random'`` or ``'shuffled'`` instead of sensitivity.
        head: ``'start'`` or ``'probe'``, behind which gradients are computed.
        gradients: ``'batch'`` or ``'sample'``, whose gradients are squared.
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
    head: str | None = None
    gradients: str | None = None
    cfg_options: dict[str, Any] | None = None
    force: bool = False

    def settings(self, class_token: int = 0) -> Settings:
        """Return the settings of the rule."""
        return Settings(self.structured, self.rank, self.alpha, self.beta, self.rule, class_token)


@dataclass(frozen=True)
class Measurement:
    """A pass over the training data.

    Args:
        sensitivity: its result.
        model: the model that was measured.
        base: ``file`` and ``sha256`` of the pre-trained weights; None for a random backbone.
        seconds: its duration, without building the model.
    """

    sensitivity: Sensitivity
    model: nn.Module
    base: dict[str, str] | None
    seconds: float


def resolve(request: AllocationRequest) -> tuple[Config, AllocationRequest]:
    """Prepare the experiment, and fill in what the request leaves to the config.

    Raises:
        UserError: for everything that is missing or wrong, before anything is measured.
    """
    cfg = prepare(request.config, Options(cfg_options=request.cfg_options))
    petl = check_petl(cfg.model.get('petl'))
    spt = check_spt(petl['spt']) if petl.get('spt') is not None else {}
    budgets = request.budgets or tuple(budgets_of(spt))
    if not budgets:
        raise UserError('Set the number of parameters to tune: --budget 0.4M (the config has no petl.spt.budget).')
    for name in ('batches', 'batch_size'):
        if getattr(request, name) < 1:
            raise UserError(f'--{name.replace("_", "-")} must be at least 1, got {getattr(request, name)}.')
    out = Path(request.out or spt.get('file') or Path(cfg.work_dir, 'spt.safetensors'))
    if out.suffix != '.safetensors' or out.is_dir():
        raise UserError(f'--out must be a file that ends in .safetensors, got {out}.')
    _check_free(out, request.force)
    request = replace(
        request,
        budgets=tuple(dict.fromkeys(budgets)),
        out=str(out),
        structured=request.structured or spt.get('structured', 'LoRA'),
        rank=spt.get('rank', 8) if request.rank is None else request.rank,
        control=request.control or spt.get('control'),
        **{name: getattr(request, name) or spt.get(name, usual) for name, usual in MEASURED.items()},
    )
    request.settings()
    one_of('head', request.head, HEADS)
    one_of('gradients', request.gradients, GRADIENTS)
    if spt and out.resolve() == Path(spt['file']).resolve():
        _check_fits(spt, request)
    cfg.work_dir = str(out.parent)
    model = check_experiment(plain_experiment(cfg), ('train_dataloader',))
    check_budget(max(request.budgets), sum(u.numel for u in units_of(model.backbone)))
    return cfg, request


def _check_free(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise UserError(f'{out} exists, and adapters may have been trained with it; --force replaces it.')


def _check_fits(spt: dict[str, Any], request: AllocationRequest) -> None:
    """Refuse to write a file that the config would refuse to read."""
    wrong = [name for name in ('structured', 'rank', 'control', *MEASURED) if spt[name] != getattr(request, name)]
    wanted = budgets_of(spt)
    if wanted and not set(request.budgets) <= set(wanted):
        wrong.append('budget')
    if wrong:
        raise UserError(
            f'petl.spt.{wrong[0]} of {request.config} is {spt[wrong[0]]!r}, unlike the requested value: add '
            f'--cfg-options model.petl.spt.{wrong[0]}=..., here and in training, or write elsewhere with --out.'
        )


def measure_experiment(
    cfg: Config, request: AllocationRequest, advance: Callable[[], None] = lambda: None
) -> Measurement:
    """Measure sensitivity on the training data; ``advance`` is called after each batch."""
    cfg = plain_experiment(cfg)
    seed = _seed(cfg)
    set_random_seed(seed)
    model = build_model(cfg, init_weights=True).to(get_device())
    base = model.base and dict(
        file=str(model.base['file']), sha256=tensors_sha256(base_state(model.backbone, model.base))
    )
    cfg.train_dataloader.update(batch_size=request.batch_size, drop_last=False)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        with naming(cfg, 'train_dataloader'):
            loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
        batches = request.batches
        if settled := _needs_features(request):
            _prepare_head(model, loader, request.head, seed, advance)
        if request.gradients == 'sample':
            batches, cfg.train_dataloader.batch_size = batches * request.batch_size, 1
            loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
        sensitivity = measure(model, loader, batches, advance, settled)
    if request.control:
        sensitivity = sensitivity.control(request.control, seed)
    return Measurement(sensitivity, model, base, time.monotonic() - started)


def _prepare_head(model: nn.Module, loader: Iterable[Any], head: str, seed: int, advance: Callable[[], None]) -> None:
    """Train the head where it is a probe, and give its BatchNorm the statistics of the training data."""
    if head == 'start' and not has_batch_norm(model):
        return
    features, samples = features_of(model, loader, advance)
    if head == 'probe':
        train_head(model, features, samples, seed)
    settle(model, features)


def most_batches(request: AllocationRequest) -> int:
    """Return how many batches :func:`measure_experiment` reads at most, those for the head's features included."""
    features = -(-SAMPLES // request.batch_size) if _needs_features(request) else 0
    return features + request.batches * (request.batch_size if request.gradients == 'sample' else 1)


def _needs_features(request: AllocationRequest) -> bool:
    return request.head == 'probe' or request.gradients == 'sample'


def _seed(cfg: Config) -> int:
    return cfg.get('randomness', {}).get('seed') or 0


def peak_bytes() -> int:
    """Return the peak memory: of the GPU since the measurement began, or of the whole process on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def allocate(measurement: Measurement, budget: int, cfg: Config, request: AllocationRequest) -> Allocation:
    """Choose what to tune under a budget.

    Raises:
        UserError: for a budget that is too small, or larger than the backbone.
    """
    sensitivity, backbone = measurement.sensitivity, measurement.model.backbone
    token = class_token_of(backbone)
    settings = request.settings(token[1].numel() if token else 0)
    return allocated(
        backbone,
        sensitivity,
        budget,
        settings,
        measurement.base,
        request.control,
        config=str(request.config),
        options=cfg.get('given_options', {}),
        seed=_seed(cfg),
        head=request.head,
        gradients=request.gradients,
    )


def find_allocation(
    cfg: Config, request: AllocationRequest, advance: Callable[[], None] = lambda: None
) -> tuple[Allocation, Measurement]:
    """Measure, choose for the one budget of ``request``, and write the file.

    Raises:
        UserError: as :func:`allocate`, and where another process has written the file meanwhile.
    """
    measurement = measure_experiment(cfg, request, advance)
    allocation = allocate(measurement, request.budgets[0], cfg, request)
    _check_free(Path(request.out), request.force)
    write_allocation(Path(request.out), allocation)
    return allocation, measurement
