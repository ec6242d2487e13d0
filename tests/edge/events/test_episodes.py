from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.events.episodes import Change, EpisodeSettings, EpisodeSpan, EpisodeTracker, episode_settings
from edge.labels import FER2013_LABELS
from edge.records import EventTuning, Logits, Reading
from edge.settings import EventSettings, Preset

TUNING = EventTuning(smoothing=0.3, dwell=0.4, hysteresis=0.1)
SETTINGS = EpisodeSettings(FER2013_LABELS, TUNING, threshold=0.4, uncertain_after=1.0)
SMILE = Preset(name="smile", expression="happy", for_seconds=1.5)


def shows(label: str, confidence: float = 0.9) -> Logits:
    probabilities = np.full(len(FER2013_LABELS), (1 - confidence) / (len(FER2013_LABELS) - 1))
    probabilities[FER2013_LABELS.index(label)] = confidence
    return tuple(np.log(probabilities).tolist())


def between(first: str, then: str, share: float) -> Logits:
    """Two expressions that have 0.9 together, ``share`` of it the second."""
    probabilities = np.full(len(FER2013_LABELS), 0.1 / 5)
    probabilities[[FER2013_LABELS.index(first), FER2013_LABELS.index(then)]] = 0.9 * (1 - share), 0.9 * share
    return tuple(np.log(probabilities).tolist())


UNSURE = shows("happy", 0.25)


Script = list[tuple[float, Reading | None]]


def every(start: float, stop: float, shown: Reading | str | None) -> Script:
    """Ten looks a second at track 1; None: it is gone."""
    reading = shows(shown) if isinstance(shown, str) and shown in FER2013_LABELS else shown
    return [(round(float(now), 3), reading) for now in np.arange(start, stop - 1e-9, 0.1)]


def changes_of(script: Iterable[tuple[float, Reading | None]], settings: EpisodeSettings = SETTINGS) -> list[Change]:
    episode_tracker = EpisodeTracker(settings)
    return [
        change
        for now, reading in script
        for change in episode_tracker.update(
            [] if reading is None else [1], {} if reading is None else {1: reading}, now
        )
    ]


def briefly(changes: list[Change]) -> list[tuple[str, str | None]]:
    return [(c.kind, c.name or c.reason or (c.expression.label if c.expression else None)) for c in changes]


def test_a_face_appears_changes_and_leaves() -> None:
    changes = changes_of(every(0, 2, "neutral") + every(2, 4, "happy") + [(4.9, None)])
    assert briefly(changes) == [("appeared", "neutral"), ("changed", "happy"), ("left", "happy")]
    assert changes[0].time == 0.4
    assert 2.4 <= changes[1].time <= 2.9


def test_changed_and_left_carry_the_episode_that_has_ended() -> None:
    appeared, changed, left = changes_of(every(0, 2, "neutral") + every(2, 4, "happy") + [(4.9, None)])
    assert appeared.episode is None
    assert changed.episode
    assert (changed.episode.label, changed.episode.start) == ("neutral", 0.0)
    assert changed.episode.duration == pytest.approx(2.2), "until the other one began to lead"
    assert changed.episode.peak == pytest.approx(0.9)
    assert 0.8 < changed.episode.mean < 0.9
    assert left.episode
    assert left.episode.label == "happy"
    assert left.episode.start == pytest.approx(2.2)
    assert left.episode.start + left.episode.duration == pytest.approx(3.9), "when it was last seen, not when given up"


def test_a_face_that_leaves_before_its_first_event_produces_none() -> None:
    assert changes_of([*every(0, 0.3, "happy"), (0.3, None)]) == []


def test_a_flicker_is_not_reported_and_does_not_end_the_episode() -> None:
    changes = changes_of(every(0, 2, "sad") + every(2, 2.2, "angry") + every(2.2, 4, "sad") + [(4.0, None)])
    assert briefly(changes) == [("appeared", "sad"), ("left", "sad")]
    assert changes[1].episode
    assert changes[1].episode.duration == pytest.approx(3.9)


