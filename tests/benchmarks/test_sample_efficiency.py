"""The comparison of agents by real environment steps: its rules, its report, its resumption."""

from __future__ import annotations

import itertools
import json
import struct
from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN
from worlds import DictWorld

from benchmarks import sample_efficiency
from benchmarks.learning_curve import (
    AfterDreams,
    AfterRollouts,
    Goal,
    LearningCurve,
    TrainingClock,
)
from benchmarks.sample_efficiency import SampleEfficiencyConfig, main
from benchmarks.sample_efficiency_arms import acting_policy
from benchmarks.sample_efficiency_report import break_even, write_report
from benchmarks.sample_efficiency_tasks import TASKS, DqnConfig, DreamArm, Task, task_named
from tests.agents.small_agents import GRID, SHORT, TINY, make_agent
from worldgen.agents import AgentResult, BaselineConfig, DreamConfig, baseline_ppo
from worldgen.data import EnvironmentSpec
from worldgen.errors import ConfigError, EnvironmentIdError

pytest.importorskip("matplotlib")


def result_of(success: float | None, mean_return: float = 0.0) -> AgentResult:
    return AgentResult(
        mean_return=mean_return,
        std_return=0.0,
        success_rate=success,
        mean_length=3.0,
        returns=(mean_return,),
        lengths=(3,),
    )


def scripted(successes: list[float], goal: Goal | None = None, **arguments) -> LearningCurve:
    """Give a curve whose evaluations are known; the last one is repeated."""
    left = list(successes)
    return LearningCurve(
        lambda _: result_of(left.pop(0) if len(left) > 1 else left[0]),
        goal or Goal(),
        **arguments,
    )


def walked(successes: list[float]) -> LearningCurve:
    """Evaluate every 100 steps, until solved or out of evaluations."""
    wall, processor = itertools.count(1), itertools.count(1)
    curve = scripted(successes, clock=TrainingClock(wall.__next__, processor.__next__))
    curve.clock.start()
    for number in range(len(successes)):
        if curve.add(SimpleNamespace(num_timesteps=100 * (number + 1))):
            break
    return curve


def test_it_takes_two_good_evaluations_in_a_row():
    found = walked([0.5, 0.95, 0.89, 0.9, 0.2, 0.9, 1.0, 1.0]).to_dict()
    assert found["solved"]
    assert (found["real_steps"], found["first_good"]) == (700, 600)
    assert [point["real_steps"] for point in found["curve"]] == list(range(100, 701, 100))


def test_one_good_evaluation_at_the_end_is_not_enough():
    found = walked([0.9, 0.0, 0.9]).to_dict()
    assert not found["solved"]
    assert (found["real_steps"], found["first_good"]) == (300, None)


def test_a_goal_is_a_share_of_successes_or_a_mean_return():
    assert Goal().reached(result_of(0.9))
    assert not Goal().reached(result_of(0.89))
    assert not Goal().reached(result_of(None, 1e9))
    assert Goal(mean_return=475).reached(result_of(None, 475.0))
    assert not Goal(mean_return=475).reached(result_of(1.0, 474.9))


def test_the_clock_stands_still_during_evaluations():
    now = [0.0]

    def wait(seconds, agent=None):
        now[0] += seconds
        return result_of(1.0)

    clock = TrainingClock(wall=lambda: now[0], processor=lambda: now[0] / 2)
    curve = LearningCurve(lambda agent: wait(50), Goal(), clock)
    wait(7)  # before the training
    clock.start()
    for seconds in (3, 4):
        wait(seconds)
        curve.add(SimpleNamespace(num_timesteps=1))
    assert [point["seconds"] for point in curve.points] == [3, 7]
    assert [point["cpu_seconds"] for point in curve.points] == [1.5, 3.5]
    assert clock.stop() == clock.stop() == (7, 3.5)


PPO_CONFIG = BaselineConfig(n_envs=4, n_steps=16, batch_size=32, n_epochs=1)


def test_ppo_is_evaluated_between_rollouts_and_at_the_end():
    curve = scripted([0.0])
    baseline_ppo(GRID, PPO_CONFIG, seed=0).learn(400, callback=AfterRollouts(curve, every=100))
    assert [point["real_steps"] for point in curve.points] == [128, 256, 384, 448]
    assert curve.points[-1]["seconds"] > 0


