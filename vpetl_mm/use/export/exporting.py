"""Exports a bundle to a file that runs without this package, and checks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import UserError, unknown
from ...files import check_new, os_errors_explained, written_whole
from ...models.build import build_model
from ..bundle.bundle import About, Bundle, read_bundle
from ..bundle.model import bundled_model, model_config
from ..bundle.views import number_of_views
from . import plain, programs
from .parity import Parity, check_parity, file_logits, first_difference, model_logits
from .portable import PortableModel
from .samples import generated_inputs, read_inputs

GRAPHS = {'.onnx': (programs.write_onnx, programs.opened_onnx), '.pt2': (programs.write_pt2, programs.opened_pt2)}
SUFFIXES = (*GRAPHS, '.pth', '.safetensors')


@dataclass(frozen=True)
class Given:
    """What an export begins with.

    Args:
        bundle: read and checked.
        model: of the bundle, with its base, in eval mode.
        inputs: as the test pipeline makes them, (n, 3, ...).
        names: of the inputs.
        generated: whether these were generated.
    """

    bundle: Bundle
    model: nn.Module
    inputs: Tensor
    names: list[str]
    generated: bool

    @property
    def pixels(self) -> Tensor:
        """The inputs in RGB."""
        bgr = getattr(self.model.data_preprocessor, 'to_rgb', False)
        return self.inputs.flip(1) if bgr else self.inputs

    def checked(self, logits: Tensor) -> Parity:
        """Return how far the logits of a file are from the model's; see :func:`~.parity.check_parity`."""
        expected = model_logits(self.model, self.inputs)
        difference = check_parity(logits, expected, self.names, self.bundle.about.classes)
        return Parity(difference, len(self.inputs), self.generated)


def export(
    bundle: str | Path,
    out: str | Path,
    base: str | Path | None = None,
    batch: int | None = None,
    check: Sequence[str | Path] = (),
    tell: Callable[[str], object] = lambda step: None,
) -> Parity:
    """Write a bundle's model as ``.onnx``, ``.pt2``, ``.pth`` (with a config beside it) or ``.safetensors``.

    The file is run on every input of ``check`` and compared with the model before it gets its name.

    Args:
        bundle: its file.
        out: the file to write; its suffix says which kind.
        base: the base's file; see :func:`~vpetl_mm.use.bundle.model.bundled_model`.
        batch: how many inputs an ``.onnx`` or ``.pt2`` takes at once. Defaults to None, any number.
        check: clips or images, folders of them, or patterns. Defaults to two generated ones.
        tell: is given a line for each step that takes seconds.

    Returns:
        How far the file's logits are from the model's.

    Raises:
        UserError: for wrong input, a model that cannot be exported so, and a file that differs by more than 1e-4;
            nothing is written then.
    """
    target = Path(out)
    check_target(target)
    if target.suffix == '.onnx':
        programs.check_onnx_installed()
    if batch is not None and target.suffix not in GRAPHS:
        raise UserError(f'A batch size is for {" and ".join(GRAPHS)}: {target.suffix} takes any number of inputs.')
    read = read_bundle(bundle)
    if target.suffix not in GRAPHS:
        plain.check_can_be_plain(read, base, target.suffix)
    if check:
        names, inputs = read_inputs(read.about, [str(path) for path in check])
    else:
        inputs = generated_inputs(read.about)
        names = ['a generated input'] * len(inputs)
    tell('building the model')
    given = Given(read, bundled_model(read, base), inputs, names, not check)
    with os_errors_explained():
        return (_write_graph if target.suffix in GRAPHS else _write_plain)(given, target, batch, tell)


def check_target(target: Path) -> None:
    """Raise :class:`UserError` for a suffix that is not known, a file that exists or a folder that does not."""
    if target.suffix not in SUFFIXES:
        raise unknown('suffix of an exported file', target.suffix, SUFFIXES)
    for file in (target, config_beside(target)) if target.suffix == '.pth' else (target,):
        check_new(file)


def config_beside(target: Path) -> Path:
    """Return the path of the config that is written with a ``.pth``."""
    return target.with_suffix('.py')


def portable_model(bundle: Bundle, model: nn.Module, example: Tensor) -> PortableModel:
    """Return the model of a bundle as a graph, from the plain path: see :class:`~.portable.PortableModel`."""
    about = bundle.about
    petl = {k: v for k, v in about.model['petl'].items() if k not in ('attention', 'gelu')}
    about = replace(about, model=dict(about.model, petl=dict(petl, fast=False)))
    plain_path = build_model(model_config(replace(bundle, about=about), None))
    plain_path.load_state_dict(model.state_dict())
    return PortableModel(plain_path, example)


def _write_graph(given: Given, target: Path, batch: int | None, tell: Callable[[str], object]) -> Parity:
    write, opened = GRAPHS[target.suffix]
    pixels = given.pixels
    model = portable_model(given.bundle, given.model, pixels[:1])
    tell('capturing the graph')
    program = programs.capture(model, pixels[:1], batch)
    with written_whole(target) as partial:
        tell(f'writing {target.name}')
        write(program, partial, notes_of(given.bundle.about, pixels, batch))
        tell(f'comparing {target.name} with the model')
        logits = file_logits(opened(partial), pixels, batch)
        try:
            return given.checked(logits)
        except UserError as error:
            where = first_difference(given.model, model, given.inputs, pixels)
            blocks = f'the first block that differs is {where}' if where else 'all blocks agree before the capture'
            raise UserError(f'{str(error).removesuffix(".")}; {blocks}.') from error


def _write_plain(given: Given, target: Path, batch: None, tell: Callable[[str], object]) -> Parity:
    bundle = given.bundle
    expected = model_logits(given.model, given.inputs)
    tell(f'merging into {target.name}')
    config = plain.plain_parts(bundle, given.model)
    with ExitStack() as stack:
        partial = stack.enter_context(written_whole(target))
        if target.suffix == '.pth':
            plain.write_pth(bundle, given.model, partial)
            state = torch.load(partial, weights_only=True)['state_dict']
        else:
            plain.write_plain_safetensors(bundle, given.model, config, partial)
            state = load_file(partial)
        logits = model_logits(plain.opened_plain(config, state), given.inputs)
        difference = check_parity(logits, expected, given.names, bundle.about.classes)
        if target.suffix == '.pth':
            plain.write_config(bundle, config, config_beside(target))
    return Parity(difference, len(given.inputs), given.generated)


def notes_of(about: About, pixels: Tensor, batch: int | None) -> dict[str, str]:
    """Return what a file says about itself, by name; lists and dicts as JSON."""
    shape = ', '.join(map(str, ('batch' if batch is None else batch, *pixels.shape[1:])))
    views = number_of_views(about, 'test')
    average = f'; tested on {views} views of each input, whose logits were averaged' if views > 1 else ''
    return dict(
        experiment=about.name,
        classes=json.dumps(about.classes),
        input=f'{programs.INPUT}: uint8 RGB of 0 to 255, ({shape}), not normalised: mean and std are inside',
        outputs=f'logits and probabilities (their softmax), one row for each input, which is one view{average}',
        test_pipeline=json.dumps(about.pipeline),
        base=json.dumps(about.base),
        scores=json.dumps(about.scores),
        license=about.license,
        made_with=json.dumps(about.versions),
    )
