"""The numbers of `evaluate`, on models whose mistakes are known."""

from __future__ import annotations

import numpy as np
import pytest

from worldgen.errors import CheckpointError, ConfigError, DatasetError
from worldgen.evaluation import FidelityReport, evaluate
from worldgen.evaluation.fidelity import reward_threshold, rewards_right


def measure(model, held_out, **options):
    options = {"horizons": (1, 3, 5), "num_dreams": 40, "progress": False, **options}
    return evaluate(model, held_out, **options)


def test_a_perfect_model_is_perfect(counting_model, held_out):
    report = measure(counting_model(), held_out)
    assert report.num_episodes == 4
    assert report.num_transitions == 47
    assert report.reconstruction.frames_exact == report.reconstruction.cells == 1
    assert report.rewarding.recall == report.rewarding.precision == 1
    assert report.terminating.recall == report.terminating.precision == 1
    assert report.rewarding.num_events == report.terminating.num_events == 3
    for entry in report.horizons:
        assert entry.exact == entry.rewards == entry.terminations == 1
        assert entry.agreement.cells == 1


def test_the_tokenizers_mistakes_are_found_frame_by_frame(counting_model, held_out):
    report = measure(counting_model(misread=(5,)), held_out)
    # Count 5 is seen once in each of the three wins; there are 30 + 21 frames.
    assert report.reconstruction.frames_exact == pytest.approx(1 - 3 / 51)
    assert report.rewarding.recall == 1


def test_dreams_count_as_exact_until_their_first_mistake(counting_model, counted, held):
    report = measure(counting_model(blind_after=3), held([counted([1] * 9)]), num_dreams=9)
    one, three, five = report.horizons
    assert one.exact == three.exact == 1
    # All 9 moments are used; the first 6 have more than 3 steps left, and go wrong at the 4th.
    assert five.exact == pytest.approx(3 / 9)
    assert (one.num_reached, three.num_reached, five.num_reached) == (9, 7, 5)
    assert five.agreement.cells == 0


def test_a_dream_counts_as_far_as_its_real_episode_goes(counting_model, counted, held):
    """Behind the real termination nothing can be wrong any more."""
    report = measure(counting_model(), held([counted([1] * 2, start=7)]), horizons=(1, 30))
    assert report.at(30).exact == 1
    assert report.at(30).num_reached == 0
    assert report.at(30).agreement.cells is None


def test_moments_with_an_unknown_future_are_used_only_without_others(counting_model, counted, held):
    cut = counted([0] * 4)
    model = counting_model(blind_after=0)
    both = measure(model, held([cut, counted([1] * 9)]), horizons=(5,), num_dreams=60)
    assert both.at(5).exact == 0  # only the second episode's moments are known, and all go wrong
    alone = measure(model, held([cut]), horizons=(3, 5), num_dreams=60)
    # Two moments are followed by 3 real steps, none by 5; standing still is right there.
    assert [entry.horizon for entry in alone.horizons] == [3]
    assert alone.at(3).exact == 1
    assert alone.num_dreams == 4


def test_rewards_that_are_never_predicted_show_in_recall(counting_model, held_out):
    report = measure(counting_model(reward_size=0.4), held_out)
    assert report.reward_threshold == 0.5
    assert report.rewarding.recall == 0
    assert report.rewarding.precision is None
    assert report.terminating.recall == 1
    assert report.at(5).rewards < 1
    assert report.at(5).terminations == 1


def test_false_rewards_show_in_precision(counting_model, held_out):
    report = measure(counting_model(false_reward_at=4), held_out)
    # Reaching or staying at 4: once in each win, 20 times in the last episode; 3 are true.
    assert report.rewarding.recall == 1
    assert report.rewarding.precision == pytest.approx(3 / (3 + 3 + 20))


def test_precision_weighs_a_sample_for_all_that_it_stands_for(counting_model, counted, held):
    episodes = held([counted([1] * 9)] * 3 + [counted([0] * 1000, start=4)] * 2)
    report = measure(counting_model(false_reward_at=4), episodes, num_dreams=100)
    assert report.rewarding.precision == pytest.approx(3 / (3 + 3 + 2000), rel=0.1)


def test_an_endless_model_has_no_recall_on_ends(counting_model, held_out):
    report = measure(counting_model(endless=True), held_out)
    assert report.terminating.recall == 0
    assert report.terminating.precision is None
    assert report.at(1).terminations < 1
    assert report.at(1).exact <= report.at(1).terminations


def test_without_events_there_is_nothing_to_recall(counting_model, counted, held):
    report = measure(counting_model(), held([counted([0] * 20)]))
    assert report.rewarding.recall is None
    assert report.rewarding.num_events == 0
    assert "recall -" in str(report)


def test_equal_seeds_give_equal_reports(counting_model, held_out):
    model = counting_model(blind_after=2, misread=(3,))
    first, second = (measure(model, held_out, num_dreams=9).to_dict() for _ in range(2))
    assert first == second
    other = measure(model, held_out, num_dreams=9, seed=1).to_dict()
    assert first["horizons"] != other["horizons"]


def test_reports_go_to_json_and_back(counting_model, held_out, tmp_path):
    report = measure(counting_model(blind_after=2), held_out)
    path = tmp_path / "report.json"
    report.save(path)
    assert FidelityReport.load(path) == report
    text = str(report)
    assert "exact" in text
    assert "(tokenizer)" in text
    assert "3 real ones" in text
    with pytest.raises(KeyError, match="horizon 7"):
        report.at(7)
    path.write_text('{"horizons": []}')
    with pytest.raises(CheckpointError, match="no fidelity report"):
        FidelityReport.load(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        FidelityReport.load(tmp_path / "none.json")


def test_wrong_arguments_are_refused(counting_model, held_out, held):
    with pytest.raises(ConfigError, match="`horizons` must all be at least 1"):
        measure(counting_model(), held_out, horizons=(0, 5))
    with pytest.raises(ConfigError, match="`num_dreams` must be at least 1"):
        measure(counting_model(), held_out, num_dreams=0)
    with pytest.raises(DatasetError, match="at least one episode"):
        measure(counting_model(), held([]))


def test_a_perfect_prediction_of_any_reward_is_right():
    rewards = np.random.default_rng(0).normal(size=1000) * np.array([1, 10, 100, 0] * 250)
    assert rewards_right(rewards, rewards, reward_threshold(rewards)).all()
    assert not rewards_right(-rewards, rewards, reward_threshold(rewards))[rewards != 0].any()


@pytest.mark.parametrize(
    ("rewards", "threshold"), [([0, 0.2, 1, -4], 0.5), ([0, 0], 0.5), ([0, 0.1, 0.1], 0.05)]
)
def test_a_reward_counts_from_half_its_typical_size(rewards, threshold):
    assert reward_threshold(np.array(rewards)) == pytest.approx(threshold)