def of_the_moment(dwell: float = 0.4) -> EpisodeSettings:
    """Hardly any averaging over time, so that each reading's confidence is that of its moment."""
    return EpisodeSettings(FER2013_LABELS, EventTuning(smoothing=0.001, dwell=dwell, hysteresis=0.1), 0.4, 1.0)


def test_flickers_do_not_add_up() -> None:
    flicker = every(0, 0.3, "angry") + every(0.3, 1.0, "sad")
    script = every(0, 1, "sad") + [(round(start + now, 3), shown) for start in range(1, 5) for now, shown in flicker]
    assert briefly(changes_of(script, of_the_moment())) == [("appeared", "sad")]


def test_an_episodes_confidences_are_its_own_from_its_beginning_to_its_end() -> None:
    """Also those before it was reported, and those of a moment in which other expressions led."""
    rising = every(0, 0.5, shows("happy", 0.5)) + every(0.5, 1, shows("happy", 0.9))
    flicker: Script = [(1.0, shows("angry", 0.8)), (1.1, shows("fear", 0.8))]
    script = [*rising, *flicker, *every(1.2, 2, shows("happy", 0.6)), *every(2, 3, shows("sad", 0.45)), (3.9, None)]
    _, changed, left = changes_of(script, of_the_moment())
    beside = 0.2 / 6
    assert changed.episode == EpisodeSpan(
        "happy",
        0.0,
        pytest.approx(2.0),
        pytest.approx(0.9),
        pytest.approx((5 * 0.5 + 5 * 0.9 + 2 * beside + 8 * 0.6) / 20),
    )
    assert left.episode == EpisodeSpan("sad", 2.0, pytest.approx(0.9), pytest.approx(0.45), pytest.approx(0.45))
    _, left = changes_of([*rising, *flicker, (1.2, None)], of_the_moment())
    assert left.episode
    assert left.episode.mean == pytest.approx((5 * 0.5 + 5 * 0.9 + 2 * beside) / 12), "it left amid a flicker"


def test_a_short_episode_lasts_as_long_as_it_was_seen() -> None:
    _, left = changes_of([*every(0, 0.3, "happy"), (0.9, None)], of_the_moment(dwell=0.0))
    assert left.episode
    assert (left.episode.start, left.episode.duration) == (0.0, 0.2)


def test_a_face_that_wavers_from_the_start_appears_all_the_same() -> None:
    wavering = [(n / 10, between("sad", "angry", 0.47 if n % 2 else 0.53)) for n in range(20)]
    assert briefly(changes_of(wavering, of_the_moment())) == [("appeared", "angry")]


def test_a_slight_lead_is_not_enough_however_long_it_lasts() -> None:
    slight = every(2, 8, between("sad", "angry", 0.54))
    assert briefly(changes_of(every(0, 2, "sad") + slight)) == [("appeared", "sad")]
    bold = EpisodeSettings(FER2013_LABELS, EventTuning(0.3, 0.4, 0.0), 0.4, 1.0)
    assert briefly(changes_of(every(0, 2, "sad") + slight, bold)) == [("appeared", "sad"), ("changed", "angry")]


def test_it_says_when_it_cannot_say_and_when_it_can_again() -> None:
    changes = changes_of(every(0, 2, "happy") + every(2, 6, UNSURE) + every(6, 8, "sad") + [(8.0, None)])
    assert briefly(changes) == [("appeared", "happy"), ("uncertain", "low margin"), ("changed", "sad"), ("left", "sad")]
    uncertain, changed = changes[1], changes[2]
    assert uncertain.expression is None
    assert uncertain.episode
    assert uncertain.episode.label == "happy"
    assert 3.0 <= uncertain.time <= 3.8, "a second after the average fell below the threshold"
    assert changed.episode is None, "uncertainty is no expression"


def test_a_face_that_leaves_uncertain_has_no_expression_left() -> None:
    changes = changes_of(every(0, 2, "happy") + every(2, 6, UNSURE) + [(6.0, None)])
    assert (changes[-1].kind, changes[-1].expression, changes[-1].reason, changes[-1].episode) == (
        "left",
        None,
        "low margin",
        None,
    )


