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

import numpy as np
import torch
from torch import Tensor, nn

from worldgen.codes import Codebook
from worldgen.tokenizer.finite_scalar_quantizer import FiniteScalarQuantizer
from worldgen.tokenizer.gaussian_bottleneck import GaussianBottleneck
from worldgen.tokenizer.grouped_linear import GroupedLinear
from worldgen.tokenizer.modality import Modality
from worldgen.tokenizer.patch_memory import PatchMemory
from worldgen.tokenizer.quantizer import Quantizer, QuantizerConfig
from worldgen.tokenizer.residual_quantizer import ResidualQuantizer

__all__ = ["AutoencoderLoss", "PatchAutoencoder"]


_FEW = 256
"""Patches that are compared with all codes at once."""


class AutoencoderLoss(NamedTuple):
    """What `PatchAutoencoder.loss` gives."""

    total: Tensor
    """Scalar to minimise."""
    reconstruction: Tensor
    """Scalar, mean over patches."""
    latents: Tensor
    """(N, G, latent size), detached, for the codebook's update."""
    codes: Tensor
    """(N, G, R) int64."""


class PatchAutoencoder(nn.Module):
    """Encode, quantize and decode the patches of one modality.

    Args:
        modality: Cuts observations into patches and scores reconstructions.
        hidden: Width of the one hidden layer of encoder and decoder.
        quantizer: Which quantizer, and its sizes.

    Attributes:
        num_tokens: K, patches * R; all patches' first codes stand before the second ones.
    """

    center: Tensor
    scale: Tensor
    rarity: Tensor
    table: Tensor
    _groups: Tensor

    def __init__(self, modality: Modality, hidden: int, quantizer: QuantizerConfig) -> None:
        super().__init__()
        self.modality, self.config = modality, quantizer
        self.num_tokens = modality.num_patches * quantizer.codes_per_patch
        groups = 1 if modality.shared_codebook else modality.num_patches
        features, outputs, dim = modality.num_features, modality.num_outputs, quantizer.vector_size
        self.quantizer = _build_quantizer(groups, quantizer)
        self.encoder = _perceptron(groups, features, hidden, self.quantizer.latent_size)
        self.decoder = _perceptron(groups, dim, hidden, outputs)
        self.skip_in: GroupedLinear | None = None
        self.skip_out: GroupedLinear | None = None
        if modality.linear_skip:
            self._start_linear(groups, features, dim)
        # Standardisation of vectors; 0 and 1 for modalities that need none.
        self.register_buffer("center", torch.zeros(groups, features if self.skip_in else 1))
        self.register_buffer("scale", torch.ones(groups, features if self.skip_in else 1))
        # What it costs to lose a value of a symbol patch.
        self.register_buffer("rarity", torch.ones(features if modality.cell_size else 1))
        self.register_buffer("table", torch.empty(0), persistent=False)
        self.register_buffer("_groups", torch.arange(groups), persistent=False)
        self._memory: PatchMemory | None = None
        self._few_table: np.ndarray | None = None

    def _start_linear(self, groups: int, features: int, dim: int) -> None:
        """Add skip layers that embed the values and undo it, and mute the perceptrons."""
        basis = torch.stack(
            [torch.linalg.qr(torch.randn(max(features, dim), min(features, dim)))[0]] * groups
        )
        basis = basis.mT if features <= dim else basis  # (groups, features, dim)
        self.skip_in = skip_in = GroupedLinear(groups, features, self.quantizer.latent_size)
        nn.init.zeros_(skip_in.weight)
        self.skip_out = skip_out = GroupedLinear(groups, dim, features)
        with torch.no_grad():
            skip_in.weight[..., :dim].copy_(basis)
            skip_out.weight.copy_(basis.mT)
            for perceptron in (self.encoder, self.decoder):
                last = perceptron[-1]
                assert isinstance(last, GroupedLinear)
                last.weight.zero_()

    @property
    def num_codebooks(self) -> int:
        """G, independent codebooks of each of the R stages."""
        return 1 if self.modality.shared_codebook else self.modality.num_patches

    @property
    def _has_table(self) -> bool:
        """Whether a patch has one code, which alone says what it decodes to."""
        return self.config.kind in ("vq", "fsq")

    @property
    def needs_no_gradient(self) -> bool:
        """Whether latents are the patches themselves in other coordinates.

        Then no encoder makes better codes of a patch of numbers than means of patches are.
        """
        enough = self.modality.num_features <= self.config.dim
        return self.modality.linear_skip and self.config.kind == "vq" and enough

    @torch.no_grad()
    def settle(self, patches: Tensor) -> None:
        """Move the codes to where they lose least of grouped patches (N, G, P)."""
        assert isinstance(self.quantizer, ResidualQuantizer)
        self.quantizer.settle(self.latents(patches))

    def codebooks(self, first_token: int) -> list[Codebook]:
        """Describe the codebooks, whose positions begin at `first_token`."""
        described = self._has_table and self.modality.features_describe
        content = self.modality.num_features if described else self.config.vector_size
        numbers = described and self.modality.linear_skip
        each = self.modality.num_patches // self.num_codebooks
        count = self.num_tokens // each if self.config.codebook_size else 0
        return [
            Codebook(self.config.codebook_size, first_token + i * each, each, content, numbers)
            for i in range(count)
        ]

    def vectors_by_codebook(self) -> list[Tensor]:
        """Give the (V, E) vectors of each codebook."""
        return list(self.quantizer.vectors().flatten(0, 1))

    @torch.no_grad()
    def code_contents(self) -> list[Tensor]:
        """Describe each codebook's codes: (V, F).

        Numbers are given standardised and symbols as one-hots; the codes of pictures, and
        those that only together make a patch, are described by their code vectors.
        """
        if not self._has_table or not self.modality.features_describe:
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
        if self.modality.shared_scale:
            deviation = deviation.square().mean().sqrt().expand_as(deviation)
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

    def loss(self, patches: Tensor, generator: torch.Generator | None = None) -> AutoencoderLoss:
        """Reconstruction of grouped patches (N, G, P), and the quantizer's own loss."""
        latents = self.latents(patches)
        quantized = self.quantizer(latents, generator)
        outputs = self.outputs(quantized.vectors)
        reconstruction = self.modality.loss(outputs, self._standard(patches)).mean()
        total = reconstruction + quantized.loss.mean()
        return AutoencoderLoss(total, reconstruction, latents.detach(), quantized.codes)

    @torch.no_grad()
    def errors(self, patches: Tensor) -> Tensor:
        """How wrong each grouped patch (N, G, P) comes back: (N, G), 0 for right."""
        standard = self._standard(patches)
        vectors = self.quantizer.project(self.latents(patches))
        return self.modality.errors(self.modality.values(self.outputs(vectors)), standard)

    @torch.no_grad()
    def patches_lost(self, decoded: Tensor, patches: Tensor) -> Tensor:
        """Say which decoded patches are wrong for who looks at them: (B, K, P) twice -> (B, K)."""
        pair = [self._standard(self.grouped(part)) for part in (decoded, patches)]
        errors = self.modality.errors(*pair).view(patches.shape[:2])
        return errors > self.modality.unseen_error

    @torch.no_grad()
    def decode_stages(self, codes: Tensor, group: int = 0) -> Tensor:
        """Decode the first S codes of patches of one codebook: (N, S) -> (N, P)."""
        stages = self.quantizer.vectors()[:, group]  # (R, V, E)
        parts = [stages[stage, codes[:, stage]] for stage in range(codes.shape[1])]
        vectors = torch.stack(parts).sum(0)  # (N, E)
        every = vectors.unsqueeze(1).expand(-1, self.num_codebooks, -1)
        return self._original(self.modality.values(self.outputs(every)))[:, group]

    @torch.no_grad()
    def encode(self, observations: Tensor) -> Tensor:
        """Encode (B, ...) observations to codes (B, K) int64."""
        self.modality.check(observations)
        patches = self.grouped(self.modality.patchify(observations))
        codes = self.quantizer.encode(self.latents(patches))
        if self.modality.cell_size and self._has_table:
            codes = self._mend(codes, patches)
        by_patch = codes.reshape(len(observations), self.modality.num_patches, -1)
        return by_patch.transpose(1, 2).reshape(len(observations), -1)

    @property
    def encodes_few(self) -> bool:
        """Whether `encode_few` is there: for patches of symbols."""
        return bool(self.modality.cell_size)

    def _mend(self, codes: Tensor, patches: Tensor) -> Tensor:
        """Give patches (N, 1, P) that their codes (N, 1, 1) lose the codes that lose least.

        A lost cell costs the more, the rarer its rarest value is.
        """
        wrong = (self.table[0, codes[:, 0, 0]] != patches[:, 0]).any(-1).nonzero().flatten()
        if len(wrong):
            shape = (-1, self.modality.cell_size)
            cells = patches[wrong, 0].view(len(wrong), *shape)  # (wrong, cells, cell_size)
            known = self.table[0].view(len(self.table[0]), *shape)  # (V, cells, cell_size)
            values = self.modality.features(patches[wrong, 0]) * self.rarity
            worth = values[values > 0].view(cells.shape).amax(-1)  # A value has one feature.
            parts = zip(torch.split(cells, _FEW), torch.split(worth, _FEW), strict=True)
            kept = [
                ((cell.unsqueeze(1) == known).all(-1) * each.unsqueeze(1)).sum(-1).argmax(-1)
                for cell, each in parts
            ]
            codes[wrong, 0, 0] = torch.cat(kept)
        return codes

    @torch.no_grad()
    def weigh_rarity(self, patches: Tensor, counts: Tensor) -> None:
        """Take the values' worth from how often patches (M, 1, P) were seen, (M,)."""
        if self.modality.cell_size:
            often = counts @ self.modality.features(patches[:, 0])
            self.rarity.copy_(often.clamp(min=1).rsqrt())

    def encode_few(self, frames: np.ndarray) -> np.ndarray:
        """Encode a few frames of symbols (B, ...) to codes (B, K) int64, by memory."""
        return self._remembering(frames.shape[1:]).encode(frames).reshape(len(frames), -1)

    @property
    def decodes_few(self) -> bool:
        """Whether `decode_few` is there: for patches of symbols that have one code each."""
        return self.encodes_few and self._has_table

    def decode_few(self, codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Decode the codes (B, K) of a few frames of symbols to (B, *shape), without torch."""
        memory = self._remembering(shape)
        if self._few_table is None:
            self._few_table = self.table[0].cpu().numpy()
        return memory.decode(codes, self._few_table)

    def _remembering(self, shape: tuple[int, ...]) -> PatchMemory:
        if self._memory is None:
            self._memory = PatchMemory(self.modality, shape, self._encode_stages)
        return self._memory

    def _encode_stages(self, frames: Tensor) -> Tensor:
        codes = self.encode(frames.to(self.table.device))
        return codes.reshape(len(frames), self.config.codes_per_patch, -1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes (B, K) to observations (B, ...).

        Where a patch has one code, its patch is looked up.
        """
        if self._has_table:
            if self.modality.shared_codebook:
                return self.modality.unpatchify(self.table[0, codes])
            return self.modality.unpatchify(self.table[self._groups, codes])
        return self._decode_vectors(self.quantizer.decode(self._by_stage(codes)))

    @torch.no_grad()
    def reconstruct(self, observations: Tensor) -> Tensor:
        """Give what (B, ...) observations come back as, with codes or without."""
        return self._decode_vectors(self._projected(observations))

    @torch.no_grad()
    def embed_observations(self, observations: Tensor) -> Tensor:
        """Give what the decoder reads of (B, ...) observations: (B, patches, E)."""
        return self._projected(observations).reshape(
            len(observations), self.modality.num_patches, -1
        )

    def _projected(self, observations: Tensor) -> Tensor:
        self.modality.check(observations)
        patches = self.grouped(self.modality.patchify(observations))
        return self.quantizer.project(self.latents(patches))

    def _decode_vectors(self, vectors: Tensor) -> Tensor:
        """Decode vectors (N, G, E) to observations (B, ...)."""
        values = self._original(self.modality.values(self.outputs(vectors)))
        return self.modality.unpatchify(
            values.reshape(-1, self.modality.num_patches, values.shape[-1])
        )

    def _by_stage(self, codes: Tensor) -> Tensor:
        """Lay codes (B, K) out as the quantizer has them: (N, G, R)."""
        stages = codes.view(len(codes), self.config.codes_per_patch, -1)
        return stages.transpose(1, 2).reshape(-1, self.num_codebooks, stages.shape[1])

    @torch.no_grad()
    def build_table(self) -> None:
        """Decode each code once; to be called whenever weights or codebooks changed."""
        self._memory = self._few_table = None
        if not self._has_table:
            return
        outputs = self.outputs(self.quantizer.vectors()[0].transpose(0, 1))  # (V, G, outputs)
        values = self._original(self.modality.values(outputs))
        self.table = values.transpose(0, 1).contiguous()  # (G, V, P)

    def _standard(self, patches: Tensor) -> Tensor:
        return patches if self.skip_in is None else (patches - self.center) / self.scale

    def _original(self, values: Tensor) -> Tensor:
        return values if self.skip_in is None else values * self.scale + self.center


def _build_quantizer(groups: int, config: QuantizerConfig) -> Quantizer:
    if config.kind == "fsq":
        return FiniteScalarQuantizer(groups, config)
    if config.kind == "gaussian":
        return GaussianBottleneck(groups, config)
    return ResidualQuantizer(groups, config)


def _perceptron(groups: int, num_inputs: int, hidden: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        GroupedLinear(groups, num_inputs, hidden),
        nn.GELU(),
        GroupedLinear(groups, hidden, num_outputs),
    )
