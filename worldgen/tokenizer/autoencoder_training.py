"""Training of one patch autoencoder on distinct patches.

Functions:
    distinct_patches: every different patch of a data set, with how often it occurs.
    with_plausible_patches: unseen patches beside the seen ones, where there is room.
    train_autoencoder: k-means start, gradient steps, restarts of unused codes.

Environments repeat themselves: 50,000 MiniGrid frames hold a few hundred different patches.
Training on the different ones, drawn by a small power of their frequency, makes a key weigh
about as much as a wall and costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from worldgen.errors import TrainingError
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder

__all__ = ["distinct_patches", "train_autoencoder", "with_plausible_patches"]

_MOST_PATCHES = 65_536
_RARE_POWER = 0.25
_BATCH = 1024
_SAMPLE = 16_384
_SLICE = 4_096
_LEARNING_RATE = 2e-3
_GRID_LEARNING_RATE = 4e-3
"""Of "fsq", whose patches have to be moved to cells of their own by the gradient alone."""
_SKIP_LEARNING_RATE = 2e-4
"""Autoencoders with a linear skip begin almost right and need only be smoothed."""
_SPARE_SHARE = 1.0
"""Part of the codes without a seen patch that is kept for plausible unseen ones."""
_RESTART_EVERY = 25
_RESTART_UNTIL = 0.8
_WRONG_SHARE = 0.01


def distinct_patches(
    chunks: Iterable[Tensor], generator: torch.Generator, *, merge: bool
) -> tuple[Tensor, Tensor]:
    """Gather different patches from chunks of grouped patches.

    Args:
        chunks: Tensors (N, G, P).
        generator: Draws which patches stay when there are more than 65,536.
        merge: Whether equal patches are merged; if not, each counts once.

    Returns:
        Patches (M, G, P) and their counts (M,) float32.
    """
    patches, counts = torch.empty(0), torch.empty(0)
    for chunk in chunks:
        added = torch.ones(len(chunk), device=chunk.device)
        patches = torch.cat([patches, chunk]) if len(patches) else chunk
        counts = torch.cat([counts, added]) if len(counts) else added
        if merge:
            patches, counts = _merge_equal(patches, counts)
        if len(patches) > _MOST_PATCHES:
            kept = torch.randperm(len(patches), generator=generator)[:_MOST_PATCHES]
            patches, counts = patches[kept], counts[kept]
    return patches, counts


def _merge_equal(patches: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Merge equal integer patches by a 64-bit hash of their values."""
    flat = patches.flatten(1)
    draw = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (flat.shape[1],), generator=draw) * 2 + 1
    odd = odd.to(flat.device)
    hashes = torch.cat([(part.long() * odd).sum(1) for part in torch.split(flat, _SLICE)])
    unique, inverse = torch.unique(hashes, return_inverse=True)
    first = torch.full((len(unique),), len(flat), dtype=torch.int64, device=flat.device)
    positions = torch.arange(len(flat), device=flat.device)
    first.scatter_reduce_(0, inverse, positions, "amin")
    total = torch.zeros(len(unique), device=counts.device).index_add_(0, inverse, counts)
    return patches[first], total


