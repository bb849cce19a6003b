"""What every op of HDQT is made of, in plain torch and numpy: random bits, quantisers, packing, transforms, products.

Other routes than a kernel would take: dense Hadamard matrices for integers, a register that walks along k for
products, and Philox evaluated once per element. `reference` has the layers made of it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

EPS = torch.tensor(1e-32)
SITES = {"single": 0, "fw": 1, "fa": 2, "b1w": 3, "b1g": 4, "b2a": 5, "b2g": 6, "b2g first rows": 7}
STOCHASTIC_CAP = 1e8


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
