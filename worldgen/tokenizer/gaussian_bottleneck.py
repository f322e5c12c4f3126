"""No quantizer at all: the Gaussian latents of a plain VAE, to compare the others with.

Classes:
    GaussianBottleneck.

Auto-Encoding Variational Bayes, Kingma and Welling 2013, https://arxiv.org/abs/1312.6114.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldgen.errors import ConfigError
from worldgen.tokenizer.quantizer import Quantized, QuantizerConfig

__all__ = ["GaussianBottleneck"]

_SMALLEST, _LARGEST = -12.0, 4.0
"""Range of the log variance."""


class GaussianBottleneck(nn.Module):
    """Sample a vector from N(mean, variance) in training; take the mean otherwise.

    The latents hold the E means, then the E log variances.

    Args:
        num_codebooks: G; nothing is stored for them.
        config: E and the weight of the divergence.
    """

    def __init__(self, num_codebooks: int, config: QuantizerConfig) -> None:
        super().__init__()
        self._groups, self._dim, self._kl_weight = num_codebooks, config.dim, config.kl_weight
        self.latent_size = 2 * config.dim

    def encode(self, latents: Tensor) -> Tensor:
        """Refuse: there are no codes.

        Raises:
            ConfigError: Always.
        """
        raise _without_codes()

    def decode(self, codes: Tensor) -> Tensor:
        """Refuse: there are no codes.

        Raises:
            ConfigError: Always.
        """
        raise _without_codes()

    def project(self, latents: Tensor) -> Tensor:
        """Give the means (N, G, E)."""
        return latents[..., : self._dim]

    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Sample by Eq. 10 of the paper; the loss is the divergence of its appendix B."""
        mean = latents[..., : self._dim]
        log_variance = latents[..., self._dim :].clamp(_SMALLEST, _LARGEST)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        codes = torch.empty(*mean.shape[:2], 0, dtype=torch.int64, device=mean.device)
        sample = mean + (0.5 * log_variance).exp() * noise
        return Quantized(codes, sample, self._kl_weight * divergence)

    def vectors(self) -> Tensor:
        """Give no code vectors, (0, G, 0, E)."""
        return torch.empty(0, self._groups, 0, self._dim)

    def initialize(self, latents: Tensor, generator: torch.Generator) -> None:
        """Do nothing: there are no codes."""

    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Do nothing: there are no codes."""

    def restart_dead(self, latents: Tensor, errors: Tensor) -> int:
        """Do nothing: there are no codes."""
        return 0


def _without_codes() -> ConfigError:
    return ConfigError(
        "the quantizer 'gaussian' has no codes and so no tokens: use `reconstruct` and "
        "`embed_observations`, or another `kind`"
    )
