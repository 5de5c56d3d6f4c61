"""The pictures show everything, at the right place and level, and are the same every time."""

import gc
import io
import itertools
import math
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import soundfile
from audio_files import recording
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from beamsplitter.audio import drawing
from beamsplitter.audio.drawing import Panel, draw_spectrogram, draw_spectrograms
from beamsplitter.audio.errors import EmptyAudioError
from beamsplitter.audio.plot_layout import PlotLayout, plot_area
from beamsplitter.audio.pooling import peak_level_db, plot_grid, pool_power

RATE = 8000


def noise(frames, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (channels, frames)).astype(np.float32)


def sine(hertz, rate, seconds=2.0):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)[np.newaxis]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def layout_of(grid, panels=1, dpi=72):
    return PlotLayout(grid.width, grid.rows, panels, dpi)


def heat_map(png, grid, *, panel=0, panels=1, dpi=72):
    """The part of the picture that is a spectrogram, lowest row first."""
    layout = layout_of(grid, panels, dpi)
    left, top = layout.left, layout.top_of(panel)
    return pixels(png)[top : top + grid.rows, left : left + grid.width][::-1]


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# The grid.


@given(
    total=st.integers(1, 3_000_000),
    rate=st.sampled_from([100, 8000, 22050, 44100, 48000, 192000]),
    columns=st.integers(16, 3000),
    rows=st.integers(16, 1200),
)
def test_every_sample_is_in_a_window_and_every_column_has_a_frame(total, rate, columns, rows):
    grid = plot_grid(total, rate, columns=columns, rows=rows)
    assert 1 <= grid.hop_length <= grid.n_fft // 2
    assert 1 <= grid.columns <= columns
    assert grid.columns == columns or total < columns
    last_centre = (grid.n_frames - 1) * grid.hop_length
    assert total - 1 <= last_centre < total - 1 + grid.hop_length
    centres = np.arange(grid.n_frames) * grid.hop_length
    filled = np.unique(grid.column_of(np.minimum(centres, total - 1)))
    np.testing.assert_array_equal(filled, np.arange(grid.columns))
    edges = grid.row_edges()
    assert edges[-1] == pytest.approx(rate / 2)
    assert np.all(np.diff(edges) > 0)


def test_windows_resolve_the_low_end_at_any_rate():
    assert plot_grid(10**7, 44100).n_fft == 4096
    assert plot_grid(10**7, 22050).n_fft == 2048
    assert plot_grid(10**7, 192000).n_fft == 16384
    assert plot_grid(200, 44100).n_fft == 256


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((0, 44100), {}, EmptyAudioError),
        ((1000, 0), {}, ValueError),
        ((1000, 44100), {"columns": 3}, ValueError),
        ((1000, 44100), {"rows": 3}, ValueError),
    ],
)
def test_grids_refuse_what_cannot_be_drawn(arguments, options, error):
    with pytest.raises(error):
        plot_grid(*arguments, **options)


# Pooling.


@st.composite
def recordings_in_parts(draw):
    total = draw(st.integers(1, 60_000))
    borders = sorted(draw(st.lists(st.integers(0, total), max_size=6)))
    channels = draw(st.integers(1, 2))
    grid = plot_grid(
        total, draw(st.sampled_from([100, RATE])), columns=draw(st.integers(16, 90)), rows=40
    )
    extra = draw(st.integers(0, 100))
    return noise(total, channels, seed=total), grid, [0, *borders, total], extra


@settings(max_examples=150, deadline=None)
@given(recordings_in_parts())
def test_merged_parts_are_the_whole_bit_for_bit(case):
    samples, grid, borders, extra = case
    whole = pool_power(samples, grid)
    merged = np.zeros_like(whole)
    context = grid.n_fft // 2 + extra
    for first, stop in itertools.pairwise(borders):
        start, end = max(first - context, 0), min(stop + context, grid.total_samples)
        part = pool_power(samples[:, start:end], grid, start_sample=start, core=(first, stop))
        np.maximum(merged, part, out=merged)
    np.testing.assert_array_equal(merged, whole)