@pytest.mark.parametrize("flaw", ["small", "blurred", "low contrast"])
def test_a_face_not_worth_reading_appears_without_a_guess(flaw: Reading) -> None:
    changes = changes_of(every(0, 3, flaw) + every(3, 4, "happy") + [(4.0, None)])
    assert briefly(changes) == [("appeared", flaw), ("changed", "happy"), ("left", "happy")]
    assert changes[0].time == 1.0
    assert changes[0].expression is None


def test_a_short_blur_changes_nothing_and_a_long_one_is_reported_once() -> None:
    short = every(0, 2, "happy") + every(2, 2.9, "blurred") + every(2.9, 4, "happy")
    assert briefly(changes_of(short)) == [("appeared", "happy")]
    long = every(0, 2, "happy") + every(2, 6, "blurred") + every(6, 7, "small") + every(7, 8, "happy")
    changes = changes_of(long)
    assert briefly(changes) == [("appeared", "happy"), ("uncertain", "blurred"), ("changed", "happy")]
    assert changes[1].time == 2.9, "a second after it was last read"
    assert changes[1].episode
    assert changes[1].episode.duration == 1.9


def test_at_the_threshold_it_does_not_waver() -> None:
    """Back from uncertain takes more than not being so."""
    just_above = every(5, 10, shows("happy", 0.45))
    changes = changes_of(every(0, 2, "happy") + every(2, 5, UNSURE) + just_above)
    assert briefly(changes) == [("appeared", "happy"), ("uncertain", "low margin")]
    assert briefly(changes_of(every(0, 2, "happy") + just_above)) == [("appeared", "happy")]


@pytest.mark.parametrize("threshold", [0.75, 0.85, 0.99])
def test_a_face_becomes_certain_again_with_a_high_threshold(threshold: float) -> None:
    """With a hysteresis that is larger than what is left, half of that is enough."""
    settings = EpisodeSettings(FER2013_LABELS, EventTuning(0.2, 0.2, 0.3), threshold, 1.0)
    half = (1 - threshold) / 2
    sure, surer = shows("happy", threshold + 0.9 * half), shows("happy", threshold + 1.1 * half)
    script = every(0, 2, surer) + every(2, 5, shows("happy", 0.5)) + every(5, 8, sure)
    assert briefly(changes_of(script, settings)) == [("appeared", "happy"), ("uncertain", "low margin")]
    assert briefly(changes_of(script + every(8, 10, surer), settings))[2:] == [("changed", "happy")]


def test_without_a_threshold_it_always_guesses() -> None:
    changes = changes_of(every(0, 3, UNSURE), EpisodeSettings(FER2013_LABELS, TUNING, 0.0, 1.0))
    assert briefly(changes) == [("appeared", "happy")]


def test_a_preset_comes_once_each_time_when_it_has_lasted() -> None:
    settings = EpisodeSettings(FER2013_LABELS, TUNING, 0.4, 1.0, (SMILE,))
    smile = every(0, 4, "happy") + every(4, 6, "neutral") + every(6, 7, "happy") + every(7, 9, "neutral")
    changes = changes_of(smile + every(9, 12, "happy"), settings)
    presets = [change for change in changes if change.kind == "preset"]
    assert [preset.name for preset in presets] == ["smile", "smile"], "the second smile was too short"
    assert presets[0].time == 1.5
    assert presets[0].expression
    assert presets[0].expression.label == "happy"
    assert presets[0].episode
    assert (presets[0].episode.start, presets[0].episode.duration) == (0.0, 1.5)


def test_a_preset_wants_its_confidence_all_the_time() -> None:
    sure = Preset(name="sure", expression="happy", for_seconds=1.0, min_confidence=0.8)
    script = every(0, 0.8, "happy") + every(0.8, 2, shows("happy", 0.6)) + every(2, 5, "happy")
    changes = changes_of(script, EpisodeSettings(FER2013_LABELS, TUNING, 0.4, 1.0, (sure,)))
    assert briefly(changes) == [("appeared", "happy"), ("preset", "sure")]
    assert changes[1].time > 3.0
    certain = Preset(name="certain", expression="angry", for_seconds=1.0, min_confidence=1.0)
    assert presets_of(every(0, 2, (0.0, *[-1000.0] * 6)), certain) == [1.0], "what is exactly its confidence is enough"


