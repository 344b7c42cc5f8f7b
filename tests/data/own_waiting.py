"""An operation that says which process it runs in, and then waits for ever."""

import os
import signal
from pathlib import Path

from davinci.data.operations import DocumentOperation


class Waiting(DocumentOperation):
    level = "L1"
    pipe: str

    def apply(self, document, tally):
        Path(self.pipe).write_text(f"{os.getpid()}\n")
        while True:
            signal.pause()
