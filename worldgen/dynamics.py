"""The dynamics: a diffusion transformer that predicts the next frame's tokens.

Classes:
    DynamicsConfig, Dynamics, Prediction, PointPrediction, NoisyPoints, Recent.

Functions:
    recent_frames: the frames before each frame of windows.
    summary_of: what a frame's outputs say in one vector.

A frame is a block of K + 1 tokens: first the action that is taken in it, then its K tokens. Each
token's output predicts the token at the same place in the next frame, the action's the
transition's reward and termination. That is the first denoising pass, from a next frame that is
all masked. Further passes are *drafts*: the same inputs, and beside them the tokens of the next
frame that are known by now; in Gaussian diffusion the noisy points of the next frame's codes, at a
noise level that the layers are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from worldgen.action_proposer import ActionProposer, Aim
from worldgen.actions import ActionCodec, ActionEmbedding
from worldgen.aftermath import Aftermath
from worldgen.code_space import CodeSpace, NoiseModulation
from worldgen.codes import OCTAVES, Codebook, CodePort, make_port
from worldgen.config import Config, require
from worldgen.data.token_dataset import Context, Windows
from worldgen.device import Precision, resolve_precision
from worldgen.diffusion.frame_sampler import Process
from worldgen.diffusion.gaussian_diffusion import Guess
from worldgen.transformer import Past, Transformer, TransformerConfig, visible_past
from worldgen.two_hot import TwoHot

__all__ = [
    "Dynamics",
    "DynamicsConfig",
    "NoisyPoints",
    "PointPrediction",
    "Prediction",
    "Recent",
    "recent_frames",
    "summary_of",
]


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig(Config):
    """Size of the dynamics."""

    transformer: TransformerConfig = TransformerConfig()
    """Size of the transformer."""
    context: int = 8
    """C, frames of the past that a prediction sees: what was out of sight for longer is dreamt
    anew, and an agent learns to wait for that (4 frames are just a turn on the spot)."""
    precision: Precision = "auto"
    """Of the matrix products: "auto" is bfloat16 where the processor has it, else float32."""
    process: Process = "masked"
    """Diffusion over masked tokens, or over code vectors with Gaussian noise."""
    frames_in_flight: int = 1
    """Most frames that may be in the making at once: 1 or 2. With 2 the network also learns to
    predict a frame from one that it has not seen, but whose action it knows."""
    goal_horizon: int = 0
    """N, most environment steps in which a goal or a return may be asked for: the network also
    learns which actions lead there. 0 learns no actions."""
    pointer: bool = False
    """Whether each token of the next frame is also scored by where it stood at the same place in
    the last C frames: that a turn is undone, and a view comes back, is learned from much fewer
    transitions (docs/decisions/0025)."""
    outcome_from: Literal["action", "next_frame"] = "action"
    """What reward and termination are read off: the frame and the action in it, or also the
    frame that was then drawn, for worlds of chance, where they depend on what happened
    (docs/decisions/0027)."""
    octaves: int = OCTAVES
    """Frequencies, each twice the last, at which real numbers are read. With all 6, numbers that
    lie side by side look apart, which takes many transitions to see through; after 1,000, 1 or 2
    predict much better."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(1 <= self.context <= 256, "context", "be in [1, 256]", self.context)
        known = ("masked", "gaussian")
        require(self.process in known, "process", "be 'masked' or 'gaussian'", self.process)
        flight = self.frames_in_flight
        require(flight in (1, 2), "frames_in_flight", "be 1 or 2", flight)
        origins = ("action", "next_frame")
        rule = "be 'action' or 'next_frame'"
        require(self.outcome_from in origins, "outcome_from", rule, self.outcome_from)
        horizon = self.goal_horizon
        require(0 <= horizon <= 512, "goal_horizon", "be in [0, 512]", horizon)
        along = self.transformer.path_integration
        rule = "be False with a context of one frame, which has no path behind it"
        require(not along or self.context > 1, "transformer.path_integration", rule, along)
        require(self.octaves >= 0, "octaves", "be at least 0", self.octaves)