def test_being_uncertain_starts_a_preset_anew() -> None:
    settings = EpisodeSettings(FER2013_LABELS, TUNING, 0.4, 1.0, (SMILE,))
    changes = changes_of(every(0, 2, "happy") + every(2, 5, "blurred") + every(5, 7, "happy"), settings)
    kinds = ["appeared", "preset", "uncertain", "changed", "preset"]
    assert [change.kind for change in changes] == kinds
    assert changes[-1].time == 6.5, "a smile of before that may have ended meanwhile does not count"


def presets_of(script: Script, preset: Preset, dwell: float = 0.2) -> list[float]:
    """When this preset is reported."""
    tuning = EventTuning(smoothing=0.1, dwell=dwell, hysteresis=0.1)
    settings = EpisodeSettings(FER2013_LABELS, tuning, 0.4, 1.0, (preset,))
    return [change.time for change in changes_of(script, settings) if change.kind == "preset"]


def test_each_preset_has_its_own_time_and_its_own_expression() -> None:
    frown, grin = Preset(name="frown", expression="sad", for_seconds=1.0), Preset("grin", "happy", for_seconds=0.5)
    settings = EpisodeSettings(FER2013_LABELS, EventTuning(0.001, 0.2, 0.1), 0.4, 1.0, (frown, SMILE, grin))
    changes = changes_of(every(0, 2, "happy") + every(2, 4, "sad"), settings)
    assert [(change.name, change.time) for change in changes if change.name] == [
        ("grin", 0.5),
        ("smile", 1.5),
        ("frown", 3.0),
    ]


def test_a_preset_is_reported_after_its_expression() -> None:
    soon = Preset(name="soon", expression="happy", for_seconds=0.1)
    assert presets_of(every(0, 2, "happy"), soon, dwell=0.4) == [0.4]
    flicker = every(0, 2, "sad") + every(2, 2.3, "happy") + every(2.3, 4, "sad")
    assert presets_of(flicker, soon, dwell=0.4) == [], "it never was"


def test_a_preset_does_not_count_the_time_in_which_no_expression_was_certain() -> None:
    at = presets_of(every(0, 5, UNSURE) + every(5, 8, "happy"), SMILE)
    assert at == [pytest.approx(6.6, abs=0.11)], "1.5 seconds after it could be told"


@pytest.mark.parametrize("shown", [UNSURE, "sad"])
def test_another_answer_interrupts_a_preset_although_the_episode_goes_on(shown: Reading | str) -> None:
    script = every(0, 1.2, "happy") + every(1.2, 1.6, shown) + every(1.6, 4, "happy")
    assert briefly(changes_of(script, EpisodeSettings(FER2013_LABELS, EventTuning(0.1, 0.6, 0.1), 0.4, 1.0))) == [
        ("appeared", "happy")
    ]
    assert presets_of(script, SMILE, dwell=0.6) == [pytest.approx(3.2, abs=0.11)]


def test_a_preset_comes_once_in_an_episode_however_often_the_confidence_dips() -> None:
    sure = Preset(name="sure", expression="happy", for_seconds=1.5, min_confidence=0.6)
    dip = [*every(0, 2.2, shows("happy", 0.7)), *every(2.2, 2.6, shows("happy", 0.5))]
    dips = [(round(start * 2.6 + now, 3), reading) for start in range(4) for now, reading in dip]
    assert presets_of(dips, sure) == [1.5]
    again = every(10.4, 12, "sad") + every(12, 15, "happy")
    assert presets_of(dips + again, sure) == [1.5, pytest.approx(13.6, abs=0.11)]


@pytest.mark.parametrize("hidden", [True, False])
def test_a_moment_without_readings_interrupts_neither_an_episode_nor_a_preset(hidden: bool) -> None:
    """Out of sight, or blurred: what was shown last holds."""
    without = [] if hidden else every(0.6, 1.5, "blurred")
    assert presets_of(every(0, 0.6, "happy") + without + every(1.5, 3, "happy"), SMILE) == [1.5]


