"""`quintil.HDQT`: defaults, presets, checks of every field, dictionaries."""

import dataclasses
import json

import numpy
import pytest
import torch
from quintil import HDQT
from quintil.schemes import Scheme

DEFAULTS = dict(
    bits=4,
    accumulator_bits=8,
    tile_size=32,
    hadamard="padded",
    hadamard_block=64,
    stochastic=("b1g", "b2a", "b2g"),
    range_fraction=0.975,
    backward_accumulator_bits=None,
    weight_gradient_accumulator_bits=None,
    backward_tile_size=32,
    accumulate="tile_end",
    overflow="saturate",
    requantize=True,
    dc_row="together",
    ste="identity",
    conv_backward="per_sample",
    tile_order="khwc",
    weight_quantizer="absmax",
)
EVERY_OTHER = dict(
    bits=5,
    accumulator_bits=10,
    tile_size=16,
    hadamard="divisor",
    hadamard_block=32,
    stochastic=("fa", "b1g", "b2g"),
    range_fraction=0.9,
    backward_accumulator_bits=12,
    weight_gradient_accumulator_bits=14,
    backward_tile_size=0,
    accumulate="every_mac",
    overflow="wrap",
    requantize=False,
    dc_row="separate",
    ste="clip",
    conv_backward="batch",
    tile_order="chw",
)


def test_fields_and_defaults():
    assert {f.name: f.default for f in dataclasses.fields(HDQT)} == DEFAULTS
    assert list(DEFAULTS) == [f.name for f in dataclasses.fields(HDQT)]
    assert HDQT(5, 10).accumulator_bits == 10


@pytest.mark.parametrize("op, options", [("hadamard_linear", "linear_options"), ("hadamard_conv2d", "conv2d_options")])
def test_options_are_the_keywords_of_the_schema_in_its_order(op, options):
    arguments = [a for a in getattr(torch.ops.quintil, op).default._schema.arguments if a.kwarg_only]
    assert [*getattr(HDQT(), options)()] == [a.name for a in arguments if a.name != "seed"]
    defaults = {a.name: a.default_value for a in arguments if a.name != "seed"}
    assert getattr(HDQT(), options)() == defaults
    assert getattr(HDQT(**EVERY_OTHER), options)() == {
        name: ",".join(value) if name == "stochastic" else value
        for name, value in EVERY_OTHER.items()
        if name in defaults
    }


def test_evaluation_options_leave_the_forward_to_nearest():
    scheme = HDQT(stochastic=("fw", "fa", "b1w", "b2g"))
    assert scheme.linear_options()["stochastic"] == "fw,fa,b1w,b2g"
    assert scheme.conv2d_options(training=False)["stochastic"] == "b1w,b2g"
    assert HDQT(stochastic=()).linear_options()["stochastic"] == ""