def with_plausible_patches(
    autoencoder: PatchAutoencoder, patches: Tensor, counts: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Add unseen patches that later data may hold, so that there are codes for them too.

    Args:
        autoencoder: Its codebook's size and its modality say which, and how many.
        patches: Different seen patches (M, G, P).
        counts: How often each was seen, (M,).
        generator: On the CPU.

    Returns:
        Patches (M + S, G, P) and counts, which are 0 for the S unseen ones.
    """
    room = int(_SPARE_SHARE * (autoencoder.config.codebook_size - len(patches)))
    if autoencoder.config.kind == "fsq":
        room = 0  # A full grid is out of its reach, and unseen patches push seen ones aside.
    unseen = autoencoder.modality.plausible(patches, room, generator)
    return torch.cat([patches, unseen]), torch.cat([counts, counts.new_zeros(len(unseen))])


def train_autoencoder(
    autoencoder: PatchAutoencoder,
    patches: Tensor,
    counts: Tensor,
    gradient_steps: int,
    generator: torch.Generator,
    *,
    start_codebooks: bool,
    on_gradient_step: Callable[[float], None],
) -> float:
    """Train on patches (M, G, P) that occur `counts` (M,) times.

    Codes of numbers are found by k-means alone, without a gradient step, where latents hold a
    patch whole. Else training stops early when every patch (of vectors: 99%) of a sample of
    16,384 comes back without error twice in a row.

    Args:
        autoencoder: Trained in place; its decoding table is rebuilt at the end.
        patches: What `with_plausible_patches` gave.
        counts: Likewise.
        gradient_steps: Upper limit.
        generator: Draws batches and starting codes; on the CPU.
        start_codebooks: Whether to place the codebooks by k-means first.
        on_gradient_step: Called with the reconstruction loss after each gradient step.

    Returns:
        The mean error of the patches, weighted by how often they occur.

    Raises:
        TrainingError: If the loss is not finite.
    """
    weights = counts.double().clamp(min=1).pow(_RARE_POWER).cpu()
    if start_codebooks:
        few = len(patches) <= autoencoder.config.codebook_size
        some = min(_SAMPLE, 4 * len(patches))
        sample = patches if few else patches[_draw(weights, some, generator)]
        autoencoder.quantizer.initialize(autoencoder.latents(sample).detach(), generator)
    if autoencoder.needs_no_gradient:
        autoencoder.settle(patches)
    else:
        _descend(autoencoder, patches, weights, gradient_steps, generator, on_gradient_step)
    autoencoder.build_table()
    errors = torch.cat([autoencoder.errors(part).mean(1) for part in torch.split(patches, _SLICE)])
    return float((errors * counts).sum() / counts.sum())


def _descend(
    autoencoder: PatchAutoencoder,
    patches: Tensor,
    weights: Tensor,
    gradient_steps: int,
    generator: torch.Generator,
    on_gradient_step: Callable[[float], None],
) -> None:
    """Make gradient steps, with restarts of unused codes."""
    rate = _GRID_LEARNING_RATE if autoencoder.config.kind == "fsq" else _LEARNING_RATE
    if autoencoder.modality.linear_skip:
        rate = _SKIP_LEARNING_RATE
    optimizer = torch.optim.AdamW(
        autoencoder.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.95), fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=max(gradient_steps + 1, 50), pct_start=0.05
    )
    exact_before = False
    for gradient_step in range(1, gradient_steps + 1):
        batch = patches[_draw(weights, _BATCH, generator)]
        on_gradient_step(_improve(autoencoder, batch, optimizer, generator))
        schedule.step()
        if gradient_step % _RESTART_EVERY == 0:
            chosen = torch.randperm(len(patches), generator=generator)[:_SAMPLE]
            early = gradient_step < _RESTART_UNTIL * gradient_steps
            exact = _restart(autoencoder, patches[chosen], restart=early)
            if exact and exact_before:
                break
            exact_before = exact


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def _improve(
    autoencoder: PatchAutoencoder,
    batch: Tensor,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> float:
    loss = autoencoder.loss(batch, generator)
    value = float(loss.reconstruction.detach())
    if value != value or value == float("inf"):
        raise TrainingError(
            f"the tokenizer's loss must stay finite, got {value}: check the observations for "
            "NaN or infinite values"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
    optimizer.step()
    autoencoder.quantizer.update(loss.latents, loss.codes)
    return value


@torch.no_grad()
def _restart(autoencoder: PatchAutoencoder, sample: Tensor, *, restart: bool) -> bool:
    """Move unused codes to badly reconstructed patches; tell whether (almost) all are right."""
    errors = autoencoder.errors(sample)
    if restart and bool((errors > 0).any()):
        autoencoder.quantizer.restart_dead(autoencoder.latents(sample), errors)
    tolerated = _WRONG_SHARE if autoencoder.modality.linear_skip else 0.0
    return bool((errors > 0).float().mean() <= tolerated)
