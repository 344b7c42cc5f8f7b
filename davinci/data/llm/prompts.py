"""Prompts: versioned files of ``conf/prompts``, one a thing that is asked."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path

import yaml
from pydantic import field_validator

from davinci.config import parse
from davinci.config.base import Frozen, Positive
from davinci.errors import UserError, nearest

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "prompts"


class Prompt(Frozen):
    """What is asked, and what counts as an answer.

    ``{text}`` in `user` stands for the document. `answer` is a regular expression (``.`` matches newlines): its group 1
    is what is kept; where it matches nothing, the answer breaks the format. `version` is raised by hand with every
    change of wording; the digest tells an unraised one.
    """

    name: str
    version: Positive
    system: str = ""
    user: str
    answer: str

    @field_validator("user")
    @classmethod
    def _shows_the_document(cls, user: str) -> str:
        if "{text}" not in user:
            raise ValueError("does not show the document: {text} is missing")
        return user

    @field_validator("answer")
    @classmethod
    def _has_a_group(cls, answer: str) -> str:
        try:
            groups = re.compile(answer, re.DOTALL).groups
        except re.error as error:
            raise ValueError(f"no regular expression ({error})") from None
        if groups < 1:
            raise ValueError("has no group: (…) marks what is kept")
        return answer

    @property
    def digest(self) -> str:
        """SHA-256 of everything the prompt says."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    def messages(self, text: str) -> list[dict[str, str]]:
        """The messages of a request about a document."""
        asked = [{"role": "system", "content": self.system.strip()}] if self.system else []
        return [*asked, {"role": "user", "content": self.user.strip().replace("{text}", text.strip())}]

    def read(self, answer: str) -> str | None:
        """What is kept of an answer, or None where it breaks the format."""
        found = re.search(self.answer, answer, re.DOTALL)
        kept = (found[1] or "").strip() if found else ""
        return kept or None


@functools.cache
def read_prompt(name: str) -> Prompt:
    """The prompt `name` of ``conf/prompts``, or of the file that a name ending in ``.yaml`` is the path of.

    Raises:
        UserError: there is no such file, or it is no prompt.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = [one.stem for one in FOLDER.glob("*.yaml")]
        raise UserError(
            f"no prompt {name!r}: a name of conf/prompts, or the path of a .yaml file" + nearest(name, known)
        )
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a prompt has the keys {', '.join(Prompt.model_fields)}")
    return parse(Prompt, data, lambda key: str(path))