def test_ppo_stops_when_the_task_is_solved():
    curve = scripted([0.0, 1.0, 1.0])
    agent = baseline_ppo(GRID, PPO_CONFIG, seed=0)
    agent.learn(10_000, callback=AfterRollouts(curve, every=64))
    assert curve.to_dict()["real_steps"] == 192
    assert agent.num_timesteps == 196  # one step of the 4 rows that nobody learns from


def test_evaluations_do_not_change_what_ppo_learns():
    def trained(every):
        def evaluate(agent):
            return sample_efficiency.evaluate_agent(agent, GRID, 3)

        curve = LearningCurve(evaluate, Goal())
        agent = baseline_ppo(GRID, PPO_CONFIG, seed=0)
        agent.learn(256, callback=AfterRollouts(curve, every))
        return agent.policy.state_dict()

    often, once = trained(64), trained(1_000)
    assert all((often[name] == once[name]).all() for name in once)


def test_dream_ppo_is_evaluated_after_each_round():
    curve = scripted([0.0, 1.0])
    make_agent().learn(1_000, AfterDreams(curve))
    assert [point["real_steps"] for point in curve.points] == [64, 96, 128]
    assert curve.solved


def test_dqn_plays_with_its_last_epsilon_row_by_row():
    env = gym.wrappers.FlattenObservation(DictWorld())
    agent = DQN("MlpPolicy", env, exploration_final_eps=0.25, buffer_size=10, device="cpu")
    assert agent.exploration_rate == 0.0
    batch = np.repeat(env.reset(seed=0)[0][None], 4_000, axis=0)
    greedy = agent.predict(batch[:1], deterministic=True)[0][0]
    actions, again = (played(agent, batch) for _ in range(2))
    assert set(actions) == {0, 1, 2}
    assert np.mean(actions != greedy) == pytest.approx(0.25 * 2 / 3, abs=0.02)
    np.testing.assert_array_equal(actions, again)


def played(agent, batch):
    act = acting_policy(agent, seed=0)
    assert callable(act)
    return act(batch)


def test_others_play_as_they_are():
    agent = make_agent()
    assert acting_policy(agent, seed=0) is agent


def test_the_break_even_cost_by_hand():
    # 40,000 real steps saved for 280 seconds more.
    assert break_even(5_000, 300, 45_000, 20) == pytest.approx(7.0)
    assert break_even(5_000, 15, 45_000, 20) == 0.0
    assert break_even(45_000, 300, 45_000, 20) is None
    assert break_even(50_000, 10, 45_000, 20) is None


def test_a_task_is_a_name_in_the_table_or_an_id():
    assert task_named("cartpole") is TASKS["cartpole"]
    assert task_named("CartPole-v1").solved_return == 475
    assert task_named("CartPole-v1", 200.0).solved_return == 200
    assert task_named("MiniGrid-Empty-5x5-v0").solved_return is None
    assert task_named(GRID, 0.5).solved_return == 0.5
    with pytest.raises(ConfigError, match="`solved_return` must be given for worlds/Grid-v0"):
        task_named(GRID)
    with pytest.raises(EnvironmentIdError, match="did you mean"):
        task_named("CartPole-v11")


def test_every_task_of_the_table_can_be_made():
    for task in TASKS.values():
        env = task.environment.make()
        assert (task.solved_return is None) == (env.spec.id.startswith("MiniGrid"))
        assert task.dream_ppo.budget <= task.budget
        env.close()


SMALL = Task(
    environment=EnvironmentSpec(id="worlds/Dict-v0"),
    solved_return=2.0,
    budget=128,
    evaluate_every=64,
    dream_ppo=DreamArm(budget=96, loop=DreamConfig(**SHORT), model=TINY),
    ppo=PPO_CONFIG,
    dqn=DqnConfig(n_envs=4, learning_starts=8, batch_size=8, target_update_interval=16),
)
CONFIG = SampleEfficiencyConfig(
    tasks=("small",), arms=("dream_ppo", "ppo", "dqn"), seeds=(0,), episodes=2
)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setitem(TASKS, "small", SMALL)


