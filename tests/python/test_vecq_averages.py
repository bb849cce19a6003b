"""Running averages behind quantised activations of VecQ: training moves them, calibration starts them [VECQ 2.7]."""

from __future__ import annotations

import copy

import pytest
import quintil
import torch
from conftest import assert_same
from quintil import VecQ
from quintil.nn.levels import ActivationQuantizer
from small_nets import Net, images
from small_vecq import made, started

ops = torch.ops.quintil


def test_averages_move_in_training_only_t12():
    layer, _, x = made("linear", VecQ(4, 6))
    with pytest.raises(RuntimeError, match="^VecQ: expected a training forward or calibrate"):
        layer.eval()(x)
    started(layer, x, 3)
    step, alpha = ops.vecq_step(x, 6), ops.vecq_quantize(x, 6)[2]
    averages = layer.input_quantizer.averages.clone()
    want = [float(a) + 0.9**3 * (1 - float(a)) for a in (step, alpha)]
    assert averages.tolist() == pytest.approx([*want, 0.9**3], rel=1e-5)
    layer(100 * x)
    with torch.no_grad():
        layer(100 * x)
    assert_same(layer.input_quantizer.averages, averages)
    values = (layer.input_quantizer(x) / averages[1] - 0.5).round()
    assert_same(values, ops.vecq_codes(x, 6, averages[0]).float())

    other, *_ = made("linear", VecQ(4, 6))
    other.load_state_dict(layer.state_dict())
    assert_same(other.eval()(x), layer(x))
    layer.train()(x)
    assert not torch.equal(layer.input_quantizer.averages, averages)


def test_debiased_averages():
    layer, _, x = made("linear", VecQ(4, 6, ema_debias=True))
    started(layer, x, 1)
    step, length = layer.input_quantizer.step_and_length()
    torch.testing.assert_close(
        torch.stack([step, length]), torch.stack([ops.vecq_step(x, 6), ops.vecq_quantize(x, 6)[2]])
    )


def test_calibration_starts_averages_and_nothing_else():
    model = quintil.quantize_(Net(), VecQ(8, 8, ema_debias=True))
    before = copy.deepcopy(model.state_dict())
    batches = [(images(8), torch.zeros(8)) for _ in range(4)]
    assert quintil.nn.calibrate(model, batches) is model and not any(m.training for m in model.modules())
    after = model.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {f"{name}.input_quantizer.averages" for name in ("stem.0", "block.0", "body.a", "body.b", "head")}
    plain = Net().eval()
    plain.load_state_dict({k: v for k, v in before.items() if k in plain.state_dict()})
    x = batches[0][0]
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0.05)
    with pytest.raises(ValueError, match="^calibrate: expected batches to hold a batch, got none$"):
        quintil.nn.calibrate(model, [])
    with pytest.raises(ValueError, match="^calibrate: expected model to have quantised activations, got none"):
        quintil.nn.calibrate(quintil.quantize_(Net(), VecQ(8)), batches)


def test_layers_without_quantised_activations_have_no_averages():
    model = quintil.quantize_(Net(), VecQ(4))
    assert not any("averages" in name for name in model.state_dict())
    assert all(m.bits == 0 for m in model.modules() if isinstance(m, ActivationQuantizer))
    assert torch.isfinite(model.eval()(images())).all(), "nothing to start"