def test_parts_of_real_audio_merge_bit_for_bit():
    samples, rate = soundfile.read(recording("fishin.ogg"), frames=900_001, dtype="float32")
    samples = samples.T
    grid = plot_grid(samples.shape[1], rate)
    merged = np.zeros((grid.rows, grid.columns), dtype=np.float32)
    for first in range(0, samples.shape[1], 123_457):
        core = first, min(first + 123_457, samples.shape[1])
        start, end = max(core[0] - 2048, 0), core[1] + 2048
        part = pool_power(samples[:, start:end], grid, start_sample=start, core=core)
        np.maximum(merged, part, out=merged)
    np.testing.assert_array_equal(merged, pool_power(samples, grid))


def test_parts_without_context_are_refused():
    grid = plot_grid(50_000, RATE)
    samples = noise(50_000)
    with pytest.raises(ValueError, match="context"):
        pool_power(samples[:, 20_000:], grid, start_sample=20_000)
    with pytest.raises(ValueError, match="context"):
        pool_power(samples[:, :20_000], grid)


@pytest.mark.parametrize("core", [(-1, 5), (5, 2), (0, 50_001)])
def test_cores_outside_the_recording_are_refused(core):
    with pytest.raises(ValueError, match="not within"):
        pool_power(noise(50_000), plot_grid(50_000, RATE), core=core)


@pytest.mark.parametrize("shape", [(100,), (0, 100), (1, 1, 100)])
def test_samples_need_channels(shape):
    with pytest.raises(ValueError, match="channels"):
        pool_power(np.zeros(shape, dtype=np.float32), plot_grid(100, RATE))


def test_an_empty_core_gives_nothing():
    grid = plot_grid(50_000, RATE)
    assert not pool_power(noise(50_000), grid, core=(77, 77)).any()
    assert not pool_power(noise(0), grid, start_sample=50_000).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 299_999))
