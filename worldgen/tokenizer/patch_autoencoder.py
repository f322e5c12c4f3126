"""The VQ-VAE of one leaf of an observation: patches to codes and back.

Classes:
    PatchAutoencoder: encoder, codebooks and decoder of one modality.

Neural Discrete Representation Learning, van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937. Each patch is encoded on its own, so a token means one place
and decoding is a table with one row a code (compare nearest-neighbour patch codes,
https://arxiv.org/abs/2502.01591).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldgen.codes import Codebook
from worldgen.tokenizer.grouped_linear import GroupedLinear
from worldgen.tokenizer.modality import Modality
from worldgen.tokenizer.vector_quantizer import VectorQuantizer, VectorQuantizerConfig

__all__ = ["AutoencoderLoss", "PatchAutoencoder"]


class AutoencoderLoss(NamedTuple):
    """What `PatchAutoencoder.loss` gives."""

    total: Tensor
    """Scalar to minimise."""
    reconstruction: Tensor
    """Scalar, mean over patches."""
    latents: Tensor
    """(N, G, E), detached, for the codebook's update."""
    codes: Tensor
    """(N, G) int64."""


class PatchAutoencoder(nn.Module):
    """Encode, quantize and decode the patches of one modality.

    Args:
        modality: Cuts observations into patches and scores reconstructions.
        hidden: Width of the one hidden layer of encoder and decoder.
        quantizer: Sizes of the codebooks.
    """

    center: Tensor
    scale: Tensor
    table: Tensor

    def __init__(self, modality: Modality, hidden: int, quantizer: VectorQuantizerConfig) -> None:
        super().__init__()
        self.modality = modality
        groups = 1 if modality.shared_codebook else modality.num_tokens
        features, outputs, dim = modality.num_features, modality.num_outputs, quantizer.dim
        self.encoder = _perceptron(groups, features, hidden, dim)
        self.decoder = _perceptron(groups, dim, hidden, outputs)
        self.quantizer = VectorQuantizer(groups, quantizer)
        self.skip_in: GroupedLinear | None = None
        self.skip_out: GroupedLinear | None = None
        if modality.linear_skip:
            self._start_linear(groups, features, dim)
        # Standardisation of vectors; 0 and 1 for modalities that need none.
        self.register_buffer("center", torch.zeros(groups, features if self.skip_in else 1))
        self.register_buffer("scale", torch.ones(groups, features if self.skip_in else 1))
        self.register_buffer("table", torch.empty(0), persistent=False)

    def _start_linear(self, groups: int, features: int, dim: int) -> None:
        """Add skip layers that embed the values and undo it, and mute the perceptrons."""
        basis = torch.stack(
            [torch.linalg.qr(torch.randn(max(features, dim), min(features, dim)))[0]] * groups
        )
        basis = basis.mT if features <= dim else basis  # (groups, features, dim)
        self.skip_in = skip_in = GroupedLinear(groups, features, dim)
        self.skip_out = skip_out = GroupedLinear(groups, dim, features)
        with torch.no_grad():
            skip_in.weight.copy_(basis)
            skip_out.weight.copy_(basis.mT)
            for perceptron in (self.encoder, self.decoder):
                last = perceptron[-1]
                assert isinstance(last, GroupedLinear)
                last.weight.zero_()

    @property
    def num_codebooks(self) -> int:
        """G."""
        return self.quantizer.codebook.shape[0]

    def codebooks(self, first_token: int) -> list[Codebook]:
        """Describe the codebooks, whose positions begin at `first_token`."""
        config, tokens = self.quantizer.config, self.modality.num_tokens
        numbers = self.modality.linear_skip
        described = self.modality.features_describe
        content = self.modality.num_features if described else config.dim
        each = tokens // self.num_codebooks
        return [
            Codebook(config.num_codes, first_token + group * each, each, content, numbers)
            for group in range(self.num_codebooks)
        ]

    def vectors_by_codebook(self) -> list[Tensor]:
        """Give the (V, E) vectors of each codebook."""
        return list(self.quantizer.codebook)

    @torch.no_grad()
    def code_contents(self) -> list[Tensor]:
        """Describe each codebook's codes: (V, F).

        Numbers are given standardised and symbols as one-hots; the codes of pictures are
        described by their code vectors.
        """
        if not self.modality.features_describe:
            return self.vectors_by_codebook()
        patches = self.table.transpose(0, 1)  # (V, G, P)
        return list(self.modality.features(self._standard(patches)).transpose(0, 1))

    def grouped(self, patches: Tensor) -> Tensor:
        """Lay a frame's patches out by codebook: (B, K, P) -> (N, G, P)."""
        return patches.reshape(-1, self.num_codebooks, patches.shape[-1])

    @torch.no_grad()
    def standardise(self, patches: Tensor) -> None:
        """Take mean and deviation of grouped vector patches (N, G, P) as the new statistics."""
        if self.skip_in is None:
            return
        self.center.copy_(patches.float().mean(0))
        deviation = patches.float().std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def latents(self, patches: Tensor) -> Tensor:
        """Encode grouped patches: (N, G, P) -> (N, G, E)."""
        features = self.modality.features(self._standard(patches))
        latents: Tensor = self.encoder(features)
        return latents if self.skip_in is None else latents + self.skip_in(features)

    def outputs(self, vectors: Tensor) -> Tensor:
        """Decode code vectors: (N, G, E) -> (N, G, num_outputs)."""
        outputs: Tensor = self.decoder(vectors)
        return outputs if self.skip_out is None else outputs + self.skip_out(vectors)

    def loss(self, patches: Tensor) -> AutoencoderLoss:
        """Reconstruction and commitment of grouped patches (N, G, P)."""
        latents = self.latents(patches)
        quantized = self.quantizer(latents)
        outputs = self.outputs(quantized.vectors)
        reconstruction = self.modality.loss(outputs, self._standard(patches)).mean()
        total = reconstruction + quantized.commitment_loss.mean()
        return AutoencoderLoss(total, reconstruction, latents.detach(), quantized.codes)

    @torch.no_grad()
    def errors(self, patches: Tensor) -> Tensor:
        """How wrong each grouped patch (N, G, P) comes back: (N, G), 0 for right."""
        standard = self._standard(patches)
        vectors = self.quantizer.decode(self.quantizer.encode(self.latents(patches)))
        return self.modality.errors(self.modality.values(self.outputs(vectors)), standard)

    @torch.no_grad()
    def encode(self, observations: Tensor) -> Tensor:
        """Encode (B, ...) observations to codes (B, K) int64."""
        patches = self.grouped(self.modality.patchify(observations))
        return self.quantizer.encode(self.latents(patches)).reshape(len(observations), -1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes (B, K) to observations (B, ...), by looking their patches up."""
        groups = self._group_of_token(codes)
        return self.modality.unpatchify(self.table[groups, codes])

    @torch.no_grad()
    def embed(self, codes: Tensor) -> Tensor:
        """Look the code vectors up: (B, K) -> (B, K, E)."""
        return self.quantizer.codebook[self._group_of_token(codes), codes]

    @torch.no_grad()
    def build_table(self) -> None:
        """Decode each code once; to be called whenever weights or codebooks changed."""
        outputs = self.outputs(self.quantizer.codebook.transpose(0, 1))  # (V, G, outputs)
        values = self.modality.values(outputs)
        if self.skip_in is not None:
            values = values * self.scale + self.center
        self.table = values.transpose(0, 1).contiguous()

    def _standard(self, patches: Tensor) -> Tensor:
        return patches if self.skip_in is None else (patches - self.center) / self.scale

    def _group_of_token(self, codes: Tensor) -> Tensor:
        tokens = self.modality.num_tokens
        if self.modality.shared_codebook:
            return torch.zeros(tokens, dtype=torch.int64, device=codes.device)
        return torch.arange(tokens, device=codes.device)


def _perceptron(groups: int, num_inputs: int, hidden: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        GroupedLinear(groups, num_inputs, hidden),
        nn.GELU(),
        GroupedLinear(groups, hidden, num_outputs),
    )
