"""Every runnable instruction set gives the bits of the scalar law, for 1, 2 and 3 threads.

Run as a program (`test_isa.py OUT.pt`), this file writes the results of all ops under QUINTIL_ISA.
"""

import sys

import pytest
import quintil
import quintil.functional as F
import torch
from quintil.models import CifarResNet, FCNet

ops = torch.ops.quintil
ALL_SITES = "fw,fa,b1w,b1g,b2a,b2g"


def linear(b, k, n, signed=True, seed=5, **options):
    x, w, bias, g = torch.randn(b, k), torch.rand(n, k) - 0.5, torch.randn(n), torch.randn(b, n)
    leaves = [t.requires_grad_() for t in (x if signed else x.relu(), w, bias)]
    y = ops.hadamard_linear(*leaves, seed=seed, **options)
    return [y.detach(), *torch.autograd.grad(y, leaves, g)]


def conv(x_shape, w_shape, stride=1, padding=1, seed=5, channels_last=False, **options):
    x, w, bias = torch.randn(x_shape).relu(), torch.rand(w_shape) - 0.5, torch.randn(w_shape[0])
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    leaves = [t.requires_grad_() for t in (x, w, bias)]
    y = ops.hadamard_conv2d(*leaves, [stride] * 2, [padding] * 2, seed=seed, **options)
    return [y.detach(), *torch.autograd.grad(y, leaves, torch.randn(y.shape))]


def conv_norm(x_shape, w_shape, relu=True, seed=6, **options):
    x, w, channels = torch.randn(x_shape).relu(), torch.rand(w_shape) - 0.5, w_shape[0]
    residual = torch.randn(x_shape[0], channels, *x_shape[2:])
    leaves = [t.requires_grad_() for t in (x, w, torch.rand(channels), torch.randn(channels), residual)]
    y, mean, variance = ops.hadamard_conv2d_batch_norm(*leaves, [1, 1], [1, 1], relu=relu, seed=seed, **options)
    return [y.detach(), mean, variance, *torch.autograd.grad(y, leaves, torch.randn(y.shape))]


def element_ops():
    for shape in ((1,), (3, 5), (7, 33), (2, 300), (31, 31), (4, 1030)):
        x = torch.randn(shape) * torch.exp(torch.randn(shape))
        for bits in (2, 4, 7, 8):
            yield from ops.quantize(x, bits)
            yield from ops.quantize(x, bits, seed=2**61 + bits, range_fraction=0.975)
            yield from ops.quantize(x.abs(), bits, signed=False)
            yield from ops.quantize(x, bits, narrow=False, scale=torch.tensor(0.1))
        broken = x.clone()
        broken.view(-1)[-1] = float("nan")
        yield from ops.quantize(broken, 4)
        codes = ops.quantize(x, 4)[0]
        yield ops.dequantize(codes, torch.tensor(0.3))
        yield ops.pack_int4(codes)
        yield ops.unpack_int4(ops.pack_int4(codes), shape[-1])
    for tiny in (1e-38, 1e-40, 1e-45):  # denormals stay on
        yield from ops.quantize(torch.randn(40) * tiny, 4)


def transforms():
    for n in (1, 6, 16, 49, 64, 100, 405, 561):
        for mode in ("divisor", "binary", "padded", "none"):
            x = torch.randn(5, n)
            yield ops.hadamard_transform(x, hadamard=mode)
            yield ops.hadamard_transform(x.t().contiguous(), 0, hadamard=mode)
            for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32):
                yield ops.hadamard_transform((x * 20).abs().to(dtype), hadamard=mode)


