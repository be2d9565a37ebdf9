"""The captured graph of a model, written as torch.export's ``.pt2`` and as ONNX, and run from these files."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ...errors import UserError, reason
from .portable import PortableModel

INPUT, OUTPUTS = 'pixels', ('logits', 'probabilities')
ONNX_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
LARGEST_CONSTANT = 1024  # elements that are computed when a file is written instead of when it is loaded

Program = Callable[[Tensor], tuple[Tensor, Tensor]]


def check_onnx_installed() -> None:
    """Raise :class:`UserError` unless everything that writes and checks ``.onnx`` is there."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f'.onnx needs {", ".join(missing)}: pip install -e .[export].')


def capture(model: PortableModel, example: Tensor, batch: int | None) -> ExportedProgram:
    """Return the graph of a model.

    Args:
        model: in eval mode.
        example: one input, (1, ...).
        batch: how many inputs the graph takes at once; None for any number.

    Raises:
        UserError: when torch.export cannot capture it.
    """
    inputs = example.expand(batch or 2, *example.shape[1:]).contiguous()  # an example of one would make it a constant
    dynamic = {INPUT: {0: torch.export.Dim('batch')} if batch is None else None}
    try:
        with torch.no_grad(), _unlogged():
            return torch.export.export(model, (inputs,), dynamic_shapes=dynamic)
    except Exception as error:  # it has no class of its own for what it cannot capture
        raise UserError(f'This model cannot be exported: torch.export says "{reason(error, 160)}".') from error


@contextmanager
def _unlogged() -> Iterator[None]:
    """Leave out what exporters print about their own work, whole graphs included; they raise what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def write_pt2(program: ExportedProgram, file: Path, notes: Mapping[str, str]) -> None:
    """Write torch.export's archive; ``notes`` are its extra files, by name.

    Stack traces name files of whoever exports, and are left out; the graph, which is JSON, is compressed.
    """
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)
    whole = io.BytesIO()
    torch.export.save(program, whole, extra_files=dict(notes))
    with zipfile.ZipFile(whole) as plain, zipfile.ZipFile(file, 'w') as packed:
        for entry in plain.infolist():
            is_json = entry.filename.endswith('.json')
            method = zipfile.ZIP_DEFLATED if is_json else zipfile.ZIP_STORED
            packed.writestr(zipfile.ZipInfo(entry.filename), plain.read(entry), method)


def write_onnx(program: ExportedProgram, file: Path, notes: Mapping[str, str]) -> None:
    """Write an ONNX model; ``notes`` are its metadata.

    Only small constants are computed in advance: tables of biases would make a file several times as large.

    Raises:
        UserError: when an operator has no translation.
    """
    import onnxscript.optimizer
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, DeduplicateInitializersPass

    names = dict(input_names=[INPUT], output_names=list(OUTPUTS))
    try:
        with _unlogged():
            written = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False, **names)
    except Exception as error:  # as in capture
        raise UserError(f'This model cannot be exported: torch.onnx says "{reason(error, 160)}".') from error
    model = written.model
    with _unlogged():
        onnxscript.optimizer.optimize(model, output_size_limit=LARGEST_CONSTANT)
    ClearMetadataAndDocStringPass()(model)
    DeduplicateInitializersPass()(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and not isinstance(value.shape[0], int):
            value.shape[0] = 'batch'
    model.metadata_props.update(notes)
    model.producer_name = 'vpetl_mm'
    written.save(file)


def opened_pt2(file: Path) -> Program:
    """Return a function that runs a ``.pt2``."""
    with open(file, 'rb') as stream:
        return torch.export.load(stream).module()


def opened_onnx(file: Path) -> Program:
    """Return a function that runs an ``.onnx`` with onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])

    def run(pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = session.run(list(OUTPUTS), {INPUT: pixels.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return run
