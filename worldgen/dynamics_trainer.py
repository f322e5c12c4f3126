"""Training of the dynamics on windows of tokenized episodes.

Classes:
    DynamicsTrainer.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import clip_grad_norm_

from worldgen.data.token_dataset import TokenDataset, Windows
from worldgen.diffusion.gaussian_diffusion import draw_noise_levels
from worldgen.diffusion.masked_diffusion import mask_tokens
from worldgen.dynamics import Dynamics, NoisyPoints, PointPrediction, Prediction
from worldgen.dynamics_batch import Batch, OnTensors
from worldgen.dynamics_loss import DynamicsLoss, denoising_loss, dynamics_loss
from worldgen.dynamics_optimizers import make_optimizers, rate_factor
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.errors import TrainingError
from worldgen.event_recall import NUM_COUNTS, count_events, recall
from worldgen.hindsight import AimedWindows, action_loss, draw_aims
from worldgen.seeding import derived_seed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["RECALL_STEPS", "DynamicsTrainer"]

RECALL_STEPS = 200
"""Gradient steps over which the recall on rewards and ends is taken."""
_LOSSES = ("token_loss", "draft_loss", "reward_loss", "termination_loss")
_LONG_WINDOW = 5
"""Transitions of a window from which on the whole `event_share` is placed around events."""
_UNSEEN_OF_EVERY_SECOND = 0.8
"""Share of every second frame that is hidden, in windows with hidden frames."""
_UNCHECKED_STEPS = 20
"""Gradient steps between two looks at the losses on a GPU, where each look waits for it."""


class DynamicsTrainer:
    """Train a network for a number of gradient steps; may be saved at any of them.

    Transformer matrices are moved by Muon (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/), everything else by AdamW.

    Args:
        dynamics: The network, trained in place.
        dataset: Where windows are drawn from.
        config: How.
        gradient_steps: How many in all.
        generator: Of windows, masks and corruption, and, by its seed, of aims; on the network's
            device.
        fabric: Of this process, if it is one of several that train together.
        check_every: Gradient steps between two looks at the losses; None is 1 on a CPU and 20 on
            a GPU, where each look waits for it.

    Attributes:
        gradient_step: How many are done.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        dataset: TokenDataset,
        config: DynamicsTrainingConfig,
        gradient_steps: int,
        generator: torch.Generator,
        *,
        fabric: Fabric | None = None,
        check_every: int | None = None,
    ) -> None:
        self.dynamics, self.dataset, self.config = dynamics, dataset, config
        self.gradient_steps, self.generator = gradient_steps, generator
        self.gradient_step = 0
        self._fabric = fabric
        self._network: nn.Module = OnTensors(dynamics, compiles=config.compiled)
        if fabric is not None:
            self._network = fabric.setup_module(self._network)
        self._parameters: list[Tensor] = [p for p in dynamics.parameters() if p.requires_grad]
        proposer = list(dynamics.proposer.parameters()) if dynamics.config.goal_horizon else []
        self._proposer = [p for p in proposer if p.requires_grad]
        own = {id(p) for p in self._proposer}
        self._others = [p for p in self._parameters if id(p) not in own]
        # With draws and a norm of its own, what is learned of actions changes no other weight.
        self._aim_generator = torch.Generator(generator.device)
        self._aim_generator.manual_seed(derived_seed(generator.initial_seed(), "aims"))
        self._average = [p.detach().clone() for p in self._parameters]
        self._optimizers = make_optimizers(dynamics, config)
        self._recent: deque[Tensor] = deque(maxlen=max(1, gradient_steps // 10))
        on_gpu = dynamics.device.type == "cuda"
        self._check_every = check_every or (_UNCHECKED_STEPS if on_gpu else 1)
        self._events = torch.zeros(NUM_COUNTS, dtype=torch.int64, device=dynamics.device)
        self._unchecked: list[Tensor] = []
        self._num_checked = 0
        self._good = copy.deepcopy(dynamics.state_dict()) if self._check_every > 1 else {}

    @property
    def is_finished(self) -> bool:
        """Whether all gradient steps are done."""
        return self.gradient_step >= self.gradient_steps

    def step(self) -> dict[str, Tensor]:
        """Make one gradient step; gives its losses as scalars on the device.

        Raises:
            TrainingError: If a loss is not finite; the weights are then the last good ones.
        """
        self.dynamics.train()
        batch = self._draw()
        if self.gradient_step % RECALL_STEPS == 0:
            self.forget_events()
        loss = self._loss(batch)
        self._set_priority(batch.windows, self._gathered(loss.transitions), batch.unseen)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = self._clip()
        parts = self._reduced(torch.stack(loss.parts).detach(), "mean")
        self._check(parts.sum(), norm)
        rate = self.config.learning_rate * rate_factor(
            self.gradient_step, self.gradient_steps, self.config.final_rate
        )
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.gradient_step += 1
        self._follow()
        self._recent.append(parts)
        return dict(zip(self.loss_names, parts, strict=True))

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the losses that `step` gives, in their order."""
        return (*_LOSSES, "action_loss") if self._proposer else _LOSSES

    def _clip(self) -> Tensor:
        """Scale gradients down to the largest norm; gives the norm before."""
        largest = self.config.max_gradient_norm
        norm = clip_grad_norm_(self._others, largest)
        return norm + clip_grad_norm_(self._proposer, largest) if self._proposer else norm

    def _loss(self, batch: Batch) -> DynamicsLoss:
        """Score a batch, or this process's share of it: every n-th window."""
        if self._fabric is not None:
            batch = batch.rows(slice(self._fabric.global_rank, None, self._fabric.world_size))
        first, drafts, actions = self._network(*batch.tensors())
        windows, two_hot = batch.windows, self.dynamics.two_hot
        self._events += count_events(first, windows, two_hot, batch.unseen)
        unmasked = drafts if isinstance(drafts, Prediction) else None
        loss = dynamics_loss(first, unmasked, windows, batch.masked, two_hot)
        if isinstance(drafts, PointPrediction) and batch.noisy is not None:
            made = denoising_loss(drafts, windows, batch.noisy, self.dynamics, len(batch.past))
            loss = replace(loss, drafts=made)
        if self._proposer:
            loss = replace(loss, actions=self._action_loss(actions, batch))
        return loss

    def _action_loss(self, logits: Tensor | None, batch: Batch) -> Tensor:
        """Score actions; a mean over the batch's windows, as the other losses are."""
        if logits is None or batch.aimed is None:
            return batch.windows.rewards.new_zeros(())
        taken = self.dynamics.codec.to_choices(batch.aimed.windows.actions[:, 1:])
        return action_loss(logits, taken, batch.aimed.known) / len(batch.past)

    def gather_events(self) -> None:
        """Bring the counts behind `recall` to the first process; to be called by all at once."""
        if self._fabric is not None:
            events = self._reduced(self._events.clone(), "sum")
            self._events.copy_(events * int(self._fabric.is_global_zero))

    def forget_events(self) -> None:
        """Count events from here on."""
        self._events.zero_()

    def recall(self) -> dict[str, float]:
        """Give the recall on rewarding and terminating transitions; waits for the device.

        Of the windows of up to 200 gradient steps, since the last multiple of 200. What did
        not occur is left out.
        """
        return recall(self._events)

    @property
    def events(self) -> Tensor:
        """(4,) int64: what `recall` is made of."""
        return self._events

    def _gathered(self, losses: Tensor) -> Tensor:
        """Put the shares (B / n, T - 1) of all processes together, in the batch's order."""
        if self._fabric is None:
            return losses
        shares = [torch.empty_like(losses) for _ in range(self._fabric.world_size)]
        distributed.all_gather(shares, losses.contiguous())
        return torch.stack(shares, 1).flatten(0, 1)

    def _reduced(self, values: Tensor, by: str) -> Tensor:
        """Take the mean or the sum over all processes."""
        if self._fabric is None:
            return values
        reduced = self._fabric.all_reduce(values, reduce_op=by)
        assert isinstance(reduced, Tensor)
        return reduced

    def _draw(self) -> Batch:
        """Draw windows, their drafts, and the past as the network is to see it."""
        config, network = self.config, self.dynamics
        context = network.config.context
        length = config.window or context + max(context // 2, 1)
        windows = self.dataset.sample_windows(
            config.batch_size,
            length,
            event_share=config.event_share * min(1.0, (length - 1) / _LONG_WINDOW),
            hard_share=config.hard_share,
            generator=self.generator,
        )
        count = round(config.batch_size * config.draft_share)
        masked, noisy = None, None
        if count:
            shape = (count, length - 1, network.num_tokens)
            masked = mask_tokens(shape, self.generator)
            if network.config.process == "gaussian":
                noisy, masked = self._noise(windows.tokens[:count, 1:]), None
        past = _corrupt(windows.tokens, config.corrupted_share, self.generator)
        unseen = self._hide(windows, count if masked is not None else 0)
        return Batch(windows, past, masked, noisy, unseen, self._draw_aims(length))

    def _draw_aims(self, length: int) -> AimedWindows | None:
        """Draw windows to learn choosing actions from; uniformly, as these were chosen."""
        config, generator = self.config, self._aim_generator
        count = round(config.batch_size * config.action_share)
        horizon = self.dynamics.config.goal_horizon
        if not horizon or not count:
            return None
        windows = self.dataset.sample_windows(count, length, event_share=0.0, generator=generator)
        past = _corrupt(windows.tokens, config.corrupted_share, generator)
        shares = config.dropped_share, config.return_share
        aim, known = draw_aims(self.dataset, windows, horizon, shares, generator)
        return AimedWindows(windows, past, aim, known)

    def _hide(self, windows: Windows, num_drafts: int) -> Tensor | None:
        """Choose frames (B, T) that the network does not see: most of every second one."""
        batch, length = windows.tokens.shape[:2]
        count = min(round(batch * self.config.unseen_share), batch - num_drafts)
        if self.dynamics.config.frames_in_flight == 1 or count <= 0:
            return None
        device = self.generator.device
        rows = num_drafts + torch.randperm(
            batch - num_drafts, generator=self.generator, device=device
        )
        noise = torch.rand(batch, length + 1, generator=self.generator, device=device)
        odd = (torch.arange(length, device=device) + (noise[:, length:] < 0.5)) % 2 == 1
        unseen = odd & (noise[:, :length] < _UNSEEN_OF_EVERY_SECOND)
        unseen[:, 1:] &= windows.follows
        unseen[:, 0] = False
        chosen = torch.zeros(batch, 1, dtype=torch.bool, device=device)
        chosen[rows[:count]] = True
        return unseen & chosen

    def _set_priority(self, windows: Windows, losses: Tensor, unseen: Tensor | None) -> None:
        """Note the losses of windows of which the network saw everything."""
        if unseen is not None:
            whole = ~unseen.any(1)
            windows, losses = windows.rows(whole), losses[whole]
        self.dataset.set_priority(windows, losses)

    def _noise(self, tokens: Tensor) -> NoisyPoints:
        """Draw noise levels for frames (R, T - 1, K), and put noise on their points."""
        config, space = self.config, self.dynamics.code_space
        sigma = draw_noise_levels(
            tuple(tokens.shape[:2]), config.log_sigma_mean, config.log_sigma_std, self.generator
        )
        points = self.dynamics.points_of(tokens)
        noise = torch.randn(points.shape, generator=self.generator, device=points.device)
        return NoisyPoints(points + sigma[..., None, None] * noise * space.live, sigma)

    def _follow(self) -> None:
        """Move the average of the weights; it starts fast."""
        decay = min(self.config.ema_decay, self.gradient_step / (self.gradient_step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._parameters, 1 - decay)

    def _check(self, loss: Tensor, norm: Tensor) -> None:
        """Stop before a loss or a gradient that is no number reaches the weights.

        On a GPU several gradient steps are checked at once, and taken back if one was bad.
        """
        self._unchecked.append(torch.stack([loss, norm]))
        if len(self._unchecked) >= self._check_every:
            self._settle()

    def _settle(self) -> None:
        """Look at the losses and norms that nobody has looked at yet."""
        if not self._unchecked:
            return
        values = torch.stack(self._unchecked)
        self._unchecked.clear()
        bad = (~values.isfinite()).any(1)
        if bad.any():
            first = int(bad.nonzero()[0])
            loss, norm = values[first].tolist()
            if self._good:
                self.dynamics.load_state_dict(self._good)
            raise TrainingError(
                f"the dynamics' loss and gradient must stay finite, got {loss} and {norm} at "
                f"gradient step {self._num_checked + first}: lower `learning_rate` or check the "
                "rewards; the last good weights are kept"
            )
        self._num_checked += len(values)
        if self._good:
            self._good = copy.deepcopy(self.dynamics.state_dict())

    def finish(self) -> dict[str, float]:
        """Leave the average of the weights in the network.

        Returns:
            Mean losses over the last tenth of the gradient steps.

        Raises:
            TrainingError: If one of the last losses was not finite.
        """
        self._settle()
        with torch.no_grad():
            for parameter, average in zip(self._parameters, self._average, strict=True):
                parameter.copy_(average)
        self.dynamics.eval()
        if not self._recent:
            return {}
        means = torch.stack(list(self._recent)).mean(0).tolist()
        return dict(zip(self.loss_names, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """All that decides how training goes on.

        Raises:
            TrainingError: If one of the last losses was not finite: no bad state is ever saved.
        """
        self._settle()
        state = {
            "gradient_step": self.gradient_step,
            "dynamics": self.dynamics.state_dict(),
            "average": self._average,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "recent": list(self._recent),
            "events": self._events,
            "priority": self.dataset.priority,
            "generator": self.generator.get_state(),
        }
        if self._proposer:
            state["aim_generator"] = self._aim_generator.get_state()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.gradient_step = int(state["gradient_step"])
        self.dynamics.load_state_dict(state["dynamics"])
        for average, saved in zip(self._average, state["average"], strict=True):
            average.copy_(saved)
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._recent.clear()
        self._recent.extend(losses.to(self.dataset.priority) for losses in state["recent"])
        self.dataset.priority.copy_(state["priority"])
        self._events.copy_(state["events"])
        self.generator.set_state(state["generator"].cpu())
        if self._proposer:
            self._aim_generator.set_state(state["aim_generator"].cpu())
        self._unchecked.clear()
        self._num_checked = self.gradient_step
        if self._good:
            self._good = copy.deepcopy(self.dynamics.state_dict())


def _corrupt(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replace some tokens by those of another window; half of the windows are left clean."""
    batch, device = len(tokens), tokens.device
    strength = torch.rand(batch, 1, 1, generator=generator, device=device)
    rate = 4 * share * (strength - 0.5).clamp(min=0) * 2
    chosen = torch.rand(tokens.shape, generator=generator, device=device) < rate
    other = tokens[torch.randperm(batch, generator=generator, device=device)]
    return torch.where(chosen, other, tokens)