@pytest.mark.parametrize(("seconds", "begins_anew"), [(1.0, False), (1.125, True), (4.0, True)])
def test_a_preset_begins_anew_after_the_face_was_out_of_sight_for_long(seconds: float, *, begins_anew: bool) -> None:
    """With a long ``lost_after`` a face keeps its track; the time in which nobody saw it counted as a smile."""
    episode_tracker = EpisodeTracker(EpisodeSettings(FER2013_LABELS, TUNING, 0.4, 1.0, (SMILE,)))
    at = []
    for frame in range(100):
        now = frame / 8
        gone = 0.5 < now <= 0.5 + seconds
        reading = {} if gone else {7: shows("happy")}
        never_read = 8
        changes = list(episode_tracker.update([7, never_read], reading, now, [7, never_read] if gone else [never_read]))
        at += [change.time for change in changes if change.kind == "preset"]
    assert at == [0.625 + seconds + 1.5 if begins_anew else 1.625]


def test_settings_come_before_the_card() -> None:
    assert episode_settings(EventSettings(), (), FER2013_LABELS, TUNING, 0.4) == SETTINGS
    changed = episode_settings(EventSettings(dwell=0.0, threshold=0.1), (SMILE,), FER2013_LABELS, TUNING, 0.4)
    assert changed == EpisodeSettings(FER2013_LABELS, EventTuning(0.3, 0.0, 0.1), 0.1, 1.0, (SMILE,))
    changed = episode_settings(EventSettings(smoothing=0.5, hysteresis=0.0), (), FER2013_LABELS, TUNING, 0.4)
    assert changed == EpisodeSettings(FER2013_LABELS, EventTuning(0.5, 0.4, 0.0), 0.4, 1.0)


def test_reported_scores_are_named_and_add_up() -> None:
    episode_tracker = EpisodeTracker(episode_settings(EventSettings(dwell=0.0), (), FER2013_LABELS, TUNING, 0.4))
    [change] = episode_tracker.update([1], {1: shows("disgust", 0.7)}, 0.0)
    assert change.expression
    assert change.expression.confidence == 0.7
    assert tuple(change.expression.scores) == FER2013_LABELS
    assert abs(sum(change.expression.scores.values()) - 1) < 0.001


readings = st.one_of(
    st.none(),
    st.sampled_from(["small", "blurred", "low contrast"]),
    st.tuples(st.sampled_from(FER2013_LABELS), st.sampled_from([0.2, 0.45, 0.9])).map(lambda pair: shows(*pair)),
)


@given(st.lists(st.tuples(readings, st.integers(1, 20)), max_size=12))
def test_whatever_is_read_the_story_of_a_face_holds_together(parts: list[tuple[Reading | None, int]]) -> None:
    """Appeared first, left last, changes that change, and episodes that do not overlap."""
    shown = [reading for reading, frames in parts for _ in range(frames)]
    script = [(number / 10, reading) for number, reading in enumerate([*shown, None])]
    settings = EpisodeSettings(FER2013_LABELS, TUNING, 0.4, 1.0, (SMILE,))
    changes = changes_of(script, settings)
    assert changes == changes_of(script, settings), "the same frames give the same changes"
    label: str | None = ""
    ended = -1.0
    for change in changes:
        now = change.expression.label if change.expression else None
        assert (change.reason is None) == (now is not None)
        if change.kind == "appeared":
            assert label == ""
        elif change.kind in ("changed", "uncertain"):
            assert now != label
            assert (change.kind == "uncertain") == (now is None)
        else:
            assert now == label
        if change.kind != "preset":
            assert (change.episode.label if change.episode else None) == (label or None)
        if change.episode and change.kind != "preset":
            assert change.episode.start >= ended - 1e-9, "a start plus a duration is rounded"
            assert 0 <= change.episode.mean <= change.episode.peak + 1e-9 <= 1.01
            ended = change.episode.start + change.episode.duration
        label = "" if change.kind == "left" else now
    assert label == ""