def products():
    for m, k, n in (
        (1, 1, 1),
        (2, 3, 5),
        (6, 32, 16),
        (7, 33, 17),
        (13, 64, 31),
        (18, 129, 50),
        (35, 70, 96),
    ):
        for left, right in ((16, 7), (127, 127)):
            b = torch.randint(-right - 1, right + 1, (k, n)).to(torch.int8)
            for a in (
                torch.randint(0, 2 * left - 1, (m, k)).to(torch.uint8),
                torch.randint(-left - 1 if left == 127 else -8, left // 2, (m, k)).to(torch.int8),
            ):
                for bits, tile in ((8, 32), (4, 3), (12, 21), (16, 0), (32, 32), (10, 64)):
                    for accumulate in ("tile_end", "every_mac"):
                        for overflow in ("saturate", "wrap"):
                            yield ops.tiled_int_mm(
                                a,
                                b,
                                tile_size=tile,
                                accumulator_bits=bits,
                                accumulate=accumulate,
                                overflow=overflow,
                            )
                    yield ops.tile_saturation(a, b.t().contiguous().t(), tile_size=tile, accumulator_bits=bits)


def steps():
    """Learned steps: values and all gradients, at lengths around a vector and a chunk of sums, on ties and beyond."""
    for shape in ((1,), (3, 5), (4, 33), (2, 4099), (5, 3, 3, 3), (9001,)):
        x = torch.cat([torch.randn(shape), torch.randint(-80, 80, shape) / 32])
        g, offset = torch.randn(x.shape), torch.tensor(0.3, requires_grad=True)
        for scale in (torch.tensor(1 / 16), torch.rand(len(x)) / 16 + 1e-3):
            leaves = [x.requires_grad_(), scale.requires_grad_(), offset]
            for bits in (1, 4, 8):
                for mask_on in ("scaled", "rounded"):
                    y = ops.lsq_quantize(*leaves[:2], bits, offset=offset, mask_on=mask_on)
                    yield from (y, *torch.autograd.grad(y, leaves, g))
            for rounding in ("half_even", "half_up", "floor"):
                for options in ({}, dict(weight_source="float"), dict(scale_grad_sum="all", scale_residual="single")):
                    y = ops.double_round_quantize(*leaves[:2], 8, 3, rounding=rounding, **options)
                    yield from (y, *torch.autograd.grad(y, leaves[:2], g))
    for n in (1, 31, 33, 1000):
        for rounding in ("half_even", "half_up", "floor"):
            yield ops.double_round(torch.randint(-128, 128, (n,)).to(torch.int8), 8, 4, rounding=rounding)


def baselines():
    """LUQ's draws and small floats, at lengths around a vector, a random block and a chunk of sums."""
    formats = (([5, 5, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0], 0), ([1] * 7 + [0], 2), ([10] * 63 + list(range(9, -1, -1)), 32))
    for shape in ((1,), (3, 5), (7, 33), (2, 300), (5, 3, 3, 3), (4, 1030), (9001,)):
        x = torch.randn(shape) * torch.exp(2 * torch.randn(shape))
        yield ops.sawb_clip(x)
        for bits, samples, levels in ((4, 1, "corrected"), (5, 3, "corrected"), (4, 2, "original")):
            yield ops.luq_quantize(x, seed=2**61 + bits, bits=bits, samples=samples, levels=levels)
        yield from ops.luq_codes(x * 1e-41, seed=3, sample=5)
        x.view(-1)[-1] = float("nan")
        yield ops.luq_quantize(x, seed=3)
        for significands, scale in formats:
            exponents = torch.full((shape[0],), scale, dtype=torch.int32)
            yield ops.minifloat_quantize(x, significands, torch.tensor(scale))
            yield ops.minifloat_quantize(x, significands, exponents, seed=2**61)
            yield ops.minifloat_quantize(x, significands, exponents, previous=x.cos())


def half_integers():
    """Steps, codes, lengths, values and gradients at lengths around a vector and a chunk of sums."""
    for shape in ((1,), (3, 5), (4, 33), (2, 4099), (5, 3, 3, 3), (9001,)):
        x = torch.cat([torch.randn(shape), torch.randint(-80, 80, shape) / 32]).requires_grad_()
        g = torch.randn(x.shape)
        for options in ({}, dict(per_channel=True), dict(group_size=1 if x.dim() == 1 else x.size(-1))):
            for bits in (1, 4, 8, 12):
                step = ops.vecq_step(x, bits, **options)
                lengths = [step, ops.vecq_step(x, min(bits, 8), lambda_mode="search", **options)]
                for drive, grad_mode, ratio in (
                    ("projection", "ste", 0.0),
                    ("norm", "pwl", 0.3),
                    ("none", "pwl_c", 0.3),
                ):
                    y, codes, alpha = ops.vecq_quantize(
                        x, bits, step=step, drive=drive, grad_mode=grad_mode, grad_ratio=ratio
                    )
                    lengths.append(alpha)
                    yield from (y, codes, *torch.autograd.grad(y, x, g))
                yield torch.cat([length.flatten() for length in lengths])
        yield from ops.vecq_losses(x, g)
        yield from ops.vecq_activation(x, 4, torch.ones(3), training=True)


def int_products():
    """Codes that fit bytes and codes that do not, zero points of whole and half codes, both layouts."""
    x8, x4 = torch.randint(0, 256, (70, 101)).to(torch.uint8), torch.randint(-8, 8, (70, 101)).to(torch.int8)
    w8, w4 = torch.randint(-128, 128, (45, 101)).to(torch.int8), torch.randint(-8, 8, (45, 101)).to(torch.int8)
    scale, scales, bias = torch.tensor(0.03), torch.rand(45), torch.randn(45)
    for x in (x8, x4):
        for w in (w8, w4):
            for x_zero2, weight_zero2 in ((0, 0), (-1, -1), (16, 0), (0, -1)):
                zero2 = dict(x_zero2=x_zero2, weight_zero2=weight_zero2)
                yield ops.int_linear(x, scale, w, scales, bias, **zero2)
                image, kernel = x[:64, :96].reshape(8, 12, 8, 8), w[:, :48].reshape(45, 12, 2, 2)
                yield ops.int_conv2d(image, scale, kernel, scale, None, [1, 1], [1, 1], **zero2)
                image = image.to(memory_format=torch.channels_last)
                yield ops.int_conv2d(image, scale, kernel, scales, bias, [2, 1], [0, 1], **zero2)
                joined = dict(residual=torch.randn(70, 45) * 9, relu=True, **zero2)
                yield ops.int_linear(x, scale, w, scales, bias, **joined)
                yield ops.int_linear(x, scale, w, scales, bias, out_scale=torch.tensor(0.37), out_bits=5, **joined)
    values, gain, shift = torch.randn(9, 45, 7), torch.randn(45), torch.randn(45)
    for signed in (False, True):
        yield ops.affine_quantize(values, gain, shift, scale, 4, signed=signed)


def layers():
    for i, (b, k, n) in enumerate(((1, 1, 1), (7, 33, 5), (65, 70, 19), (64, 96, 64), (33, 405, 40))):
        for hadamard in ("divisor", "binary", "padded", "none"):
            yield from linear(b, k, n, signed=i % 2 == 0, hadamard=hadamard)
        yield from linear(b, k, n, stochastic=ALL_SITES, ste="clip", seed=2**62 - 1)
        yield from linear(b, k, n, accumulate="every_mac", accumulator_bits=6, backward_tile_size=0)
        yield from linear(b, k, n, overflow="wrap", bits=8, requantize=False, accumulator_bits=16)
        for options in ({}, dict(bits=8), dict(requantize=False), dict(hadamard="divisor", backward_tile_size=0)):
            yield from linear(b, k, n, signed=False, dc_row="separate", **options)
        yield from linear(b, k, n, accumulate="every_mac", dc_row="separate", weight_gradient_accumulator_bits=6)
    for options in (
        {},
        dict(hadamard="divisor", ste="raw", tile_order="chw", backward_tile_size=0),
        dict(conv_backward="batch"),
        dict(hadamard="binary", stochastic=ALL_SITES),
        dict(bits=8, accumulator_bits=16),
        dict(accumulate="every_mac"),
        dict(dc_row="separate", weight_gradient_accumulator_bits=6),
        dict(dc_row="separate", conv_backward="batch", hadamard="divisor"),
    ):
        yield from conv((3, 5, 7, 6), (6, 5, 3, 3), **options)
        yield from conv((2, 16, 8, 8), (33, 16, 3, 3), stride=2, channels_last=True, **options)
        yield from conv((10, 3, 4, 4), (8, 3, 1, 1), padding=0, **options)
        if options.get("accumulator_bits", 8) > 8:  # sums of more than 16 bits
            continue
        yield from conv_norm((3, 5, 7, 6), (6, 5, 3, 3), **options)
        yield from conv_norm((2, 16, 24, 24), (33, 16, 3, 3), relu=False, **options)


def training():
    """All parameters and running statistics after two steps of an MLP and of a ResNet with one block per stage."""
    for features, x, classes in (
        (FCNet(101), torch.randn(64, 101), 7),
        (CifarResNet(1), torch.randn(6, 3, 16, 16), 10),
    ):
        model = torch.nn.Sequential(features, torch.nn.ReLU(), torch.nn.Linear(features.out_features, classes))
        quintil.quantize_(model, quintil.HDQT())
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(2):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x), torch.arange(len(x)) % classes).backward()
            optimiser.step()
        yield from model.state_dict().values()