class Prediction(NamedTuple):
    """What the network says of next frames; "..." are leading dimensions."""

    token_logits: Tensor
    """(..., K, V), -inf at codes that a position does not have."""
    reward_logits: Tensor
    """(..., bins) of `Dynamics.two_hot`."""
    termination_logits: Tensor
    """(...)."""


class PointPrediction(NamedTuple):
    """What the network says of next frames whose points have noise."""

    denoised: Tensor
    """(..., K, E) float32, points of the codes."""
    reward_logits: Tensor
    """(..., bins) of `Dynamics.two_hot`."""
    termination_logits: Tensor
    """(...)."""


class Recent(NamedTuple):
    """Tokens of the last L frames, the newest first; "..." are leading dimensions."""

    tokens: Tensor
    """(..., L, K) int64."""
    known: Tensor
    """(..., L) bool: whether there is such a frame; there always is a newest one."""

    def rows(self, rows: Tensor | slice) -> Recent:
        """Choose along the first dimension."""
        return Recent(self.tokens[rows], self.known[rows])


class NoisyPoints(NamedTuple):
    """Points of next frames' codes with noise."""

    points: Tensor
    """(..., K, E) float32."""
    sigma: Tensor
    """(...) float32, the noise level of each frame."""


def recent_frames(tokens: Tensor, sees: Tensor, count: int) -> Recent:
    """Lay the last `count` frames beside each frame of windows.

    Args:
        tokens: (B, F, K).
        sees: What `visible_past` gave, (B, F, F).
        count: L.

    Returns:
        (B, F).
    """
    batch, length, _ = tokens.shape
    index = torch.arange(length, device=tokens.device).unsqueeze(1)
    index = index - torch.arange(count, device=tokens.device)
    known = sees.gather(2, index.clamp(min=0).expand(batch, -1, -1)) & (index >= 0)
    return Recent(tokens[:, index.clamp(min=0)], known)


def summary_of(outputs: Tensor) -> Tensor:
    """Give a frame's outputs (B, K + 1, D) as one vector of mean 0 and deviation 1: (B, D).

    The mean over the tokens, normalised, since outputs that differ leave a mean of small numbers.
    Outputs that are all zeros stay so.
    """
    mean = outputs.float().mean(1)
    return nn.functional.layer_norm(mean, mean.shape[-1:])


