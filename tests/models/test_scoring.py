"""All measures of a track: those of whole signals, frame by frame, and how a track is read."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from facts import assert_names

from beamsplitter.models.evaluation.bsseval import NAMES, bss_eval
from beamsplitter.models.evaluation.distortion import si_sdr, si_snr, snr, usdr
from beamsplitter.models.evaluation.errors import EvaluationError
from beamsplitter.models.evaluation.measures import MEASURES, ScoringSettings
from beamsplitter.models.evaluation.scoring import score_track
from beamsplitter.models.evaluation.spectral import spectral_distance

RATE = 4000
SAMPLES = int(3.6 * RATE)
OF_SIGNALS = {"si_sdr": si_sdr, "si_snr": si_snr, "snr": snr, "usdr": usdr}
BUILT_IN = (*OF_SIGNALS, "bsseval", "spectral_distance")

VOICE, BASS, DRUMS, NOISE = (
    np.random.default_rng(8).standard_normal((4, 2, SAMPLES)).astype(np.float32) / 8
)
REFERENCES = {"voice": VOICE, "bass": 0.5 * BASS, "drums": 0.8 * DRUMS}
ESTIMATES = {
    "drums": 0.7 * DRUMS + 0.05 * NOISE,
    "voice": 0.9 * VOICE + 0.1 * BASS + 0.02 * NOISE,
}
MIXTURE = VOICE + 0.5 * BASS + 0.8 * DRUMS + 0.01 * NOISE


def reader(signal, reads=None):
    def read(start, stop):
        if reads is not None:
            reads.append((start, stop))
        return signal[:, start:stop]

    return read


def score(
    references=REFERENCES,
    estimates=ESTIMATES,
    mixture=MIXTURE,
    *,
    measures=BUILT_IN,
    samples=SAMPLES,
    rate=RATE,
    **frames,
):
    return score_track(
        {stem: reader(signal) for stem, signal in references.items()},
        {stem: reader(signal) for stem, signal in estimates.items()},
        None if mixture is None else reader(mixture),
        ScoringSettings(measures, **frames),
        sample_rate=rate,
        samples=samples,
        channels=2,
    )


def frames_of(signal, frame_s=1.0, hop_s=1.0):
    frame, hop = round(frame_s * RATE), round(hop_s * RATE)
    return [signal[:, i : i + frame] for i in range(0, SAMPLES - frame + 1, hop)]


@pytest.mark.parametrize("frames", [{}, {"frame_s": 0.5, "hop_s": 0.2}, {"hop_s": 1.7}])
@pytest.mark.parametrize("name", OF_SIGNALS)
def test_ratios_are_those_of_whole_signals(name, frames):
    measure = OF_SIGNALS[name]
    scores = score(measures=(name,), **frames).stems
    assert list(scores) == ["voice", "drums"]
    for stem, estimate in ESTIMATES.items():
        reference, ours = REFERENCES[stem], scores[stem].measures[name]
        of_mixture = measure(MIXTURE, reference)
        assert ours.track == pytest.approx(measure(estimate, reference), abs=1e-9)
        assert ours.track_improvement == pytest.approx(ours.track - of_mixture, abs=1e-9)
        expected, of_mixture = (
            [
                measure(a, b)
                for a, b in zip(
                    frames_of(signal, **frames), frames_of(reference, **frames), strict=True
                )
            ]
            for signal in (estimate, MIXTURE)
        )
        assert ours.frames == pytest.approx(expected, abs=1e-9)
        improvement = np.subtract(expected, of_mixture)
        assert ours.frames_improvement == pytest.approx(improvement, abs=1e-9)


@pytest.mark.parametrize("frames", [{}, {"frame_s": 0.8, "hop_s": 0.5}])
def test_bsseval_is_that_of_whole_signals(frames):
    estimates = {**ESTIMATES, "bass": 0.4 * BASS + 0.1 * NOISE}
    scores = score(estimates=estimates, measures=("bsseval",), **frames).stems
    references = np.stack(list(REFERENCES.values()))
    expected, of_mixture = (
        bss_eval(
            references,
            signals,
            window_samples=round(frames.get("frame_s", 1) * RATE),
            hop_samples=round(frames.get("hop_s", 1) * RATE),
        )
        for signals in (np.stack([estimates[stem] for stem in REFERENCES]), [MIXTURE] * 3)
    )
    for i, name in enumerate(NAMES):
        for j, stem in enumerate(REFERENCES):
            ours = scores[stem].measures[name]
            assert ours.frames == pytest.approx(expected[i, j], abs=1e-6)
            assert ours.track == pytest.approx(np.median(expected[i, j]), abs=1e-6)
            if name == "sar":  # a mixture has no artefacts
                assert np.isnan([ours.track_improvement, *ours.frames_improvement]).all()
                continue
            improvement = expected[i, j] - of_mixture[i, j]
            assert ours.frames_improvement == pytest.approx(improvement, abs=1e-6)
            medians = np.median(expected[i, j]) - np.median(of_mixture[i, j])
            assert ours.track_improvement == pytest.approx(medians, abs=1e-6)


def test_a_stem_without_estimate_interferes_with_others():
    """What is left of the bass in the voice is no artefact."""
    with_bass = score(measures=("bsseval",)).stems["voice"].measures
    others = {stem: REFERENCES[stem] for stem in ESTIMATES}
    without = score(others, measures=("bsseval",)).stems["voice"].measures
    assert with_bass["sar"].track > without["sar"].track + 3
    assert with_bass["sir"].track < without["sir"].track - 3


def test_spectral_distance_is_that_of_whole_signals_and_improves_downwards():
    ours = score(measures=("spectral_distance",)).stems["voice"].measures["spectral_distance"]
    expected = spectral_distance(ESTIMATES["voice"], VOICE)
    assert ours.track == pytest.approx(expected, rel=1e-9)
    of_mixture = spectral_distance(MIXTURE, VOICE)
    assert ours.track_improvement == pytest.approx(of_mixture - expected, rel=1e-9)
    assert ours.track_improvement > 0
    assert ours.frames == pytest.approx(
        [expected] * 3, rel=0.02
    )  # noise is much the same all along


def test_without_a_mixture_it_is_the_sum_of_the_references():
    total = np.sum(list(REFERENCES.values()), axis=0, dtype=np.float64)
    assert score(mixture=None).to_plain() == score(mixture=total).to_plain()


@pytest.mark.parametrize(("measures", "passes"), [(("si_sdr", "snr"), 1), (BUILT_IN, 2)])
@pytest.mark.parametrize("frames", [{}, {"frame_s": 0.5, "hop_s": 0.2}, {"hop_s": 1.7}])
def test_a_track_is_read_as_few_times_as_can_be_and_in_bounded_pieces(measures, passes, frames):
    reads = []
    score_track(
        {"voice": reader(VOICE, reads)},
        {"voice": reader(ESTIMATES["voice"])},
        reader(MIXTURE),
        ScoringSettings(measures, **frames),
        sample_rate=RATE,
        samples=SAMPLES,
        channels=2,
    )
    times_read = np.zeros(SAMPLES, int)
    for start, stop in reads:
        times_read[start:stop] += 1
    assert (times_read == passes).all()
    longest = frames.get("frame_s", 1) + frames.get("hop_s", 1)
    assert max(stop - start for start, stop in reads) <= longest * RATE


def test_the_same_to_the_bit_of_float32_and_float64():
    def as_float64(signals):
        return {stem: signal.astype(np.float64) for stem, signal in signals.items()}

    doubled = score(as_float64(REFERENCES), as_float64(ESTIMATES), np.float64(MIXTURE))
    assert score().to_plain() == doubled.to_plain()


def test_a_track_that_is_shorter_than_a_frame_is_one():
    scores = score(samples=RATE // 2)
    assert scores.frames == 1
    for measure in scores.stems["voice"].measures.values():
        # Of spectra, one is centred at the end of the track, outside the frame.
        assert measure.frames == pytest.approx([measure.track], abs=1e-3)


def test_silence_is_counted_and_json_has_nulls():
    references = {**REFERENCES, "bass": 0 * BASS}
    voice = ESTIMATES["voice"].copy()
    voice[:, : 2 * RATE] = 0
    scores = score(references, {"voice": voice, "bass": 0.1 * NOISE})
    of_voice, of_bass = scores.stems["voice"], scores.stems["bass"]
    assert (of_voice.silent_reference_frames, of_voice.silent_estimate_frames) == (0, 2)
    assert (of_bass.silent_reference_frames, of_bass.silent_estimate_frames) == (3, 0)
    assert of_voice.measures["si_sdr"].undefined_frames == 2
    assert of_voice.measures["snr"].undefined_frames == 0
    assert of_voice.measures["sdr"].undefined_frames == 2
    assert math.isfinite(of_voice.measures["sdr"].track)
    for measure in of_bass.measures.values():
        assert math.isnan(measure.track)
        assert measure.undefined_frames == 3
    plain = json.loads(json.dumps(scores.to_plain(), allow_nan=False))
    assert plain["frames"] == 3
    of_voice_plain = plain["stems"]["voice"]
    assert of_voice_plain["silent_estimate_frames"] == 2
    si_sdr_plain = of_voice_plain["measures"]["si_sdr"]
    assert si_sdr_plain["frames"][:2] == [None, None]
    assert (
        si_sdr_plain["frames_improvement"][2] == (of_voice.measures["si_sdr"].frames_improvement[2])
    )
    assert si_sdr_plain["undefined_frames"] == 2
    assert plain["stems"]["bass"]["measures"]["sdr"]["track"] is None


def test_a_perfect_estimate_is_infinitely_good_and_null_in_json():
    scores = score(estimates={"voice": VOICE}, measures=("bsseval",))
    sdr = scores.stems["voice"].measures["sdr"]
    assert sdr.track == math.inf
    assert scores.to_plain()["stems"]["voice"]["measures"]["sdr"]["track"] is None


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"estimates": {"vocals": VOICE}}, ["vocals", "voice, bass, drums"]),
        ({"estimates": {}}, ["0 estimates"]),
        ({"samples": 0}, ["0 samples"]),
        ({"mixture": MIXTURE[:1]}, ["the mixture", "(1, 4000)", "(2, 4000)"]),
        ({"estimates": {"voice": VOICE[:, :-9]}}, ["the estimate of voice", SAMPLES]),
        ({"measures": ("si_sdrr",)}, ["si_sdrr", "si_sdr?"]),
        ({"measures": ("xyz",)}, ["xyz", *MEASURES]),
        ({"frame_s": 0}, ["frame_s", "0"]),
        ({"hop_s": math.inf}, ["hop_s", "inf"]),
    ],
)
def test_what_can_not_be_scored(changes, facts):
    with pytest.raises(EvaluationError) as caught:
        score(**changes)
    assert_names(caught.value, *facts)


def test_memory_does_not_grow_with_the_length_of_a_track():
    def peak(seconds):
        def read(start, stop):
            return VOICE[:1, np.arange(start, stop) % SAMPLES]

        tracemalloc.start()
        score_track(
            {"voice": read},
            {"voice": read},
            None,
            ScoringSettings(BUILT_IN),
            sample_rate=RATE,
            samples=seconds * RATE,
            channels=1,
        )
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what is kept for good
    # Of the longer track, one signal alone takes 6 MB.
    assert peak(200) < peak(20) + 1e6
