"""Ctrl-C between two batches instead of anywhere: the state that is left can be written to a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Raised where a run can stop and later go on: between two batches, epochs or tasks."""


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, the first SIGINT is only noted, the second raises KeyboardInterrupt at once.

    Gives a function that tells whether there was one. Outside the main thread, and where SIGINT is ignored or has a
    handler of the caller's, everything is left as it is and the function returns False.
    """
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    mine = threading.current_thread() is threading.main_thread()
    mine = mine and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if mine:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        if mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)
