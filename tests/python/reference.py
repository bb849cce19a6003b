"""HDQT in plain torch and numpy: the papers' formulas, clear and slow, written apart from the C++ sources.

Codes and sums are int64 tensors, floats are float32 in the written order: comparisons with the ops may use `==`.
Other routes than a kernel would take: dense Hadamard matrices for integers, a register that walks along k for
products, a gather over taps for convolution, and Philox evaluated once per element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

EPS = torch.tensor(1e-32)
SITES = {"single": 0, "fw": 1, "fa": 2, "b1w": 3, "b1g": 4, "b2a": 5, "b2g": 6, "b2g first rows": 7}
STOCHASTIC_CAP = 1e8


@dataclass(frozen=True)
class Options:
    """The keyword options of `hadamard_linear` and `hadamard_conv2d`, with the defaults of their schemas."""

    bits: int = 4
    accumulator_bits: int = 8
    tile_size: int = 32
    backward_accumulator_bits: int | None = None
    weight_gradient_accumulator_bits: int | None = None
    backward_tile_size: int = 32
    accumulate: str = "tile_end"
    overflow: str = "saturate"
    hadamard: str = "padded"
    hadamard_block: int = 64
    requantize: bool = True
    dc_row: str = "together"
    ste: str = "identity"
    stochastic: str = "b1g,b2a,b2g"
    range_fraction: float = 0.975
    conv_backward: str = "per_sample"
    tile_order: str = "khwc"
    exact: bool = False  # every quantiser the identity, no register: not an option of the ops

    def arguments(self, conv: bool = False) -> dict:
        """Keyword arguments for the op."""
        left_out = {"exact"} if conv else {"exact", "conv_backward", "tile_order"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}

    def is_stochastic(self, site: str) -> bool:
        return site in self.stochastic.split(",")

    def backward_register(self, weight_gradient: bool = False) -> dict:
        """The register of B1, or of B2: of the widths given, the one that names it most closely."""
        widths = [self.accumulator_bits, self.backward_accumulator_bits]
        widths += [self.weight_gradient_accumulator_bits] if weight_gradient else []
        bits = [width for width in widths if width is not None][-1]
        return dict(
            tile_size=self.backward_tile_size,
            accumulator_bits=bits,
            accumulate=self.accumulate,
            overflow=self.overflow,
        )

    def forward_register(self) -> dict:
        return dict(
            tile_size=self.tile_size,
            accumulator_bits=self.accumulator_bits,
            accumulate=self.accumulate,
            overflow=self.overflow,
        )


def paper_options(accumulators: str = "collas2024", bits: int = 4, accumulator_bits: int = 8) -> Options:
    """The authors' published arithmetic by code state: limits of the forward and B1, and of B2 [HDQT 2.6]."""
    below_16 = accumulator_bits if accumulator_bits < 16 else 32
    width, b2 = {
        "uniform": (accumulator_bits, None),
        "iclr2023": (2 * bits, None),
        "response": (below_16, None),
        "collas2024": (below_16, None if below_16 == accumulator_bits else accumulator_bits),
        "head": (32, None),
    }[accumulators]
    return replace(
        Options(),
        bits=bits,
        accumulator_bits=width,
        weight_gradient_accumulator_bits=b2,
        backward_tile_size=0,
        hadamard="divisor",
        ste="raw",
        tile_order="chw",
    )


# ---- random bits [N6] --------------------------------------------------------------------------------------


def philox4x32(counter: list, key: list, rounds: int = 10) -> list[np.ndarray]:
    """Philox4x32: four counter words and two key words (broadcastable) to four words below 2^32."""
    low32 = np.uint64(0xFFFFFFFF)
    words = [np.asarray(w, dtype=np.uint64) for w in counter]
    k0, k1 = (int(k) for k in key)
    for _ in range(rounds):
        first, second = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        high0, high1 = first >> np.uint64(32), second >> np.uint64(32)
        words = [
            high1 ^ words[1] ^ np.uint64(k0),
            second & low32,
            high0 ^ words[3] ^ np.uint64(k1),
            first & low32,
        ]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return words


