"""torchrun without its report of a failed process that has already printed what to mend."""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)  # it reports every failed process again
    try:
        main()
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        if status != 2:
            raise
        sys.exit(status)