def test_equal_however_it_is_spelled():
    spelled = HDQT(bits=numpy.int64(4), stochastic=["b2g", "b1g", "b2a"], range_fraction=numpy.float64(0.975))
    assert spelled == HDQT() and hash(spelled) == hash(HDQT()) and type(spelled.bits) is int
    assert HDQT() != HDQT(bits=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spelled.bits = 5


def test_best_has_the_same_bits():
    best = HDQT.best()
    assert (best.bits, best.accumulator_bits, best.input_gradient_bits, best.weight_gradient_bits) == (4, 8, 8, 8)
    assert best != HDQT() and best.accumulate == "tile_end" and best.tile_size > 0 and best.backward_tile_size > 0


REFUSED = [
    (dict(bits=1), ValueError, "HDQT: expected bits in 2..8, got 1"),
    (dict(bits=9), ValueError, "HDQT: expected bits in 2..8, got 9"),
    (dict(bits="4"), TypeError, "HDQT: expected bits to be an int, got '4'"),
    (dict(bits=True), TypeError, "HDQT: expected bits to be an int, got True"),
    (dict(bits=4.0), TypeError, "HDQT: expected bits to be an int, got 4.0"),
    (dict(bits=None), TypeError, "HDQT: expected bits to be an int, got None"),
    (dict(accumulator_bits=3), ValueError, "HDQT: expected accumulator_bits in 4..32, got 3"),
    (dict(accumulator_bits=33), ValueError, "HDQT: expected accumulator_bits in 4..32, got 33"),
    (dict(backward_accumulator_bits=33), ValueError, "HDQT: expected backward_accumulator_bits in 4..32, got 33"),
    (dict(backward_accumulator_bits="8"), TypeError,
     "HDQT: expected backward_accumulator_bits to be an int or None, got '8'"),
    (dict(weight_gradient_accumulator_bits=3), ValueError,
     "HDQT: expected weight_gradient_accumulator_bits in 4..32, got 3"),
    (dict(weight_gradient_accumulator_bits=8.0), TypeError,
     "HDQT: expected weight_gradient_accumulator_bits to be an int or None, got 8.0"),
    (dict(tile_size=-1), ValueError, "HDQT: expected tile_size >= 0, got -1"),
    (dict(backward_tile_size=-1), ValueError, "HDQT: expected backward_tile_size >= 0, got -1"),
    (dict(tile_size=False), TypeError, "HDQT: expected tile_size to be an int, got False"),
    (dict(hadamard="dense"), ValueError,
     "HDQT: expected hadamard to be one of 'padded', 'divisor', 'binary', 'none', 'none_scaled', got 'dense'"),
    (dict(hadamard=None), TypeError, "HDQT: expected hadamard to be a str, got None"),
    (dict(hadamard_block=0), ValueError, "HDQT: expected hadamard_block >= 1, got 0"),
    (dict(hadamard_block=48), ValueError, "HDQT: expected hadamard_block to be a power of two, got 48"),
    (dict(stochastic=("b1g", "b3g")), ValueError,
     "HDQT: expected stochastic to name each of 'fw', 'fa', 'b1w', 'b1g', 'b2a', 'b2g' at most once, "
     "got ('b1g', 'b3g')"),
    (dict(stochastic=("b1g", "b1g")), ValueError,
     "HDQT: expected stochastic to name each of 'fw', 'fa', 'b1w', 'b1g', 'b2a', 'b2g' at most once, "
     "got ('b1g', 'b1g')"),
    (dict(stochastic="b1g"), TypeError, "HDQT: expected stochastic to be a tuple of names, got 'b1g'"),
    (dict(stochastic=None), TypeError, "HDQT: expected stochastic to be a tuple of names, got None"),
    (dict(range_fraction=0.0), ValueError, "HDQT: expected range_fraction in (0, 1], got 0.0"),
    (dict(range_fraction=1.5), ValueError, "HDQT: expected range_fraction in (0, 1], got 1.5"),
    (dict(range_fraction=float("nan")), ValueError, "HDQT: expected range_fraction in (0, 1], got nan"),
    (dict(range_fraction="1"), TypeError, "HDQT: expected range_fraction to be a number, got '1'"),
    (dict(accumulate="sum"), ValueError, "HDQT: expected accumulate to be one of 'tile_end', 'every_mac', got 'sum'"),
    (dict(overflow="clip"), ValueError, "HDQT: expected overflow to be one of 'saturate', 'wrap', got 'clip'"),
    (dict(requantize=1), TypeError, "HDQT: expected requantize to be a bool, got 1"),
    (dict(requantize=False, hadamard="binary"), NotImplementedError,
     "HDQT: expected requantize True with hadamard='binary', got False"),
    (dict(dc_row="apart"), ValueError, "HDQT: expected dc_row to be one of 'together', 'separate', got 'apart'"),
    (dict(dc_row="separate", hadamard="binary"), ValueError,
     "HDQT: expected hadamard to be 'padded' or 'divisor' with dc_row='separate', got 'binary'"),
    (dict(dc_row="separate", hadamard="none"), ValueError,
     "HDQT: expected hadamard to be 'padded' or 'divisor' with dc_row='separate', got 'none'"),
    (dict(ste="hard"), ValueError, "HDQT: expected ste to be one of 'identity', 'clip', 'raw', got 'hard'"),
    (dict(conv_backward="image"), ValueError,
     "HDQT: expected conv_backward to be one of 'per_sample', 'batch', got 'image'"),
    (dict(tile_order="hwc"), ValueError, "HDQT: expected tile_order to be one of 'khwc', 'chw', got 'hwc'"),
    (dict(weight_quantizer="lsq"), ValueError,
     "HDQT: expected weight_quantizer to be one of 'absmax', 'vecq', got 'lsq'"),
    (dict(weight_quantizer="vecq", stochastic=("fw", "b1g")), ValueError,
     "HDQT: expected stochastic without 'fw' with weight_quantizer='vecq', got ('fw', 'b1g')"),
    (dict(weight_quantizer="vecq", ste="clip"), ValueError,
     "HDQT: expected ste 'identity' or 'raw' with weight_quantizer='vecq', got 'clip'"),
]  # fmt: skip


@pytest.mark.parametrize("fields, error, message", REFUSED, ids=[str(row[0]) for row in REFUSED])
def test_refused(fields, error, message):
    with pytest.raises(error) as caught:
        HDQT(**fields)
    assert type(caught.value) is error and str(caught.value) == message


def test_dictionaries():
    for scheme in (HDQT(), HDQT(**EVERY_OTHER), HDQT.paper(), HDQT(weight_quantizer="vecq")):
        written = json.loads(json.dumps(scheme.to_dict()))
        assert written["scheme"] == "hdqt"
        assert Scheme.from_dict(written) == HDQT.from_dict(written) == scheme
    assert HDQT.from_dict({"bits": 3}) == HDQT(bits=3)
    with pytest.raises(ValueError, match=r"HDQT: expected only known fields, got 'accumulator_bit' \(the nearest"):
        HDQT.from_dict({"accumulator_bit": 8})
    with pytest.raises(ValueError, match="Scheme: expected scheme to be one of .*hdqt.*, got 'hdqd'"):
        Scheme.from_dict({"scheme": "hdqd"})
    with pytest.raises(ValueError, match="Scheme: expected scheme to be one of .*hdqt.*, got ''"):
        Scheme.from_dict({"bits": 4})
    with pytest.raises(ValueError, match="HDQT: expected bits in 2..8, got 1"):
        Scheme.from_dict({"scheme": "hdqt", "bits": 1})


def test_summary_shows_what_differs():
    assert HDQT().summary() == "HDQT()"
    assert HDQT(bits=5, ste="raw").summary() == "HDQT(bits=5, ste='raw')"


PAPER = dict(hadamard="divisor", backward_tile_size=0, ste="raw", tile_order="chw")


@pytest.mark.parametrize("accumulators, bits, given, limit", [
    ("uniform", 4, 8, 8), ("uniform", 4, 16, 16), ("uniform", 4, None, 32),
    ("iclr2023", 4, 8, 8), ("iclr2023", 5, 8, 10), ("iclr2023", 8, 8, 16), ("iclr2023", 2, None, 4),
    ("response", 4, 8, 8), ("response", 4, 15, 15), ("response", 4, 16, 32), ("response", 8, 20, 32),
    ("collas2024", 4, 8, 8), ("collas2024", 4, 4, 4), ("collas2024", 4, 15, 15), ("collas2024", 4, None, 32),
    ("collas2024", 4, 32, 32), ("head", 4, 8, 32), ("head", 3, 4, 32),
])  # fmt: skip
def test_presets(accumulators, bits, given, limit):
    assert HDQT.paper(accumulators, bits, given) == HDQT(bits=bits, accumulator_bits=limit, **PAPER)


@pytest.mark.parametrize("given", [16, 20, 31])
def test_collas2024_with_wide_accumulators_limits_the_weight_gradient_alone(given):
    scheme = HDQT.paper("collas2024", accumulator_bits=given)
    assert scheme == HDQT(accumulator_bits=32, weight_gradient_accumulator_bits=given, **PAPER)
    assert (scheme.input_gradient_bits, scheme.weight_gradient_bits) == (32, given)


@pytest.mark.parametrize("forward, backward, own, b1, b2", [
    (8, None, None, 8, 8), (8, 12, None, 12, 12), (8, None, 32, 8, 32), (8, 32, 8, 32, 8), (32, 8, 16, 8, 16),
])  # fmt: skip
def test_which_field_limits_which_product(forward, backward, own, b1, b2):
    fields = dict(backward_accumulator_bits=backward, weight_gradient_accumulator_bits=own)
    scheme = HDQT(accumulator_bits=forward, **fields)
    assert (scheme.input_gradient_bits, scheme.weight_gradient_bits) == (b1, b2)


def test_published_default():
    assert HDQT.paper() == HDQT.paper("collas2024", bits=4, accumulator_bits=8) == HDQT(**PAPER)


@pytest.mark.parametrize("arguments, error, message", [
    (("latest",), ValueError, "HDQT.paper: expected accumulators to be one of 'uniform', 'iclr2023', 'response', "
     "'collas2024', 'head', got 'latest'"),
    (("collas2024", 8, 33), ValueError, "HDQT: expected accumulator_bits in 4..32, got 33"),
    (("uniform", 9), ValueError, "HDQT: expected bits in 2..8, got 9"),
    (("iclr2023", 9), ValueError, "HDQT: expected bits in 2..8, got 9"),
    (("iclr2023", "4"), TypeError, "HDQT: expected bits to be an int, got '4'"),
    (("response", 4, 3), ValueError, "HDQT: expected accumulator_bits in 4..32, got 3"),
])  # fmt: skip
def test_presets_refused(arguments, error, message):
    with pytest.raises(error) as caught:
        HDQT.paper(*arguments)
    assert type(caught.value) is error and str(caught.value) == message
