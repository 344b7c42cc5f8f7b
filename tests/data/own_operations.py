"""Operations that a user wrote, for tests."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from davinci.data.documents import Document
from davinci.data.operations import DocumentOperation
from davinci.data.tally import Tally


class Shout(DocumentOperation):
    """Upper case, a mark at the end."""

    level: ClassVar = "L4"
    mark: str = "!"

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        yield replace(document, text=document.text.upper() + self.mark)


class Killed(DocumentOperation):
    """Kills the build at one document, unless a file is there; notes each document it saw and its process."""

    level: ClassVar = "L1"
    at: str
    unless: str
    notes: str

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        with Path(self.notes).open("a") as file:
            file.write(f"{document.id} {os.getpid()}\n")
        if document.id == self.at and not Path(self.unless).exists():
            main = os.getppid() if "--workers=2" in Path(f"/proc/{os.getppid()}/cmdline").read_text() else os.getpid()
            os.kill(main, signal.SIGKILL)
        yield document
