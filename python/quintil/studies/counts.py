"""How many operations the three products of a layer take, in HDQT's arithmetic and in float32 [HDQT H1-H12].

Every sum of n products counts n multiplications and n additions, the first of them to zero; joining m tiles takes m - 1
more. A butterfly of order p is p log2 p additions [H5]. What a transform pads is transformed and multiplied too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from quintil.schemes import HDQT

KINDS = ("multiply", "add", "transform", "quantise", "move")
PHASES = ("forward", "input_gradient", "weight_gradient")
_FLOAT, _TOTAL = 32, 32  # bits of a float32; of the sum of tiles, and of an accumulator without a limit
_FIRST_ROW = 8  # bits of the codes of first rows that stand apart [H23]


@dataclass(frozen=True)
class Operation:
    """One kind of operation. number: 'int' or 'float'; bits: of what it reads; 'move' is one byte.

    An addition's bits are those of its accumulator; other_bits: of a multiplication's second operand, 0 = the same.
    """

    kind: str
    number: str
    bits: int
    other_bits: int = 0


Counts = Counter[Operation]
_BYTE = Operation("move", "int", 8)
_ADD, _MULTIPLY, _QUANTISE = (Operation(kind, "float", _FLOAT) for kind in ("add", "multiply", "quantise"))


@dataclass(frozen=True)
class LayerShape:
    """A layer as matrix products: [rows, depth] x [depth, outputs].

    rows: samples, or samples x output positions. depth: inputs, or channels x taps. inputs: elements of the layer's
    input, before unfolding. samples: runs of rows that a convolution's weight gradient may take one by one. folds:
    whether the input gradient adds up taps (a convolution). bias, input_gradient, weight_gradient: what there is.
    """

    rows: int
    depth: int
    outputs: int
    inputs: int
    samples: int = 1
    folds: bool = False
    bias: bool = False
    input_gradient: bool = True
    weight_gradient: bool = True

    @property
    def multiplications(self) -> int:
        return self.rows * self.depth * self.outputs

    @property
    def weights(self) -> int:
        return self.outputs * self.depth


def block_orders(n: int, hadamard: str, block: int = 64) -> list[int]:
    """Orders of the Hadamard blocks along an axis of length n, in order [HDQT H6]; [] where nothing is transformed."""
    if n == 0 or hadamard in ("none", "none_scaled"):
        return []
    if hadamard == "binary":
        return [1 << bit for bit in range(n.bit_length() - 1, -1, -1) if n >> bit & 1]
    if hadamard == "divisor":
        order = n & -n
    else:
        order = min(block, 1 << (n - 1).bit_length())
    return [order] * -(-n // order)


def transform_additions(n: int, hadamard: str, block: int = 64) -> int:
    """Additions and subtractions of one transform of length n by butterflies: p log2 p for a block of order p."""
    return sum(p * (p.bit_length() - 1) for p in block_orders(n, hadamard, block))


def dense_transform_multiplications(n: int, hadamard: str, block: int = 64) -> int:
    """What the same transform takes as a matrix product: p^2 for a block of order p, none for order 1."""
    return sum(p * p for p in block_orders(n, hadamard, block) if p > 1)


def float_counts(shape: LayerShape) -> dict[str, Counts]:
    """Operations of the layer in float32, by phase; a gradient that is not asked for has none."""
    product = Counter({_MULTIPLY: shape.multiplications, _ADD: shape.multiplications})
    outputs = shape.rows * shape.outputs
    bias = Counter({_ADD: outputs}) if shape.bias else Counter()
    moved = Counter({_BYTE: 4 * (shape.inputs + shape.weights + outputs)})
    return {
        "forward": product + bias + moved,
        "input_gradient": product + moved if shape.input_gradient else Counter(),
        "weight_gradient": product + bias + moved if shape.weight_gradient else Counter(),
    }


def hdqt_counts(shape: LayerShape, scheme: HDQT) -> dict[str, Counts]:
    """Operations of the layer under `scheme`, by phase; a gradient that is not asked for has none."""
    by_sample = shape.folds and scheme.conv_backward == "per_sample"
    groups = shape.samples if by_sample else 1
    counts = {"forward": _forward(shape, scheme), "input_gradient": Counter(), "weight_gradient": Counter()}
    if shape.input_gradient:
        counts["input_gradient"] = _input_gradient(shape, scheme)
    if shape.weight_gradient:
        counts["weight_gradient"] = _weight_gradient(shape, scheme, groups)
    return counts


def _forward(shape: LayerShape, scheme: HDQT) -> Counts:
    """[H1-H4]: both operands quantised, the product in tiles, two scales and a bias per output."""
    outputs, operands = shape.rows * shape.outputs, shape.inputs + shape.weights
    counts = _product(shape.multiplications, outputs, shape.depth, scheme.tile_size, scheme.accumulator_bits, scheme)
    counts += Counter({_QUANTISE: operands, _MULTIPLY: 2 * outputs, _ADD: outputs if shape.bias else 0})
    codes = _code_bytes(shape.inputs, scheme.bits) + _code_bytes(shape.weights, scheme.bits)
    return counts + Counter({_BYTE: 4 * (operands + outputs) + 2 * codes})


def _input_gradient(shape: LayerShape, scheme: HDQT) -> Counts:
    """[H9]: transforms along the outputs, of the weight's codes and of the gradient; taps are added afterwards."""
    axis, gradient = _Axis(shape.outputs, scheme), shape.rows * shape.outputs
    operand_bits = scheme.bits if scheme.requantize else axis.widened(scheme.bits)
    counts = axis.transform(shape.depth, shape.rows, scheme.bits)
    counts += _product(
        shape.rows * axis.length * shape.depth, shape.rows * shape.depth, axis.length, scheme.backward_tile_size,
        scheme.input_gradient_bits, scheme, operand_bits,
    )  # fmt: skip
    counts[Operation("add", "int", _TOTAL)] += shape.rows * shape.depth if shape.folds else 0
    counts[_MULTIPLY] += axis.scales * shape.inputs
    moved = 4 * (gradient + shape.inputs) + _code_bytes(shape.weights, scheme.bits)
    moved += 2 * _code_bytes(shape.rows * axis.length, scheme.bits)
    moved += 2 * _code_bytes(axis.length * shape.depth, operand_bits)
    return counts + Counter({_BYTE: moved})


