"""What a training step costs and what its integers do: energy by counting, and probes that change nothing."""

from .counts import KINDS, PHASES, Counts, LayerShape, Operation, float_counts, hdqt_counts
from .layer_energy import EnergyReport, LayerEnergy, by_kind, energy
from .power import measure_package_energy, package_counters
from .prices import PRICES, Prices
from .probes import LayerRecord, Probe, probe
from .published import PUBLISHED, REFERENCES, TransformRatios, transform_ratios

__all__ = [
    "KINDS",
    "PHASES",
    "PRICES",
    "PUBLISHED",
    "REFERENCES",
    "Counts",
    "EnergyReport",
    "LayerEnergy",
    "LayerRecord",
    "LayerShape",
    "Operation",
    "Prices",
    "Probe",
    "TransformRatios",
    "by_kind",
    "energy",
    "float_counts",
    "hdqt_counts",
    "measure_package_energy",
    "package_counters",
    "probe",
    "transform_ratios",
]
