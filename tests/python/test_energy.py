"""Energy of a step: counts equal those of loops that really add and multiply, and of small layers by hand."""

import math
from collections import Counter

import pytest
import quintil
import torch
from quintil.studies import LayerShape, Operation, by_kind, hdqt_counts
from quintil.studies.counts import block_orders, dense_transform_multiplications, transform_additions
from reference import hadamard_blocks, hadamard_matrix
from torch import nn

MODES = ["padded", "divisor", "binary", "none"]


def butterflies(values, orders, done):
    """Block transform of a list by butterflies; every addition and subtraction is one more in `done`."""
    values, first = list(values) + [0] * (sum(orders) - len(values)), 0
    for order in orders:
        h = 1
        while h < order:
            for start in range(first, first + order, 2 * h):
                for i in range(start, start + h):
                    a, b = values[i], values[i + h]
                    values[i], values[i + h] = a + b, a - b
                    done["transform"] += 2
            h *= 2
        first += order
    return values


def product(a, b, tile, done):
    """[rows, depth] x [depth, columns] of lists, with a sum per tile: counts multiplications, additions and joins."""
    columns, result = list(zip(*b)), []
    for row in a:
        result.append([])
        for column in columns:
            total, joined = 0, False
            for start in range(0, len(row), tile or len(row)):
                part = 0
                for x, y in list(zip(row, column))[start : start + (tile or len(row))]:
                    part += x * y
                    done["multiply"] += 1
                    done["add"] += 1
                done["join"] += joined
                total, joined = total + part, True
            result[-1].append(total)
    return result


def integers(rows, columns):
    return torch.randint(-7, 8, (rows, columns)).tolist()


def transposed(matrix):
    return [list(row) for row in zip(*matrix)]


@pytest.mark.parametrize("hadamard", MODES)
@pytest.mark.parametrize("n", [1, 2, 6, 64, 100, 405])
def test_transforms_take_the_additions_of_butterflies(n, hadamard):
    orders = hadamard_blocks(n, hadamard, 32) if hadamard != "none" else []
    assert [p for p in block_orders(n, hadamard, 32) if p > 1] == [p for p in orders if p > 1]
    done = Counter()
    values = torch.randint(-7, 8, (n,)).double()
    found = butterflies(values.tolist(), orders or [1] * n, done)
    want = hadamard_matrix(n, hadamard, 32).double() @ values
    assert torch.equal(torch.tensor(found).double(), want)
    assert transform_additions(n, hadamard, 32) == done["transform"]
    entries = [p * p for p in orders if p > 1]
    assert dense_transform_multiplications(n, hadamard, 32) == sum(entries)


@pytest.mark.parametrize("tile", [4, 0])
@pytest.mark.parametrize("hadamard", MODES)
def test_linear_counts_what_loops_do(hadamard, tile):
    """All three products as loops of integers that compute the exact product, so nothing is left out."""
    rows, depth, outputs = 6, 9, 12
    scheme = quintil.HDQT(hadamard=hadamard, hadamard_block=8, tile_size=tile, backward_tile_size=tile)
    x, w, g = integers(rows, depth), integers(outputs, depth), integers(rows, outputs)
    counts = hdqt_counts(LayerShape(rows, depth, outputs, rows * depth), scheme)
    assert by_product(counts["forward"]) == loops_of_forward(x, w, tile)
    want, dx = loops_of_gradient(transposed(w), g, hadamard, tile)
    assert by_product(counts["input_gradient"]) == want
    want, dw = loops_of_gradient(transposed(x), transposed(g), hadamard, tile)
    assert by_product(counts["weight_gradient"]) == want
    if hadamard != "binary":  # equal blocks are undone by one factor
        p = max(hadamard_blocks(outputs, hadamard, 8)) if hadamard != "none" else 1
        assert torch.equal(torch.tensor(dx), p * (torch.tensor(g) @ torch.tensor(w)))
        p = max(hadamard_blocks(rows, hadamard, 8)) if hadamard != "none" else 1
        assert torch.equal(torch.tensor(dw), p * (torch.tensor(g).t() @ torch.tensor(x)))


def by_product(counts):
    """Integer operations: multiplications, additions into the 8-bit accumulator, joins; transforms of both operands."""
    found = Counter()
    for operation, count in counts.items():
        if operation.kind == "transform":
            found["transform"] += count
        elif operation.number == "int" and operation.kind in ("multiply", "add"):
            found["join" if operation == Operation("add", "int", 32) else operation.kind] += count
    return found


