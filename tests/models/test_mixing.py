"""The path from a part to its stems: properties that hold for every separator."""

import itertools

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from separators import Identity, Inventing, Smoothing, alone, smooth

from beamsplitter.audio.parts import Part, join_parts, plan_parts
from beamsplitter.models.separators.base import Member, ModelError, Separator
from beamsplitter.models.separators.blocks import BlockLengths
from beamsplitter.models.separators.mixing import (
    MixingOptions,
    Position,
    StreamingStatistics,
    alignment_of,
    from_groups,
    needed_context_samples,
    resample,
    separate_part,
    statistics_of,
    to_groups,
)
from beamsplitter.models.separators.nearest_neighbors import NearestNeighborSeparator
from beamsplitter.models.separators.plain_runner import PlainRunner
from beamsplitter.models.separators.recipes import RECIPES

RATE = 8000


def noise(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (channels, samples)).astype(np.float32)


def below(samples: int, rate: int, highest_hz: float, channels: int = 2) -> np.ndarray:
    """Noise without anything above a frequency."""
    spectrum = np.fft.rfft(noise(samples, channels))
    spectrum[:, np.fft.rfftfreq(samples, 1 / rate) > highest_hz] = 0
    return np.fft.irfft(spectrum, samples).astype(np.float32)


def whole(samples: np.ndarray) -> Position:
    return Position(0, samples.shape[-1], 0, samples.shape[-1])


def separate(
    samples: np.ndarray,
    *members: Member,
    stems: tuple[str, ...] = ("same", "nothing"),
    position: Position | None = None,
    sample_rate: int = RATE,
    **more: object,
) -> dict[str, np.ndarray]:
    return separate_part(
        samples,
        sample_rate,
        members,
        PlainRunner(members),
        position=position or whole(samples),
        stems=stems,
        **more,
    )


def in_parts(
    samples: np.ndarray, separator: Separator, sample_rate: int, *, context_s: float, **more: object
) -> np.ndarray:
    """The stem "same" made in parts of 10 s, joined."""
    rates = [separator.sample_rate] if separator.sample_rate else []
    parts = plan_parts(
        samples.shape[-1],
        sample_rate,
        samples.shape[0],
        part_seconds=10,
        context_samples=needed_context_samples(context_s, sample_rate, rates),
        alignment_samples=alignment_of(sample_rate, rates),
    )
    assert len(parts) > 1
    stems = [
        separate(
            samples[:, part.context_start_sample : part.context_stop_sample],
            *alone(separator),
            stems=("same",),
            sample_rate=sample_rate,
            position=Position(
                part.context_start_sample,
                samples.shape[-1],
                part.stem_start_sample,
                part.stem_stop_sample,
            ),
            **more,
        )["same"]
        for part in parts
    ]

    def read(part: Part, start: int, stop: int) -> np.ndarray:
        stem = stems[part.index]
        assert stem.shape[-1] == part.stem_stop_sample - part.stem_start_sample
        return stem[:, start - part.stem_start_sample : stop - part.stem_start_sample]

    return np.concatenate(list(join_parts(parts, read)), axis=-1)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("of_model", [None, 1, 2])
@pytest.mark.parametrize("samples", [1, 24, 25, 26, 99, 100, 101, 7919])
@pytest.mark.parametrize("lengths", [None, BlockLengths(), BlockLengths(60, 17)])
def test_identity_in_identity_out(
    lengths: BlockLengths | None, samples: int, of_model: int | None, channels: int
) -> None:
    mixture = noise(samples, channels)
    separator = Identity(100, block_lengths=lengths, context_samples=25, channels=of_model)
    stems = separate(mixture, *alone(separator))
    np.testing.assert_allclose(stems["same"], mixture, atol=1e-6)
    assert not stems["nothing"].any()


@given(
    reach=st.integers(1, 30),
    core=st.integers(1, 100),
    samples=st.integers(1, 700),
    shifts=st.integers(0, 2),
    lengths=st.none() | st.builds(BlockLengths, st.integers(1, 200), st.integers(1, 50)),
)
def test_blocks_whose_context_is_the_receptive_field_give_what_the_whole_gives(
    reach: int, core: int, samples: int, shifts: int, lengths: BlockLengths | None
) -> None:
    mixture = noise(samples)
    separator = Smoothing(core + 2 * reach, block_lengths=lengths, context_samples=reach)
    stems = separate(mixture, *alone(separator), options=MixingOptions(shifts=shifts))
    np.testing.assert_allclose(stems["same"], smooth(mixture, reach), atol=1e-5)
    np.testing.assert_allclose(stems["same"] + stems["nothing"], mixture, atol=1e-5)


