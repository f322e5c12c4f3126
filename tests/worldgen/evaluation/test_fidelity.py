"""The numbers of `evaluate`, on models whose mistakes are known."""

from __future__ import annotations

import numpy as np
import pytest

from worldgen.errors import CheckpointError, ConfigError, DatasetError
from worldgen.evaluation import FidelityReport, evaluate
from worldgen.evaluation.events import reward_threshold, rewards_right


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
    assert five.exact_interval == pytest.approx([0.1206, 0.6458], abs=1e-4)
    assert five.interval(five.exact) == tuple(five.exact_interval)
    assert (one.num_reached, three.num_reached, five.num_reached) == (9, 7, 5)
    assert five.agreement.cells == 0


def test_a_dream_counts_as_far_as_its_real_episode_goes(counting_model, counted, held):
    """Behind the real termination nothing can be wrong any more."""
    report = measure(counting_model(), held([counted([1] * 2, start=7)]), horizons=(1, 30))
    assert report.at(30).exact == 1
    assert report.at(30).num_reached == 0
    assert report.at(30).agreement.cells is None


def test_each_horizon_has_the_moments_that_are_known_so_far(counting_model, counted, held):
    """4 steps that a cut ends, and 9 that end by termination."""
    cut, won = counted([0] * 4), counted([1] * 9)
    report = measure(
        counting_model(blind_after=0), held([cut, won]), horizons=(1, 3, 5), num_dreams=60
    )
    # Standing still is right in the first episode and wrong in the second.
    assert [entry.num_dreams for entry in report.horizons] == [13, 11, 9]
    assert [entry.num_reached for entry in report.horizons] == [13, 9, 5]
    assert [entry.exact for entry in report.horizons] == [4 / 13, 2 / 11, 0]
    assert report.num_dreams == 13


def test_a_horizon_that_nothing_reaches_is_reported_as_such(counting_model, counted, held):
    report = measure(counting_model(), held([counted([0] * 4)]), horizons=(3, 5))
    five = report.at(5)
    assert (five.num_dreams, five.num_reached, five.num_ended) == (0, 0, 0)
    assert five.exact is five.rewards is five.terminations is five.end_timing is None
    assert five.false_ends is five.agreement.cells is None
    assert five.interval(five.exact) is five.exact_interval is None
    assert report.at(3).exact == 1
    assert "-" in str(report)


def test_few_long_moments_do_not_crowd_out_the_others(counting_model, counted, held):
    """Three episodes in four are too short for the longest horizon; the short one sees them."""
    short, long = counted([0] * 6), counted([0] * 60, start=4)
    model = counting_model(misread=(4,))  # All of the long episode's frames are wrong.
    report = measure(model, held([short] * 30 + [long]), horizons=(1, 50), num_dreams=100)
    one, fifty = report.at(1), report.at(50)
    assert (one.num_dreams, fifty.num_dreams) == (100, 11)
    # 180 of 240 moments are in the short episodes.
    assert one.exact == pytest.approx(0.75, abs=0.12)
    assert fifty.exact == 0


def test_ends_within_one_environment_step_are_told_apart(counting_model, counted, held):
    wins = held([counted([1] * 9)] * 3)
    assert measure(counting_model(), wins).at(5).end_timing == 1
    late = measure(counting_model(ends_late_by=1), wins)
    # 5 moments are at most 5 steps before the end of each win; a dream at the end's own step
    # says nothing, one step later it does.
    assert late.at(5).num_ended == 15
    assert late.at(5).end_timing == 1
    assert late.at(5).terminations < 1
    assert measure(counting_model(ends_late_by=2), wins).at(5).end_timing == 0
    assert measure(counting_model(endless=True), wins).at(5).end_timing == 0


def test_dreams_that_end_too_soon_are_counted(counting_model, counted, held):
    held_out = held([counted([1] * 9)] * 3)
    assert measure(counting_model(), held_out).at(3).false_ends == 0
    soon = measure(counting_model(ends_at=5), held_out).at(3)
    # Of the six moments that are over 3 steps before the end, those from count 2 on see a 5
    # within 3 steps; from count 5 on the dream ends at once, two steps too soon or more.
    assert soon.num_ended == 9
    assert soon.false_ends == pytest.approx(4 / 6)


def test_nats_are_given_for_each_token(counting_model, held_out):
    tokens = measure(counting_model(), held_out).tokens
    assert (tokens.num_transitions, tokens.num_tokens) == (47, 1)
    assert (tokens.first_pass, tokens.bound) == (0.5, 0.25)


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