def test_an_impulse_anywhere_shows_up_in_its_column(place):
    grid = plot_grid(300_000, RATE, columns=60, rows=40)
    assert grid.n_frames > 8 * grid.columns
    samples = np.zeros((1, 300_000), dtype=np.float32)
    samples[0, place] = 1.0
    power = pool_power(samples, grid)
    # The nearest window's centre is half a hop away at most, maybe across the column's border.
    near = np.array([place - grid.hop_length // 2, place, place + grid.hop_length // 2])
    columns = grid.column_of(near.clip(0, 299_999))
    alone = (4 / grid.n_fft) ** 2  # an impulse in a window's centre
    assert power.max() == pytest.approx(power[:, columns].max())
    assert power[:, columns].max() > 0.24 * alone
    far = np.delete(power, np.unique(columns), axis=1)
    assert far.max() <= 0.25 * alone


@settings(max_examples=60, deadline=None)
@given(st.floats(60, 10_500), st.sampled_from([22050, 44100]))
@example(330.1, 22050)
def test_a_sine_peaks_in_its_row_at_0_db(hertz, rate):
    samples = sine(hertz, rate)
    grid = plot_grid(samples.shape[1], rate)
    power = pool_power(samples, grid)[:, 100:-100]
    edges = grid.row_edges()
    spacing = rate / grid.n_fft / 2
    for column in power.T[::50]:
        row = int(column.argmax())
        assert edges[row] - spacing / 2 <= hertz <= edges[row + 1] + spacing / 2
        # Between two bins it loses 0.35 dB; where rows are as near to each other as bins, one that
        # lies between two of them has half the power of each: 0.65 dB.
        assert -0.7 < 10 * math.log10(column[row]) < 0.01


def test_channels_are_averaged_in_power():
    samples = sine(1000, RATE)
    grid = plot_grid(samples.shape[1], RATE)
    mono = pool_power(samples, grid)
    opposed = pool_power(np.concatenate([samples, -samples]), grid)
    one_sided = pool_power(np.concatenate([samples, 0 * samples]), grid)
    np.testing.assert_allclose(opposed, mono, rtol=1e-4)
    np.testing.assert_allclose(one_sided, mono / 2, rtol=1e-4)


def test_the_power_is_that_of_librosas_stft():
    librosa = pytest.importorskip("librosa")
    samples = noise(40_000)
    grid = plot_grid(40_000, RATE, columns=20, rows=30)
    spectrum = librosa.stft(
        np.pad(samples[0], (0, grid.hop_length)),
        n_fft=2 * grid.n_fft,
        win_length=grid.n_fft,
        hop_length=grid.hop_length,
    )[:, : grid.n_frames]
    power = np.abs(spectrum) ** 2 / (grid.n_fft / 4) ** 2
    frequencies = np.arange(grid.n_fft + 1) * RATE / (2 * grid.n_fft)
    edges = grid.row_edges()
    ours = pool_power(samples, grid)
    columns = np.minimum(np.arange(grid.n_frames) * grid.hop_length, 39_999) * 20 // 40_000
    for row in range(20, 30):
        stop = edges[row + 1] + (row == 29)
        band = power[(frequencies >= edges[row]) & (frequencies < stop)].max(axis=0)
        expected = [band[columns == column].max() for column in range(20)]
        np.testing.assert_allclose(ours[row], expected, rtol=1e-3)


def test_memory_stays_small_beside_the_samples():
    tracemalloc = pytest.importorskip("tracemalloc")
    samples = noise(4_000_000, channels=2)
    grid = plot_grid(samples.shape[1], 44100)
    tracemalloc.start()
    pool_power(samples, grid)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20 < samples.nbytes


# Drawing.


@pytest.mark.parametrize(
    ("columns", "rows"), [(940, 360), (941, 361), (16, 16), (115, 57), (2000, 700)]
)
def test_pictures_have_the_size_of_the_grid_and_margins(columns, rows):
    samples = noise(RATE)
    grid = plot_grid(RATE, RATE, columns=columns, rows=rows)
    image = pixels(draw_spectrogram(pool_power(samples, grid), grid, title="size"))
    assert image.shape == (rows + 90, columns + 160, 3)


def test_each_pixel_is_one_value_and_louder_is_brighter():
    grid = plot_grid(10**6, RATE)
    power = np.full((grid.rows, grid.columns), 1e-4, dtype=np.float32)
    power[50, 700] = 1.0
    power[200, 30] = 1e-2
    heat = heat_map(draw_spectrogram(power, grid, title=""), grid).sum(axis=-1)
    assert heat[50, 700] > heat[200, 30] > heat[0, 0]
    assert (heat != heat[0, 0]).sum() == 2


def test_short_recordings_fill_the_picture():
    grid = plot_grid(100, RATE)
    power = np.zeros((grid.rows, grid.columns), dtype=np.float32)
    power[:, -1] = 1.0
    heat = heat_map(draw_spectrogram(power, grid, title="short"), grid).sum(axis=-1)
    assert grid.columns == 100
    np.testing.assert_array_equal(heat[0] > heat.min(), np.arange(940) * 100 // 940 == 99)


def test_a_shared_peak_gives_a_shared_scale():
    samples = noise(RATE)
    grid = plot_grid(RATE, RATE)
    loud, quiet = pool_power(samples, grid), pool_power(samples / 10, grid)
    peak = peak_level_db(loud)
    assert peak_level_db(quiet) == pytest.approx(peak - 20, abs=0.01)
    shared = heat_map(draw_spectrogram(quiet, grid, title="x", peak_db=peak), grid)
    reference = heat_map(draw_spectrogram(loud, grid, title="x", peak_db=peak), grid)
    own = heat_map(draw_spectrogram(quiet, grid, title="x"), grid)
    assert shared.mean() < reference.mean() - 10
    assert np.abs(own.astype(int) - reference).mean() < 1


def test_the_peak_of_several_is_the_loudest_also_beside_silence():
    silence, quiet, broken = np.zeros((2, 2)), np.full((2, 2), 1e-4), np.full((2, 2), np.nan)
    assert peak_level_db(silence, quiet, quiet / 10, broken) == pytest.approx(-40)


# Sizes.


@pytest.mark.parametrize(
    ("width", "height", "dpi"), [(1100, 450, 72), (2200, 900, 144), (333, 190, 72)]
)
def test_pictures_have_the_pixels_and_the_dpi_that_are_asked_for(width, height, dpi):
    columns, rows = plot_area(width, height, dpi=dpi)
    grid = plot_grid(RATE, RATE, columns=columns, rows=rows)
    png = draw_spectrogram(pool_power(noise(RATE), grid), grid, title="size", dpi=dpi)
    image = Image.open(io.BytesIO(png))
    assert image.size == (width, height)
    assert image.info["dpi"] == pytest.approx((dpi, dpi), abs=0.02)


def test_a_picture_of_twice_the_size_and_dpi_is_the_same_one():
    def inked(scale):
        """Where the ink of each margin begins and ends, in pixels of the smaller picture."""
        columns, rows = plot_area(1100 * scale, 450 * scale, dpi=72 * scale)
        grid = plot_grid(120 * RATE, RATE, columns=columns, rows=rows)
        power = np.zeros((grid.rows, grid.columns), np.float32)
        png = draw_spectrogram(
            power, grid, title="a title", subtitle="beside it", dpi=72 * scale, peak_db=0.0
        )
        dark = pixels(png)[..., 0] < 200
        layout = layout_of(grid, dpi=72 * scale)
        middle = layout.left + grid.width // 2
        margins = {
            "title": dark[: layout.top, :middle],
            "subtitle": dark[: layout.top, middle:],
            "frequencies": dark[layout.top : layout.stop, : layout.left],
            "times": dark[layout.stop :],
            "levels": dark[layout.top : layout.stop, layout.left + grid.width :],
        }
        return {
            (name, axis): np.flatnonzero(margin.any(axis=axis))[[0, -1]] / scale
            for name, margin in margins.items()
            for axis in (0, 1)
        }

    small, large = inked(1), inked(2)
    for place, extent in small.items():
        # Letters are fitted to whole pixels.
        np.testing.assert_allclose(large[place], extent, atol=4, err_msg=str(place))


def test_pictures_without_room_for_a_spectrogram_are_refused_with_a_size_that_does():
    for dpi in (72, 144, 300):
        with pytest.raises(ValueError, match=f"{dpi} dpi") as refused:
            plot_area(200, 100, dpi=dpi)
        width, height = map(int, re.search(r"at least (\d+) x (\d+)", str(refused.value)).groups())
        assert min(plot_area(width, height, dpi=dpi)) > 0
        for smaller in ((width - 1, height), (width, height - 1)):
            with pytest.raises(ValueError):
                plot_area(*smaller, dpi=dpi)


def test_everything_that_is_written_lies_within_the_smallest_picture():
    columns, rows = plot_area(320, 190)
    grid = plot_grid(7200 * RATE, RATE, columns=columns, rows=rows)
    power = np.ones((grid.rows, grid.columns), np.float32)
    picture = pixels(
        draw_spectrogram(power, grid, title="W" * 99, subtitle="W" * 99, start_s=9000.5)
    )
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert edge.min() == 255


# Several in one picture.


def test_a_combined_picture_holds_the_pictures_of_each():
    signals = [noise(RATE), noise(RATE, seed=1) / 9, np.zeros((1, RATE), np.float32)]
    grid = plot_grid(RATE, RATE)
    panels = [
        Panel(name, pool_power(signal, grid), grid)
        for name, signal in zip("abc", signals, strict=True)
    ]
    peak_db = peak_level_db(panels[0][1])
    together = draw_spectrograms(panels, peak_db=peak_db)
    for index, (title, power, _) in enumerate(panels):
        alone = draw_spectrogram(power, grid, title=title, peak_db=peak_db)
        np.testing.assert_array_equal(
            heat_map(together, grid, panel=index, panels=3), heat_map(alone, grid)
        )
        # The titles, but where the axis has a tick.
        layout = layout_of(grid, 3)
        top = layout.top_of(index)
        title_strip = slice(layout.left, layout.left + grid.width)
        np.testing.assert_array_equal(
            pixels(together)[top - 30 : top, title_strip], pixels(alone)[6:36, title_strip]
        )
    last = pixels(draw_spectrogram(panels[2][1], grid, title="c", peak_db=peak_db))
    stop = layout_of(grid).stop
    np.testing.assert_array_equal(
        pixels(together)[layout.stop + 1 :, : layout.left + grid.width],
        last[stop + 1 :, : layout.left + grid.width],
    )


def test_without_a_peak_the_loudest_of_a_combined_picture_is_the_top_of_the_scale():
    grid = plot_grid(RATE, RATE)
    quiet, loud = (pool_power(noise(RATE) * gain, grid) for gain in (0.01, 1))
    panels = [Panel("quiet", quiet, grid), Panel("loud", loud, grid)]
    given = draw_spectrograms(panels, peak_db=peak_level_db(loud))
    assert draw_spectrograms(panels) == given


def test_panels_may_have_rates_of_their_own():
    """Stems that were resampled, below their mixture: each has its own frequencies."""
    grids = [plot_grid(RATE, RATE), plot_grid(RATE // 2, RATE // 2)]
    panels = [
        Panel(str(grid.sample_rate), pool_power(noise(grid.total_samples), grid), grid)
        for grid in grids
    ]
    together = draw_spectrograms(panels)
    for index, panel in enumerate(panels):
        top_db = peak_level_db(*(each.power for each in panels))
        alone = draw_spectrogram(panel.power, panel.grid, title="", peak_db=top_db)
        np.testing.assert_array_equal(
            heat_map(together, panel.grid, panel=index, panels=2), heat_map(alone, panel.grid)
        )
    other = plot_grid(RATE, RATE, columns=200, rows=100)
    with pytest.raises(ValueError, match="one width and height"):
        draw_spectrograms([panels[0], Panel("", pool_power(noise(RATE), other), other)])


@pytest.mark.parametrize("peak_db", [None, -20.0, -math.inf, math.nan])
def test_silence_is_dark(peak_db):
    grid = plot_grid(RATE, RATE)
    power = pool_power(np.zeros((2, RATE), dtype=np.float32), grid)
    heat = heat_map(draw_spectrogram(power, grid, title="silence", peak_db=peak_db), grid)
    assert heat.max() < 8
    assert peak_level_db(power) == 0.0


def test_samples_that_are_not_numbers_do_not_spoil_the_picture():
    grid = plot_grid(RATE, RATE)
    power = np.full((grid.rows, grid.columns), 1e-3, dtype=np.float32)
    power[3, 3], power[4, 4] = np.nan, np.inf
    heat = heat_map(draw_spectrogram(power, grid, title="nan"), grid).sum(axis=-1)
    assert peak_level_db(power) == pytest.approx(-30)
    assert heat[3, 3] < heat[0, 0]
    assert heat[4, 4] == heat[0, 0] == heat.max()


def test_power_of_another_grid_is_refused():
    grid = plot_grid(RATE, RATE)
    with pytest.raises(ValueError, match="shape"):
        draw_spectrogram(np.zeros((3, 4), dtype=np.float32), grid, title="x")
    with pytest.raises(ValueError, match="range"):
        power = np.zeros((grid.rows, grid.columns), dtype=np.float32)
        draw_spectrogram(power, grid, title="x", range_db=0)


def seconds_of(name):
    """What a tick's name says, in seconds; the names of hours and minutes are not for this."""
    return sum(float(part) * 60**power for power, part in enumerate(reversed(name.split(":"))))


UNIT_S = {
    "Time (ms)": 0.001,
    "Time (s)": 1,
    "Time (m:ss)": 1,
    "Time (h:mm)": 60,
    "Time (h:mm:ss)": 1,
}


@given(
    st.sampled_from([0.0, 0.25, 59.5, 60.0, 61.7, 3599.0, 3600.0, 9000.5, 360_000.0]),
    st.floats(-4, 6).map(lambda power: 10**power),
    st.integers(2, 40),
)
@example(0.0, 60.0, 9)
@example(0.0, 3600.0, 9)
@example(0.25, 10**2.4375, 2)  # no multiple of five minutes
@example(0.25, 10**6.0, 2)  # 0 is a rounding error before the start
def test_time_ticks_are_few_distinct_and_where_their_names_say(start_s, duration_s, most):
    ticks, names, label = drawing._time_ticks(start_s, duration_s, most)
    assert 1 <= len(ticks) == len(names) <= most + 1
    assert len(set(names)) == len(names)
    room_s = 3e-6 * (start_s + duration_s)  # far less than a pixel
    assert start_s - room_s <= ticks[0] and ticks[-1] <= start_s + duration_s + room_s
    step = np.diff(ticks).min(initial=duration_s)
    said = np.array([seconds_of(name) for name in names]) * UNIT_S[label]
    np.testing.assert_allclose(said, ticks, rtol=1e-9, atol=1e-3 * step)


@pytest.mark.parametrize(
    ("start_s", "duration_s", "first", "label"),
    [
        (0, 0.01, ["0", "2", "4"], "Time (ms)"),
        (0, 2.7, ["0", "0.5", "1"], "Time (s)"),
        (0, 59.99, ["0", "10", "20"], "Time (s)"),
        (0, 120, ["0:00", "0:15", "0:30"], "Time (m:ss)"),
        (0, 1500, ["0:00", "5:00", "10:00"], "Time (m:ss)"),
        (0, 3600, ["0:00", "0:10", "0:20"], "Time (h:mm)"),
        (0, 36_000, ["0:00", "2:00", "4:00"], "Time (h:mm)"),
        (60, 30, ["1:00", "1:05", "1:10"], "Time (m:ss)"),
        (62.5, 30, ["1:05", "1:10", "1:15"], "Time (m:ss)"),
        (60, 2, ["1:00.0", "1:00.5", "1:01.0"], "Time (m:ss)"),
        (5, 0.1, ["5", "5.02", "5.04"], "Time (s)"),
        (7200, 60, ["2:00:00", "2:00:10", "2:00:20"], "Time (h:mm:ss)"),
    ],
)
def test_time_ticks_read_as_people_write_them(start_s, duration_s, first, label):
    _, names, found = drawing._time_ticks(start_s, duration_s, 9)
    assert (names[:3], found) == (first, label)


def test_an_excerpt_differs_from_the_same_recording_alone_by_its_time_axis():
    grid = plot_grid(RATE, RATE)
    power = pool_power(noise(RATE), grid)
    alone = pixels(draw_spectrogram(power, grid, title="x"))
    excerpt = pixels(draw_spectrogram(power, grid, title="x", start_s=60.0))
    stop = layout_of(grid).stop
    np.testing.assert_array_equal(alone[:stop], excerpt[:stop])
    assert (alone[stop:] != excerpt[stop:]).any()


def test_frequency_ticks_are_those_people_know():
    grid = plot_grid(10**6, 44100)
    octaves, names = drawing._frequency_ticks(grid, 20)
    assert names == ["50", "100", "200", "500", "1k", "2k", "5k", "10k", "20k"]
    assert 2 ** octaves[0] == pytest.approx(50)
    assert 2 ** octaves[-1] == pytest.approx(20_000)
    assert drawing._frequency_ticks(grid, 5)[1] == ["100", "1k", "10k"]


@pytest.mark.parametrize("rate", [20, 100, 8000, 44100, 192000])
@pytest.mark.parametrize("seconds", [0.01, 5, 36_000])
def test_any_length_and_rate_can_be_drawn(rate, seconds):
    grid = plot_grid(max(round(rate * seconds), 1), rate)
    power = np.ones((grid.rows, grid.columns), dtype=np.float32)
    assert pixels(draw_spectrogram(power, grid, title="any")).shape == (450, 1100, 3)


TITLES = [
    "",
    " ",
    "$x_1^2$ is $unclosed",
    r"100% \frac{1}{2} _under_ #1 {braces} \n",
    "two\nlines\r\nand\ttabs\0and\x1bcontrols",
    "夜に駆ける – 宇多田ヒカル",
    "😀👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "e\u0301 é עברית العربية",
    "undecodable \udcff\udc80 file name",
    "word " * 60,
    "W" * 300,
    "x" * 300,
    "漢" * 300,
    "a long name that differs at its end only " * 8 + "take 2",
]


@pytest.mark.parametrize("title", TITLES)
def test_titles_are_drawn_whatever_they_hold(title):
    grid = plot_grid(RATE, RATE)
    power = np.zeros((grid.rows, grid.columns), dtype=np.float32)
    image = pixels(draw_spectrogram(power, grid, title=title))
    blank = pixels(draw_spectrogram(power, grid, title=""))
    layout = layout_of(grid)
    band = image[: layout.top]
    assert band[:, : layout.left - 2].min() == 255
    assert band[:, -8:].min() == 255
    assert (band[: layout.top - 6].min() < 128) == bool(title.strip())
    np.testing.assert_array_equal(image[layout.top :], blank[layout.top :])


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=300), st.integers(16, 300))
def test_no_title_breaks_a_picture(title, columns):
    grid = plot_grid(RATE, RATE, columns=columns, rows=16)
    power = np.zeros((grid.rows, grid.columns), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_spectrogram(power, grid, title=title)


def test_long_titles_keep_both_ends():
    grid = plot_grid(RATE, RATE)
    power = np.zeros((grid.rows, grid.columns), dtype=np.float32)
    first, second = (draw_spectrogram(power, grid, title="name " * 80 + end) for end in "12")
    assert first != second


# The same every time.


def test_the_same_bytes_every_time_and_in_any_thread():
    samples, rate = soundfile.read(recording("robin.ogg"), dtype="float32", always_2d=True)
    grid = plot_grid(len(samples), rate)

    def draw(title):
        return draw_spectrogram(pool_power(samples.T, grid), grid, title=title)

    titles = ["robin.ogg", "robin $2$", "x" * 300, "夜"] * 4
    alone = [draw(title) for title in titles]
    drawing._drawn_axes.cache_clear()
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(draw, titles))
    assert alone == together
    assert alone[:4] == alone[4:8]


def test_pictures_hold_no_metadata():
    grid = plot_grid(RATE, RATE)
    png = draw_spectrogram(pool_power(noise(RATE), grid), grid, title="meta")
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.info.keys() == {"dpi"}
    assert not any(chunk in png for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME"))


def test_pictures_do_not_follow_rc_params():
    matplotlib = pytest.importorskip("matplotlib")
    grid = plot_grid(RATE, RATE)
    power = pool_power(noise(RATE), grid)
    plain = draw_spectrogram(power, grid, title="rc")
    drawing._drawn_axes.cache_clear()
    odd = {
        "axes.facecolor": "red",
        "axes.grid": True,
        "axes.labelcolor": "green",
        "axes.linewidth": 5,
        "figure.dpi": 30,
        "figure.autolayout": True,
        "figure.facecolor": "red",
        "font.size": 30,
        "font.family": "serif",
        "text.color": "green",
        "text.usetex": True,
        "image.cmap": "gray",
        "image.interpolation": "bicubic",
        "image.origin": "upper",
        "savefig.dpi": 30,
        "text.parse_math": True,
        "xtick.color": "green",
        "xtick.direction": "in",
        "xtick.minor.visible": True,
        "xtick.top": True,
        "ytick.labelright": True,
        "ytick.labelsize": 30,
        "ytick.major.size": 20,
        "ytick.minor.visible": True,
    }
    with matplotlib.rc_context(odd):
        assert draw_spectrogram(power, grid, title="rc") == plain


def test_pyplot_is_never_imported():
    code = (
        "import sys, numpy as np\n"
        "from beamsplitter.audio.drawing import *\n"
        "from beamsplitter.audio.pooling import *\n"
        "grid = plot_grid(8000, 8000)\n"
        "draw_spectrogram(pool_power(np.ones((1, 8000), np.float32), grid), grid, title='x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_many_pictures_leave_little_behind():
    """Even before the garbage collection, which a busy worker puts off: artists, but no pixels."""
    grid = plot_grid(RATE, RATE)
    power = pool_power(noise(RATE), grid)

    def draw(count):
        for i in range(count):
            drawing._drawn_axes.cache_clear()
            draw_spectrogram(power, grid, title=f"plot {i}")
        return psutil.Process().memory_info().rss

    before = draw(10)
    gc.disable()
    try:
        assert draw(10) - before < 10 * 1.8 * 2**20  # the renderer's buffer alone has 1.9 MiB
    finally:
        gc.enable()
    gc.collect()
    before = draw(10)
    assert draw(30) - before < 10 * 2**20
