"""What GPUs compute at most, as their makers print it, and how much of that training reaches."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import unknown

USED = 0.3  # the share of the peak that training is taken to reach: an assumption


class GPU(NamedTuple):
    """A GPU's peak in TFLOP/s, dense.

    Args:
        float32: of the plain units, as torch multiplies float32 unless it is told otherwise.
        bfloat16: of the tensor cores, accumulating in float32; where there is no bfloat16, that of float32.
        source: where the two are printed.
    """

    float32: float
    bfloat16: float
    source: str


GPUS = {
    'RTX 2080 Ti': GPU(13.4, 13.4, 'NVIDIA Turing GPU Architecture white paper, reference card; no bfloat16'),
    'RTX 3090': GPU(35.6, 71.0, 'NVIDIA Ampere GA102 GPU Architecture white paper'),
    'RTX 4090': GPU(82.6, 165.2, 'NVIDIA Ada GPU Architecture white paper'),
    'T4': GPU(8.1, 8.1, 'NVIDIA T4 data sheet; no bfloat16'),
    'V100': GPU(15.7, 15.7, 'NVIDIA V100 data sheet, SXM2; no bfloat16'),
    'A6000': GPU(38.7, 154.8, 'NVIDIA RTX A6000 data sheet, half of its figure with sparsity'),
    'A40': GPU(37.4, 149.7, 'NVIDIA A40 data sheet'),
    'A100': GPU(19.5, 312.0, 'NVIDIA A100 data sheet'),
    'L40S': GPU(91.6, 362.0, 'NVIDIA L40S data sheet'),
    'H100': GPU(67.0, 989.4, 'NVIDIA H100 data sheet, SXM, half of its figure with sparsity'),
    'H200': GPU(67.0, 989.4, 'NVIDIA H200 data sheet, half of its figure with sparsity'),
}
PAPERS = 'RTX 3090'


def gpu_of(name: str) -> tuple[str, GPU]:
    """Return a GPU's name as printed and its peak; spaces, case and "NVIDIA" do not matter.

    Raises:
        UserError: for another GPU.
    """

    def bare(text: str) -> str:
        return text.casefold().replace('nvidia', '').replace(' ', '').replace('-', '').replace('_', '')

    for printed, gpu in GPUS.items():
        if bare(name) in (bare(printed), bare(printed.removeprefix('RTX '))):
            return printed, gpu
    raise unknown('GPU', name, GPUS)