class Dynamics(nn.Module):
    """Predict masked frames from clean past frames and actions.

    Args:
        config: Size.
        codebooks: The tokenizer's, in the order of a frame's positions.
        codec: Of the actions.
        embedding_size: E, entries of a code vector; only Gaussian diffusion needs it.
    """

    token_offsets: Tensor

    def __init__(
        self,
        config: DynamicsConfig,
        codebooks: Sequence[Codebook],
        codec: ActionCodec,
        embedding_size: int = 1,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_tokens = sum(codebook.num_tokens for codebook in codebooks)
        self.frame_size = self.num_tokens + 1
        width = config.transformer.width
        self.ports = nn.ModuleList(
            make_port(codebook, width, config.octaves) for codebook in codebooks
        )
        self._widest = max(codebook.size for codebook in codebooks)
        first_codes = np.cumsum([0, *(codebook.size for codebook in codebooks)])
        offsets = [
            torch.full((codebook.num_tokens,), int(first))
            for codebook, first in zip(codebooks, first_codes[:-1], strict=True)
        ]
        self.register_buffer("token_offsets", torch.cat(offsets), persistent=False)
        self.action_embedding = ActionEmbedding(codec, width)
        if config.process == "masked":
            self.mask_vector = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn(self.frame_size, width) * 0.5)
        if config.process == "masked":
            self.read_draft = nn.Linear(width, width)
        self.transformer = Transformer(config.transformer, config.context)
        self.two_hot = TwoHot()
        self.reward_head = nn.Linear(width, self.two_hot.num_bins)
        self.termination_head = nn.Linear(width, 1)
        for head in (self.reward_head, self.termination_head):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        with torch.no_grad():  # most transitions bring neither reward nor termination
            self.reward_head.bias[self.two_hot.num_bins // 2] = 5.0
            self.termination_head.bias.fill_(-4.0)
        if config.frames_in_flight > 1:
            self.read_earlier = nn.Linear(width, width)
        if config.process == "gaussian":
            self.code_space = CodeSpace(codebooks, embedding_size, width)
            self.noise_modulation = NoiseModulation(config.transformer.layers, width)
        if config.goal_horizon:  # Last, so that all other weights begin as without.
            self.codec = codec
            self.proposer = ActionProposer(
                config.transformer,
                config.context,
                codec.num_choices,
                config.goal_horizon,
                self.two_hot.num_bins,
            )
        if config.pointer:
            self.pointer = nn.Linear(width, config.context)
            nn.init.zeros_(self.pointer.weight)
            nn.init.zeros_(self.pointer.bias)
        if config.outcome_from == "next_frame":
            self.aftermath = Aftermath(self.num_tokens, width)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_offsets.device

    @property
    def reach(self) -> int:
        """Most frames that a summary depends on, the one that it stands beside included.

        A layer sees C frames, of which each has seen C frames in the layer below.
        """
        return self.config.transformer.layers * (self.config.context - 1) + 2

    def set_code_contents(self, contents: Sequence[Tensor]) -> None:
        """Take the tokenizer's description of its codes, a (V, F) tensor a codebook."""
        for port, part in zip(self.ports, contents, strict=True):
            assert isinstance(port, CodePort)
            port.set_contents(part)

    def set_seen_codes(self, tokens: Tensor) -> None:
        """Take note of the codes that occur in the data's tokens (N, K)."""
        for port in self.each_port():
            port.set_seen(tokens[:, port.codebook.tokens])

    def set_code_vectors(self, vectors: Sequence[Tensor]) -> None:
        """Take the tokenizer's code vectors, (V, E) a codebook; after `set_seen_codes`."""
        if self.config.process == "gaussian":
            self.code_space.set_vectors(vectors, [port.seen for port in self.each_port()])

    def token_table(self) -> Tensor:
        """Embed all codes of all codebooks: (codes, D); once a pass, for all its frames."""
        return torch.cat([port.table() for port in self.each_port()])

    def embed(self, table: Tensor, tokens: Tensor, actions: Tensor) -> Tensor:
        """Embed clean frames.

        Args:
            table: What `token_table` gave.
            tokens: (..., K) int64.
            actions: (..., A) encoded, taken in each frame: it leads to the next.

        Returns:
            (..., K + 1, D).
        """
        embedded = self._look_up(table, tokens)
        action = self.action_embedding(actions).unsqueeze(-2)
        return torch.cat([action, embedded + action], -2) + self.positions

    def _look_up(self, table: Tensor, tokens: Tensor) -> Tensor:
        """Find the rows of tokens (..., K) in a table of all codes: (..., K, D)."""
        return nn.functional.embedding(tokens + self.token_offsets, table)

    def embed_unseen(self, stale: Tensor, earlier: Tensor) -> Tensor:
        """Embed frames that are not known yet.

        Args:
            stale: (..., K + 1, D), what `embed` gave for the tokens of the frames *before* them
                with the actions taken in *them*.
            earlier: (..., A) encoded, the actions that lead to them.

        Returns:
            (..., K + 1, D).
        """
        action: Tensor = self.read_earlier(self.action_embedding(earlier))
        return stale + action.unsqueeze(-2)

    def embed_drafts(self, table: Tensor, clean: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
        """Embed drafts of next frames.

        Args:
            table: What `token_table` gave.
            clean: (..., K + 1, D), what `embed` gave for the frames before.
            tokens: (..., K) int64, of the next frames.
            masked: (..., K) bool, those that are hidden from the network.

        Returns:
            (..., K + 1, D).
        """
        known = self._look_up(self.read_draft(table), tokens)
        known = torch.where(masked.unsqueeze(-1), self.mask_vector.to(known.dtype), known)
        return clean + nn.functional.pad(known, (0, 0, 1, 0))

    def points_of(self, tokens: Tensor) -> Tensor:
        """Look up the points of tokens (..., K): (..., K, E)."""
        return self.code_space.points[tokens + self.token_offsets]

    def embed_noisy(self, clean: Tensor, noisy: NoisyPoints, guess: Guess) -> Tensor:
        """Embed noisy points of next frames.

        Args:
            clean: (..., K + 1, D), what `embed` gave for the frames before.
            noisy: (...).
            guess: What the first pass says of the points.

        Returns:
            (..., K + 1, D).
        """
        embedded = self.code_space.embed(noisy.points, noisy.sigma, guess)
        return clean + nn.functional.pad(embedded, (0, 0, 1, 0))

    @property
    def num_recent(self) -> int:
        """L, how many of the last frames' tokens count in scores of the next frame's."""
        return self.config.context if self.config.pointer else 1

    def point(self, hidden: Tensor, recent: Recent) -> Tensor:
        """Score the tokens of recent frames (..., L, K) as those of the next: (..., K, L) float32.

        Args:
            hidden: (..., K, D), outputs at the tokens.
            recent: (...).
        """
        with torch.autocast(hidden.device.type, enabled=False):
            scores: Tensor = self.pointer(hidden.float())
        return scores * recent.known.unsqueeze(-2)

    def read_out(
        self, hidden: Tensor, recent: Recent, table: Tensor, following: Tensor
    ) -> Prediction:
        """Turn outputs into predictions of next frames.

        Args:
            hidden: (..., K + 1, D).
            recent: (...), the frames before, `num_recent` of them.
            table: What `token_table` gave.
            following: (..., K) int64, the next frames, which the outcome may be read off.
        """
        tokens = hidden[..., 1:, :]
        logits = self._token_logits(tokens, recent.tokens[..., 0, :])
        if self.config.pointer:
            places = recent.tokens.transpose(-1, -2)
            logits = logits.float().scatter_add(-1, places, self.point(tokens, recent))
        return Prediction(logits, *self._outcome(hidden, table, following))

    def _outcome(self, hidden: Tensor, table: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """Give the logits of reward and termination."""
        outcome = hidden[..., 0, :]
        if self.config.outcome_from == "next_frame":
            outcome = self.aftermath(outcome, self._look_up(table, following))
        return self.reward_head(outcome), self.termination_head(outcome).squeeze(-1)

    def _denoise(
        self, hidden: Tensor, noisy: NoisyPoints, guess: Guess, table: Tensor, following: Tensor
    ) -> PointPrediction:
        denoised = self.code_space.denoise(hidden[..., 1:, :], *noisy, guess)
        return PointPrediction(denoised, *self._outcome(hidden, table, following))

    def _token_logits(self, hidden: Tensor, previous: Tensor) -> Tensor:
        parts = []
        for port in self.each_port():
            place = port.codebook.tokens
            logits = port.logits(hidden[..., place, :], previous[..., place])
            padding = self._widest - port.codebook.size
            if padding:
                logits = nn.functional.pad(logits, (0, padding), value=-torch.inf)
            parts.append(logits)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)

    def each_port(self) -> Iterator[CodePort]:
        """Give the ports in the order of their positions."""
        for port in self.ports:
            assert isinstance(port, CodePort)
            yield port

    def forward(
        self,
        windows: Windows,
        past: Tensor,
        masked: Tensor | None = None,
        noisy: NoisyPoints | None = None,
        unseen: Tensor | None = None,
        *,
        compiles: bool = False,
    ) -> tuple[Prediction, Prediction | PointPrediction | None]:
        """Predict frames 1..T-1 of training windows, each from its clean past.

        Args:
            windows: B windows of T frames.
            past: (B, T, K), the tokens that the network sees as the past (may be corrupted).
            masked: (R, T - 1, K) bool, hidden tokens of frames 1..T-1 in drafts of the first R
                windows; None makes no drafts.
            noisy: (R, T - 1), in Gaussian diffusion in place of `masked`.
            unseen: (B, T) bool, frames whose tokens the network does not see; each follows one
                that it sees. None is none of them.
            compiles: Whether the layers go through `torch.compile`.

        Returns:
            Predictions (B, T - 1) of the first pass, and those (R, T - 1) of the drafts.
        """
        known = past
        if unseen is not None:
            past = torch.where(unseen.unsqueeze(-1), past.roll(1, 1), past)
        previous = past[:, :-1]
        with self.autocast():
            table = self.token_table()
            clean = self.embed(table, previous, windows.actions[:, 1:])
            if unseen is not None:
                other = self.embed_unseen(clean, windows.actions[:, :-1])
                clean = torch.where(unseen[:, :-1, None, None], other, clean)
            sees = visible_past(windows.episode[:, :-1], self.config.context)
            hidden, seen = self.transformer.read(clean, sees, compiles=compiles)
            recent = recent_frames(known[:, :-1], sees, self.num_recent)
            recent.tokens[:, :, 0] = previous  # A frame that is not seen is known only later.
            following = windows.tokens[:, 1:]
            first = self.read_out(hidden, recent, table, following)
            if noisy is not None:
                count = len(noisy.sigma)
                guess = self.code_space.guess(first.token_logits[:count].detach().softmax(-1))
                drafts = self.embed_noisy(clean[:count], noisy, guess)
                told = self.noise_modulation(noisy.sigma.flatten())
                made = self.transformer.draft(drafts, seen, sees, told, compiles=compiles)
                return first, self._denoise(made, noisy, guess, table, following[:count])
            if masked is not None:
                count = len(masked)
                drafts = self.embed_drafts(table, clean[:count], following[:count], masked)
                made = self.transformer.draft(drafts, seen, sees, compiles=compiles)
                return first, self.read_out(
                    made, recent.rows(slice(count)), table, following[:count]
                )
            return first, None

    def propose(self, windows: Windows, past: Tensor, aim: Aim) -> Tensor:
        """Score the actions taken in frames 0..T-2 of training windows, in view of aims.

        Each is scored from its frame and the clean past. Only the proposer gets gradients.

        Args:
            windows: B windows of T frames.
            past: (B, T, K), the tokens that the network sees (may be corrupted).
            aim: (B, T - 1).

        Returns:
            (B, T - 1, A, n), -inf at choices that a dimension does not have.
        """
        previous, actions = past[:, :-1], windows.actions[:, 1:]
        with torch.no_grad(), self.autocast():
            table = self.token_table()
            sees = visible_past(windows.episode[:, :-1], self.config.context)
            seen: list[Past] = []
            if self.config.context > 1:
                _, seen = self.transformer.read(self.embed(table, previous, actions), sees)
            unknown = self.codec.none(*actions.shape[:2], device=self.device)
            frames = self.embed(table, previous, unknown)
            goals = self._look_up(table, aim.goal)
            returns = self.two_hot.encode(aim.wanted)
        with self.autocast():
            logits: Tensor = self.proposer(
                self.proposer.embed(frames, goals, returns, aim), seen, sees
            )
            return logits

    @torch.no_grad()
    def summarise(self, context: Context) -> Tensor:
        """Summarise what was known before the newest frames of B worlds; see `WorldModel`."""
        size = self.config.transformer.width
        if context.tokens.shape[1] == 1:
            return torch.zeros(len(context), size, device=self.device)
        past = context.valid[:, :-1]
        with self.autocast():
            clean = self.embed(self.token_table(), context.tokens[:, :-1], context.actions[:, 1:])
            outputs, _ = self.transformer.read(
                clean, visible_past(past.long(), self.config.context)
            )
        return summary_of(outputs[:, -1] * past[:, -1].view(-1, 1, 1))

    def autocast(self) -> torch.autocast:
        """Compute inside this block in the configured precision."""
        device = self.device
        dtype = resolve_precision(self.config.precision, device)
        return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