@pytest.mark.parametrize("rate", [None, 8000, 11025, 7350])
@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("options", [MixingOptions(), MixingOptions(shifts=2, overlap=0.5)])
@pytest.mark.parametrize("lengths", [None, BlockLengths(1000, 300)])
def test_parts_give_what_the_whole_gives(
    rate: int | None, normalizes: bool, options: MixingOptions, lengths: BlockLengths | None
) -> None:
    """Also where neighbouring blocks never agree: the grid is that of the recording."""
    mixture = noise(33 * RATE + 77)
    separator = Inventing(
        4000,
        block_lengths=lengths,
        context_samples=500,
        sample_rate=rate,
        normalizes=normalizes,
    )
    statistics = statistics_of(resample(mixture, RATE, rate or RATE))
    expected = separate(mixture, *alone(separator), stems=("same",), options=options)["same"]
    joined = in_parts(
        mixture,
        separator,
        RATE,
        context_s=separator.longest_block_samples / (rate or RATE),
        options=options,
        statistics=statistics,
    )
    np.testing.assert_allclose(joined, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("rate", "of_model"),
    list(itertools.product([8000, 22050, 44100, 48000, 96000], [16000, 44100])),
)
def test_stems_keep_length_and_place_at_another_rate(rate: int, of_model: int) -> None:
    seconds = 1.2345
    mixture = below(round(seconds * rate), rate, 0.35 * min(rate, of_model))
    stems = separate(mixture, *alone(Identity(5000, sample_rate=of_model)), sample_rate=rate)
    assert stems["same"].shape == mixture.shape
    middle = slice(rate // 10, -rate // 10)
    np.testing.assert_allclose(stems["same"][:, middle], mixture[:, middle], atol=1e-4)


@given(channels=st.integers(1, 8), of_model=st.sampled_from([None, 1, 2, 3]))
def test_groups_of_channels_come_back(channels: int, of_model: int | None) -> None:
    mixture = noise(10, channels)
    groups = to_groups(mixture, of_model)
    assert of_model is None or groups.shape[1] == of_model
    back = from_groups(groups[:, None], channels, groups.shape[1])
    np.testing.assert_allclose(back[0], mixture, rtol=1e-6)


@given(channels=st.integers(1, 8), of_model=st.sampled_from([None, 1, 2, 3]))
def test_one_channel_of_a_model_stands_for_all_of_its_group(
    channels: int, of_model: int | None
) -> None:
    groups = to_groups(noise(10, channels), of_model)
    back = from_groups(groups[:, None, :1], channels, groups.shape[1])
    for channel in range(channels):
        first = groups[channel // groups.shape[1], 0]
        np.testing.assert_allclose(back[0, channel], first, rtol=1e-6)


def test_an_impulse_at_any_seam_stays_one_impulse() -> None:
    separator = Identity(100, overlap=0.25)
    for seam in (75, 100, 150, 175):
        for place in (seam - 1, seam, seam + 1):
            mixture = np.zeros((1, 400), np.float32)
            mixture[0, place] = 1
            np.testing.assert_allclose(
                separate(mixture, *alone(separator))["same"], mixture, atol=1e-6
            )


def test_gain_does_not_depend_on_what_stands_elsewhere() -> None:
    quiet_then_loud = noise(2000) * np.repeat([0.01, 1], 1000).astype(np.float32)
    stems = separate(quiet_then_loud, *alone(Identity(100, normalizes=True)))
    np.testing.assert_allclose(stems["same"], quiet_then_loud, atol=1e-6)


def test_silence_gives_finite_silence() -> None:
    for normalizes in (False, True):
        silence = np.zeros((2, 999), np.float32)
        stems = separate(silence, *alone(Identity(100, normalizes=normalizes)))
        assert not stems["same"].any()


def test_the_residual_makes_the_stems_sum_to_the_mixture() -> None:
    mixture = noise(500)
    stems = separate(mixture, *alone(Inventing(100)), stems=("same", "nothing", "residual"))
    np.testing.assert_allclose(sum(stems.values()), mixture, atol=1e-6)
    only = separate(mixture, *alone(Inventing(100)), stems=("same", "residual"))
    np.testing.assert_allclose(only["same"] + only["residual"], mixture, atol=1e-6)
    alone_ = separate(mixture, *alone(Inventing(100)), stems=("residual",))
    np.testing.assert_allclose(alone_["residual"], stems["residual"], atol=1e-6)


def test_an_ensemble_is_the_weighted_mean_of_its_members() -> None:
    mixture = noise(500)
    first, second = Smoothing(100, context_samples=10), Identity(80, context_samples=4)
    ensemble = (Member(first, {"same": 1.0, "nothing": 2.0}), Member(second, {"same": 3.0}))
    stems = separate(mixture, *ensemble)
    np.testing.assert_allclose(stems["same"], (smooth(mixture, 10) + 3 * mixture) / 4, atol=1e-5)
    np.testing.assert_allclose(stems["nothing"], mixture - smooth(mixture, 10), atol=1e-5)


def test_a_member_without_a_wanted_stem_is_not_run() -> None:
    class Refusing(Identity):
        def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
            raise AssertionError("was run")

    ensemble = (Member(Refusing(), {"nothing": 1.0}), Member(Identity(), {"same": 1.0}))
    assert separate(noise(50), *ensemble, stems=("same",)).keys() == {"same"}


def test_a_stem_that_no_member_gives_is_an_error() -> None:
    with pytest.raises(ModelError, match="stem 'vocals'"):
        separate(noise(50), *alone(Identity()), stems=("vocals",))


def test_numbers_that_are_not_finite_are_an_error() -> None:
    class Broken(Identity):
        def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
            return np.full((2, *block.shape), np.nan, np.float32)

    with pytest.raises(ModelError, match=r"^identity: .*NaN"):
        separate(noise(50), *alone(Broken()))


def test_shifts_are_the_same_each_time_and_follow_the_seed() -> None:
    mixture = noise(9000)
    made = [
        separate(mixture, *alone(Inventing(4000)), options=MixingOptions(shifts=2, seed=seed))[
            "same"
        ]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


@settings(max_examples=30)
@given(st.integers(2, 3000), st.integers(1, 900), st.sampled_from([8000, 11025, 4000]))
def test_statistics_of_blocks_are_those_of_the_whole(samples: int, block: int, rate: int) -> None:
    signal = noise(samples) + np.float32(0.3)
    found = StreamingStatistics(8000, rate)
    for start in range(0, samples, block):
        found.add(signal[:, start : start + block])
    result = found.result()
    # Not `resample`, which rounds the length up: a sample of silence counts in a short signal.
    mono = soxr.resample(signal.T, 8000, rate).mean(axis=1, dtype=np.float64)
    assert result.mean == pytest.approx(mono.mean(), abs=2e-3)
    if rate == 8000:
        assert result.mean == pytest.approx(mono.mean(), abs=1e-6)
        assert result.deviation == pytest.approx(np.std(mono, ddof=1), rel=1e-5)


@given(st.integers(1, 5), st.integers(0, 3), st.integers(1, 3), st.integers(50, 3000))
@settings(max_examples=30)
def test_progress_rises_to_one_over_members_groups_shifts_and_blocks(
    channels: int, shifts: int, members: int, block_samples: int
) -> None:
    separators = [Identity(block_samples, channels=2), Identity(None), Identity(500)][:members]
    told = [0.0]
    separate(
        noise(2000, channels),
        *(alone(each)[0] for each in separators),
        options=MixingOptions(shifts=shifts),
        progress=told.append,
    )
    assert told == sorted(told) and told[-1] == 1
    # No step is longer than a block is, or than a member that has none.
    most = max(min(1.0, block_samples / 2000), members > 1) / members
    assert max(np.diff(told)) <= most + 1e-9


def test_who_can_tell_shares_of_a_block_does() -> None:
    told: list[float] = []
    separator = NearestNeighborSeparator(RECIPES["default"])
    separate(noise(3 * RATE), *alone(separator), stems=separator.stems, progress=told.append)
    assert told == sorted(told) and told[-1] == 1
    assert len(set(told)) > 10
