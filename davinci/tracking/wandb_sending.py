"""Several runs at a time: most of what it takes to send one is waiting for W&B's answers.

All go through one client and one service of it. Each thread has one run in hand, which takes half a second or more and
two new W&B runs (its own and its evaluation's): at most some 30 new runs a second of the 80 that W&B allows.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from davinci.errors import UserError
from davinci.tracking.wandb_mirror import Mirror
from davinci.tracking.wandb_session import Refused, Unreachable

AT_ONCE = 8

# What became of sending.
SENT, REFUSED, UNREACHABLE = 0, 1, 2


def send(
    mirror: Mirror, names: Iterable[str], say: Callable[[str], None], stopped: Callable[[], bool] = lambda: False
) -> int:
    """Send what is new of runs and trunks, each after those it continues.

    Args:
        mirror: of their sweep.
        names: of runs and trunks.
        say: told what went wrong, a line each.
        stopped: asked before each: whether no further one is to be begun.

    Returns:
        `SENT`; `REFUSED` if some were not taken, which others did not suffer from; `UNREACHABLE` if W&B does not
        answer: then what was not begun yet is left out.

    Raises:
        UserError: W&B takes none, as without an API key.
    """
    worst: list[int] = [SENT]
    fatal: list[UserError] = []

    def one(name: str) -> None:
        if fatal or max(worst) == UNREACHABLE or stopped():
            return
        try:
            mirror.send(name)
        except Unreachable as error:
            if max(worst) < UNREACHABLE:
                say(f"{error}; nothing is lost, and sent again the rest goes on from there")
            worst.append(UNREACHABLE)
        except Refused as error:
            worst.append(REFUSED)
            say(f"{name}: {error}")
        except UserError as error:
            fatal.append(error)
        except OSError as error:
            worst.append(REFUSED)
            say(f"{name}: not sent, {error}")
        except Exception as error:  # Whatever the client comes up with: others may go through, this one another time.
            worst.append(REFUSED)
            traceback.print_exc()
            say(f"{name}: {type(error).__name__}: {error}")

    with ThreadPoolExecutor(AT_ONCE, initializer=_deafen) as threads:
        for wave in mirror.waves(names):
            list(threads.map(one, wave))
    if fatal or max(worst) > SENT:
        mirror.abandon()
    if fatal:
        raise fatal[0]
    return max(worst)


def _deafen() -> None:
    """Leave signals to the main thread. The client's service, which a thread here starts, inherits that: Slurm signals
    it too, and it would die of what tells the mirror to end in good order."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})
