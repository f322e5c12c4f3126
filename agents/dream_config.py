"""Numbers of the loop that `DreamPPO` runs.

Classes:
    DreamConfig.

Functions:
    refuse_model_steps: the world model's own numbers of gradient steps, which are not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from worldgen.config import Config, require
from worldgen.envs.dream_starts import StartConfig
from worldgen.world_model import WorldModelConfig

__all__ = ["DreamConfig", "refuse_model_steps"]


@dataclass(frozen=True, kw_only=True)
class DreamConfig(Config):
    """How much of what `DreamPPO` does in a round, and PPO's own numbers in the dream.

    Steps are environment steps, real or imagined, unless the field says gradient steps. What
    each field is for stands beneath it in the source; `worldgen train --help` says it too.
    """

    initial_steps: int = 1_000
    """Real environment steps of the first collection, with random actions."""
    steps_per_round: int = 500
    """Real environment steps of each later collection, with the policy's actions."""
    tokenizer_steps: int = 1_000
    """Most gradient steps of the tokenizer in a fit; later fits leave it alone as long as it
    loses nothing of the new episodes."""
    initial_model_steps: int = 300
    """Gradient steps of the dynamics in the first fit."""
    model_steps_per_round: int = 100
    """Gradient steps of the dynamics in each later fit."""
    doubted_model_steps: int = 400
    """Gradient steps of the dynamics, if they are more, in a fit after a round in which dreams of
    the policy's newest real moments brought more than reality did: by over a quarter of how much
    better than the usual reward the best real one was. 0 for no difference, and no such dreams."""
    initial_dream_steps: int = 20_000
    """Imagined environment steps of the first dream, all worlds together; rounded up to whole
    PPO rollouts of `n_steps * dream_envs`."""
    dream_steps_per_round: int = 20_000
    """Imagined environment steps of each later dream."""
    dream_envs: int = 64
    """Worlds that are dreamt at once."""
    horizon: int = 32
    """Most environment steps of a dream; values are bootstrapped behind it."""
    shortest_horizon: int = 8
    """Dreams are no shorter than this, however little the model can be trusted."""
    least_right: float = 0.0
    """Dreams end where fewer of the model's dreams of the newest real episodes, which it was not
    yet trained on, were right; 0 lets them go on to `horizon`. The shares are logged either way."""
    novelty: float = 0.05
    """Weight of the bonus in dreams for tokens that few real episodes have shown, and for actions
    that few have tried in front of them; see `silent_novelty` too. It is a share of how much better
    than the usual reward the best real one was, or of 1 as long as none was better."""
    silent_novelty: float = 0.0
    """Weight of that bonus, in place of `novelty`, as long as the real rewards say nothing: none
    was better than the usual one (where they are all different, by over this weight), and no
    episode has come to an end that is better than going on. It is then paid each time, not for the
    first time in an episode alone, so that a critic can learn it. 0 for none."""
    starts: StartConfig = StartConfig(first_share=0.25, rare_share=0.25, recent_share=0.25)
    """Which real moments dreams start at."""
    memory: bool = False
    """Whether the policy sees the model's own summary of the past beside the newest frame, in
    dreams and in the real environment: for tasks that ask for what is no longer in sight."""
    fresh_rounds: bool = True
    """Whether each collection begins new episodes in all rows, rather than going on with those of
    the last one: an agent that is stuck sees more of the environment so."""
    n_steps: int = 32
    """Imagined environment steps of each world between two updates of the policy."""
    batch_size: int = 256
    """Transitions in a minibatch."""
    n_epochs: int = 8
    """Passes over each rollout."""
    real_epochs: int = 0
    """Passes over the real environment steps that the policy has just made, before the dream."""
    learning_rate: float = 5e-4
    """Of the policy; the optimizer's state is kept from round to round."""
    logit_shrink: float = 0.3
    """What the policy's logits are multiplied by when it no longer gets better, so that it tries
    again what it gave up; 1 leaves them. Continuous actions have none."""
    patience: int = 2
    """Rounds without a better mean return in the real environment after which that is done."""
    gamma: float = 0.98
    """Discount."""
    stuck_gamma: float = 0.95
    """Discount, if it is the smaller one, from the first time on that the policy no longer gets
    better: a dream that forgets lets an agent wait for something better, which pays less so."""
    stuck_dream_steps: int = 180_000
    """Most imagined environment steps of a dream from then on, where that is at least twice the
    usual ones: it goes on by the usual ones, at least once, as long as its mean return rises; 0
    turns that off."""
    gae_lambda: float = 0.95
    """Bias and variance of the advantages (GAE)."""
    clip_range: float = 0.2
    """Of the probability ratio."""
    ent_coef: float = 0.02
    """Weight of the entropy bonus: an agent that has made up its mind in the dream learns little
    from the real environment."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.n_steps >= 2, "n_steps", "be at least 2", self.n_steps)
        for name in (
            "steps_per_round",
            "dream_envs",
            "horizon",
            "shortest_horizon",
            "n_epochs",
            "patience",
        ):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        amounts = (
            "real_epochs",
            "initial_steps",
            "tokenizer_steps",
            "initial_model_steps",
            "model_steps_per_round",
            "doubted_model_steps",
            "initial_dream_steps",
            "dream_steps_per_round",
            "stuck_dream_steps",
            "ent_coef",
            "vf_coef",
            "novelty",
            "silent_novelty",
        )
        for name in amounts:
            require(getattr(self, name) >= 0, name, "be at least 0", getattr(self, name))
        for name in ("gamma", "stuck_gamma", "gae_lambda", "least_right", "logit_shrink"):
            require(0 <= getattr(self, name) <= 1, name, "be in [0, 1]", getattr(self, name))
        for name in ("learning_rate", "clip_range", "max_grad_norm"):
            require(getattr(self, name) > 0, name, "be over 0", getattr(self, name))
        rollout = self.dream_envs * self.n_steps
        rule = f"be in [2, dream_envs * n_steps = {rollout}]"
        require(2 <= self.batch_size <= rollout, "batch_size", rule, self.batch_size)


def refuse_model_steps(
    model: WorldModelConfig,
    setting: Callable[[str], str] = "model_config.{}".format,
    instead: Callable[[str], str] = "DreamConfig.{}".format,
) -> None:
    """Make sure that nobody sets numbers of gradient steps that `DreamPPO` does not use.

    Args:
        model: Settings of the world model.
        setting: How the caller's user spells a field of these settings.
        instead: How the user spells a field of `DreamConfig`.

    Raises:
        ConfigError: If one is not the default; the message names the field to use instead.
    """
    default = WorldModelConfig()
    for name, value, usual, fields in (
        (
            "training.gradient_steps",
            model.training.gradient_steps,
            default.training.gradient_steps,
            ("initial_model_steps", "model_steps_per_round"),
        ),
        (
            "tokenizer_gradient_steps",
            model.tokenizer_gradient_steps,
            default.tokenizer_gradient_steps,
            ("tokenizer_steps",),
        ),
    ):
        use = " and ".join(f"`{instead(field)}`" for field in fields)
        rule = f"be left out, since DreamPPO does not use it: set {use} instead"
        require(value == usual, setting(name), rule, value)
