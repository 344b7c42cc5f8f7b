"""Patterns of personal information and of secrets: replaced by a placeholder, or the document goes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar, Literal

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally

Kind = Literal["email", "ip", "card", "phone", "key"]


@operation("personal_information")
class PersonalInformation(DocumentOperation):
    """E-mail addresses, public IP addresses, payment cards, telephone numbers and keys, counted by kind.

    Addresses as FineWeb took them out (arXiv 2406.17557, section 3.7; patterns of our own); a card number passes Luhn's
    check (ISO/IEC 7812-1, annex B) and begins as cards do; a telephone number is international (E.164) or has the North
    American form with its marks; a key is a private key in PEM, or has the form that its issuer publishes (AWS, GitHub,
    Google, Slack, OpenAI, JSON Web Token). A placeholder is the kind in angle brackets: ``<email>``.
    """

    level: ClassVar[Level] = "L2"

    kinds: tuple[Kind, ...] = ("key", "email", "ip", "card", "phone")
    drop: bool = False
    """Drop the document instead of replacing."""

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        text = document.text
        for kind, (pattern, hint, holds) in _PATTERNS.items():  # keys first: parts of one look like something else
            if kind not in self.kinds or not hint(text):
                continue

            def replaced(match: re.Match[str], holds: Callable[[str], bool] = holds, kind: str = kind) -> str:
                return f"<{kind}>" if holds(match[0]) else match[0]

            changed = pattern.sub(replaced, text)
            if changed == text:
                continue
            if self.drop:
                tally.drop(document, f"holds {'an' if kind[0] in 'aei' else 'a'} {kind}")
                return
            tally.count(f"{kind} replaced", changed.count(f"<{kind}>") - text.count(f"<{kind}>"))
            text = changed
        yield document if text == document.text else replace(document, text=text)


def passes_luhn(number: str) -> bool:
    """Whether the digits of a text pass the check of payment cards."""
    digits = [int(one) for one in number if one.isdecimal()]
    doubled = [digit if index % 2 == 0 else sum(divmod(2 * digit, 10)) for index, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and digits[0] in "3456" and len(set(digits)) > 1 and passes_luhn(digits)


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _is_telephone(text: str) -> bool:
    return 8 <= sum(map(str.isdecimal, text)) <= 15


_DIGIT = re.compile("[0-9]")
_LONG_NUMBER = re.compile(r"[0-9][0-9 -]{11}")
_SECRET = re.compile(r"PRIVATE KEY|A[KS]IA|gh[pousr]_|github_pat_|AIza|xox[baprs]-|sk-|eyJ")
# Kind: what it looks like, what a text without cannot hold (quick to see), and what tells it from others like it.
_PATTERNS: dict[Kind, tuple[re.Pattern[str], Callable[[str], object], Callable[[str], bool]]] = {
    "key": (
        re.compile(
            r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{1,20000}?-----END (?:[A-Z]+ )*PRIVATE KEY-----"
            r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{40,255}\b"
            r"|\bAIza[A-Za-z0-9_-]{35}(?![\w-])|\bxox[baprs]-[A-Za-z0-9-]{10,250}|\bsk-(?:[a-z]+-)?[A-Za-z0-9_-]{32,250}"
            r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}"
        ),
        _SECRET.search,
        lambda text: True,
    ),
    "email": (
        re.compile(
            r"(?<![\w.+-])[A-Za-z0-9_][\w.+%'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}\b",
            re.ASCII,
        ),
        lambda text: "@" in text,
        lambda text: True,
    ),
    "card": (
        re.compile(r"(?<![\w.-])[3-6][0-9]{3}(?:[ -]?[0-9]){9,15}(?![\w-]|\.[0-9])"),
        _LONG_NUMBER.search,
        _is_card,
    ),
    "phone": (
        re.compile(
            r"(?<![\w.+-])\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,5}\)?){2,6}(?![\w-])"
            r"|(?<![\w.+-])(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4}(?![\w.-])"
        ),
        _DIGIT.search,
        _is_telephone,
    ),
    "ip": (
        re.compile(
            r"(?<![\w.:])(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w]|\.[0-9])"
            r"|(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?![\w:]))"
        ),
        _DIGIT.search,
        _is_public,
    ),
}