def loops_of_forward(x, w, tile):
    done = Counter()
    product(x, transposed(w), tile, done)
    return +done


def loops_of_gradient(codes, gradient, hadamard, tile):
    """Both operands, rows of equal length, transformed along it and multiplied: gradient x codes^T."""
    n, done = len(gradient[0]), Counter()
    orders = hadamard_blocks(n, hadamard, 8) if hadamard != "none" else [1] * n
    codes = [butterflies(row, orders, done) for row in codes]
    gradient = [butterflies(row, orders, done) for row in gradient]
    result = product(gradient, transposed(codes), tile, done)
    return +done, result


def test_a_small_linear_layer_by_hand():
    """3 rows, 5 inputs, 4 outputs, bias, the paper's blocks: H_4 along the outputs, none along 3 rows."""
    model = nn.Sequential(nn.Identity(), nn.Linear(5, 4))
    x = torch.randn(3, 5, requires_grad=True)
    report = quintil.energy(model, x, quintil.HDQT.paper())
    (layer,) = report.layers
    assert layer.name == "1" and layer.kind == "Linear" and layer.arithmetic.startswith("HDQT(hadamard='divisor'")
    code, byte = 10 + 8, Operation("move", "int", 8)  # 20 weights and 15 inputs of 4 bits: 10 and 8 bytes
    assert layer.counts["forward"] == {
        Operation("multiply", "int", 4): 60, Operation("add", "int", 8): 60, Operation("quantise", "float", 32): 35,
        Operation("multiply", "float", 32): 24, Operation("add", "float", 32): 12, byte: 4 * (35 + 12) + 2 * code,
    }  # fmt: skip
    assert layer.counts["input_gradient"] == {
        Operation("transform", "int", 6): 5 * 8, Operation("transform", "float", 32): 3 * 8,
        Operation("quantise", "int", 6): 20, Operation("quantise", "float", 32): 12,
        Operation("multiply", "int", 4): 60, Operation("add", "int", 8): 60, Operation("multiply", "float", 32): 4 * 15,
        byte: 4 * (12 + 15) + 10 + 2 * 6 + 2 * 10,
    }  # fmt: skip
    assert layer.counts["weight_gradient"] == {
        Operation("quantise", "int", 5): 15, Operation("quantise", "float", 32): 12,
        Operation("multiply", "int", 4): 60, Operation("add", "int", 8): 60, Operation("multiply", "float", 32): 3 * 20,
        Operation("add", "float", 32): 12, byte: 4 * (12 + 20) + 8 + 2 * 6 + 2 * 8,
    }  # fmt: skip
    product = {Operation("multiply", "float", 32): 60, byte: 4 * (15 + 20 + 12)}
    assert layer.float32["forward"] == {**product, Operation("add", "float", 32): 72}
    assert layer.float32["input_gradient"] == {**product, Operation("add", "float", 32): 60}
    assert layer.float32["weight_gradient"] == layer.float32["forward"]


@pytest.mark.parametrize("conv_backward, groups", [("per_sample", 2), ("batch", 1)])
def test_a_convolution_transforms_rows_by_sample_or_together(conv_backward, groups):
    """2 images [3, 6, 6], 3x3, stride 2, padding 1: 9 positions each, padded to 16 by sample, to 32 together."""
    layer = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    scheme = quintil.HDQT(conv_backward=conv_backward, hadamard_block=32)
    (found,) = quintil.energy(nn.Sequential(layer), x, scheme).layers
    length = 16 if groups == 2 else 32
    b1, b2 = found.counts["input_gradient"], found.counts["weight_gradient"]
    assert found.shape.rows == 18 and found.counts["forward"][Operation("multiply", "int", 4)] == 18 * 27 * 8
    assert found.counts["forward"][Operation("quantise", "float", 32)] == 2 * 108 + 8 * 27
    assert b2[Operation("multiply", "int", 4)] == groups * length * 27 * 8
    assert b2[Operation("transform", "float", 32)] == groups * 8 * length * int(math.log2(length))
    assert b2[Operation("add", "float", 32)] == (groups - 1) * 8 * 27
    assert b1[Operation("transform", "int", 7)] == 27 * 8 * 3 and b1[Operation("transform", "float", 32)] == 18 * 8 * 3
    assert b1[Operation("add", "int", 32)] == 18 * 27 and b1[Operation("multiply", "float", 32)] == 4 * 2 * 108


