"""Options of the scripts, their aliases and refusals, run configurations and presets [CIL 5, 6]."""

from __future__ import annotations

import argparse
import dataclasses
import re

import pytest
from quintil import HDQT, DoubleRounding
from quintil.continual import HDQT_SEEDS, PRESETS, RunConfig, preset, scheme_label
from quintil.continual.arguments import add_arguments, config_from, metric_help, notes
from quintil.metrics import FORMULAS

BASE = preset("hdqt-dsads")


def parse(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train")
    add_arguments(parser)
    return parser.parse_args(line.split())


def configured(line: str, base: RunConfig = BASE) -> RunConfig:
    return config_from(parse(line), base)


AUTHORS = (
    "--quantMethod ours --quantBits 4 --quantAccBits 8 --quantFWDWgt int --quantFWDAct int --quantBWDWgt int "
    "--quantBWDAct stoch --quantBWDGrad1 stoch --quantBWDGrad2 stoch --quantBlockSize 32 "
)


def test_commands_of_the_authors():
    line = AUTHORS + "-p benchmark -d -1 --dataset pamap -model icarl -net fcnet -init 2 -incre 2 -ms 200 -seed 01056"
    found = configured(line + " --fc_hid_dim 243 --in_dim 243 --lr 0.01 --epochs 100 --milestones 50 -j 8")
    want = BASE.replace(
        exp_name="benchmark", dataset="pamap2", seeds=(1056,), fc_hid_dim=243, in_dim=243, milestones=(50,), scheme=HDQT()
    )  # fmt: skip
    assert found == want
    found = configured(
        AUTHORS.replace("ours", "noq")
        + "-d -1 --datasets cifar100 --model_name icarl --convnet_type memo_resnet32 -init 20 -incre 20 -ms 2000 "
        "-seed 42467 88801",
        preset("hdqt-cifar100"),
    )
    assert found == preset("hdqt-cifar100").replace(seeds=(42467, 88801))


@pytest.mark.parametrize(
    "line, changes",
    [
        ("", {}),
        ("--nb_cl_fg 10 --nb_cl 5", {"init_cls": 10, "increment": 5}),
        ("--nc-first-task 10 --incre 5", {"init_cls": 10, "increment": 5}),
        ("--initial-increment 4", {"init_cls": 4}),
        ("--approach finetune --all_outputs", {"method": "finetune", "all_outputs": True}),
        ("--method nocl --init_cls 19 --increment 0", {"method": "offline", "init_cls": 19, "increment": 0}),
        ("--random_seed 3,4 --order_seed 1993", {"seeds": (3, 4), "order_seed": 1993}),
        ("--class_order icarl", {"class_order": "icarl"}),
        ("--class_order 2,0,1", {"class_order": (2, 0, 1)}),
        ("--shuffle false", {"class_order": "identity"}),
        ("--buffer_size 50", {"memory_size": 50}),
        ("--num-exemplars 50 --exemplar-selection random", {"memory_size": 50, "exemplar_selection": "random"}),
        ("--nb_protos 20", {"memory_size": 20, "memory_policy": "per_class"}),
        ("--num-exemplars-per-class 20", {"memory_size": 20, "memory_policy": "per_class"}),
        ("--memory 20 --fixed_memory true", {"memory_size": 20, "memory_policy": "per_class"}),
        ("--method er --minibatch_size 16", {"method": "er", "minibatch_size": 16}),
        ("-model bic --split_ratio 0.2 --bic_layers per_task --bic_epochs 50",
         {"method": "bic", "split_ratio": 0.2, "bic_layers": "per_task", "bic_epochs": 50}),
        ("-model bic --bic_compat --bic_compat_double_softmax false", {"method": "bic", "bic_compat": True}),
        ("--temperature 3 --lambda_kd 0.5 --kd_tau2", {"T": 3.0, "lamda": 0.5, "kd_tau2": True}),
        ("--num-epochs 7 --lrate 0.2 --init_epoch 9", {"epochs": 7, "lr": 0.2, "init_epoch": 9}),
        ("--milestones [60,100,140]", {"milestones": (60, 100, 140)}),
        ("--milestones 60, 100, 140", {"milestones": (60, 100, 140)}),
        ("--milestones", {"milestones": ()}),
        ("--milestones 50 --hdqt_compat_lr", {"milestones": ()}),
        ("--backbone fcnet --fc_nr_hid 1 --half_dims 1 --norm layer --bias TRUE",
         {"fc_nr_hid": 1, "half_dims": True, "norm": "layer", "bias": True}),
        ("--normalize none --subjects_drop 3 4 --classes_drop",
         {"normalise": "none", "subjects_drop": (3, 4), "classes_drop": ()}),
        ("--head cosine --scheduler cosine", {"head": "cosine", "scheduler": "cosine"}),
        ("--model_name memo --convnet_type memo_resnet32 --alpha_aux 0.5 --train_base",
         {"method": "memo", "model": "resnet32", "alpha_aux": 0.5, "train_base": True}),
        ("--method lucir --nb_cl_fg 50 --nb_cl 10 --nb_protos 20 --rs_ratio 0.1 --imprint_weights --less_forget "
         "--mr_loss --random_seed 1993",
         {"method": "lucir", "init_cls": 50, "increment": 10, "memory_size": 20, "memory_policy": "per_class",
          "rs_ratio": 0.1, "seeds": (1993,)}),
        ("--mr_loss false --lw_mr 2 --dist 0.4 --K 3",
         {"mr_loss": False, "lw_mr": 2.0, "mr_margin": 0.4, "mr_nearest": 3}),
        ("--approach eeil --nepochs-finetuning 30 --lr-finetuning-factor 0.1 --noise-grad",
         {"method": "eeil", "finetune_epochs": 30, "finetune_lr_factor": 0.1, "noise_grad": True}),
        ("--quant hdqt", {"scheme": HDQT()}),
        ("-qmethod ours --acc_bits 12 --quantile 1.0", {"scheme": HDQT(accumulator_bits=12, range_fraction=1.0)}),
        ("--quant hdqt -qfwdw stoch -qfwda stoch -qbwda int",
         {"scheme": HDQT(stochastic=("fw", "fa", "b1g", "b2g"))}),
        ("--quant hdqt --quantHadOff true --quantRequantize false",
         {"scheme": HDQT(hadamard="none", requantize=False)}),
        ("--quant hdqt --quantAccBWD noq", {"scheme": HDQT(backward_accumulator_bits=32)}),
        ("--quant hdqt --quantAccFWD noq", {"scheme": HDQT(accumulator_bits=32, backward_accumulator_bits=8)}),
        ("--quant hdqt --dc_row separate", {"scheme": HDQT(dc_row="separate")}),
        ("--quant hdqt-paper --dc_row separate", {"scheme": dataclasses.replace(HDQT.paper(), dc_row="separate")}),
        ("--quant hdqt --weight_gradient_accumulator_bits 32",
         {"scheme": HDQT(weight_gradient_accumulator_bits=32)}),
        ("--quant hdqt --backward_accumulator_bits 32 --weight_gradient_accumulator_bits 8",
         {"scheme": HDQT(backward_accumulator_bits=32, weight_gradient_accumulator_bits=8)}),
        ("--quant hdqt --acc_bwd noq --weight_gradient_accumulator_bits 8",
         {"scheme": HDQT(backward_accumulator_bits=32, weight_gradient_accumulator_bits=8)}),
        ("--quant hdqt-paper --accumulator_bits 16", {"scheme": HDQT.paper(accumulator_bits=16)}),
        ("--quant hdqt-paper --accumulator_bits 16 --acc_bwd noq",
         {"scheme": dataclasses.replace(HDQT.paper("head"), backward_accumulator_bits=32)}),
        ("--quant hdqt --paper_compat", {"scheme": HDQT.paper()}),
        ("--quant hdqt-best", {"scheme": HDQT.best()}),
        ("--quant hdqt-best --tile_size 4 --bits 5",
         {"scheme": dataclasses.replace(HDQT.best(), tile_size=4, bits=5)}),
        ("--quant hdqt-paper --bits 5", {"scheme": HDQT.paper(bits=5)}),
        ("--quant hdqt --paper_compat --bits 5 --accumulator_bits 10 --tile_size 16",
         {"scheme": HDQT(5, 10, 16, hadamard="divisor", backward_tile_size=0, ste="raw", tile_order="chw")}),
        ("--quant noq --bits 4", {}),
    ],
)  # fmt: skip
def test_options(line, changes):
    assert configured(line) == BASE.replace(**changes)


@pytest.mark.parametrize(
    "line, message",
    [
        ("--memory_sise 3", "unrecognized arguments: --memory_sise 3"),
        ("--milestones fifty", "argument --milestones: expected integers, got 'fifty'"),
        ("--milestones 60 1e2", "argument --milestones: expected integers, got '1e2'"),
        ("--seed 1.5", "argument --seed: expected integers, got '1.5'"),
        ("--bias no", "argument --bias: expected true, false, 1 or 0, got 'no'"),
        (
            "--requantize yes",
            "argument --requantize/--quantRequantize: expected true, false, 1 or 0, got 'yes'",
        ),
        ("--epochs ten", "argument --epochs/--num-epochs: invalid int value: 'ten'"),
        ("--quant lux", "argument --quant/--quantMethod/-qmethod: invalid choice: 'lux'"),
    ],
)
def test_the_parser_refuses(line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(line)
    assert caught.value.code == 2 and f"train: error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, error, message",
    [
        ("-d 0", NotImplementedError, "config_from: expected device to be cpu, got '0'"),
        ("--method bicc", ValueError, "find_learner: expected method to be one of .*finetune, .*icarl, .*, got 'bicc'"),
        ("--class_order a,b", ValueError, "config_from: expected class_order to be icarl, identity or integers, got 'a,b'"),
        ("--memory_per_class 3 --memory_size 5", ValueError,
         "config_from: expected memory_per_class without memory_size or memory_policy total, got both"),
        ("--bits 4 --tile_size 0", ValueError, "config_from: expected quant to be hdqt with bits, tile_size, got none"),
        ("--quantHadOff 1 --quantFWDWgt int", ValueError,
         "config_from: expected quant to be hdqt with hadamard_off, quant_fwd_wgt, got none"),
        ("--quant hdqt --bits 9", ValueError, "HDQT: expected bits in 2..8, got 9"),
        ("--quant hdqt --dc_row separate --quantHadOff 1", ValueError,
         "HDQT: expected hadamard to be 'padded' or 'divisor' with dc_row='separate', got 'none'"),
        ("--dc_row separate", ValueError, "config_from: expected quant to be hdqt with dc_row, got none"),
        ("--seed 4 4", ValueError, r"RunConfig: expected seeds to be different integers in 0..2\^32-1, got \(4, 4\)"),
        ("--epochs 0", ValueError, "RunConfig: expected epochs of at least 1, got 0"),
    ],
)  # fmt: skip
def test_combinations_that_make_no_sense(line, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        configured(line)


def test_checkpoint_options():
    config = configured("--exemplar_bits 4 --exemplar_selection reservoir --savecheck task --self_contained")
    assert (config.exemplar_bits, config.exemplar_selection) == (4, "reservoir")
    assert (config.save_checkpoint, config.self_contained) == ("task", True)
    assert (configured("").save_checkpoint, configured("").self_contained) == ("last", False)
    assert not {"save_checkpoint", "self_contained"} & set(config.resolved())  # they decide no result
    for line, resume in (("", None), ("--resume", True), ("--loadcheck 0", False), ("--resume false", False)):
        assert parse(line).resume is resume
    args = parse("--start_from 2 --stop_after 3")
    assert (args.start_from, args.stop_after) == (2, 3)


def test_notes():
    line = "--fixed_memory --hdqt_compat_lr --hdqt_rounding --paper_compat --bic_compat --quantUpdateP 0 -j 4 --quantCalibrate x"
    assert notes(parse(line)) == [
        "note: fixed_memory means a fixed number per class, so the total grows with the classes",
        "note: compatibility switch --hdqt_compat_lr is on",
        "note: compatibility switch --hdqt_rounding is on",
        "note: compatibility switch --paper_compat is on",
        "note: compatibility switch --bic_compat is on",
        "note: --quantUpdateP is accepted and has no effect",
        "note: --quantCalibrate is accepted and has no effect",
        "note: --num_workers is accepted and has no effect",
    ]
    assert notes(parse("")) == []


REFUSED = [
    (dict(milestones="50"), TypeError, "RunConfig: expected milestones to be integers, got '50'"),
    (dict(milestones=("50",)), TypeError, "RunConfig: expected milestones to be integers, got ('50',)"),
    (dict(init_milestones=50), TypeError, "RunConfig: expected init_milestones to be integers, got 50"),
    (dict(seeds=3), TypeError, "RunConfig: expected seeds to be integers, got 3"),
    (dict(seeds=()), ValueError, "RunConfig: expected seeds to be different integers in 0..2^32-1, got ()"),
    (dict(seeds=(-1,)), ValueError, "RunConfig: expected seeds to be different integers in 0..2^32-1, got (-1,)"),
    (dict(epochs=2.5), TypeError, "RunConfig: expected epochs to be an integer, got 2.5 (float)"),
    (dict(epochs=True), TypeError, "RunConfig: expected epochs to be an integer, got True (bool)"),
    (dict(lr="0.1"), TypeError, "RunConfig: expected lr to be a number, got '0.1' (str)"),
    (dict(lr=float("nan")), ValueError, "RunConfig: expected lr of at least 0, got nan"),
    (dict(T=0), ValueError, "RunConfig: expected T of at least 1e-06, got 0"),
    (dict(kd_tau2="False"), TypeError, "RunConfig: expected kd_tau2 to be True or False, got 'False'"),
    (dict(norm="group"), ValueError, "RunConfig: expected norm to be one of none, layer, batch, got 'group'"),
    (dict(split_ratio=1.0), ValueError, "RunConfig: expected split_ratio between 0 and 1, got 1.0"),
    (dict(bic_layers="two"), ValueError, "RunConfig: expected bic_layers to be one of one, per_task, got 'two'"),
    (dict(head="sphere"), ValueError, "RunConfig: expected head to be one of linear, cosine, got 'sphere'"),
    (dict(head="cosine", bias=True), ValueError,
     "RunConfig: expected bias only with a linear head, got head cosine"),
    (dict(scheduler="poly"), ValueError, "RunConfig: expected scheduler to be one of steplr, cosine, got 'poly'"),
    (dict(rs_ratio=1.0), ValueError, "RunConfig: expected rs_ratio below 1, got 1.0"),
    (dict(memory_size=-1), ValueError, "RunConfig: expected memory_size of at least 0, got -1"),
    (dict(memory_policy="fixed"), ValueError,
     "RunConfig: expected memory_policy to be one of total, per_class, got 'fixed'"),
    (dict(epoch=3, model_name="x"), ValueError, "RunConfig: expected known options, got epoch, model_name"),
]  # fmt: skip


@pytest.mark.parametrize("changes, error, message", REFUSED, ids=[str(row[0]) for row in REFUSED])
def test_configurations_refused(changes, error, message):
    with pytest.raises(error, match="^" + re.escape(message) + "$"):
        BASE.replace(**changes)


def test_configurations_that_are_equal():
    assert RunConfig("digits", seeds=[1, 2], milestones=[3]) == RunConfig("digits", seeds=(1, 2), milestones=(3,))


def test_published_presets():
    seeds = (42467, 88801, 91280, 1056, 27534)
    cifar = preset("hdqt-cifar100")
    assert (cifar.init_cls, cifar.increment, cifar.memory_size, cifar.seeds) == (20, 20, 2000, seeds)
    assert cifar.schedule(True) == cifar.schedule(False) == (170, 0.05, (60, 100, 140), 0.1, 2e-4)
    for name in ("dsads", "hapt", "hapt-raw", "pamap2"):
        published, intended = preset(f"hdqt-{name}"), preset(f"hdqt-{name}-intended")
        assert published.seeds == intended.seeds == HDQT_SEEDS and len(set(HDQT_SEEDS)) == 20
        assert published.seeds[:5] == seeds and published.split == "hdqt" and published.memory_size == 200
        assert published.schedule(False) == (100, 0.01, (), 0.1, 2e-4)
        assert intended.schedule(False) == (100, 0.01, (50,), 0.1, 2e-4)
        assert (published.init_cls, published.increment, published.batch_size) == (2, 2, 128)
    # The publisher's scaling, over all windows; with "intended" by the training persons (own tables as they are).
    assert preset("hdqt-hapt").normalise == "minmax_all" and preset("hdqt-hapt-intended").normalise is None
    assert preset("hdqt/hapt_raw/intended") is PRESETS["hdqt-hapt-raw-intended"]
    message = r"^preset: expected name to be one of b50-inc10, .*, got 'hdqt-dsad' \(did you mean hdqt-dsads\?\)$"
    with pytest.raises(ValueError, match=message):
        preset("hdqt-dsad")
    hdqt = [name for name in PRESETS if name.startswith("hdqt-") and not name.endswith("-intended")]
    assert {f"{name}-intended" for name in hdqt} < set(PRESETS) and len(hdqt) == 6


@pytest.mark.parametrize(
    "method, first, later",
    [
        ("icarl", (200, 0.1, (60, 120, 170), 0.1, 5e-4), (170, 0.1, (80, 120), 0.1, 2e-4)),
        ("finetune", (200, 0.1, (60, 120, 170), 0.1, 5e-4), (80, 0.1, (40, 70), 0.1, 2e-4)),
        ("lwf", (200, 0.1, (60, 120, 160), 0.1, 5e-4), (250, 0.1, (60, 120, 180, 220), 0.1, 2e-4)),
        ("bic", (170, 0.1, (60, 100, 140), 0.1, 2e-4), (170, 0.1, (60, 100, 140), 0.1, 2e-4)),
    ],
)
def test_schedules_of_pycil(method, first, later):
    """Of each learner; other presets change the learner alone."""
    config = preset("pycil-b0-inc10", method)
    assert (config.schedule(True), config.schedule(False)) == (first, later)
    assert (config.method, config.init_cls, config.increment, config.memory_size) == (method, 10, 10, 2000)
    assert (config.seeds, config.order_seed, config.memory_policy) == ((1993,), 1993, "total")
    b50 = preset("b50-inc10", method)
    assert (b50.init_cls, b50.increment, b50.memory_size, b50.memory_policy) == (50, 10, 20, "per_class")
    compat = {"bic_compat": True} if method == "bic" else {}  # the published rows
    assert preset("hdqt-dsads", method) == preset("hdqt-dsads").replace(method=method, **compat)
    assert preset("hdqt-dsads-intended", method) == preset("hdqt-dsads-intended").replace(method=method)


def test_labels_tell_schemes_apart():
    assert scheme_label(None) == "float32"
    assert scheme_label(HDQT()) == "hdqt_w4a4acc8"
    assert scheme_label(HDQT(8, 32)) == "hdqt_w8a8acc32"
    assert scheme_label(DoubleRounding(bits=(2, 4))) == "double_rounding_w42"
    assert scheme_label(DoubleRounding.paper()) == "double_rounding_w8642_paper"
    assert scheme_label(HDQT.paper()) == "hdqt_w4a4acc8_paper"
    assert scheme_label(HDQT.paper(bits=5, accumulator_bits=10)) == "hdqt_w5a5acc10_paper"
    assert scheme_label(HDQT(weight_gradient_accumulator_bits=32)) == "hdqt_w4a4acc8_b2acc32"
    assert scheme_label(HDQT.paper(accumulator_bits=20)) == "hdqt_w4a4acc32_b2acc20_paper"
    assert scheme_label(HDQT(dc_row="separate")) != scheme_label(HDQT(ste="clip"))
    held_out = scheme_label(HDQT(backward_accumulator_bits=32, weight_gradient_accumulator_bits=8))
    assert re.fullmatch("hdqt_w4a4acc8_b2acc8_[0-9a-f]{6}", held_out)
    odd = [HDQT(tile_size=16), HDQT(tile_size=8), HDQT(ste="raw"), HDQT(stochastic=())]
    labels = [scheme_label(scheme) for scheme in odd]
    assert len(set(labels)) == 4 and all(re.fullmatch("hdqt_w4a4acc8_[0-9a-f]{6}", label) for label in labels)


def test_metric_formulas_are_in_the_help():
    assert all(f"  {name} " in metric_help() and formula in metric_help() for name, formula in FORMULAS.items())
