"""`quintil.VecQ`: defaults of the published codes, dictionaries, checks of every field."""

from __future__ import annotations

import pytest
from quintil import VecQ


def test_schemes():
    assert VecQ.paper(2, 8) == VecQ(2, 8) and VecQ(2).stored_bits == 2
    assert VecQ.paper(2, 8, "autoqnn") == VecQ(2, 8, drive="norm", sigma="unbiased")
    assert VecQ.from_dict(VecQ(3, None, momentum=0).to_dict()) == VecQ(3, momentum=0.0)
    for options, error, text in (
        (dict(weight_bits=0), ValueError, "weight_bits in 1..16, got 0"),
        (dict(weight_bits=17), ValueError, "weight_bits in 1..16, got 17"),
        (dict(activation_bits=0), ValueError, "activation_bits in 1..16, got 0"),
        (dict(activation_bits=2.0), TypeError, "activation_bits to be an int or None, got 2.0"),
        (dict(momentum=1), ValueError, r"momentum in \[0, 1\), got 1"),
        (dict(momentum=float("nan")), ValueError, r"momentum in \[0, 1\), got nan"),
        (dict(grad_ratio=-0.1), ValueError, r"grad_ratio in \[0, 1\], got -0.1"),
        (dict(grad_ratio=0.1), ValueError, "grad_ratio 0 with grad_mode 'ste', got 0.1"),
        (dict(drive="x"), ValueError, "drive to be one of 'projection', 'norm', 'none', got 'x'"),
        (
            dict(activation_place="x"),
            ValueError,
            "activation_place to be one of 'input', 'output', 'before_activation', got 'x'",
        ),
        (dict(group_size=-1), ValueError, "group_size >= 0, got -1"),
        (dict(per_channel=1), TypeError, "per_channel to be a bool, got 1"),
    ):
        with pytest.raises(error, match=rf"^VecQ: expected {text}$"):
            VecQ(**options)
    with pytest.raises(ValueError, match="^VecQ.paper: expected code to be one of 'paper', 'autoqnn', got 'x'$"):
        VecQ.paper(2, code="x")
