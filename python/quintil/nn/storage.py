"""Quantised models in files: codes instead of weights, readable without Python and without pickle.

A file is safetensors (`tensor_file.py`). Of a layer `conv` with packed weights it holds `conv.codes`, a stream of bits
(`packing.py`), and what else the layer's `pack` gives. Everything else has the names of the state dict. The manifest:

    format    1
    schemes   layer -> its scheme as a dictionary
    packed    layer -> names of the tensors that stand for its weight; shape, sign and bits of its codes
    others    layer -> its further packed parameters (biases, weights of an LSTM) -> as `packed`, their tensors having
              the names of the state dict and the part: `lstm.weight_ih_l0.codes`; absent without such parameters
    bits      layer -> width at which a loaded model starts, for layers of several widths
    folded    norms: BatchNorms that were folded in; layers: layers of several widths that have taken one in
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from quintil.nn.fold import FoldedNorm
from quintil.nn.packing import pack_codes, unpack_codes
from quintil.nn.swap import SwappedLayer, swap_layers
from quintil.nn.tensor_file import read_tensors, write_tensors
from quintil.nn.widths import get_bits, set_bits
from quintil.schemes import Scheme

FORMAT = 1


def save_quantized(model: nn.Module, path: str | Path) -> None:
    """Write a swapped model: packed codes in the place of weights, all else as in the state dict.

    A code takes the bits that it has, two of them at a highest width of 2. Double Rounding stores the integers of the
    highest width alone, and steps and BatchNorms of every width; where BatchNorms were folded in, of the widths that
    the model has now. Raises ValueError for a model without swapped layers, RuntimeError where steps have not started,
    OSError where the file cannot be written; the file is whole or what it was.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, SwappedLayer)}
    if not layers:
        raise ValueError("save_quantized: expected model to hold swapped layers, got none (call quantize_ first)")
    tensors = dict(model.state_dict())
    packed: dict[str, dict] = {}
    others: dict[str, dict[str, dict]] = {}
    for name, layer in layers.items():
        bits = layer.scheme.stored_bits
        parts = layer.pack()
        if parts:
            packed[name] = _put(tensors, _joined(name, "weight"), name, parts, bits)
        own = [(_joined(name, parameter), parameter, parts) for parameter, parts in layer.pack_others().items()]
        if own:
            others[name] = {parameter: _put(tensors, full, full, parts, bits) for full, parameter, parts in own}
    norms = [name for name, module in model.named_modules() if isinstance(module, FoldedNorm)]
    taken = [name for name, layer in layers.items() if getattr(layer, "output_gain", None) is not None]
    manifest = {
        "format": FORMAT,
        "schemes": {name: layer.scheme.to_dict() for name, layer in layers.items()},
        "packed": packed,
        **({"others": others} if others else {}),
        "bits": get_bits(model) if norms else _highest(model),
        "folded": {"norms": norms, "layers": taken},
    }
    write_tensors(Path(path), tensors, manifest)