def _weight_gradient(shape: LayerShape, scheme: HDQT, groups: int) -> Counts:
    """[H10, H12]: transforms along the rows of each group, of the input's codes and of the gradient.

    [H23]: the first row of every block leaves this product for one of 8-bit codes without a limit; a float addition
    joins the two.
    """
    rows = shape.rows // groups if groups else 0
    axis = _Axis(rows, scheme)
    operand_bits = scheme.bits if scheme.requantize else axis.widened(scheme.bits + 1)
    group = axis.transform(shape.depth, shape.outputs, scheme.bits + 1)
    apart = axis.blocks if scheme.dc_row == "separate" else 0
    together = axis.length - apart
    group += _product(
        shape.weights * together, shape.weights, axis.length, scheme.backward_tile_size, scheme.weight_gradient_bits,
        scheme, operand_bits,
    )  # fmt: skip
    group[_MULTIPLY] += axis.scales * shape.weights
    group[_BYTE] += 2 * _code_bytes(together * shape.outputs, scheme.bits)
    group[_BYTE] += 2 * _code_bytes(together * shape.depth, operand_bits)
    if apart:
        first_bits = _FIRST_ROW if scheme.requantize else operand_bits
        wide = first_bits if first_bits != _FIRST_ROW else 0
        group[Operation("multiply", "int", _FIRST_ROW, wide)] += shape.weights * apart
        group[Operation("add", "int", _TOTAL)] += shape.weights * apart
        group[_MULTIPLY] += 2 * shape.weights  # its two steps
        group[_ADD] += shape.weights
        group[_BYTE] += 2 * _code_bytes(apart * shape.outputs, _FIRST_ROW)
        group[_BYTE] += 2 * _code_bytes(apart * shape.depth, first_bits)
    counts = Counter({operation: groups * count for operation, count in group.items()})
    gradient = shape.rows * shape.outputs
    counts[_ADD] += max(0, groups - 1) * shape.weights + (gradient if shape.bias else 0)
    counts[_BYTE] += 4 * (gradient + shape.weights) + _code_bytes(shape.inputs, scheme.bits)
    return +counts


class _Axis:
    """The contracted axis of a backward product: its blocks and what its two operands pay for them."""

    def __init__(self, n: int, scheme: HDQT) -> None:
        self._scheme = scheme
        self._orders = block_orders(n, scheme.hadamard, scheme.hadamard_block)
        self._additions = transform_additions(n, scheme.hadamard, scheme.hadamard_block)
        self.length = sum(self._orders) if self._orders else n
        self.blocks = sum(order > 1 for order in self._orders)  # those with a first row that is a sum
        divisor = n & -n if scheme.hadamard == "none_scaled" else max(self._orders, default=1)
        self.scales = 3 + (divisor > 1 and scheme.hadamard != "binary")  # three steps, and what undoes the transforms

    def widened(self, bits: int) -> int:
        """Bits of transformed codes of `bits` bits with their sign."""
        return bits + max(self._orders, default=1).bit_length() - 1

    def transform(self, codes: int, gradients: int, bits: int) -> Counts:
        """Both transforms, `codes` columns of integers of `bits` bits and `gradients` of floats, and their codes."""
        wide = self.widened(bits)
        counts = Counter({Operation("transform", "int", wide): codes * self._additions})
        counts[Operation("transform", "float", _FLOAT)] += gradients * self._additions
        counts[_QUANTISE] += gradients * self.length
        if self._scheme.hadamard == "binary":  # blocks are scaled one by one, as floats
            counts[_MULTIPLY] += (codes + gradients) * self.length
            counts[_QUANTISE] += codes * self.length
        elif self._scheme.requantize:
            counts[Operation("quantise", "int", wide)] += codes * self.length
        return +counts


def _product(macs: int, sums: int, depth: int, tile: int, accumulator: int, scheme: HDQT, other: int = 0) -> Counts:
    """`macs` multiply-accumulates into `sums` sums of `depth` products, tiles joined in 32 bits where they are limited.

    other: bits of the second operand, 0 = scheme.bits. A saturating adder counts as an adder.
    """
    tiles = -(-depth // tile) if tile and accumulator < _TOTAL else 1
    wide = other if other != scheme.bits else 0
    counts = Counter({Operation("multiply", "int", scheme.bits, wide): macs})
    counts[Operation("add", "int", accumulator)] += macs
    counts[Operation("add", "int", _TOTAL)] += max(0, tiles - 1) * sums
    return +counts


def _code_bytes(n: int, bits: int) -> int:
    """Bytes of n codes: two in a byte up to 4 bits, then 1, 2 or 4 bytes each."""
    if bits <= 4:
        return -(-n // 2)
    return n * (1 if bits <= 8 else 2 if bits <= 16 else 4)
