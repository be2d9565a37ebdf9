"""``python -m vpetl_cli``: the command ``vpetl``."""

import sys

from .main import main

if __name__ == '__main__':
    sys.exit(main())