def random_bits(seed: int, site: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """r of N5 for each place: 0..65535, at site b2a 0..255. `rows` and `columns` broadcast."""
    rows, c = np.broadcast_arrays(np.asarray(rows, dtype=np.uint64), np.asarray(columns, dtype=np.uint64))
    byte_site = site == SITES["b2a"]
    first = (c >> np.uint64(8 if byte_site else 7)) * np.uint64(16) + c % np.uint64(16)
    words = philox4x32(
        [first, rows % np.uint64(2**32), rows >> np.uint64(32), np.full(c.shape, site)],
        [seed % 2**32, seed >> 32],
    )
    if byte_site:
        word, shift, mask = (
            (c >> np.uint64(6)) % np.uint64(4),
            np.uint64(8) * ((c >> np.uint64(4)) % np.uint64(4)),
            0xFF,
        )
    else:
        word, shift, mask = (
            (c >> np.uint64(5)) % np.uint64(4),
            np.uint64(16) * ((c >> np.uint64(4)) % np.uint64(2)),
            0xFFFF,
        )
    picked = np.choose(word.astype(np.int64), words)
    return ((picked >> shift) & np.uint64(mask)).astype(np.int64)


def round_stochastically(u: Tensor, seed: int, site: int, first_row: int = 0, run: int = 1) -> Tensor:
    """N5 for u [..., columns]; rows are the leading dimensions flattened, `run` of them side by side from `first_row` on."""
    shape = u.shape if u.dim() else (1,)
    columns = shape[-1]
    rows = np.arange(math.prod(shape[:-1]))[:, None]
    places = rows % run * columns + np.arange(columns)[None, :]
    r = torch.from_numpy(random_bits(seed, site, first_row + rows // run, places)).reshape(u.shape)
    levels = 256 if site == SITES["b2a"] else 65536
    magnitude = u.abs()
    whole = magnitude.floor()
    up = (r.float() + 0.5) < levels * (magnitude - whole)
    return torch.sign(u) * (whole + up.float())


# ---- quantisers [HDQT H1, H2, H7, H8] ----------------------------------------------------------------------


def code_range(bits: int, signed: bool, narrow: bool = True) -> tuple[int, int]:
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    return (-high if narrow else -high - 1) if signed else 0, high


def codes_at_scale(
    x: Tensor, scale: Tensor, low: int, high: int, seed: int | None, site: int, first_row: int = 0, run: int = 1
) -> Tensor:
    """Codes of float32 x for a given float32 scale that broadcasts against it; NaN becomes 0."""
    u = x / (scale + EPS)
    if seed is None:
        codes = torch.round(u).clamp(low, high)
    else:
        codes = round_stochastically(torch.nan_to_num(u.clamp(low, high)), seed, site, first_row, run).clamp(low, high)
    return torch.nan_to_num(codes).to(torch.int64)


def quantize(
    x: Tensor,
    bits: int,
    *,
    signed: bool | None = True,
    narrow: bool = True,
    range_fraction: float = 1.0,
    scale: Tensor | None = None,
    seed: int | None = None,
    site: int = 0,
    first_row: int = 0,
    run: int = 1,
    cap: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Uniform codes (int64) and float32 scale; `signed=None` asks the data (-0.0 is not negative)."""
    x = x.float()
    if signed is None:
        signed = bool((x < 0).any())
    low, high = code_range(bits, signed, narrow)
    if scale is not None:
        scale = scale.float()
        aligned = scale.reshape(-1, *[1] * (x.dim() - 1)) if scale.dim() else scale
        return codes_at_scale(x, aligned, low, high, seed, site, first_row, run), scale
    if x.numel() == 0:
        return torch.zeros(x.shape, dtype=torch.int64), torch.tensor(0.0)
    largest = x.abs().max()
    if not torch.isfinite(largest):
        return torch.zeros(x.shape, dtype=torch.int64), torch.tensor(math.nan)
    scale = (torch.tensor(range_fraction) * largest.clamp(max=cap)) / torch.tensor(float(high))
    return codes_at_scale(x, scale, low, high, seed, site, first_row, run), scale


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    aligned = scale.reshape(-1, *[1] * (codes.dim() - 1)) if scale.dim() else scale
    return codes.float() * aligned


# ---- two codes per byte ------------------------------------------------------------------------------------


def pack_int4(codes: Tensor) -> Tensor:
    nibbles = np.asarray(codes.to(torch.int64)) % 16
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros_like(nibbles[..., :1])], axis=-1)
    return torch.from_numpy((nibbles[..., 0::2] + 16 * nibbles[..., 1::2]).astype(np.uint8))


def unpack_int4(packed: Tensor, size: int, signed: bool = True) -> Tensor:
    byte = packed.to(torch.int64)
    values = torch.stack([byte % 16, byte // 16], dim=-1).flatten(-2)[..., :size]
    return torch.where(values > 7, values - 16, values).to(torch.int8) if signed else values.to(torch.uint8)


# ---- Hadamard transform [HDQT H5, H6], [N7] ----------------------------------------------------------------


def next_power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def hadamard_blocks(n: int, hadamard: str, block: int = 64) -> list[int]:
    """Block orders along an axis of length n; their sum is the (padded) length."""
    if n == 0 or hadamard in ("none", "none_scaled"):
        return [1] * n
    if hadamard == "divisor":
        p = math.gcd(n, 1 << 40)
        return [p] * (n // p)
    if hadamard == "binary":
        return [1 << i for i in reversed(range(n.bit_length())) if n >> i & 1]
    p = min(block, next_power_of_two(n))
    return [p] * math.ceil(n / p)


def undoing_divisor(n: int, hadamard: str, block: int = 64) -> int:
    """d of H9, H10: what the product of two transformed operands is divided by."""
    if n == 0 or hadamard in ("none", "binary"):
        return 1
    return hadamard_blocks(n, "divisor" if hadamard == "none_scaled" else hadamard, block)[0]


def sylvester(order: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.int64)
    while matrix.size(0) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)], 0)
    return matrix


def hadamard_matrix(n: int, hadamard: str, block: int = 64) -> Tensor:
    """The dense int64 matrix [n', n]; columns of padded positions are dropped."""
    orders = hadamard_blocks(n, hadamard, block)
    return torch.block_diag(*[sylvester(p) for p in orders])[:, :n] if n else torch.zeros(0, 0, dtype=torch.int64)


def butterflies(z: Tensor, hadamard: str, block: int = 64) -> Tensor:
    """Float transform of dimension 0 in the fixed order h = 1, 2, 4, ...: (u + v, u - v)."""
    orders = hadamard_blocks(z.size(0), hadamard, block)
    padded = torch.cat([z, z.new_zeros(sum(orders) - z.size(0), *z.shape[1:])])
    done, start = [], 0
    for p in orders:
        part, h = padded[start : start + p], 1
        while h < p:
            pairs = part.reshape(p // (2 * h), 2, h, *z.shape[1:])
            part = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(p, *z.shape[1:])
            h *= 2
        done.append(part)
        start += p
    return torch.cat(done) if done else padded


def hadamard_transform(x: Tensor, dim: int = -1, *, hadamard: str = "padded", block: int = 64) -> Tensor:
    moved = x.movedim(dim, 0)
    if x.is_floating_point():
        return butterflies(moved, hadamard, block).movedim(0, dim)
    flat = moved.to(torch.int64).reshape(moved.size(0), -1)
    out = hadamard_matrix(moved.size(0), hadamard, block) @ flat
    return out.reshape(-1, *moved.shape[1:]).movedim(0, dim).to(torch.int32)


def block_normalisers(n: int, block: int = 64) -> Tensor:
    """'binary': 1/sqrt(p_i) for every row of the transformed operand, in float32."""
    orders = torch.tensor([p for p in hadamard_blocks(n, "binary", block) for _ in range(p)], dtype=torch.float32)
    return torch.tensor(1.0) / torch.sqrt(orders)


# ---- products in a narrow register [HDQT H3], [N2] ---------------------------------------------------------


def limit(register: Tensor, accumulator_bits: int, overflow: str) -> Tensor:
    if accumulator_bits == 32:
        return register
    half = 2 ** (accumulator_bits - 1)
    return register.clamp(-(half - 1), half - 1) if overflow == "saturate" else (register + half) % (2 * half) - half


def tiled_int_mm(
    a: Tensor,
    b: Tensor,
    *,
    tile_size: int = 32,
    accumulator_bits: int = 8,
    accumulate: str = "tile_end",
    overflow: str = "saturate",
) -> Tensor:
    """[M, K] x [K, N] -> int64 [M, N] with one register per output, k ascending."""
    a, b = a.to(torch.int64), b.to(torch.int64)
    depth = a.size(1)
    total = torch.zeros(a.size(0), b.size(1), dtype=torch.int64)
    register = torch.zeros_like(total)
    for k in range(depth):
        register = register + a[:, k, None] * b[None, k, :]
        if accumulate == "every_mac":
            register = limit(register, accumulator_bits, overflow)
        if k + 1 == depth or (tile_size and (k + 1) % tile_size == 0):
            total += limit(register, accumulator_bits, overflow)
            register = torch.zeros_like(total)
    return total


def tile_sums(a: Tensor, b: Tensor, tile_size: int) -> Tensor:
    """Exact finished tile sums [tiles, M, N] as float64 integers."""
    a, b, step = a.double(), b.double(), tile_size or max(a.size(1), 1)
    return torch.stack([a[:, k : k + step] @ b[k : k + step] for k in range(0, a.size(1), step)])


def tile_saturation(a: Tensor, b: Tensor, *, tile_size: int = 32, accumulator_bits: int = 8) -> int:
    if accumulator_bits == 32 or a.size(1) == 0:
        return 0
    return int((tile_sums(a, b, tile_size).abs() > 2 ** (accumulator_bits - 1) - 1).sum())


# ---- the two layers [HDQT H4, H9-H12] ----------------------------------------------------------------------


def rescale(accumulated: Tensor, *factors: Tensor | float) -> Tensor:
    """Float factors one after another, each its own rounding [N9]."""
    out = accumulated if accumulated.is_floating_point() else accumulated.to(torch.float32)
    for factor in factors:
        out = out * factor
    return out


def forward_codes(z: Tensor, site: str, o: Options, seed: int | None) -> tuple[Tensor, Tensor]:
    if o.exact:
        return z, torch.ones((), dtype=z.dtype)
    draws = seed if o.is_stochastic(site) else None
    return quantize(z, o.bits, signed=None, range_fraction=o.range_fraction, seed=draws, site=SITES[site])


def multiply(a: Tensor, b: Tensor, o: Options, register: dict) -> Tensor:
    return a @ b if o.exact else tiled_int_mm(a, b, **register)


def backward_operand(
    z: Tensor, dim: int, site: str, o: Options, seed: int | None, first_row: int = 0, run: int = 1
) -> tuple[Tensor, Tensor]:
    """H along `dim` of codes or gradients [rows, features], then a second quantisation [HDQT H7, H8]."""
    n, is_codes = z.size(dim), not z.is_floating_point()
    out = hadamard_transform(z, dim, hadamard=o.hadamard, block=o.hadamard_block)
    if o.exact or (is_codes and not o.requantize):
        out = out if o.hadamard != "binary" else out * block_normalisers(n).to(out.dtype).unsqueeze(1 - dim)
        return out, torch.ones((), dtype=torch.float32)
    out = out.float()
    if o.hadamard == "binary":
        out = out * block_normalisers(n).unsqueeze(1 - dim)
    if not o.is_stochastic(site):
        return quantize(out, o.bits)
    return quantize(out, o.bits, seed=seed, site=SITES[site], first_row=first_row, run=run, cap=STOCHASTIC_CAP)


def input_product(
    g: Tensor, wc: Tensor, sw: Tensor, o: Options, seed: int | None, first_row: int = 0, run: int = 1
) -> tuple[Tensor, tuple]:
    """B1 for g [rows, N] and codes [N, K]: accumulated integers [rows, K], factors still to apply."""
    weights, s1 = backward_operand(wc, 0, "b1w", o, seed)
    gradient, s2 = backward_operand(g, 1, "b1g", o, seed, first_row, run)
    d = undoing_divisor(wc.size(0), o.hadamard, o.hadamard_block)
    return multiply(gradient, weights, o, o.backward_register()), (s2, s1, sw, 1.0 / d)


def first_rows_apart(
    z: Tensor,
    bits: int,
    site: str | None,
    first_site: str | None,
    seed: int | None,
    first_row: int,
    run: int,
    order: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[H23] codes of the rows that are not the first of a block of `order`, 0 for those that are, and their step; then the
    8-bit codes of the first rows and theirs. A site of None rounds to nearest."""
    blocks = z.reshape(-1, order, z.size(1))
    steps = [
        quantize(part, width, cap=math.inf if place is None else STOCHASTIC_CAP)[1]
        for part, width, place in ((blocks[:, 1:], bits, site), (blocks[:, 0], 8, first_site))
    ]
    high = 2 ** (bits - 1) - 1
    rest = codes_at_scale(z, steps[0], -high, high, seed if site else None, SITES[site or "single"], first_row, run)
    rest.reshape(blocks.shape)[:, 0] = 0
    row = first_row // order
    first = codes_at_scale(
        blocks[:, 0], steps[1], -127, 127, seed if first_site else None, SITES[first_site or "single"], row, run
    )
    return rest, steps[0], first, steps[1]


def weight_product_apart(
    g: Tensor, xc: Tensor, sx: Tensor, o: Options, seed: int | None, first_row: int, run: int, order: int
) -> Tensor:
    """B2 with the first rows of blocks apart [H23]: dw [N, K]."""

    def transformed(z: Tensor) -> Tensor:
        return hadamard_transform(z, 0, hadamard=o.hadamard, block=o.hadamard_block)

    a_site, g_site, first_site = (
        name if o.is_stochastic(name.split()[0]) else None for name in ("b2a", "b2g", "b2g first rows")
    )
    x, gradient = transformed(xc), transformed(g)
    if o.requantize:
        xr, s3, xd, u3 = first_rows_apart(x.float(), o.bits, a_site, None, seed, first_row, run, order)
    else:
        one = torch.tensor(1.0)
        xr, s3, xd, u3 = x, one, x.reshape(-1, order, x.size(1))[:, 0], one
    gr, s4, gd, u4 = first_rows_apart(gradient, o.bits, g_site, first_site, seed, first_row, run, order)
    rest = rescale(multiply(gr.t(), xr, o, o.backward_register(weight_gradient=True)), s4, s3)
    first = rescale((gd.t().double() @ xd.double()).to(torch.int64), u4, u3)
    return rescale(rest + first, sx, 1.0 / order)


def weight_product(
    g: Tensor, xc: Tensor, sx: Tensor, o: Options, seed: int | None, first_row: int = 0, run: int = 1
) -> Tensor:
    """B2 for g [rows, N] and activation codes [rows, K]: dw [N, K]."""
    order = max(hadamard_blocks(xc.size(0), o.hadamard, o.hadamard_block), default=1)
    if o.dc_row == "separate" and order > 1:
        return weight_product_apart(g, xc, sx, o, seed, first_row, run, order)
    activations, s3 = backward_operand(xc, 0, "b2a", o, seed, first_row, run)
    gradient, s4 = backward_operand(g, 0, "b2g", o, seed, first_row, run)
    d = undoing_divisor(xc.size(0), o.hadamard, o.hadamard_block)
    accumulated = multiply(gradient.t(), activations, o, o.backward_register(weight_gradient=True))
    return rescale(accumulated, s4, s3, sx, 1.0 / d)


def sum_in_chunks(parts: list[Tensor], chunk: int, like: Tensor) -> Tensor:
    """Ascending sums inside chunks, then the chunk sums ascending [N8]."""
    sums = []
    for start in range(0, len(parts), chunk):
        partial = parts[start].clone()
        for part in parts[start + 1 : start + chunk]:
            partial = partial + part
        sums.append(partial)
    total = sums[0] if sums else torch.zeros_like(like)
    for partial in sums[1:]:
        total = total + partial
    return total


def bias_gradient(g: Tensor) -> Tensor:
    return sum_in_chunks(list(g), 1024, g.new_zeros(g.size(1)))


def straight_through(gradient: Tensor, z: Tensor, o: Options) -> Tensor:
    """H11: 0 where the forward quantiser clamped ('clip') or where |z| > Qs in raw units ('raw')."""
    if o.ste == "identity" or z.numel() == 0:
        return gradient
    bound = torch.tensor(o.range_fraction) * z.abs().max() if o.ste == "clip" else 2 ** (o.bits - 1) - 1
    return torch.where(z.abs() > bound, torch.zeros_like(gradient), gradient)


def hadamard_linear(
    x: Tensor, w: Tensor, bias: Tensor | None = None, o: Options = Options(), seed: int | None = None
) -> Tensor:
    xc, sx = forward_codes(x.reshape(-1, x.size(-1)), "fa", o, seed)
    wc, sw = forward_codes(w, "fw", o, seed)
    y = rescale(multiply(xc, wc.t(), o, o.forward_register()), sw, sx)
    return (y if bias is None else y + bias).reshape(*x.shape[:-1], w.size(0))


def hadamard_linear_backward(x: Tensor, w: Tensor, g: Tensor, o: Options = Options(), seed: int | None = None) -> tuple:
    """(dx, dw, db) for dL/dy = g."""
    rows, g = x.reshape(-1, x.size(-1)), g.reshape(-1, w.size(0))
    xc, sx = forward_codes(rows, "fa", o, seed)
    wc, sw = forward_codes(w, "fw", o, seed)
    accumulated, factors = input_product(g, wc, sw, o, seed)
    dx = straight_through(rescale(accumulated, *factors), rows, o).reshape(x.shape)
    dw = straight_through(weight_product(g, xc, sx, o, seed), w, o)
    return dx, dw, bias_gradient(g)


class Taps:
    """Which padded pixel each (position, tap) of a convolution reads; K runs in the order `tile_order`."""

    def __init__(self, x: Tensor, w: Tensor, stride: tuple, padding: tuple, tile_order: str) -> None:
        self.size, self.kernel, self.stride, self.padding = x.shape[2:], w.shape[2:], stride, padding
        self.out = [(self.size[i] + 2 * padding[i] - self.kernel[i]) // stride[i] + 1 for i in (0, 1)]
        self.channels_last = tile_order == "khwc"

    def _windows(self):
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                yield i, j, slice(i, i + self.stride[0] * self.out[0], self.stride[0]), slice(
                    j, j + self.stride[1] * self.out[1], self.stride[1]
                )

    def unfold(self, pixels: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, L, K]"""
        n, h, w, c = pixels.shape
        (ph, pw), (kh, kw) = self.padding, self.kernel
        padded = pixels.new_zeros(n, h + 2 * ph, w + 2 * pw, c)
        padded[:, ph : ph + h, pw : pw + w] = pixels
        out = pixels.new_zeros(n, *self.out, kh, kw, c)
        for i, j, rows, columns in self._windows():
            out[:, :, :, i, j] = padded[:, rows, columns]
        return self._order(out).reshape(n, self.out[0] * self.out[1], kh * kw * c)

    def _order(self, taps: Tensor) -> Tensor:
        return taps if self.channels_last else taps.movedim(-1, -3)

    def fold(self, columns: Tensor, channels: int) -> Tensor:
        """[L, K] -> [C, H, W]: the taps of one sample added, exactly for integers"""
        (ph, pw), (kh, kw) = self.padding, self.kernel
        shape = (*self.out, kh, kw, channels) if self.channels_last else (*self.out, channels, kh, kw)
        taps = columns.reshape(shape)
        taps = taps if self.channels_last else taps.movedim(-3, -1)
        image = columns.new_zeros(self.size[0] + 2 * ph, self.size[1] + 2 * pw, channels)
        for i, j, rows, columns_ in self._windows():
            image[rows, columns_] += taps[:, :, i, j]
        return image[ph : ph + self.size[0], pw : pw + self.size[1]].movedim(-1, 0)

    def weight_rows(self, w: Tensor) -> Tensor:
        return (w.permute(0, 2, 3, 1) if self.channels_last else w).reshape(w.size(0), -1)

    def weight_from_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        o, c, kh, kw = shape
        return rows.reshape(o, kh, kw, c).permute(0, 3, 1, 2) if self.channels_last else rows.reshape(shape)


def _conv_operands(x: Tensor, w: Tensor, stride: tuple, padding: tuple, o: Options, seed: int | None) -> tuple:
    taps = Taps(x, w, stride, padding, o.tile_order)
    pixels, sx = forward_codes(x.permute(0, 2, 3, 1), "fa", o, seed)
    wc, sw = forward_codes(taps.weight_rows(w), "fw", o, seed)
    return taps, taps.unfold(pixels), sx, wc, sw


def hadamard_conv2d(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    stride: tuple = (1, 1),
    padding: tuple = (0, 0),
    o: Options = Options(),
    seed: int | None = None,
) -> Tensor:
    taps, xc, sx, wc, sw = _conv_operands(x, w, stride, padding, o, seed)
    y = rescale(multiply(xc.reshape(-1, xc.size(2)), wc.t(), o, o.forward_register()), sw, sx)
    y = y if bias is None else y + bias
    return y.reshape(x.size(0), *taps.out, w.size(0)).permute(0, 3, 1, 2)


def hadamard_conv2d_backward(
    x: Tensor,
    w: Tensor,
    g: Tensor,
    stride: tuple = (1, 1),
    padding: tuple = (0, 0),
    o: Options = Options(),
    seed: int | None = None,
) -> tuple:
    """(dx, dw, db) for dL/dy = g [N, O, oh, ow]."""
    taps, xc, sx, wc, sw = _conv_operands(x, w, stride, padding, o, seed)
    n, positions = xc.shape[:2]
    g = g.permute(0, 2, 3, 1).reshape(n, positions, -1)
    together = o.conv_backward == "batch"
    groups = [(g.flatten(0, 1), xc.flatten(0, 1))] if together else list(zip(g, xc))
    padded_rows = sum(hadamard_blocks(groups[0][0].size(0), o.hadamard, o.hadamard_block)) if groups else 0
    images, weight_parts = [], []
    for i, (gradient, codes) in enumerate(groups):
        accumulated, factors = input_product(gradient, wc, sw, o, seed, i * positions, 16)
        images += [rescale(taps.fold(part, x.size(1)), *factors) for part in accumulated.split(max(positions, 1))]
        weight_parts.append(weight_product(gradient, codes, sx, o, seed, i * padded_rows, 16))
    dx = torch.stack(images) if n else torch.zeros_like(x)
    dw = taps.weight_from_rows(sum_in_chunks(weight_parts, 8, taps.weight_rows(w)), w.shape)
    return straight_through(dx, x, o), straight_through(dw, w, o), bias_gradient(g.flatten(0, 1))
