"""worldgen: learn an environment, dream it, and train agents in the dream.

>>> import worldgen
>>> episodes = worldgen.collect("CartPole-v1", num_steps=64, seed=0, progress=False)
>>> model = worldgen.WorldModel.for_env("CartPole-v1")
>>> result = model.fit(episodes, tokenizer_steps=5, dynamics_steps=2, progress=False)
>>> tuple(model.encode(episodes[0].observations["observation"]).shape)[1:]
(4,)

The Gymnasium side is `worldgen.envs`, the Stable-Baselines3 side `worldgen.agents`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worldgen.version import __version__

if TYPE_CHECKING:
    from worldgen.data.collect import collect
    from worldgen.data.environment import EnvironmentSpec, make_env
    from worldgen.data.episode import Episode
    from worldgen.data.episodes import Episodes
    from worldgen.data.token_dataset import Context
    from worldgen.diffusion.sampler_config import SamplerConfig
    from worldgen.evaluation.fidelity import FidelityReport, evaluate
    from worldgen.filling import AimedRollout
    from worldgen.rollout import Rollout
    from worldgen.tokenizer.tokenizer import Tokenizer
    from worldgen.tokenizer.tokenizer_config import TokenizerConfig
    from worldgen.world_model import WorldModel, WorldModelConfig

__all__ = [
    "AimedRollout",
    "Context",
    "EnvironmentSpec",
    "Episode",
    "Episodes",
    "FidelityReport",
    "Rollout",
    "SamplerConfig",
    "Tokenizer",
    "TokenizerConfig",
    "WorldModel",
    "WorldModelConfig",
    "__version__",
    "collect",
    "evaluate",
    "make_env",
]

_HOMES = {
    "Context": "worldgen.data.token_dataset",
    "EnvironmentSpec": "worldgen.data.environment",
    "Episode": "worldgen.data.episode",
    "Episodes": "worldgen.data.episodes",
    "FidelityReport": "worldgen.evaluation.fidelity",
    "AimedRollout": "worldgen.filling",
    "Rollout": "worldgen.rollout",
    "SamplerConfig": "worldgen.diffusion.masked_diffusion",
    "Tokenizer": "worldgen.tokenizer.tokenizer",
    "TokenizerConfig": "worldgen.tokenizer.tokenizer_config",
    "WorldModel": "worldgen.world_model",
    "WorldModelConfig": "worldgen.world_model",
    "collect": "worldgen.data.collect",
    "evaluate": "worldgen.evaluation.fidelity",
    "make_env": "worldgen.data.environment",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `worldgen --help` need not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'worldgen' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
