"""Tools of Double Rounding: widths set at run time, drawn, or found exactly under budgets."""

from quintil.nn.widths import get_bits, set_bits

from .allocate import Allocation, allocate
from .baselines import BASELINES, baseline
from .budgets import Budget, mac_bits, model_bytes, table
from .costs import LayerCost, layer_costs
from .distill import SelfDistillation, soft_cross_entropy
from .hessian import hessian_trace
from .multi_lr import MultiLR, parameter_groups, step_gradient_size, width_factor
from .pool import candidate_pool, pareto_front
from .recalibrate import recalibrate
from .roulette import HASB, Roulette, sensitive_layers
from .train import SwitchConfig, WidthTrainer, evaluate

__all__ = [
    "BASELINES",
    "HASB",
    "Allocation",
    "Budget",
    "LayerCost",
    "MultiLR",
    "Roulette",
    "SelfDistillation",
    "SwitchConfig",
    "WidthTrainer",
    "allocate",
    "baseline",
    "candidate_pool",
    "evaluate",
    "get_bits",
    "hessian_trace",
    "layer_costs",
    "mac_bits",
    "model_bytes",
    "parameter_groups",
    "pareto_front",
    "recalibrate",
    "sensitive_layers",
    "set_bits",
    "soft_cross_entropy",
    "step_gradient_size",
    "table",
    "width_factor",
]
