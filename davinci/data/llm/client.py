"""A client of an OpenAI-compatible server that does not give up early, and says clearly when it does."""

from __future__ import annotations

import email.utils
import os
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from davinci.errors import UserError

if TYPE_CHECKING:
    import httpx

_LONGEST_WAIT = 60.0  # s, between attempts; what a server asks for with Retry-After may be longer
_LONGEST_ASKED_WAIT = 600.0
_CONNECT = 10.0
_NOBODY = 4  # attempts where no connection was ever had
_REFUSALS = 10  # in a row from the beginning: it is not the documents
CUT_OFF = "cut off at max_tokens"
_PASSING = (408, 409, 425, 429)  # and 5xx: worth another attempt


class ServerGone(Exception):
    """The server gives no answers any more; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What came back: the text (None with `failure` saying why there is none) and the tokens it took."""

    text: str | None
    failure: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def lasts(self) -> bool:
        """Whether the same request would be answered so again: worth keeping."""
        return self.text is not None or self.failure == CUT_OFF


class Client:
    """Asks one server; threads share it.

    Args:
        endpoint: the address below which ``chat/completions`` is, such as ``http://127.0.0.1:8000/v1``.
        key_variable: the environment variable that holds the server's key, if it wants one.
        connections: requests at a time.
        timeout: seconds that one answer may take.
        attempts: for one answer, with waits that double from `first_wait` seconds.
    """

    def __init__(
        self,
        endpoint: str,
        key_variable: str = "",
        *,
        connections: int = 8,
        timeout: float = 120.0,
        attempts: int = 8,
        first_wait: float = 0.5,
    ) -> None:
        import httpx

        key = os.environ.get(key_variable, "") if key_variable else ""
        self._url = endpoint.rstrip("/") + "/chat/completions"
        self._attempts, self._first_wait = attempts, first_wait
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        self._answered = self._refused = self.retries = 0

    def close(self) -> None:
        """End waits and connections."""
        self._stopped.set()
        self._http.close()

    def ask(self, body: dict[str, Any]) -> Answer:
        """The answer to one request; an `Answer` without text where the server will not answer this one.

        Raises:
            ServerGone: no attempt succeeded, and not for this request's sake.
            UserError: the server wants something else of every request (a key, another model name).
        """
        import httpx

        before = self._answered
        why, slow, left = "", False, self._attempts
        attempt = 0
        while attempt < left:
            if attempt:
                with self._counting:
                    self.retries += 1
            wait = min(_LONGEST_WAIT, self._first_wait * 2**attempt) * random.uniform(0.75, 1.25)
            try:
                response = self._http.post(self._url, json=body)
            except httpx.TimeoutException:
                why, slow = "no answer in time", True
            except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
                why, slow = str(error) or type(error).__name__, False
                if self._answered == 0:  # nobody was ever there: no use in being patient
                    left = min(left, _NOBODY)
            else:
                if response.status_code == 200:
                    answer = _read(response)
                    if answer is not None:
                        with self._counting:
                            self._answered += 1
                        return answer
                    why = "what it answers is no chat completion"
                elif response.status_code in _PASSING or response.status_code >= 500:
                    why = f"status {response.status_code}"
                    wait = max(wait, _asked_wait(response.headers.get("Retry-After", "")))
                else:
                    return self._refusal(response)
                slow = False
            if self._stopped.is_set():
                raise ServerGone(why)
            attempt += 1
            if attempt < left and self._stopped.wait(wait):
                raise ServerGone(why)
        if slow and self._answered > before:  # others were answered meanwhile: it is this request that takes long
            return Answer(None, "no answer in time")
        raise ServerGone(f"{why}, {attempt} attempts")

    def _refusal(self, response: httpx.Response) -> Answer:
        """A status that another attempt does not change: of one document (too long, for one), or of all."""
        said = " ".join(response.text.split())[:200]
        where = f"{self._url}: refused with status {response.status_code}: {said}"
        if response.status_code not in (400, 413, 422):
            raise UserError(where)
        with self._counting:
            self._refused += 1
            hopeless = self._answered == 0 and self._refused >= _REFUSALS
        if hopeless:
            raise UserError(where)
        return Answer(None, "refused by the server")


def _read(response: httpx.Response) -> Answer | None:
    """A chat completion; None where it is something else."""
    try:
        data = response.json()
        choice = data["choices"][0]
        text = choice["message"]["content"] or ""
        usage = data.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    if not isinstance(text, str):
        return None
    if choice.get("finish_reason") == "length":
        return Answer(None, CUT_OFF, *tokens)
    return Answer(text, "", *tokens)


def _asked_wait(header: str) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110, 10.2.3)."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_ASKED_WAIT)
