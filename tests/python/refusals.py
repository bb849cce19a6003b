"""Tables of refused calls, rows of (call, exception class, pattern), and what every row of a table has to meet.

The pattern stands for what follows "<op>: expected "; it must match the whole rest of the message.
"""

import pytest
import torch

V, T, N = ValueError, TypeError, NotImplementedError


def f32(*shape):
    return torch.ones(shape)


def i8(*shape):
    return torch.ones(shape, dtype=torch.int8)


def u8(*shape):
    return torch.ones(shape, dtype=torch.uint8)


def name_of(call) -> str:
    return str(call[0]).rsplit(".", 1)[-1]


def describe(call) -> str:
    shown = [list(a.shape) if isinstance(a, torch.Tensor) else a for a in call[1]]
    return f"{name_of(call)}-{shown}-{call[2]}"


def every_row(rows):
    """A test of every row (call, error, text) of a table in every place: on the CPU, on Meta, in inference mode."""
    calls = pytest.mark.parametrize("call, error, text", rows, ids=[describe(row[0]) for row in rows])
    places = pytest.mark.parametrize("place", ["cpu", "meta", "inference"])
    return lambda test: places(calls(test))


def check_refusal(call, error, text, place):
    function, args, options = call
    if place == "meta":
        args, options = (
            [v.to("meta") if isinstance(v, torch.Tensor) else v for v in args],
            {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in options.items()},
        )
    with torch.inference_mode(place == "inference"):
        with pytest.raises(error, match=rf"(?s)^{name_of(call)}: expected ({text})$") as caught:
            function(*args, **options)
    assert type(caught.value) is error, type(caught.value)
    assert not str(caught.value).endswith("."), str(caught.value)