def recurrent():
    """States of VecQ's layers in evaluation: scans in C++ and, of several runs and projections, in Python."""
    lengths = torch.randint(1, 12, (37,))
    for layer_class, keywords in (
        (quintil.nn.VecQLSTM, dict(bidirectional=True, num_layers=2)),
        (quintil.nn.VecQLSTM, dict(proj_size=7)),
        (quintil.nn.VecQGRU, dict(bidirectional=True)),
    ):
        for scheme in (quintil.VecQ(4, 8), quintil.VecQ(8, 8, per_channel=True), quintil.VecQ(3, 8, group_size=7)):
            layer = layer_class(14, 21, **keywords, scheme=scheme)
            x = torch.nn.utils.rnn.pack_padded_sequence(
                torch.randn(11, 37, 14), lengths.clamp(max=11), enforce_sorted=False
            )
            with torch.no_grad():
                layer(x)
                output, states = layer.eval()(x)
            yield from (output.data, *(states if isinstance(states, tuple) else (states,)))


def results() -> list[torch.Tensor]:
    """All results, in one fixed order; every group starts from its own fixed random state."""
    collected = []
    for i, group in enumerate(
        (element_ops, transforms, products, steps, half_integers, baselines, int_products, recurrent, layers, training)
    ):
        torch.manual_seed(100 + i)
        collected.extend(t.detach().contiguous() for t in group())
    return collected


