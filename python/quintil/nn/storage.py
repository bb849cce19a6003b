"""Quantised models in files: codes instead of weights, readable without Python and without pickle.

A file is safetensors. Of a layer `conv` with packed weights it holds `conv.codes`, int8 or uint8, or two codes to a
byte where they have at most four bits, and what else the layer's `pack` gives. Everything else has the names of the
state dict. The metadata are `format`, `schemes` (JSON: layer -> scheme), `packed` (JSON: layer -> shape, sign and bits
of its codes) and the checksum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from quintil.functional import pack_int4, unpack_int4
from quintil.nn.swap import SwappedLayer, swap_layers
from quintil.nn.tensor_file import read_tensors, write_tensors
from quintil.nn.widths import get_bits, set_bits
from quintil.schemes import Scheme

FORMAT = "quintil 1"


def save_quantized(model: nn.Module, path: str | Path) -> None:
    """Write a swapped model: packed codes in the place of weights, all else as in the state dict.

    Double Rounding stores the integers of the highest width alone, and steps and BatchNorms of every width. Raises
    ValueError for a model without swapped layers or with BatchNorms folded in, RuntimeError where steps have not
    started, OSError where the file cannot be written; the file is whole or what it was.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, SwappedLayer)}
    if not layers:
        raise ValueError("save_quantized: expected model to hold swapped layers, got none (call quantize_ first)")
    folded = [name for name, layer in layers.items() if getattr(layer, "output_gain", None) is not None]
    if folded:
        raise ValueError(f"save_quantized: expected a model that is not folded, got a gain in {folded[0]!r}")
    tensors = dict(model.state_dict())
    packed: dict[str, dict] = {}
    for name, layer in layers.items():
        parts = layer.pack()
        if parts:
            codes = parts.pop("codes")
            bits = layer.scheme.stored_bits
            packed[name] = {"shape": list(codes.shape), "signed": codes.dtype == torch.int8, "bits": bits}
            del tensors[_joined(name, "weight")]
            tensors[_joined(name, "codes")] = pack_int4(codes.reshape(-1)) if bits <= 4 else codes
            tensors.update({_joined(name, part): tensor for part, tensor in parts.items()})
    schemes = {name: layer.scheme.to_dict() for name, layer in layers.items()}
    metadata = {"format": FORMAT, "schemes": json.dumps(schemes), "packed": json.dumps(packed)}
    write_tensors(Path(path), tensors, metadata)


def load_quantized(model: nn.Module, path: str | Path, bits: int | Mapping[str, int] | None = None) -> nn.Module:
    """Swap the layers of `model` as in the file, fill in its values, in place, and return it in evaluation mode.

    model: the architecture that was saved, float or swapped already; its values are lost. bits: widths as for
    `set_bits`, for models of several widths; None = the highest. The weights become float values that have the stored
    codes, so the model computes what the saved one did, and can be trained further.
    Raises FileNotFoundError, ValueError for a damaged file or a model that it does not fit, and what `set_bits` raises.
    """
    tensors, metadata = read_tensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"load_quantized: expected {path} to have the format {FORMAT!r}, got {metadata.get('format')!r}"
        )
    packed = json.loads(metadata["packed"])
    schemes = {name: Scheme.from_dict(values) for name, values in json.loads(metadata["schemes"]).items()}
    swap_layers(model, schemes)
    parts = {name: _taken(tensors, name, entry, model.get_submodule(name)) for name, entry in packed.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = sorted(set(missing) - {_joined(name, "weight") for name in packed})
    if missing or unexpected:
        raise ValueError(
            f"load_quantized: expected model to have the tensors of {path}, got "
            f"{'no ' + unexpected[0] if unexpected else 'another one, ' + missing[0]}"
        )
    for name, tensors_of_layer in parts.items():
        model.get_submodule(name).unpack(tensors_of_layer)
    if get_bits(model):
        set_bits(model, _highest(model) if bits is None else bits)
    return model.eval()


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _taken(tensors: dict[str, Tensor], name: str, entry: dict, layer: nn.Module) -> dict[str, Tensor]:
    """Remove a layer's packed tensors from `tensors`; they, with the codes unpacked."""
    known = set(layer.state_dict())
    prefix = _joined(name, "")
    found = [key for key in tensors if key.startswith(prefix) and "." not in key[len(prefix) :]]
    parts = {key[len(prefix) :]: tensors.pop(key) for key in found if key[len(prefix) :] not in known}
    if "codes" not in parts:
        raise ValueError(f"load_quantized: expected codes of {name!r} in the file, got none")
    shape = torch.Size(entry["shape"])
    if shape != layer.weight.shape:
        raise ValueError(
            f"load_quantized: expected the weight of {name!r} to be {list(shape)}, got {list(layer.weight.shape)}"
        )
    codes = parts["codes"]
    if entry["bits"] <= 4:
        codes = unpack_int4(codes, shape.numel(), signed=entry["signed"])
    return {**parts, "codes": codes.reshape(shape)}


def _highest(model: nn.Module) -> dict[str, int]:
    return {name: model.get_submodule(name).widths[0] for name in get_bits(model)}
