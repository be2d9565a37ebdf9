"""Package vpetl_mm. Version ranges are here; requirements/lock.txt has the exact versions that are tested."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """Return the lines of a requirements file without comments."""
    lines = (ROOT / 'requirements' / name).read_text(encoding='utf-8').splitlines()
    return [line.split('#')[0].strip() for line in lines if line.split('#')[0].strip()]


class BuildWithConfigsAndTools(build_py):
    """A build that copies configs/ and tools/ into the package's folder .mim, as the wheels of OpenMMLab do."""

    def run(self) -> None:
        """Build, then copy; an editable install reads them in place."""
        super().run()
        if self.editable_mode:
            return
        carried = Path(self.build_lib, 'vpetl_mm', '.mim')
        shutil.rmtree(carried, ignore_errors=True)
        for name in ('configs', 'tools'):
            shutil.copytree(ROOT / name, carried / name, ignore=shutil.ignore_patterns('__pycache__', 'mine'))


setup(
    name='vpetl_mm',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'vpetl_mm/__init__.py').read_text(encoding='utf-8'))[1],
    description='Visual parameter-efficient transfer learning on OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['vpetl_cli', 'vpetl_mm', 'vpetl_mm.*']),
    package_data={'vpetl_cli': ['py.typed'], 'vpetl_mm': ['py.typed', 'use/report/page/*']},
    cmdclass={'build_py': BuildWithConfigsAndTools},
    entry_points={'console_scripts': ['vpetl = vpetl_cli.main:main']},
    python_requires='>=3.11,<3.14',
    install_requires=requirements('runtime.txt'),
    extras_require={
        name: requirements(f'{name}.txt') for name in ('dev', 'export', 'hf', 'slurm', 'timm', 'tune', 'wandb')
    },
)