def main(path: str) -> None:
    out = {"isa": quintil.active_isa(), "results": {}}
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out["results"][threads] = results()
    torch.save(out, path)


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    """Results of every runnable instruction set, each from its own process."""
    from conftest import run_python

    folder, found = tmp_path_factory.mktemp("isa"), {}
    for isa in quintil.runnable_isas():
        run_python(__file__, str(folder / f"{isa}.pt"), QUINTIL_ISA=isa)
        found[isa] = torch.load(folder / f"{isa}.pt")
    return found


def test_forced_instruction_set_is_obeyed(dumps):
    assert "scalar" in dumps
    assert {isa: dump["isa"] for isa, dump in dumps.items()} == {isa: isa for isa in dumps}


def test_all_bits_agree(dumps):
    from conftest import same_bits

    law = dumps["scalar"]["results"][1]
    assert len(law) > 1000
    for isa, dump in dumps.items():
        for threads, got in dump["results"].items():
            assert len(got) == len(law)
            for i, (a, b) in enumerate(zip(got, law)):
                assert a.shape == b.shape and same_bits(
                    a, b
                ), f"{isa}, {threads} threads: result {i} of shape {list(a.shape)}"


def test_results_are_not_trivial(dumps):
    """The comparison above would also pass on zeros."""
    law = dumps["scalar"]["results"][1]
    informative = sum(1 for t in law if t.numel() > 8 and len(t.unique()) > 3)
    assert informative > 0.6 * len(law)


def test_this_process_runs_the_expected_instruction_set():
    import os

    forced = os.environ.get("QUINTIL_ISA")
    assert quintil.active_isa() == (forced or quintil.runnable_isas()[-1])
    assert F.quantize(torch.ones(3), 4, signed=True)[0].tolist() == [7, 7, 7]


if __name__ == "__main__":
    main(sys.argv[1])