def load_quantized(model: nn.Module, path: str | Path, bits: int | Mapping[str, int] | None = None) -> nn.Module:
    """Swap the layers of `model` as in the file, fill in its values, in place, and return it in evaluation mode.

    model: the architecture that was saved, float or swapped already; its values are lost. BatchNorms that were folded
    before saving are folded in it too. bits: widths as for `set_bits`, for models of several widths; None, and layers
    not named: the highest, or those at which the BatchNorms were folded. The weights become float values that have the
    stored codes, so the model computes what the saved one did, and can be trained further.
    Raises FileNotFoundError, ValueError for a damaged file or a model that it does not fit, and what `set_bits` raises.
    """
    tensors, manifest = read_tensors(Path(path))
    if manifest.get("format") != FORMAT:
        raise ValueError(f"load_quantized: expected {path} to have the format {FORMAT}, got {manifest.get('format')}")
    packed = manifest["packed"]
    swap_layers(model, {name: Scheme.from_dict(values) for name, values in manifest["schemes"].items()})
    _fold_as_saved(model, manifest, tensors)
    others = manifest.get("others", {})
    layers = {name: model.get_submodule(name) for name in (*packed, *others)}
    parts = {
        name: _taken(tensors, name, entry, layers[name].weight, "the weight of ") for name, entry in packed.items()
    }
    parts_of_others = {
        name: _taken_others(tensors, name, entries, layers[name], path) for name, entries in others.items()
    }
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    restored = {_joined(name, "weight") for name in packed}
    restored |= {_joined(name, parameter) for name, entries in others.items() for parameter in entries}
    missing = sorted(set(missing) - restored)
    if missing or unexpected:
        raise ValueError(
            f"load_quantized: expected model to have the tensors of {path}, got "
            f"{'no ' + unexpected[0] if unexpected else 'another one, ' + missing[0]}"
        )
    for name, tensors_of_layer in parts.items():
        layers[name].unpack(tensors_of_layer)
    for name, tensors_of_parameters in parts_of_others.items():
        layers[name].unpack_others(tensors_of_parameters)
    if manifest["bits"]:
        set_bits(model, manifest["bits"])
    if bits is not None:
        set_bits(model, bits)
    return model.eval()


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _highest(model: nn.Module) -> dict[str, int]:
    return {name: model.get_submodule(name).widths[0] for name in get_bits(model)}


def _fold_as_saved(model: nn.Module, manifest: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Bring a model into the form that `fold_norms_` gave to the saved one; the values are those of no one yet."""
    modules = dict(model.named_modules())
    for name in manifest["folded"]["norms"]:
        if not isinstance(modules.get(name), (_BatchNorm, FoldedNorm)):
            got = type(modules[name]).__name__ if name in modules else "no such module"
            raise ValueError(f"load_quantized: expected {name!r} to be a BatchNorm, since one was folded, got {got}")
        parent, _, own = name.rpartition(".")
        setattr(modules[parent], own, FoldedNorm())
    for name in manifest["folded"]["layers"]:
        modules[name].fold_at(manifest["bits"][name])
    for key, tensor in tensors.items() if manifest["folded"]["norms"] else ():
        layer = modules.get(key.removesuffix(".bias"))
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.bias is None:  # a float layer that took one in
            layer.bias = nn.Parameter(torch.empty_like(tensor), requires_grad=False)


def _put(tensors: dict[str, Tensor], replaced: str, prefix: str, parts: dict[str, Tensor], bits: int) -> dict:
    """Put a parameter's parts in its place into `tensors`; what the manifest says of them."""
    codes = parts["codes"]
    del tensors[replaced]
    tensors.update({_joined(prefix, part): tensor for part, tensor in parts.items() if part != "codes"})
    tensors[_joined(prefix, "codes")] = pack_codes(codes, bits)
    return {"parts": list(parts), "shape": list(codes.shape), "signed": codes.dtype == torch.int8, "bits": bits}


def _taken(tensors: dict[str, Tensor], prefix: str, entry: dict, parameter: Tensor, what: str) -> dict[str, Tensor]:
    """Remove the packed tensors of a parameter from `tensors`; they, with the codes unpacked."""
    parts = {part: tensors.pop(_joined(prefix, part)) for part in entry["parts"]}
    shape = torch.Size(entry["shape"])
    if shape != parameter.shape:
        raise ValueError(f"load_quantized: expected {what}{prefix!r} to be {list(shape)}, got {list(parameter.shape)}")
    return {**parts, "codes": unpack_codes(parts["codes"], entry["bits"], shape, entry["signed"])}


def _taken_others(
    tensors: dict[str, Tensor], name: str, entries: Mapping[str, dict], layer: nn.Module, path: str | Path
) -> dict[str, dict[str, Tensor]]:
    """The same for all further parameters of a layer, by their names."""
    found = {}
    for parameter, entry in entries.items():
        own, full = getattr(layer, parameter, None), _joined(name, parameter)
        if own is None:
            raise ValueError(f"load_quantized: expected model to have the tensors of {path}, got no {full}")
        found[parameter] = _taken(tensors, full, entry, own, "")
    return found
