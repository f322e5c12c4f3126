"""PPO that learns in a dream of its environment.

Classes:
    DreamPPO.

Loop: World Models, Ha and Schmidhuber 2018, https://arxiv.org/abs/1803.10122; SimPLe, Kaiser et
al. 2019, https://arxiv.org/abs/1903.00374. Learner: PPO, Schulman et al. 2017,
https://arxiv.org/abs/1707.06347, as Stable-Baselines3 has it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from worldgen.agents.callbacks import phase_callbacks
from worldgen.agents.configured import configured
from worldgen.agents.dream_config import DreamConfig, refuse_model_steps
from worldgen.agents.dream_defaults import DreamDefaults, dream_defaults, observation_space_of
from worldgen.agents.dream_training import (
    DreamProgress,
    best_gain,
    is_paid,
    shrink_logits,
    train_in_dream,
    whole_rollouts,
)
from worldgen.agents.dream_trust import (
    dreamt_returns,
    foreseen,
    returns_ahead,
    trusted_horizon,
)
from worldgen.agents.extractors import SymbolicExtractor, standardise_numbers
from worldgen.agents.real_update import train_on_real
from worldgen.agents.remembering_ppo import RememberingPPO, policy_with_memory
from worldgen.agents.round_returns import RoundReturns
from worldgen.config import require
from worldgen.data.environment import EnvLike
from worldgen.data.episodes import Episodes
from worldgen.device import resolve_device
from worldgen.envs import ImaginedVecEnv
from worldgen.memory import release_memory
from worldgen.progress import Progress
from worldgen.seeding import derived_seed
from worldgen.world_model import WorldModel, WorldModelConfig

__all__ = ["DreamPPO"]

_CHECKPOINT_EVERY = 100
"""Gradient steps of the world model between two writes of `fit_checkpoint`."""
_PROMISE = 0.25
"""How much more than reality a dream may bring, as a share of the best real gain."""


class DreamPPO(RememberingPPO):
    """Collect real episodes, fit a world model, train by PPO in its dreams; again and again.

    To its user it is an SB3 algorithm. `total_timesteps` and `num_timesteps` count real
    environment steps, and callbacks see these; what PPO learns from is imagined, counted by
    `imagined_timesteps`. The first collection acts at random, later ones by the policy. The
    last collection is followed by a fit and a dream like any other.

    All rows of the environment step together. `learn` therefore makes the largest multiple of
    the number of rows that is not over `total_timesteps`, and never more; a collection is
    rounded up to a multiple, within that limit.

    With equal seeds, two trainings on one machine give equal weights. To that end the global
    generators, which SB3 samples actions from, are seeded before each phase.

    >>> agent = DreamPPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu", initial_steps=64,
    ...     tokenizer_steps=5, initial_model_steps=2, initial_dream_steps=2048)
    >>> agent = agent.learn(64)
    >>> agent.num_timesteps, agent.imagined_timesteps, agent.episodes.num_steps
    (64, 2048, 64)

    Args:
        policy: As in SB3. "MultiInputPolicy" and "MlpPolicy" read observations by
            `SymbolicExtractor` unless `policy_kwargs` says otherwise, which standardises vectors
            of numbers by the first real episodes; `policy_kwargs={"features_extractor_kwargs":
            {"standardises": False}}` leaves them as they are. With `memory=True` the two names
            are the same, since what the policy reads is a Dict.
        env: A Gymnasium id, an `EnvironmentSpec` or a function that makes the environment, for
            `n_envs` rows; an environment; or an SB3 `VecEnv` of prepared environments. None
            with `episodes`, whose spaces are taken, for `train_offline`.
        config: Numbers of the loop and of PPO; single ones may be given as keywords instead.
            None takes those of `dream_defaults`, which suit what the environment shows.
        model_config: Settings of the world model; its numbers of gradient steps are left at
            their defaults, since those of `config` are used. None as for `config`.
        world_model: A world model to go on with, in place of a new one.
        episodes: Episodes to begin with; with them, `initial_steps` may be 0.
        episodes_path: Folder into which episodes are written as they end, which must be new.
        n_envs: Rows of the real environment; None as for `config`.
        policy_kwargs: As in SB3.
        stats_window_size: Episodes over which `rollout/ep_rew_mean` is taken.
        tensorboard_log: TensorBoard folder, or None.
        verbose: 0 for no output, 1 for a table a round.
        seed: Of everything; None for a different training each time.
        device: Of policy and world model; "auto" is CUDA when there is one.
        **overrides: Fields of `DreamConfig`.

    Attributes:
        round_metrics: What the phases of the newest round have given so far, by name.
        fit_checkpoint: File for the state of a fit that is going on, so that one which is killed
            goes on where it stood; None, at first, keeps none. Whoever sets it removes the file
            once the agent is saved after the fit. It is not saved with the agent.

    Raises:
        ConfigError: If an argument is out of range or unknown, or the policy is not one for the
            environment's kind of observation.
        SpaceError: If the environment's spaces are not supported or not the model's.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: EnvLike | VecEnv | None,
        *,
        config: DreamConfig | None = None,
        model_config: WorldModelConfig | None = None,
        world_model: WorldModel | None = None,
        episodes: Episodes | None = None,
        episodes_path: str | pathlib.Path | None = None,
        n_envs: int | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **overrides: Any,
    ) -> None:
        if _init_setup_model:
            rule = "be given without `episodes`"
            require(env is not None or episodes is not None, "env", rule, env)
            if world_model is not None and model_config is not None:
                rule = "be left out with a `world_model` that has other settings"
                require(model_config == world_model.config, "model_config", rule, model_config)
            usual = _defaults(env, episodes)
            config, model_config = config or usual.config, model_config or usual.model_config
            n_envs = usual.n_envs if n_envs is None else n_envs
        self.config = configured("DreamPPO", config or DreamConfig(), overrides)
        refuse_model_steps(model_config or WorldModelConfig())
        self.phase, self.round, self.imagined_timesteps = "collect", 0, 0
        self.round_metrics: dict[str, float] = {}
        self.dream_horizon = self.config.horizon
        self._returns, self._noted_round = RoundReturns(), -1
        self._is_paid = False  # whether real rewards have said something
        self._doubts_model = False  # whether its dreams promise more than reality keeps
        self._far_gamma: float | None = None  # what `gamma` was before the policy was stuck
        self._show_progress = False
        self.fit_checkpoint: pathlib.Path | None = None
        self._entropy = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._model_config, self._world_model = model_config, world_model
        if world_model is not None and device == "auto":
            device = world_model.device
        device = resolve_device(device)
        if policy in ("MlpPolicy", "MultiInputPolicy"):
            policy_kwargs = {"features_extractor_class": SymbolicExtractor, **(policy_kwargs or {})}
        if self.config.memory:
            policy = policy_with_memory(policy, policy_kwargs)
        super().__init__(
            policy,
            env,
            episodes=episodes,
            episodes_path=episodes_path,
            n_envs=1 if n_envs is None else n_envs,
            learning_rate=self.config.learning_rate,
            n_steps=self.config.n_steps,
            batch_size=self.config.n_steps,  # passes SB3's check for any number of real rows
            n_epochs=self.config.n_epochs,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
            clip_range=self.config.clip_range,
            ent_coef=self.config.ent_coef,
            vf_coef=self.config.vf_coef,
            max_grad_norm=self.config.max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.batch_size = self.config.batch_size
        if _init_setup_model:
            rule = "be at least 1 without `episodes`"
            first = self.config.initial_steps
            require(first > 0 or len(self.episodes) > 0, "initial_steps", rule, first)
            self._setup_model()

    def _maybe_recommend_cpu(self, mlp_class_name: str = "") -> None:
        """Say nothing: the world model makes good use of a GPU."""

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "DreamPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Collect, fit and dream until the real environment steps are used up.

        A phase that an earlier call left unfinished is finished first. With
        `reset_num_timesteps` the counters and the environment begin anew, while policy, world
        model and episodes go on.

        Args:
            total_timesteps: Real environment steps to make.
            callback: Sees each step of the real rows; a `PhaseCallback` the phases too. Where
                `on_step` or `on_phase_end` returns False, the training stops.
            log_interval: Rounds from one entry in the log to the next; 0 for none.
            tb_log_name: Name of the run in TensorBoard.
            reset_num_timesteps: False to go on counting.
            progress_bar: Whether to show a progress bar a phase.

        Raises:
            ConfigError: If there is no environment, or `total_timesteps` is too small for one
                step of its rows.
            DatasetError: If the episodes of a loaded agent are missing.
        """
        env = self._checked_env()
        if reset_num_timesteps:
            rule = f"be at least {self.n_envs}, the environment's rows"
            require(total_timesteps >= self.n_envs, "total_timesteps", rule, total_timesteps)
            self.imagined_timesteps = 0
            self._forget_returns()
        elif self._last_obs is None:  # loaded: not the seeds of the beginning again
            self._seed_rows(env)
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name
        )
        self._show_progress = progress_bar
        callback.on_training_start(locals(), globals())
        while self.phase != "collect" or total_timesteps - self.num_timesteps >= env.num_envs:
            done = self.round
            goes_on = self._run_phase(callback)
            if self.round > done and log_interval and self.round % log_interval == 0:
                self.dump_logs(self.round)
            if not goes_on:
                break
        callback.on_training_end()
        return self

    def _run_phase(self, callback: BaseCallback) -> bool:
        """Run the phase that is due; false if a callback wants to stop."""
        phase, observers = self.phase, list(phase_callbacks(callback))
        if self.seed is not None:
            # SB3 samples actions from the global generator; seeded here, a phase does not
            # depend on what was drawn before it, in this process or in the one that saved.
            seed = derived_seed(self.seed, phase, self.round, self.num_timesteps) % 2**32
            set_random_seed(seed, using_cuda=self.device.type == "cuda")
        for observer in observers:
            observer.on_phase_start(phase)
        if phase == "collect":
            metrics = self._collect_phase(callback)
            if metrics is None:
                return False
            self.phase = "fit"
        elif phase == "fit":
            metrics = self._fit_phase()
            self.phase = "dream"
        else:
            metrics = self._dream_phase()
            self.phase, self.round, self._round_timesteps = "collect", self.round + 1, 0
        self.round_metrics = {**({} if phase == "collect" else self.round_metrics), **metrics}
        release_memory()
        results = [observer.on_phase_end(phase, metrics) for observer in observers]
        release_memory()
        return all(result is not False for result in results)

    def _collect_phase(self, callback: BaseCallback) -> dict[str, float] | None:
        """Make this round's real environment steps; None if a callback broke it off."""
        goal = self.config.initial_steps if self.round == 0 else self.config.steps_per_round
        missing = max(0, goal - self._round_timesteps)
        if self.config.fresh_rounds:
            self._begin_rows()
        left = self._total_timesteps - self.num_timesteps
        num_vec_steps = min(-(-missing // self.n_envs), left // self.n_envs)
        seed = derived_seed(self._entropy, "actions", self.num_timesteps)
        choose = self._random_actions(seed) if self.round == 0 else self._policy_actions()
        with self._progress("collect", num_vec_steps * self.n_envs) as bar:
            if not self._collect(num_vec_steps, choose, callback, bar):
                return None
        return {
            "real_timesteps": float(self.num_timesteps),
            "episodes": float(len(self.episodes)),
            **self._recent(ep_rew_mean="r", ep_len_mean="l"),
            **self._measure_trust(),
        }

    def _measure_trust(self) -> dict[str, float]:
        """Let the model foresee what was just collected, and cut dreams by the result."""
        config, longest = self.config, self.config.horizon
        if not self.round or not self._round_timesteps:
            return {}
        seed = derived_seed(self._entropy, "foresee", self.round)
        newest = self._newest()
        right = foreseen(self.world_model, newest, longest, seed)
        self.dream_horizon = trusted_horizon(
            right, longest, config.least_right, min(config.shortest_horizon, longest)
        )
        metrics = {f"unseen/right_after_{horizon}": share for horizon, share in right.items()}
        metrics["dream/horizon"] = float(self.dream_horizon)
        metrics |= self._measure_promise(newest)
        self._record(metrics)
        return metrics

    def _measure_promise(self, newest: Episodes) -> dict[str, float]:
        """Dream on from the newest real moments: a model is doubted that promises too much.

        An agent that does not get on in reality may get on in its dream wherever that is wrong, and
        would never learn what to do about it.
        """
        config = self.config
        if config.doubted_model_steps <= config.model_steps_per_round:
            return {}
        brought = returns_ahead(newest, config.horizon)
        if not len(brought):
            return {}
        dream = self._dream(newest, config.horizon, "promise")
        dreamt = float(dreamt_returns(self.policy, dream).mean())
        real, gain = float(brought.mean()), best_gain(self.episodes)
        self._doubts_model = gain > 0 and dreamt - real > _PROMISE * gain
        return {
            "unseen/real_return": real,
            "unseen/dreamt_return": dreamt,
            "unseen/doubted": float(self._doubts_model),
        }

    def _seed_rows(self, env: VecEnv) -> None:
        env.seed(derived_seed(self._entropy, "rows", self.num_timesteps) % 2**31)

    def _begin_rows(self) -> None:
        """Begin an episode in each row, which depends on the seed and the counters alone."""
        env = self._checked_env()
        self._seed_rows(env)
        self._last_obs = env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(env.num_envs, dtype=bool)

    def _fit_phase(self) -> dict[str, float]:
        first, config = self.round == 0, self.config
        steps = config.initial_model_steps if first else config.model_steps_per_round
        if self._doubts_model:
            steps = max(steps, config.doubted_model_steps)
        result = self.world_model.fit(
            self.episodes,
            tokenizer_steps=config.tokenizer_steps,
            dynamics_steps=steps,
            progress=self._show_progress,
            checkpoint=self.fit_checkpoint,
            checkpoint_every=_CHECKPOINT_EVERY,
        )
        self._doubts_model = False
        if first:
            standardise_numbers(self.policy, self.episodes)
        self._record({f"model/{name}": value for name, value in result.metrics.items()})
        return dict(result.metrics)

    def _dream_phase(self) -> dict[str, float]:
        first = self.round == 0
        timesteps = self.config.initial_dream_steps if first else self.config.dream_steps_per_round
        at_round_start = self.num_timesteps - self._round_timesteps
        self._update_current_progress_remaining(at_round_start, max(1, self._total_timesteps))
        silent = self._silent_novelty()
        weight = silent or self._novelty()
        dream = self._dream(
            self.episodes,
            self.dream_horizon,
            "dream",
            novelty=weight,
            novelty_repeats=silent > 0,
            start_config=self.config.starts,
        )
        from_real = self._learn_from_real(dream)
        tries_again = self._tries_again()
        dreams_on = self._returns.were_stuck and self._round_timesteps > 0
        rollout = self.n_steps * self.config.dream_envs
        with self._progress("dream", whole_rollouts(timesteps, rollout)) as bar:
            self.imagined_timesteps, metrics = train_in_dream(
                self,
                dream,
                timesteps,
                imagined_timesteps=self.imagined_timesteps,
                most=self.config.stuck_dream_steps if dreams_on else 0,
                callback=DreamProgress(bar),
            )
        metrics = {
            **metrics,
            **from_real,
            "dream/tries_again": float(tries_again),
            "dream/novelty": weight,
        }
        self._record(metrics)
        return metrics

    def _dream(
        self, starts: Episodes, horizon: int, purpose: str, **settings: Any
    ) -> ImaginedVecEnv:
        """Make this round's dreams for a purpose, which has random numbers of its own."""
        return ImaginedVecEnv(
            self.world_model,
            self.config.dream_envs,
            horizon,
            starts=starts,
            memory=self.config.memory,
            seed=derived_seed(self._entropy, purpose, self.round),
            **settings,
        )

    def _silent_novelty(self) -> float:
        """Give the weight of the bonus as long as real rewards say nothing, else 0.

        Once they have, they have for good, though good rewards may become the usual ones. Without
        a collection nobody would see what the bonus leads to.
        """
        weight = self.config.silent_novelty
        if weight and not self._is_paid:
            self._is_paid = is_paid(self.episodes, weight)
        return weight if self._round_timesteps and not self._is_paid else 0.0

    def _novelty(self) -> float:
        """Give the weight of the bonus in the reward's own units.

        A goal that was reached late brought little. With a bonus of a fixed size an agent would
        rather look at what is rare than go there.
        """
        gain = best_gain(self.episodes) if self.config.novelty else 0.0
        return self.config.novelty * (gain or 1.0)

    def _learn_from_real(self, dream: ImaginedVecEnv) -> dict[str, float]:
        """Train on what the policy did in this round; in the first one it did nothing."""
        dreams_again = self._noted_round == self.round
        if dreams_again or not (self.config.real_epochs and self.round and self._round_timesteps):
            return {}
        return train_on_real(self, self._newest(), dream, self.config.real_epochs)

    def _newest(self) -> Episodes:
        """Give this round's real episodes."""
        return self.episodes.since(self.episodes.num_steps - self._round_timesteps)

    def _tries_again(self) -> bool:
        """Note what the round's real episodes brought; let a policy that is stuck try again.

        Its logits are shrunk, and from the first time on it looks less far ahead and dreams longer.

        Episodes that the collection cut count with what they had. Behind the last collection there
        is no round that would tell whether it was worth it.
        """
        if not self._round_timesteps or self._noted_round == self.round:
            return False  # no collection, or a dream that was broken off and is made again
        self._noted_round = self.round
        brought = float(np.mean([episode.total_reward for episode in self._newest()]))
        self._record({"rollout/round_return": brought})
        if self.round == 0:
            self._returns.random = brought
            return False
        self._returns.by_policy.append(brought)
        is_last = self._total_timesteps - self.num_timesteps < self.n_envs
        if is_last or not self._returns.are_stuck(self.config.patience):
            return False
        self._returns.try_again()
        looks_nearer = self.gamma > self.config.stuck_gamma
        if looks_nearer:
            self._far_gamma, self.gamma = self.gamma, self.config.stuck_gamma
        return shrink_logits(self.policy, self.config.logit_shrink) or looks_nearer

    def _forget_returns(self) -> None:
        """Begin to watch whether the policy gets better."""
        if self._far_gamma is not None:
            self.gamma, self._far_gamma = self._far_gamma, None
        self._returns = RoundReturns(random=self._returns.random)

    def _record(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.logger.record(name, value)

    def _progress(self, phase: str, total: int) -> Progress:
        return Progress(f"round {self.round + 1}: {phase}", total, enabled=self._show_progress)

    @classmethod
    def _changes(cls, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        fields = {field.name for field in dataclasses.fields(DreamConfig)}
        overrides = {name: value for name, value in wanted.items() if name in fields}
        config = configured(f"{cls.__name__}.load", saved["config"], overrides)
        # PPO's own numbers are attributes, and fields of the config too.
        attributes = {
            name: value for name, value in wanted.items() if name in saved or name not in fields
        }
        return {"config": config, **attributes}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_world_model", "fit_checkpoint"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer", "world_model"], []


def _defaults(env: EnvLike | VecEnv | None, episodes: Episodes | None) -> DreamDefaults:
    if env is not None:
        return dream_defaults(observation_space_of(env))
    assert episodes is not None
    return dream_defaults(episodes.observation_space, offline=True)
