"""Imports point down only: agents -> envs -> worldgen, and inside worldgen along `LAYERS`."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "worldgen.acting",
            "worldgen.errors",
            "worldgen.interrupts",
            "worldgen.memory",
            "worldgen.muon",
            "worldgen.version",
        }
    ),
    frozenset(
        {
            "worldgen.aftermath",
            "worldgen.config",
            "worldgen.codes",
            "worldgen.compiling",
            "worldgen.minigrid_state",
            "worldgen.seeding",
            "worldgen.spaces",
            "worldgen.two_hot",
        }
    ),
    frozenset(
        {
            "worldgen.actions",
            "worldgen.checkpoint",
            "worldgen.device",
            "worldgen.dynamics_training_config",
            "worldgen.progress",
            "worldgen.transformer",
        }
    ),
    frozenset(
        {
            "worldgen.action_proposer",
            "worldgen.data",
            "worldgen.render",
            "worldgen.training_state",
        }
    ),
    frozenset(
        {
            "worldgen.diffusion",
            "worldgen.hindsight",
            "worldgen.token_novelty",
            "worldgen.tokenizer",
        }
    ),
    frozenset({"worldgen.code_space"}),
    frozenset({"worldgen.dynamics"}),
    frozenset(
        {
            "worldgen.dynamics_batch",
            "worldgen.dynamics_loss",
            "worldgen.dynamics_optimizers",
            "worldgen.event_recall",
            "worldgen.frozen_dynamics",
        }
    ),
    frozenset({"worldgen.dynamics_trainer", "worldgen.inspection", "worldgen.surprise"}),
    frozenset({"worldgen.imagination"}),
    frozenset(
        {
            "worldgen.fit_checkpoint",
            "worldgen.fit_log",
            "worldgen.remote_training",
            "worldgen.rollout",
        }
    ),
    frozenset({"worldgen.dynamics_fit", "worldgen.filling"}),
    frozenset({"worldgen.fitting"}),
    frozenset({"worldgen.world_model"}),
    frozenset({"worldgen.evaluation", "worldgen.rank", "worldgen.run_folder"}),
    frozenset({"worldgen"}),  # worldgen/__init__.py, which re-exports all of the above
    frozenset({"worldgen.envs"}),
    frozenset({"worldgen.agents"}),
    frozenset({"worldgen.cli"}),
    frozenset({"worldgen.__main__"}),
)
"""Bottom to top. A part imports itself and parts of lower layers, never its neighbours."""

RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
MAY_NAME_THE_TYPES_OF = {
    ("worldgen.fitting", "worldgen.world_model"),
    ("worldgen.filling", "worldgen.world_model"),
}
"""Upward arrows that only annotations follow: bodies of `WorldModel.fit` and `fill_in`."""

MAY_USE_SB3 = ("worldgen.envs", "worldgen.agents", "worldgen.cli", "worldgen.__main__")


def imported_names(source: str, *, for_types: bool = True) -> set[str]:
    """The dotted names that a module imports, inside functions too.

    `from a import b` gives `a.b`, be `b` a module or a name in `a`. Without `for_types` what
    stands under `if TYPE_CHECKING:` is left out.
    """
    tree = ast.parse(source)
    if not for_types:
        tree = _WithoutTypes().visit(tree)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


class _WithoutTypes(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node


def longest_known_prefix(name: str, known: Iterable[str]) -> str | None:
    """The longest of `known` that `name` is, or lies in."""
    prefixes = [prefix for prefix in known if f"{name}.".startswith(f"{prefix}.")]
    return max(prefixes, key=len, default=None)


def part_of(name: str) -> str:
    """The part of `LAYERS` that a module or a name in it belongs to."""
    part = longest_known_prefix(name, RANK)
    assert part is not None, f"{name} is not in the library"
    return part


def forbidden_arrows(sources: Mapping[str, str]) -> list[str]:
    """Every import, of `sources` by module name, that the layers do not allow."""
    arrows = []
    for module, source in sources.items():
        at_run_time = imported_names(source, for_types=False)
        for name in sorted(imported_names(source)):
            if name.split(".")[0] == "worldgen":
                here, there = part_of(module), part_of(name)
                excused = (here, there) in MAY_NAME_THE_TYPES_OF and name not in at_run_time
                if here != there and RANK[there] >= RANK[here] and not excused:
                    arrows.append(f"{module} imports {name}")
            elif name.split(".")[0] == "stable_baselines3" and not module.startswith(MAY_USE_SB3):
                arrows.append(f"{module} imports {name}")
    return arrows


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """For each module the modules that it imports when it runs."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = imported_names(source, for_types=False)
        found = {longest_known_prefix(name, sources) for name in names}
        graph[module] = {name for name in found if name not in (None, module)}
    return graph


