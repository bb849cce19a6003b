"""Progress bars for slow reading and downloads: on a terminal only, and none where tqdm is not installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None

# Work that is done sooner shows no bar.
SLOW_SECONDS = 3.0


def progress(items: Iterable, total: int, text: str) -> Iterable:
    """items, with a bar over `total` of them once SLOW_SECONDS have passed."""
    if tqdm is None:
        return items
    return tqdm(items, total=total, desc=text, delay=SLOW_SECONDS, disable=None, leave=False)


@contextmanager
def byte_progress(text: str, have: int, total: int | None) -> Iterable[Callable[[int], None]]:
    """A bar over bytes that starts at `have`; yields the function to call with the size of each further block."""
    if tqdm is None:
        yield lambda _: None
        return
    unit = {"unit": "B", "unit_scale": True}
    with tqdm(desc=text, initial=have, total=total, disable=None, leave=False, **unit) as bar:
        yield bar.update
