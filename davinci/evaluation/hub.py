"""Whether the hub of data sets answers, found out once and at once: its own libraries try for most of a minute."""

from __future__ import annotations

import os
from functools import lru_cache
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

HUB = "https://huggingface.co"
SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")
PATIENCE_SECONDS = 5.0


def address() -> str:
    """The hub's address, or that of the mirror that the environment names."""
    return os.environ.get("HF_ENDPOINT", HUB)


def switch_off() -> None:
    """Have the hub's libraries use what they keep on this machine; to be called before they are first imported."""
    for name in SWITCHES:
        os.environ[name] = os.environ.get(name) or "1"


def switch_off_if_silent() -> None:
    """`switch_off`, where the hub does not answer."""
    if not os.environ.get(SWITCHES[0]) and not _answers(address()):
        switch_off()


@lru_cache
def _answers(url: str) -> bool:
    """Whether anything answers there, by the proxies that the environment names."""
    if not url.startswith(("http://", "https://")):
        return False
    try:
        with urlopen(Request(url, method="HEAD"), timeout=PATIENCE_SECONDS):
            return True
    except HTTPError:
        return True
    except (OSError, HTTPException, ValueError):
        return False
