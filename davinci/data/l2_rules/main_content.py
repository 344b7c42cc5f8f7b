"""The main text of a web page: what is left without menus, headers, footers and lists of links."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally


@operation("main_content")
class MainContent(DocumentOperation):
    """HTML becomes its main text by Resiliparse's rules (Bevendorff et al., ECIR 2018), or goes where there is none.

    DataComp-LM found them as good for training as trafilatura and several times faster (arXiv 2406.11794, section 4.2).
    They drop text, hence the level; `html_to_text` keeps all of it.
    """

    level: ClassVar[Level] = "L2"

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        from resiliparse.extract.html2text import extract_plain_text

        text = extract_plain_text(document.text, main_content=True, alt_texts=False, links=False).strip()
        if text:
            yield replace(document, text=f"{text}\n")
        else:
            tally.drop(document, "no main content")
