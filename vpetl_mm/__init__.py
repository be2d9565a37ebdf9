"""Visual parameter-efficient transfer learning on OpenMMLab.

Importing the package registers its modules and makes the host libraries usable with today's torch. Where OpenMMLab is
not installed nothing is registered, but ``vpetl_mm.petl`` still works.
"""

from importlib.util import find_spec
from typing import Any

from .errors import UserError

__version__ = '0.1.0'
__all__ = ['PETLInferencer', 'UserError', 'build_model']


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):  # where something hides it
        return False


_missing = [name for name in ('mmengine', 'mmcv', 'mmaction', 'mmpretrain') if not _is_installed(name)]
if not _missing:
    from . import compat

    compat.apply()

    from . import registry  # noqa: F401
    from .models.build import build_model
else:
    __all__.remove('build_model')
    __all__.remove('PETLInferencer')


def __getattr__(name: str) -> Any:
    if name not in ('PETLInferencer', 'build_model'):
        raise AttributeError(name)
    if _missing:
        raise ImportError(f'{name} needs OpenMMLab; not installed: {", ".join(_missing)}.')
    from .use.predict.inferencer import PETLInferencer  # which training has no need of

    return PETLInferencer
