"""The table of learners by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .learner import Learner

_LEARNERS: dict[str, type[Learner]] = {}
_ALIASES = {"nocl": "offline"}


def learner(name: str) -> Callable[[type[Learner]], type[Learner]]:
    """Class decorator that registers a learner under `name`; ValueError if the name is taken."""

    def register(kind: type[Learner]) -> type[Learner]:
        if name in _LEARNERS:
            raise ValueError(f"learner: expected a new name, got {name!r} (already registered)")
        _LEARNERS[name] = kind
        kind.name = name
        return kind

    return register


def learner_names() -> tuple[str, ...]:
    """Names of all registered learners, sorted."""
    return tuple(sorted(_LEARNERS))


def find_learner(name: str) -> type[Learner]:
    """The learner class of a name or alias; ValueError naming the known ones."""
    kind = _LEARNERS.get(_ALIASES.get(name, name))
    if kind is None:
        raise ValueError(f"find_learner: expected method to be one of {', '.join(learner_names())}, got {name!r}")
    return kind