@pytest.fixture
def folders(tmp_path):
    return {name: tmp_path / name for name in ("parts", "output")}


def test_every_arm_runs_to_its_budget_and_is_censored_there(table, folders):
    made = main(CONFIG, **folders)
    runs = {run["settings"]["arm"]: run for run in made["runs"]}
    assert {arm: run["real_steps"] for arm, run in runs.items()} == {
        "dream_ppo": 96,
        "ppo": 128,
        "dqn": 128,
    }
    assert not any(run["solved"] for run in runs.values())
    assert {"commit", "versions", "processor", "threads"} <= set(runs["ppo"]["provenance"])
    assert runs["dream_ppo"]["settings"]["agent"]["loop"]["horizon"] == 3
    for name in ("sample_efficiency.png", "sample_efficiency_seconds.png"):
        assert (folders["output"] / name).read_bytes().startswith(b"\x89PNG")
    written = json.loads((folders["output"] / "sample_efficiency.json").read_text())
    assert written["summary"]["small"]["arms"]["ppo"]["solved"] == 0


def test_plots_of_many_tasks_stand_in_rows_of_four(table, folders):
    (run,) = main(replace(CONFIG, arms=("ppo",)), **folders)["runs"]
    tasks = [{**run, "settings": {**run["settings"], "task": f"task {n}"}} for n in range(5)]
    sizes = {}
    for count in (1, 5):
        write_report(tasks[:count], run["provenance"], folders["output"])
        header = (folders["output"] / "sample_efficiency.png").read_bytes()[16:24]
        sizes[count] = struct.unpack(">II", header)
    assert sizes[5] == (pytest.approx(4 * sizes[1][0], abs=4), 2 * sizes[1][1])


def test_equal_seeds_give_equal_curves(table):
    def curve(arm):
        points = sample_efficiency._run(CONFIG, SMALL, arm, 3)["curve"]
        return [{k: v for k, v in point.items() if "seconds" not in k} for point in points]

    for arm in CONFIG.arms:
        assert curve(arm) == curve(arm)


def finished(successes: list[float], seconds: float = 10.0) -> dict:
    """Make up what a run gives; the processor was at work for half of the time."""
    found = walked(successes).to_dict()
    return {**found, "seconds": seconds, "cpu_seconds": seconds / 2}


def test_a_rerun_goes_on_where_it_stopped(table, folders, monkeypatch):
    runs = []

    def run(config, task, arm, seed):
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append((arm, seed))
        return finished([0.0])

    monkeypatch.setattr(sample_efficiency, "_run", run)
    config = replace(CONFIG, arms=("ppo", "dqn"), seeds=(0, 1))
    with pytest.raises(KeyboardInterrupt):
        main(config, **folders)
    assert not folders["output"].exists()
    with pytest.raises(KeyboardInterrupt):
        main(config, **folders)
    assert runs == [("ppo", 0), ("ppo", 1), ("dqn", 0)]
    made = main(replace(config, arms=("dqn",), seeds=(0,)), **folders)
    assert len(made["runs"]) == 3  # all that are finished, not those asked for alone


def test_runs_of_other_settings_are_kept_and_left_out(table, folders, monkeypatch):
    monkeypatch.setattr(sample_efficiency, "_run", lambda *_: finished([0.0]))
    config = replace(CONFIG, arms=("ppo",))
    main(config, **folders)
    monkeypatch.setitem(TASKS, "small", replace(SMALL, ppo=replace(PPO_CONFIG, gamma=0.5)))
    made = main(config, **folders)
    assert [run["settings"]["agent"]["gamma"] for run in made["runs"]] == [0.5]
    monkeypatch.setitem(TASKS, "small", SMALL)
    assert [run["settings"]["agent"]["gamma"] for run in main(config, **folders)["runs"]] == [0.99]
    monkeypatch.delitem(TASKS, "small")
    made = main(replace(config, tasks=("CartPole-v1",), budget=64), **folders)
    assert [run["settings"]["budget"] for run in made["runs"]] == [64]


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="`arms` must be among dream_ppo, ppo, dqn"):
        SampleEfficiencyConfig(arms=("sac",))
    with pytest.raises(ConfigError, match="`seeds` must name at least one"):
        SampleEfficiencyConfig(seeds=())
    with pytest.raises(ConfigError, match="`episodes` must be at least 1"):
        SampleEfficiencyConfig(episodes=0)