def test_options_change_what_they_should():
    shape = LayerShape(16, 40, 16, 640)

    def counts(**options):
        return sum(hdqt_counts(shape, quintil.HDQT(**options)).values(), Counter())

    narrow = counts()
    assert narrow[Operation("add", "int", 32)] == 16 * 16  # forward alone: 40 products are two tiles of 32
    unlimited = counts(accumulator_bits=32)
    assert unlimited[Operation("add", "int", 32)] == narrow[Operation("add", "int", 8)]
    wide = counts(backward_accumulator_bits=12)
    assert wide[Operation("add", "int", 12)] == 2 * wide[Operation("add", "int", 8)] == 2 * 16 * 40 * 16
    assert counts(weight_gradient_accumulator_bits=12)[Operation("add", "int", 12)] == 16 * 40 * 16
    exact = counts(requantize=False)
    assert exact[Operation("multiply", "int", 4, 8)] == exact[Operation("multiply", "int", 4, 9)] == 16 * 40 * 16
    assert not any(o.kind == "quantise" and o.number == "int" for o in exact)
    eight = counts(bits=8)
    assert eight[Operation("multiply", "int", 8)] == narrow[Operation("multiply", "int", 4)]
    assert eight[Operation("move", "int", 8)] > narrow[Operation("move", "int", 8)]
    scaled = counts(hadamard="none_scaled") - counts(hadamard="none")
    assert scaled == {Operation("multiply", "float", 32): 640 + 640}  # the division alone
    assert by_kind(counts(hadamard="none"))["transform"] == 0


@pytest.mark.parametrize("rows, hadamard, order", [(128, "padded", 64), (16, "divisor", 16), (6, "divisor", 2)])
def test_first_rows_apart_take_their_share_in_8_bits(rows, hadamard, order):
    """[H23] One row in `order` leaves the product of 4-bit codes; two steps and one addition per weight join the sums."""
    shape, blocks = LayerShape(rows, 40, 10, rows * 40), rows // order
    together, apart = (
        hdqt_counts(shape, quintil.HDQT(hadamard=hadamard, dc_row=dc_row))["weight_gradient"]
        for dc_row in ("together", "separate")
    )
    first = 400 * blocks
    assert apart - together == {
        Operation("multiply", "int", 8): first, Operation("add", "int", 32): first,
        Operation("multiply", "float", 32): 2 * 400, Operation("add", "float", 32): 400,
        Operation("move", "int", 8): 2 * blocks * (40 + 10) - blocks * (40 + 10),  # a byte per code instead of half
    }  # fmt: skip
    assert together - apart == {Operation("multiply", "int", 4): first, Operation("add", "int", 8): first}


def test_without_a_first_row_nothing_is_apart():
    shape = LayerShape(7, 40, 10, 280)
    odd = [hdqt_counts(shape, quintil.HDQT(hadamard="divisor", dc_row=d)) for d in ("together", "separate")]
    assert odd[0] == odd[1]


def test_the_model_stays_as_it_was_before_and_after_the_swap():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    model[1].eval()
    x, scheme = torch.randn(2, 3, 4, 4), quintil.HDQT(bits=3)
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    before = quintil.energy(model, x, scheme)
    quintil.quantize_(model, scheme)
    assert quintil.energy(model, x).layers == before.layers == quintil.energy(model, x, scheme).layers
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.training and not model[1].training and not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert before.layers[0].counts["input_gradient"] == Counter()  # the data need no gradient
    assert before.layers[1].counts["input_gradient"] != Counter()
    frozen = quintil.energy(model.requires_grad_(False), x)
    assert frozen.picojoules() == frozen.picojoules("forward") == quintil.energy(model, x, backward=False).picojoules()


def test_float_layers_count_as_float32():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 3))
    report = quintil.energy(model, torch.randn(2, 4, 4, 4))
    assert report.ratio == 1.0 and {layer.arithmetic for layer in report.layers} == {"float32"}
    mixed = quintil.energy(model, torch.randn(2, 4, 4, 4), quintil.HDQT())
    assert [layer.arithmetic for layer in mixed.layers] == ["float32", "HDQT()"]
    assert mixed.layers[0].counts["forward"][Operation("multiply", "float", 32)] == 2 * 4 * 4 * 18


def test_a_layer_that_runs_twice_counts_twice():
    shared = nn.Linear(4, 4)
    once = quintil.energy(nn.Sequential(shared), torch.randn(2, 4, requires_grad=True), quintil.HDQT())
    twice = quintil.energy(nn.Sequential(shared, shared), torch.randn(2, 4, requires_grad=True), quintil.HDQT())
    assert len(twice.layers) == 1 and twice.counts() == once.counts() + once.counts()
