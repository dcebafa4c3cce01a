"""The ways in which one operation of a storage goes wrong, for tests that loop over all operations."""

import errno
from dataclasses import dataclass

from mltraq_ds.testing import Fail, Fault, LoseResponse, Short


@dataclass(frozen=True)
class Interrupt(Fault):
    """Ctrl-C, before or after the operation is done."""

    is_late: bool = False

    def before(self, call, storage):
        if not self.is_late:
            raise KeyboardInterrupt

    def after(self, call, storage):
        raise KeyboardInterrupt


FAULTS = {
    "fails": Fail(errno.EIO),
    "loses-response": LoseResponse(errno.ETIMEDOUT),
    "short-write": Short(errno.ENOSPC),
    "interrupted-before": Interrupt(),
    "interrupted-after": Interrupt(is_late=True),
}
