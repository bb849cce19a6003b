"""`quintil.DoubleRounding`: defaults, checks of every field, dictionaries."""

from __future__ import annotations

import dataclasses
import json

import numpy
import pytest
from quintil import HDQT, DoubleRounding
from quintil.schemes import Scheme

DEFAULTS = dict(
    bits=(8, 6, 4, 2),
    activation_offset=False,
    per_channel=True,
    rounding="half_even",
    chain_pow2=False,
    switch_norm=True,
    skip_ends=True,
    activation_signed=False,
    activation_init="percentile",
    weight_init="lsq",
    weight_source="stored",
    shared_step=True,
    transitional_norm=False,
    mask_on="scaled",
    scale_residual="double",
    scale_grad_sum="channel",
)
EVERY_OTHER = dict(
    bits=(7, 1),
    activation_offset=True,
    per_channel=False,
    rounding="floor",
    chain_pow2=True,
    switch_norm=True,
    skip_ends=False,
    activation_signed=True,
    activation_init="lsq",
    weight_init="vecq",
    weight_source="float",
    shared_step=False,
    transitional_norm=True,
    mask_on="rounded",
    scale_residual="single",
    scale_grad_sum="all",
)


def test_fields_and_defaults():
    assert {f.name: f.default for f in dataclasses.fields(DoubleRounding)} == DEFAULTS
    assert list(DEFAULTS) == [f.name for f in dataclasses.fields(DoubleRounding)]
    assert DoubleRounding().stored_bits == 8 and DoubleRounding(bits=(2, 4, 3)).stored_bits == 4 == HDQT().stored_bits


def test_equal_however_it_is_spelled():
    spelled = DoubleRounding(bits=[2, numpy.int64(4), 8, 6])
    assert spelled == DoubleRounding() and hash(spelled) == hash(DoubleRounding())
    assert all(type(b) is int for b in spelled.bits) and spelled != DoubleRounding(bits=(8, 6, 4))
    assert DoubleRounding(bits=(4, 3, 2)).summary() == "DoubleRounding(bits=(4, 3, 2))"


def test_dictionaries():
    for scheme in (DoubleRounding(), DoubleRounding(**EVERY_OTHER), DoubleRounding.paper()):
        written = json.loads(json.dumps(scheme.to_dict()))
        assert written["scheme"] == "double_rounding" and isinstance(written["bits"], list)
        assert Scheme.from_dict(written) == DoubleRounding.from_dict(written) == scheme
    with pytest.raises(ValueError, match="DoubleRounding: expected scheme to be one of double_rounding, got 'hdqt'"):
        DoubleRounding.from_dict(HDQT().to_dict())


def test_paper():
    assert DoubleRounding.paper() == DoubleRounding(scale_residual="single", scale_grad_sum="all")
    assert DoubleRounding.paper([2, 3, 4]).bits == (4, 3, 2)


WIDTHS = "DoubleRounding: expected bits to be different widths in 1..8, the highest at least 2, got "


@pytest.mark.parametrize("fields, error, message", [
    (dict(bits=()), ValueError, WIDTHS + "()"),
    (dict(bits=(4, 4)), ValueError, WIDTHS + "(4, 4)"),
    (dict(bits=(9, 4)), ValueError, WIDTHS + "(9, 4)"),
    (dict(bits=(4, 0)), ValueError, WIDTHS + "(4, 0)"),
    (dict(bits=(1,)), ValueError, WIDTHS + "(1,)"),
    (dict(bits=4), TypeError, "DoubleRounding: expected bits to be a tuple of ints, got 4"),
    (dict(bits="84"), TypeError, "DoubleRounding: expected bits to be a tuple of ints, got '84'"),
    (dict(bits=(8, 4.0)), TypeError, "DoubleRounding: expected bits to be a tuple of ints, got (8, 4.0)"),
    (dict(bits=(8, True)), TypeError, "DoubleRounding: expected bits to be a tuple of ints, got (8, True)"),
    (dict(rounding="up"), ValueError,
     "DoubleRounding: expected rounding to be one of 'half_even', 'half_up', 'floor', got 'up'"),
    (dict(activation_init="max"), ValueError,
     "DoubleRounding: expected activation_init to be one of 'percentile', 'lsq', got 'max'"),
    (dict(weight_init="search"), ValueError,
     "DoubleRounding: expected weight_init to be one of 'lsq', 'vecq', got 'search'"),
    (dict(weight_source="double"), ValueError,
     "DoubleRounding: expected weight_source to be one of 'stored', 'float', got 'double'"),
    (dict(mask_on="raw"), ValueError, "DoubleRounding: expected mask_on to be one of 'scaled', 'rounded', got 'raw'"),
    (dict(scale_residual="none"), ValueError,
     "DoubleRounding: expected scale_residual to be one of 'double', 'single', got 'none'"),
    (dict(scale_grad_sum=None), TypeError, "DoubleRounding: expected scale_grad_sum to be a str, got None"),
    (dict(transitional_norm=True, switch_norm=False), ValueError,
     "DoubleRounding: expected transitional_norm False without switch_norm, got True"),
    *((dict([(name, 1)]), TypeError, f"DoubleRounding: expected {name} to be a bool, got 1")
      for name, value in DEFAULTS.items() if isinstance(value, bool)),
])  # fmt: skip
def test_refused(fields, error, message):
    with pytest.raises(error) as caught:
        DoubleRounding(**fields)
    assert type(caught.value) is error and str(caught.value) == message