def piece(
    arm: str,
    seed: int,
    successes: list[float],
    seconds: float,
    task: str = "doorkey-5x5",
    threads: int = 1,
) -> dict:
    settings = {
        "task": task,
        "arm": arm,
        "seed": seed,
        "success": 0.9,
        "solved_return": None,
        "episodes": 100,
        "threads": threads,
    }
    origin = {
        "command": "python -m benchmarks.sample_efficiency",
        "commit": "0123456789abcdef",
        "processor": "none",
        "threads": 1,
        "versions": {"python": "3"},
    }
    return {"settings": settings, "provenance": origin, **finished(successes, seconds)}


def page_of(pieces: list[dict], folder) -> str:
    write_report(pieces, {}, folder)
    return (folder / "sample_efficiency.md").read_text()


QUICK, SLOW, NEVER = [1.0, 1.0], [0.0] * 8 + [1.0, 1.0], [0.0] * 20


def test_the_report_says_how_many_times_fewer_steps_and_at_what_cost(tmp_path):
    ours = [piece("dream_ppo", seed, QUICK, 12.0) for seed in (1, 0)]
    theirs = [piece("ppo", seed, SLOW, 4.0) for seed in (0, 1)]
    page = page_of([*theirs, *ours], tmp_path)
    assert (
        "| doorkey-5x5 | DreamPPO | 2 of 2 | 200 (200 to 200) | 12 (12 to 12) | 6 (6 to 6) |"
        in page
    )
    assert (
        "| doorkey-5x5 | PPO | 2 of 2 | 1,000 (1,000 to 1,000) | 4 (4 to 4) | 2 (2 to 2) |" in page
    )
    # 4 seconds of the processor for 800 real steps
    assert "| doorkey-5x5 | PPO | 5.0 (5.0 to 5.0) | 5 ms |" in page
    assert "Commits: 0123456789. Processor: none; threads: 1. Versions: python 3." in page


def test_with_several_threads_the_break_even_cost_is_that_of_the_wall_clock(tmp_path):
    pieces = [
        piece("dream_ppo", 0, QUICK, 12.0, threads=2),
        piece("ppo", 0, SLOW, 4.0, threads=2),
    ]
    assert "| PPO | 5.0 (5.0 to 5.0) | 10 ms |" in page_of(pieces, tmp_path)


def test_the_report_marks_what_is_only_a_bound(tmp_path):
    ours = [piece("dream_ppo", 0, QUICK, 12.0), piece("dream_ppo", 1, QUICK, 12.0)]
    theirs = [piece("ppo", 0, SLOW, 4.0), piece("ppo", 1, NEVER, 8.0)]
    page = page_of([*ours, *theirs], tmp_path)
    assert (
        "| PPO | 1 of 2 | > 1,500 (1,000 to 2,000) | > 6 (4 to 8) | > 3 (2 to 4) | 1,000, > 2,000 |"
        in page
    )
    assert "| PPO | > 7.5 (5.0 to 10.0) | < 2.3 ms |" in page
    page = page_of([piece("dream_ppo", 0, NEVER, 9.0), piece("ppo", 0, SLOW, 4.0)], tmp_path)
    assert "| doorkey-5x5 | PPO | < 0.5 (0.5 to 0.5) | unknown |" in page
    page = page_of([piece("dream_ppo", 0, NEVER, 9.0), piece("ppo", 0, NEVER, 4.0)], tmp_path)
    assert "| doorkey-5x5 | PPO | unknown | unknown |" in page
    page = page_of([piece("dream_ppo", 0, SLOW, 9.0), piece("ppo", 0, QUICK, 4.0)], tmp_path)
    assert "| doorkey-5x5 | PPO | 0.2 (0.2 to 0.2) | none: no steps are saved |" in page


def test_a_report_without_the_dream_compares_nothing(tmp_path):
    page = page_of([piece("dqn", 0, SLOW, 4.0, "other"), piece("ppo", 0, SLOW, 4.0)], tmp_path)
    assert page.index("| doorkey-5x5 | PPO") < page.index("| other | DQN")
    assert "break-even" not in page
