"""nn.Embedding and nn.EmbeddingBag on half-integer levels, the table as one tensor [VECQ 2.9].

Evaluation under `torch.no_grad` looks rows up among the codes, two to a byte up to 4 bits, and needs no float table. A
padding row keeps its numbers, as padding of an image keeps its zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn.kept import Kept
from quintil.nn.levels import ActivationQuantizer, LevelQuantizer
from quintil.nn.registry import SwappedLayer, swaps
from quintil.nn.vecq import level_sizes, uneven_groups
from quintil.schemes import VecQ

_NIBBLE_BITS = 4


class VecQTable(SwappedLayer):
    """What both layers share: the quantiser of the table, and of what is looked up."""

    def attach(self, scheme: VecQ) -> None:
        super().attach(scheme)
        device, bits = self.weight.device, scheme.activation_bits or 0
        outputs = bits if scheme.activation_place == "output" else 0  # what comes in are indices
        self.weight_quantizer = LevelQuantizer(scheme.weight_bits, scheme, level_sizes(self.weight, scheme), device)
        self.output_quantizer = ActivationQuantizer(outputs, scheme, device)
        for quantizer in (self.weight_quantizer, self.output_quantizer):
            quantizer.train(self.training)
        self.has_codes, self.in_nibbles = scheme.levels == "vecq", scheme.weight_bits <= _NIBBLE_BITS
        self._kept = Kept()

    def detach(self) -> None:
        del self.weight_quantizer, self.output_quantizer, self.has_codes, self.in_nibbles, self._kept
        super().detach()

    @classmethod
    def refusal(cls, module: nn.Module, scheme: VecQ) -> str | None:
        if module.max_norm is not None:
            return f"max_norm={module.max_norm}, which changes the weight"
        if module.sparse:
            return "sparse=True"
        return uneven_groups(module.weight, scheme)

    def train(self, mode: bool = True) -> nn.Module:
        self._kept.clear()
        return super().train(mode)

    def levels(self) -> tuple[Tensor, Tensor]:
        """The table as half-integers and their lengths, float32 [VECQ V1]."""
        codes, alpha = self.weight_quantizer.codes(self.weight)
        return codes.float() + 0.5, alpha

    def quantized_weight(self) -> Tensor:
        """The table on its levels, float, with the padding row as it is."""
        table = self.weight_quantizer(self.weight)
        if self.padding_idx is None:
            return table
        rows = torch.arange(table.size(0), device=table.device).unsqueeze(1)
        return torch.where(rows == self.padding_idx, self.weight, table)

    def uses_codes(self) -> bool:
        """Whether the next forward looks rows up among codes."""
        learning = self.training or self.output_quantizer.training or torch.is_grad_enabled()
        if not torch.jit.is_scripting():
            learning = learning or torch.compiler.is_compiling()
        return self.has_codes and not learning

    def stored_codes(self) -> tuple[Tensor, Tensor]:
        """The codes, two to a byte up to 4 bits, and their lengths, [num_embeddings, 1 or more] or 0-dim."""
        codes, alpha = self.weight_quantizer.codes(self.weight)
        if self.in_nibbles:
            codes = torch.ops.quintil.pack_int4(codes)
        return codes, alpha

    def kept_codes(self) -> tuple[Tensor, Tensor]:
        """`stored_codes`, made again only where something changed; TorchScript makes them in every call."""
        if torch.jit.is_scripting():
            return self.stored_codes()
        return self._kept_codes()

    @torch.jit.unused
    def _kept_codes(self) -> tuple[Tensor, Tensor]:
        return self._kept.get([self.weight, self.weight_quantizer.alpha], self.stored_codes)

    def looked_up(self, indices: Tensor, table: Tensor) -> Tensor:
        """torch's embedding, whose gradient leaves the padding row out."""
        if torch.jit.is_scripting():
            return F.embedding(indices, table, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)
        return self._checked_rows(indices, table)

    @torch.jit.unused
    def _checked_rows(self, indices: Tensor, table: Tensor) -> Tensor:
        """The same with an error that names the range."""
        try:
            return F.embedding(indices, table, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)
        except IndexError as error:
            wrong = indices[(indices < 0) | (indices >= self.num_embeddings)]
            raise IndexError(
                f"{type(self).__name__}: expected indices in 0..{self.num_embeddings - 1}, got {int(wrong[0])}"
            ) from error

    def rows(self, indices: Tensor) -> Tensor:
        """Rows of `quantized_weight`, [..., embedding_dim], from the codes."""
        codes, alpha = self.kept_codes()
        found = self.looked_up(indices, codes)
        if self.in_nibbles:
            found = torch.ops.quintil.unpack_int4(found, self.embedding_dim)
        lengths = alpha if alpha.dim() == 0 else F.embedding(indices, alpha.reshape(alpha.size(0), -1))
        if alpha.dim() == 2:
            lengths = lengths.repeat_interleave(self.embedding_dim // alpha.size(1), -1)
        output = ((found + 0.5) * lengths).to(self.weight.dtype)
        if self.padding_idx is not None:
            output = torch.where((indices == self.padding_idx).unsqueeze(-1), self.weight[self.padding_idx], output)
        return output

    def pack(self) -> dict[str, Tensor]:
        """Codes, lengths and the padding row; nothing beyond 8 bits, where the float table is kept."""
        parts = self.weight_quantizer.pack(self.weight)
        if parts and self.padding_idx is not None:
            parts["padding"] = self.weight.detach()[self.padding_idx].clone()
        return parts

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        """ValueError for a padding row where the table has none."""
        if "padding" in tensors and self.padding_idx is None:
            raise ValueError(f"{type(self).__name__}: expected a padding_idx for the file's padding row, got none")
        self.weight_quantizer.unpack(self.weight, tensors)
        if "padding" in tensors:
            with torch.no_grad():
                self.weight[self.padding_idx] = tensors["padding"]


@swaps(VecQ, nn.Embedding)
class VecQEmbedding(VecQTable, nn.Embedding):
    """nn.Embedding on half-integer levels: integers of any shape -> float [..., embedding_dim].

    `quintil.quantize_` turns nn.Embedding into it; directly: VecQEmbedding(<arguments of nn.Embedding>, scheme=VecQ()).
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.uses_codes():
            return self.output_quantizer(self.rows(input))
        return self.output_quantizer(self.looked_up(input, self.quantized_weight()))


@swaps(VecQ, nn.EmbeddingBag)
class VecQEmbeddingBag(VecQTable, nn.EmbeddingBag):
    """nn.EmbeddingBag on half-integer levels: bags of integers -> float [bags, embedding_dim].

    With a padding_idx, evaluation makes the float table in each forward, since a bag leaves such rows out.
    """

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        if self.uses_codes() and self.padding_idx is None:
            indices = torch.arange(input.numel(), device=input.device).reshape(input.shape)
            table = self.rows(input.reshape(-1))
        else:
            indices, table = input, self.quantized_weight()
        output = F.embedding_bag(
            indices, table, offsets, mode=self.mode, scale_grad_by_freq=self.scale_grad_by_freq,
            per_sample_weights=per_sample_weights, include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )  # fmt: skip
        return self.output_quantizer(output)