@pytest.fixture(scope="module")
def sources(library_modules: dict[str, Path]) -> dict[str, str]:
    return {name: path.read_text() for name, path in library_modules.items()}


def test_no_import_points_up(sources: dict[str, str]) -> None:
    arrows = forbidden_arrows(sources)
    assert not arrows, "\n".join(arrows)


def test_no_import_goes_round(sources: dict[str, str]) -> None:
    order = tuple(graphlib.TopologicalSorter(import_graph(sources)).static_order())
    assert set(order) == set(sources)


def test_every_part_has_exactly_one_layer(sources: dict[str, str]) -> None:
    parts = {".".join(name.split(".")[:2]) for name in sources}
    assert sum(map(len, LAYERS)) == len(RANK)
    assert parts - set(RANK) == set(), "not in LAYERS"
    assert set(RANK) - parts == set(), "in LAYERS and not in the tree"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("worldgen.spaces", "import worldgen.envs"),
        ("worldgen.spaces", "from worldgen import WorldModel"),
        ("worldgen.data.collect", "from worldgen.world_model import WorldModel"),
        ("worldgen.tokenizer.vector", "from worldgen.diffusion import MaskedDiffusion"),
        ("worldgen.world_model", "def late():\n    from worldgen.evaluation import evaluate"),
        ("worldgen.evaluation.fidelity", "from worldgen import agents"),
        ("worldgen.spaces", "if TYPE_CHECKING:\n    from worldgen.data import Episodes"),
        ("worldgen.fitting", "from worldgen.world_model import WorldModel"),
        ("worldgen.envs.imagined", "from worldgen.agents.dream_ppo import DreamPPO"),
        ("worldgen.envs", "import worldgen.cli"),
        ("worldgen.data.collect", "from stable_baselines3.common.vec_env import VecEnv"),
    ],
)
def test_an_arrow_that_points_up_is_found(module: str, source: str) -> None:
    assert len(forbidden_arrows({module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("worldgen.world_model", "from worldgen.tokenizer import Tokenizer"),
        ("worldgen.tokenizer.tokenizer", "from worldgen.tokenizer.vector import Vector"),
        ("worldgen.fitting", "if TYPE_CHECKING:\n    from worldgen.world_model import WorldModel"),
        ("worldgen.envs.imagined", "from worldgen import WorldModel, errors\nimport torch"),
        ("worldgen.agents.dream_ppo", "from stable_baselines3 import PPO\nimport worldgen.envs"),
        ("worldgen.cli.train", "from worldgen.agents import DreamPPO"),
    ],
)
def test_an_arrow_that_points_down_is_allowed(module: str, source: str) -> None:
    assert forbidden_arrows({module: source}) == []


def test_a_circle_of_imports_is_found() -> None:
    circle = {
        "worldgen.data.a": "from worldgen.data.b import f",
        "worldgen.data.b": "import worldgen.data.a",
    }
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(circle)).prepare()


def test_nobody_imports_the_folders_by_their_own_names(repository: Path) -> None:
    folders = ("worldgen", "envs", "agents", "tests", "benchmarks")
    files = [path for folder in folders for path in (repository / folder).rglob("*.py")]
    guilty = [
        str(path.relative_to(repository))
        for path in files
        if {name.split(".")[0] for name in imported_names(path.read_text())} & {"agents", "envs"}
    ]
    assert guilty == []
