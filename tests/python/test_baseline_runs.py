"""Class-incremental runs with the baselines LUQ and FP134, interrupted and resumed; their command line."""

import argparse
import json

import pytest
from quintil import FP134, HDQT, LUQ
from quintil.continual import preset, run, scheme_label
from quintil.continual.arguments import add_arguments, config_from


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return config_from(parser.parse_args(arguments), preset("digits"))


@pytest.mark.parametrize(
    "arguments, scheme",
    [
        (["--quant", "luq"], LUQ()),
        (["--quantMethod", "luq_corrected", "--quantAccBits", "8", "--quantBits", "4"], LUQ(accumulator_bits=8)),
        (["--quant", "luq_og", "--tile_size", "32"], LUQ(levels="original", tile_size=32)),
        (["--quant", "luq", "--luq_samples", "2"], LUQ(samples=2)),
        (["--quant", "fp134"], FP134()),
        (["-qmethod", "fp130_8"], FP134(weights="fp130")),
        (["--quantMethod", "fp130_4", "--fp134_full"], FP134(weights="fp130", full=True, activations="fp130")),
        (["--quant", "noq", "--luq_samples", "2"], None),
    ],
)
def test_options(arguments, scheme):
    assert parsed(*arguments).scheme == scheme


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--quant", "luq", "--bits", "8"], r"LUQ: expected bits in 4\.\.4, got 8"),
        (["--quant", "luq", "--fp134_full"], r"expected quant to be another scheme with fp134_full, got luq"),
        (["--quant", "fp134", "--bits", "4"], r"expected quant to be another scheme with bits, got fp134"),
        (["--quant", "luq_og", "--hadamard_off"], r"expected quant to be another scheme with hadamard_off, got luq_og"),
        (["--quant", "fp134", "--requantize", "false"], r"another scheme with requantize, got fp134"),
        (["--quant", "hdqt", "--luq_samples", "2"], r"expected quant to be luq with luq_samples, got hdqt"),
        (["--fp134_full"], r"expected quant to be fp134 with fp134_full, got none"),
    ],
)
def test_options_of_other_schemes_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        parsed(*arguments)


def test_labels():
    assert scheme_label(LUQ()) == "luq_w4a4acc32" and scheme_label(LUQ(accumulator_bits=8)) == "luq_w4a4acc8"
    assert scheme_label(FP134()) == "fp134" and scheme_label(HDQT()) == "hdqt_w4a4acc8"
    labels = {scheme_label(s) for s in (FP134(), FP134("fp130"), FP134(full=True), LUQ(), LUQ(levels="original"))}
    assert len(labels) == 5


@pytest.mark.parametrize(
    "scheme", [LUQ(accumulator_bits=8, tile_size=32), FP134(), FP134("fp134", full=True, hysteresis=True)]
)
def test_digits_are_learned_and_go_on_after_a_stop(scheme, tmp_path):
    settings = preset("digits").replace(scheme=scheme, epochs=8, init_epoch=None, seeds=(0,), increment=5, init_cls=5)
    lines = []
    for name in ("whole", "cut"):
        settings = settings.replace(results_dir=str(tmp_path / name))
        path = run(settings, stop_after=1) if name == "cut" else run(settings)
        if name == "cut":
            assert run(settings) == path
        lines.append((path / "seed0" / "metrics.jsonl").read_text())
    assert lines[0] == lines[1]
    last = json.loads(lines[0].splitlines()[-1])
    assert last["classes"] == 10 and last["acc_cnn"] > 80
