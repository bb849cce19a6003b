"""`torch.compile(fullgraph=True)` and `torch.export` of a conv+linear HDQT network with new seeds."""

import pytest
import quintil
import quintil.functional as F
import torch
from conftest import assert_same
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

SEEDS = [5, 77, 0, 1, 2**62 - 1, 2**32, 3, 123456789, 2**40]


class Net(nn.Module):
    """`stochastic`: the default leaves the forward to nearest, so that the seed reaches gradients alone."""

    def __init__(self, stochastic: str = "b1g,b2a,b2g") -> None:
        super().__init__()
        self.stochastic = stochastic
        self.kernel = nn.Parameter(torch.rand(6, 2, 3, 3) - 0.5)
        self.weight = nn.Parameter(torch.rand(5, 6 * 36) * 0.2 - 0.1)
        self.bias = nn.Parameter(torch.zeros(5))

    def forward(self, x, seed: int):
        options = {"seed": seed, "stochastic": self.stochastic}
        x = torch.ops.quintil.hadamard_conv2d(x, self.kernel, None, [1, 1], [1, 1], **options).relu()
        return torch.ops.quintil.hadamard_linear(x.flatten(1), self.weight, self.bias, **options)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(net, x, seed):
    net.zero_grad()
    y = net(x, seed)
    y.square().sum().backward()
    return [y.detach()] + [p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize(
    "seeds", [SEEDS, sorted(SEEDS), sorted(SEEDS, reverse=True)], ids=["mixed", "ascending", "descending"]
)
def test_at_most_two_graphs_over_nine_seeds(seeds):
    net, x = Net(), torch.rand(4, 2, 6, 6)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    for seed in seeds:
        want = gradients(net, x, seed)
        for a, b in zip(gradients(compiled, x, seed), want):
            assert_same(a, b, f"seed {seed}")
    assert counter.frame_count <= 2, counter.frame_count


def test_inductor_gives_the_same_training_step():
    net, x = Net(), torch.rand(4, 2, 6, 6)
    compiled = torch.compile(net, fullgraph=True)
    for seed in (9, 10, 0):
        want = gradients(net, x, seed)
        got = gradients(compiled, x, seed)
        assert_same(got[0], want[0])
        for a, b in zip(got[1:], want[1:]):
            assert_same(a, b)


def test_seed_drawn_inside_a_full_graph():
    net, x = Net(), torch.rand(4, 2, 6, 6)

    def step(x):
        return net(x, int(torch.randint(0, 2**62, ())))

    def gradient():
        net.zero_grad()
        with torch._dynamo.config.patch(capture_scalar_outputs=True):
            compiled(x).square().sum().backward()
        return net.kernel.grad.clone()

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, backend=counter, fullgraph=True)
    torch.manual_seed(2)
    first, second = gradient(), gradient()
    assert not torch.equal(first, second)
    torch.manual_seed(2)
    assert_same(gradient(), first)
    assert counter.frame_count <= 2


def test_functional_layers_compile_with_their_own_draw():
    w, x = nn.Parameter(torch.rand(7, 20) - 0.5), torch.randn(6, 20)

    def gradient(f):
        w.grad = None
        with torch._dynamo.config.patch(capture_scalar_outputs=True):
            f(x, w).square().sum().backward()
        return w.grad.clone()

    compiled = torch.compile(F.hadamard_linear, backend="aot_eager", fullgraph=True)
    torch.manual_seed(3)
    eager = gradient(F.hadamard_linear)
    torch.manual_seed(3)
    assert_same(gradient(compiled), eager)
    assert not torch.equal(gradient(compiled), gradient(compiled))


def test_evaluation_compiles_to_one_graph_and_equals_eager():
    net = Net().eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: net(x, None), backend=counter, fullgraph=True)
    with torch.no_grad():
        for _ in range(3):
            x = torch.rand(4, 2, 6, 6)
            assert_same(compiled(x), net(x, None))
    assert counter.frame_count == 1


