"""Packaging of vpetl_mm; ranges here, the exact versions that are tested in requirements/lock.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The lines of a requirements file, comments left out."""
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [line.split('#')[0].strip() for line in lines if line.split('#')[0].strip()]


setup(
    name='vpetl_mm',
    version='0.1.0',
    description='Visual parameter-efficient transfer learning on OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['vpetl_cli', 'vpetl_mm', 'vpetl_mm.*']),
    python_requires='>=3.11,<3.13',
    install_requires=requirements('runtime.txt'),
    extras_require={'dev': requirements('dev.txt'), 'wandb': requirements('wandb.txt')},
)
