"""An operation over the whole pool that a user wrote, for tests."""

from typing import ClassVar

from davinci.data.operations import CorpusOperation


class Wide(CorpusOperation):
    """Drops nothing."""

    level: ClassVar = "L3"
    pool_wide: ClassVar = True

    def prepare(self, corpus, places):
        pass

    def run(self, documents, tally, places, source):
        return documents