def test_dynamic_batch():
    net = Net()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=True)
    for batch in (4, 7, 13):
        x = torch.rand(batch, 2, 6, 6)
        for a, b in zip(gradients(compiled, x, 50 + batch), gradients(net, x, 50 + batch)):
            assert_same(a, b)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_learned_steps_compile_to_one_graph(backend):
    """Weights of 4 bits from 8, activations with step and offset; the batch changes."""
    w, leaves = torch.randn(5, 20), [torch.rand(5) / 20 + 0.01, torch.tensor(0.1), torch.tensor(-0.2)]
    leaves = [w.requires_grad_(), *(t.requires_grad_() for t in leaves)]

    def forward(x, w, scale, step, offset):
        return F.lsq_quantize(x, step, 4, offset=offset) @ F.double_round_quantize(w, scale, 8, 4).t()

    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(forward, backend=counter, fullgraph=True, dynamic=True)
    for batch in (4, 7, 13):
        x = torch.randn(batch, 20).requires_grad_()
        want, got = forward(x, *leaves), compiled(x, *leaves)
        assert_same(got, want)
        g = torch.randn(want.shape)
        for a, b in zip(torch.autograd.grad(got, [x, *leaves], g), torch.autograd.grad(want, [x, *leaves], g)):
            assert_same(a, b)
    assert counter.frame_count == 1


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_half_integers_compile_once_for_all_batches(backend):
    w = torch.randn(5, 20).requires_grad_()

    def forward(x, w, averages):
        weight = F.vecq_quantize(w, 3, step=F.vecq_step(w, 3, per_channel=True), grad_mode="pwl_c")[0]
        x, averages = F.vecq_activation(x, 8, averages, training=True)
        return x @ weight.t(), averages

    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(forward, backend=counter, fullgraph=True, dynamic=True)
    for batch in (4, 7, 13):
        x = torch.randn(batch, 20).requires_grad_()
        (want, averages), (got, moved) = forward(x, w, torch.ones(3)), compiled(x, w, torch.ones(3))
        assert_same(got, want)
        torch.testing.assert_close(moved, averages)
        g = torch.randn(want.shape)
        for a, b in zip(torch.autograd.grad(got, [x, w], g), torch.autograd.grad(want, [x, w], g)):
            assert_same(a, b)
    assert counter.frame_count <= 2


def test_integer_inference_with_a_dynamic_batch():
    kernel, head = torch.randint(-8, 8, (6, 2, 3, 3)).to(torch.int8), torch.randint(-8, 8, (5, 216)).to(torch.int8)
    scales = torch.rand(6) / 8

    def forward(x):
        codes = F.quantize(x, 8, signed=False, scale=torch.tensor(1 / 255))[0]
        y = F.int_conv2d(codes, torch.tensor(1 / 255), kernel, scales, None, 1, 1)
        codes = F.quantize(y.flatten(1), 4, signed=True, scale=torch.tensor(0.3))[0]
        return F.int_linear(codes, torch.tensor(0.3), head, scales[0], weight_zero2=-1)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(forward, backend=counter, fullgraph=True, dynamic=True)
    for batch in (4, 7, 13):
        x = torch.rand(batch, 2, 6, 6)
        assert_same(compiled(x), forward(x))
    assert counter.frame_count <= 2


def test_export_with_a_dynamic_seed(tmp_path):
    """The forward rounds stochastically here, so that a seed kept as a constant would show."""
    net, x = Net("fw,fa").eval(), torch.rand(4, 2, 6, 6)
    program = torch.export.export(net, (x, 7), dynamic_shapes={"x": None, "seed": torch.export.Dim.DYNAMIC})
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for seed in (7, 8, 2**50):
        assert_same(loaded(x, seed), net(x, seed))
    assert not torch.equal(loaded(x, 7), loaded(x, 8))


def test_evaluation_compiled_ahead_of_time(tmp_path):
    """A package of the evaluation graph, which has no seed: torch 2.13 writes an optional symbolic integer into a package as
    None, so that a graph with a seed input would round to nearest there.
    """
    net, x = quintil.quantize_(nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU()), quintil.HDQT()).eval(), torch.rand(
        4, 2, 6, 6
    )
    with torch.no_grad():
        program = torch.export.export(net, (x,))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "net.pt2"))
        loaded = torch._inductor.aoti_load_package(path)
        for _ in range(3):
            x = torch.rand(4, 2, 6, 6)
            assert_same(loaded(x), net(x))
