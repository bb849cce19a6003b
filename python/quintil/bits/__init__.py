"""Tools of Double Rounding: a width for every layer, found exactly under budgets."""

from .allocate import Allocation, allocate
from .budgets import Budget, mac_bits, model_bytes, table
from .hessian import hessian_trace
from .pool import candidate_pool, pareto_front
from .roulette import HASB, Roulette, sensitive_layers

__all__ = [
    "HASB",
    "Allocation",
    "Budget",
    "Roulette",
    "allocate",
    "candidate_pool",
    "hessian_trace",
    "mac_bits",
    "model_bytes",
    "pareto_front",
    "sensitive_layers",
    "table",
]
