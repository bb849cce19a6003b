"""What every scheme shares: a name for files, conversion to and from plain dictionaries, and checks of the fields.

A scheme is a frozen dataclass of plain values: it can be compared, hashed, printed and written as JSON. What the
layers do with it is in `quintil.nn`.
"""

from __future__ import annotations

import dataclasses
import difflib
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self


@dataclasses.dataclass(frozen=True)
class Scheme:
    """Base of all schemes. Two schemes are the same scheme if they are equal (`==`).

    A field that a scheme gains takes as its default what the scheme did before, and defaults never change: files of
    earlier versions, which lack the field, mean it.
    """

    #: How files and command lines spell the scheme; each subclass sets its own.
    name: ClassVar[str] = ""

    _by_name: ClassVar[dict[str, type[Scheme]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in cls.__dict__:
            Scheme._by_name[cls.name] = cls

    @property
    def stored_bits(self) -> int:
        """Bits of a weight's codes: `bits`, or the highest of several widths; 32 where a scheme has no such field."""
        bits = getattr(self, "bits", 32)
        return max(bits) if isinstance(bits, tuple) else bits

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values, tuples as lists, and the scheme's name under "scheme"."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
        return {"scheme": self.name, **plain}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The scheme that `to_dict` described; absent fields take their defaults.

        Called on `Scheme` the entry "scheme" chooses the class; called on a subclass it may be absent. Raises
        ValueError for an unknown scheme or field and whatever the scheme itself raises for bad values.
        """
        values = dict(values)
        chosen = values.pop("scheme", cls.name)
        scheme = Scheme._by_name.get(chosen) if isinstance(chosen, str) else None
        if scheme is None or not issubclass(scheme, cls):
            known = ", ".join(sorted(name for name, s in Scheme._by_name.items() if issubclass(s, cls)))
            raise ValueError(f"{cls.__name__}: expected scheme to be one of {known}, got {chosen!r}")
        names = [field.name for field in dataclasses.fields(scheme)]
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f" (the nearest field is {near[0]})" if near else ""
                raise ValueError(f"{scheme.__name__}: expected only known fields, got {key!r}{hint}")
        return scheme(**values)

    def summary(self) -> str:
        """The call that makes this scheme, without the arguments that have their default value."""
        changed = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    # Checks for __post_init__. They raise with the scheme's and the field's name; the int and tuple checks also store
    # the value in its plain form, so that equal schemes compare equal however their fields were spelled.

    def _check_int(self, field: str, low: int, high: int | None = None, *, optional: bool = False) -> None:
        value = getattr(self, field)
        if value is None and optional:
            return
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise TypeError(self._expected(field, "to be an int or None" if optional else "to be an int"))
        if value < low or (high is not None and value > high):
            raise ValueError(self._expected(field, f"in {low}..{high}" if high is not None else f">= {low}"))
        object.__setattr__(self, field, int(value))

    def _check_bool(self, field: str) -> None:
        if not isinstance(getattr(self, field), bool):
            raise TypeError(self._expected(field, "to be a bool"))

    def _check_choice(self, field: str, choices: Iterable[str]) -> None:
        value = getattr(self, field)
        if not isinstance(value, str):
            raise TypeError(self._expected(field, "to be a str"))
        if value not in choices:
            raise ValueError(self._expected(field, "to be one of " + ", ".join(map(repr, choices))))

    def _check_fraction(self, field: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise TypeError(self._expected(field, "to be a number"))
        if not 0 < value <= 1:  # also refuses NaN
            raise ValueError(self._expected(field, "in (0, 1]"))
        object.__setattr__(self, field, float(value))

    def _check_share(self, field: str, *, including_one: bool) -> None:
        value = getattr(self, field)
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise TypeError(self._expected(field, "to be a number"))
        if not 0 <= value <= 1 or (value == 1 and not including_one):  # also refuses NaN
            raise ValueError(self._expected(field, "in [0, 1]" if including_one else "in [0, 1)"))
        object.__setattr__(self, field, float(value))

    def _check_subset(self, field: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, field)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError(self._expected(field, "to be a tuple of names"))
        given = list(value)
        if not all(name in choices for name in given) or len(set(given)) != len(given):
            raise ValueError(
                self._expected(field, "to name each of " + ", ".join(map(repr, choices)) + " at most once")
            )
        object.__setattr__(self, field, tuple(name for name in choices if name in given))

    def _expected(self, field: str, condition: str) -> str:
        return f"{type(self).__name__}: expected {field} {condition}, got {getattr(self, field)!r}"
