"""Visual parameter-efficient transfer learning on OpenMMLab.

Importing the package registers its modules and makes the host libraries usable with today's torch.
"""

from . import compat

compat.apply()

from . import registry  # noqa: E402, F401
from .errors import UserError  # noqa: E402
from .models.build import build_model  # noqa: E402

__version__ = '0.1.0'
__all__ = ['UserError', 'build_model']
