"""The number of torch's threads while a run lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """`count` threads inside, None = as they are; the number before comes back. ValueError for less than one."""
    if count is not None and count < 1:
        raise ValueError(f"torch_threads: expected at least 1 thread, got {count}")
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
