"""Waiting for a provider that is away: exponential back-off with jitter, told once, for ever unless limited."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from fedser import console
from fedser.errors import NetworkError

SHORTEST, LONGEST = 1.0, 30.0  # seconds


class Patience:
    """Waits between attempts.

    Args:
        limit: seconds after which the provider is given up; None waits for ever.
        sleep, clock: for tests.
    """

    def __init__(
        self,
        limit: float | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._sleep = sleep
        self._clock = clock
        self._since: float | None = None
        self._delay = SHORTEST
        self._random = secrets.SystemRandom()

    def wait(self, error: NetworkError) -> None:
        """Sleep before the next attempt.

        Args:
            error: why this one failed; told when it is the first.

        Raises:
            NetworkError: ``error`` itself, when the patience is used up.
        """
        now = self._clock()
        if self._since is None:
            self._since, self._delay = now, SHORTEST
            console.say(f"{str(error).rstrip('.')}. Trying again until it answers.")
        pause = self._delay * self._random.uniform(0.5, 1.0)  # sites that lost one provider come back spread out
        if self.limit is not None and now - self._since + pause > self.limit:
            raise error
        self._sleep(pause)
        self._delay = min(2 * self._delay, LONGEST)

    def reset(self) -> None:
        """The provider answered."""
        if self._since is not None:
            console.say("the provider answers again")
        self._since = None
