"""Documents from one address."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from davinci.data.documents import Document
from davinci.data.l2_rules.deduplication import KeyDeduplication
from davinci.data.operations import operation

# Parameters that say where a visitor came from, not what the page holds.
_TRACKING = ("utm_", "fbclid", "gclid", "msclkid", "mc_cid", "mc_eid", "_ga")


@operation("url_duplicates")
class UrlDuplicates(KeyDeduplication):
    """Of documents with one address (``origin["url"]``) the first stays; those without an address stay.

    Addresses are one that differ in scheme, case of the host, ``www.``, port 80 or 443, order of parameters, parameters
    of tracking, fragment, or a slash at the end (after RFC 3986, section 6).
    """

    reason: ClassVar[str] = "duplicate address"

    def key(self, document: Document) -> str | None:
        url = str(document.origin.get("url", ""))
        return canonical(url) if url else None


def canonical(url: str) -> str:
    """An address in one form; as it is where it cannot be read."""
    try:
        parts = urlsplit(url.strip() if "//" in url else f"//{url.strip()}")
        port = parts.port
    except ValueError:
        return url
    host = (parts.hostname or "").removeprefix("www.").rstrip(".")
    query = sorted(one for one in parse_qsl(parts.query, keep_blank_values=True) if not one[0].startswith(_TRACKING))
    place = host if port in (None, 80, 443) else f"{host}:{port}"
    return f"{place}{parts.path.rstrip('/')}{'?' if query else ''}{urlencode(query)}"
