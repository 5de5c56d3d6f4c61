"""The steps in pipelines of one's own: from messages and paths, alone and together."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import librosa
import numpy as np
import pytest
import soundfile
import soxr
from apache_beam.pvalue import TaggedOutput
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image

import beamsplitter.transforms as steps
from beamsplitter.audio.errors import TooShortAudioError
from beamsplitter.models.separators.nearest_neighbors import mask_options, separate
from beamsplitter.models.separators.recipes import RECIPES
from beamsplitter.storage import OutputTree, Storage, StorageError
from beamsplitter.transforms import (
    CoGroupTracks,
    EncodeStems,
    FeatureSetSettings,
    FilterNearestNeighbors,
    GetMagnitude,
    GetSoftMask,
    GetSpec,
    GetSTFT,
    InverseSTFT,
    LoadAudio,
    LoadBinary,
    PlotSettings,
    PublishTrack,
    SpecToPlot,
    SplitSettings,
    SubtractNearest,
    TakeFeatures,
    Track,
    UploadPlots,
    message_of,
    path_messages,
)
from beamsplitter.transforms.coders import TrackCoder
from beamsplitter.transforms.klio.decorators import handle_binary, handle_klio
from beamsplitter.transforms.klio.message import (
    KlioJob,
    array_from_bytes,
    new_message,
    parse_message,
)
from beamsplitter.transforms.steps import Step

WriteAudio = Callable[..., Path]
RATE = 22050
LIBROSA = RECIPES["librosa"]


def one(step: Step, record: Any, tag: str | None = None) -> Track:
    """The one output of a step, or the one of a tag."""
    outputs = list(step.process(record))
    if tag is not None:
        outputs = [each.value for each in outputs if each.tag == tag]
    (output,) = outputs
    assert not isinstance(output, TaggedOutput)
    return output


def loaded(path: str | Path, **options: Any) -> Track:
    return one(LoadAudio(**options), one(LoadBinary(), os.fspath(path)))


def magnitude_of(path: str | Path, **options: Any) -> Track:
    return one(GetMagnitude(), one(GetSTFT(), loaded(path, **options)), "spectrogram")


def masked(path: str | Path, **options: Any) -> Track:
    track = one(FilterNearestNeighbors(LIBROSA), magnitude_of(path, **options))
    for stem in ("background", "foreground"):
        track = one(GetSoftMask(stem, **mask_options(LIBROSA, stem)), track)
    return track


# In ----------------------------------------------------------------------------------------------


def test_a_message_and_a_path_name_a_recording(write_audio: WriteAudio, tmp_path: Path) -> None:
    path = write_audio("music/deeper/song.wav", seconds=2.5, channels=2, sample_rate=RATE)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    message = new_message("deeper/song", recipients=[KlioJob(job_name="next")]).SerializeToString()
    by_message = one(LoadBinary(location=str(tmp_path / "music"), file_suffix=".wav"), message)
    by_path = one(LoadBinary(), str(path))
    for track in (by_message, by_path):
        assert track.binary == path.read_bytes()
        assert track.sample_rate == RATE
        np.testing.assert_array_equal(one(LoadAudio(), track).samples, expected)
    assert by_message.element == "deeper/song"
    assert by_message.recording.folder == "deeper/song"
    assert by_message.recording.message == message
    assert by_path.element == str(path)
    assert parse_message(by_path.recording.message).data.element == os.fsencode(path)
    assert by_path.recording.folder == os.path.splitext(str(path))[0].lstrip("/")


def test_recordings_that_differ_in_their_extension_have_folders_of_their_own(
    write_audio: WriteAudio, tmp_path: Path
) -> None:
    names = ("a.wav", "a.flac", "b.wav")
    for name in names:
        write_audio(name, seconds=0.1)
    load = LoadBinary(location=str(tmp_path))
    assert [one(load, name).recording.folder for name in names] == ["a.wav", "a.flac", "b"]


@pytest.mark.parametrize("element", ["../secret.wav", "/etc/secret.wav", "gs://other/secret.wav"])
def test_elements_stay_below_the_location(element: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="secret"):
        list(LoadBinary(location=str(tmp_path)).process(element))


def test_large_files_are_read_where_they_lie(
    write_audio: WriteAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamsplitter.transforms.loading.BINARY_LIMIT_BYTES", 1000)
    path = write_audio("song.wav", seconds=1)
    track = one(LoadBinary(), str(path))
    assert track.binary is None
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    np.testing.assert_array_equal(one(LoadAudio(), track).samples, expected)


@pytest.mark.parametrize(("offset", "duration"), [(0, 1), (0.5, None), (0.2, 0.8), (1.5, 60)])
def test_offset_and_duration_cut_an_excerpt(
    offset: float, duration: float | None, write_audio: WriteAudio
) -> None:
    path = write_audio("song.wav", seconds=2, sample_rate=RATE)
    track = loaded(path, offset=offset, duration=duration)
    expected, _ = librosa.load(path, sr=None, offset=offset, duration=duration)
    np.testing.assert_array_equal(track.samples[0], expected)
    assert track.recording.total_samples == len(expected)
    assert track.recording.start_sample == round(offset * RATE)


def test_an_excerpt_behind_the_end_is_an_error(write_audio: WriteAudio) -> None:
    with pytest.raises(TooShortAudioError, match="before the excerpt begins"):
        loaded(write_audio("song.wav", seconds=2), offset=3)


def test_another_rate_and_mono(write_audio: WriteAudio) -> None:
    path = write_audio("song.wav", seconds=2, channels=2, sample_rate=44100)
    stereo = soundfile.read(path, dtype="float32")[0]
    track = loaded(path, offset=0.5, sample_rate=RATE, mono=True)
    expected = soxr.resample(stereo[22050:].mean(axis=1), 44100, RATE, quality="VHQ")
    assert track.samples.shape == (1, len(expected))
    np.testing.assert_allclose(track.samples[0], expected, atol=1e-6)
    assert track.sample_rate == RATE
    assert track.recording.info.channels == 1
    assert track.recording.duration_s == pytest.approx(1.5)
    assert track.recording.start_sample / track.sample_rate == 0.5


# Between -----------------------------------------------------------------------------------------


def test_the_spectral_steps_equal_librosa(write_audio: WriteAudio) -> None:
    path = write_audio("song.wav", seconds=6, sample_rate=RATE)
    samples, _ = librosa.load(path, sr=None)
    track = one(GetSTFT(n_fft=1024, hop_length=256), loaded(path))
    spectrum = librosa.stft(samples, n_fft=1024, hop_length=256)
    np.testing.assert_allclose(track.stft[0], spectrum, atol=1e-4)

    track = magnitude_of(path)
    magnitude, phase = librosa.magphase(librosa.stft(samples))
    np.testing.assert_allclose(track.magnitude[0], magnitude, atol=1e-4)
    np.testing.assert_allclose(track.magnitude[0] * track.phase[0], magnitude * phase, atol=1e-4)
    track.magnitude[0] = magnitude  # from here on bit for bit
    nearest = librosa.decompose.nn_filter(
        magnitude, aggregate=np.median, metric="cosine", width=int(librosa.time_to_frames(2))
    )
    nearest = np.minimum(magnitude, nearest)
    track = one(FilterNearestNeighbors(LIBROSA), track)
    np.testing.assert_array_equal(track.nearest[0], nearest)
    net = one(SubtractNearest(), track)
    np.testing.assert_array_equal(net.net[0], magnitude - nearest)
    for each in (track, net):
        mask = one(GetSoftMask("background", margin=2), each).masks["background"]
        expected = librosa.util.softmask(nearest, 2 * (magnitude - nearest), power=2)
        np.testing.assert_array_equal(mask[0], expected)
        mask = one(GetSoftMask("foreground", margin=10), each).masks["foreground"]
        expected = librosa.util.softmask(magnitude - nearest, 10 * nearest, power=2)
        np.testing.assert_array_equal(mask[0], expected)


def test_the_way_back_gives_the_stems_of_the_method(write_audio: WriteAudio) -> None:
    path = write_audio("song.wav", seconds=5.3, channels=2, sample_rate=RATE)
    expected = separate(loaded(path).samples, RATE, LIBROSA)
    stems = one(InverseSTFT(), masked(path)).stems
    assert stems.keys() == expected.keys()
    for stem, samples in expected.items():
        np.testing.assert_array_equal(stems[stem], samples)


def test_a_foreground_without_mask_is_what_the_background_leaves(write_audio: WriteAudio) -> None:
    path = write_audio("song.wav", seconds=5, sample_rate=RATE)
    track = one(FilterNearestNeighbors(LIBROSA), magnitude_of(path))
    track = one(GetSoftMask("background"), track)
    stems = one(InverseSTFT(["foreground", "residual"]), track).stems
    assert stems.keys() == {"foreground", "residual"}
    np.testing.assert_allclose(stems["foreground"] + stems["residual"], track.samples, atol=1e-6)


def everything(path: Path, tmp_path: Path) -> Iterable[tuple[Step, Any]]:
    """Each step with a record that it takes."""
    settings, tree = SplitSettings(), OutputTree(str(tmp_path / "out"))
    binary = one(LoadBinary(), str(path))
    samples = one(LoadAudio(), binary)
    stft = one(GetSTFT(), samples)
    magnitude = one(GetMagnitude(), stft, "spectrogram")
    nearest = one(FilterNearestNeighbors(), magnitude)
    mask = one(GetSoftMask("background"), nearest)
    stems = one(InverseSTFT(), mask)
    encoded = one(EncodeStems(settings, tree), stems)
    powers = one(GetSpec(), mask)
    plots = one(SpecToPlot(), powers)
    yield LoadAudio(offset=0.1, sample_rate=8000, mono=True), binary
    yield GetSTFT(), samples
    yield GetMagnitude(), stft
    yield FilterNearestNeighbors(), magnitude
    yield SubtractNearest(), nearest
    yield GetSoftMask("foreground"), mask
    yield InverseSTFT(["foreground", "residual"]), mask
    yield EncodeStems(settings, tree), stems
    yield GetSpec(), mask
    yield GetSpec(), samples
    yield GetSpec(), encoded
    yield SpecToPlot(), powers
    yield UploadPlots(settings, tree), plots
    yield PublishTrack(settings, tree), encoded


def test_steps_leave_what_they_are_given_as_it_is(write_audio: WriteAudio, tmp_path: Path) -> None:
    """Several may take one record: in Klio's example the spectrogram goes three ways."""
    path = write_audio("song.wav", seconds=3, channels=2, sample_rate=RATE)

    coder = TrackCoder(Track)
    for step, record in everything(path, tmp_path):
        before = coder.decode(coder.encode(record))
        list(step.process(record))
        record.begun_s, record.work_before_s = before.begun_s, before.work_before_s
        for name, value in vars(before).items():
            np.testing.assert_equal(vars(record)[name], value, err_msg=f"{step} changed {name}")


def test_a_step_out_of_order_says_what_is_missing(write_audio: WriteAudio) -> None:
    track = loaded(write_audio("song.wav", seconds=1))
    for step, name in (
        (GetMagnitude(), "stft"),
        (FilterNearestNeighbors(), "magnitude"),
        (GetSoftMask("background"), "magnitude"),
    ):
        with pytest.raises(ValueError, match=f"no {name} yet"):
            list(step.process(track))


def test_a_hop_without_way_back_is_told(write_audio: WriteAudio) -> None:
    track = one(GetSTFT(n_fft=1024, hop_length=300), loaded(write_audio("a.wav", seconds=2)))
    track = one(FilterNearestNeighbors(), one(GetMagnitude(), track, "spectrogram"))
    with pytest.raises(ValueError, match="divides the window of 1024 samples, not 300"):
        one(InverseSTFT(), one(GetSoftMask("background"), track))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: LoadAudio(offset=-1), "offset"),
        (lambda: LoadAudio(duration=0), "duration"),
        (lambda: LoadAudio(sample_rate=0), "sample_rate"),
        (lambda: GetSoftMask("vocals"), "background, foreground"),
        (lambda: GetSTFT(n_fft=1023), "even"),
        (lambda: GetSTFT(hop_length=0), "hop_length"),
        (lambda: GetSTFT(window_s=0), "window_s"),
        (lambda: SpecToPlot(title="{name}"), "element"),
    ],
)
def test_options_that_mean_nothing_are_refused_at_once(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


# Plots -------------------------------------------------------------------------------------------


def test_the_power_of_a_spectrogram_is_re_full_scale(write_audio: WriteAudio) -> None:
    time_s = np.arange(3 * RATE) / RATE
    path = write_audio(
        "sine.wav", samples=np.sin(2 * np.pi * 1000 * time_s)[None], sample_rate=RATE
    )
    (power,) = one(GetSpec(), magnitude_of(path)).powers.values()
    # Between two bins a Hann window loses up to 1.42 dB.
    assert -1.5 < 10 * np.log10(power.max()) < 0.1
    rows = power.shape[0]
    edges = 30 * (RATE / 2 / 30) ** (np.arange(rows + 1) / rows)
    loudest = power.max(axis=1).argmax()
    assert edges[loudest] * 0.97 < 1000 < edges[loudest + 1] * 1.03
    assert (power.max(axis=0) > 0.1).all()  # no column without a frame


def test_each_frame_and_bin_of_a_spectrogram_is_seen(write_audio: WriteAudio) -> None:
    path = write_audio("song.wav", seconds=4, sample_rate=RATE)
    track = magnitude_of(path)
    full_scale = track.n_fft / 4
    for frame, bin_ in ((0, 500), (100, 700), (track.magnitude.shape[2] - 1, 1024)):
        track.magnitude[:] = 0
        track.magnitude[0, bin_, frame] = full_scale
        (power,) = one(GetSpec(), track).powers.values()
        assert power.max() == pytest.approx(1)


def test_masks_are_plotted_as_what_they_let_through(write_audio: WriteAudio) -> None:
    track = masked(write_audio("song.wav", seconds=5, sample_rate=RATE))
    powers = one(GetSpec(), track).powers
    assert powers.keys() == {"background", "foreground"}
    for stem, mask in track.masks.items():
        alone = dataclasses.replace(track, masks={}, magnitude=track.magnitude * mask)
        np.testing.assert_array_equal(powers[stem], one(GetSpec(), alone).powers["mixture"])


def test_silence_is_drawn(write_audio: WriteAudio) -> None:
    track = magnitude_of(write_audio("a.wav", samples=np.zeros((1, RATE)), sample_rate=RATE))
    powers = one(GetSpec(), track)
    assert powers.powers["mixture"].max() == 0
    assert one(SpecToPlot(), powers).plots["mixture"].startswith(b"\x89PNG")


def test_a_plot_has_the_size_that_is_asked_for_and_lies_in_the_tree(
    write_audio: WriteAudio, tmp_path: Path
) -> None:
    settings = SplitSettings(plots=steps.PlotSettings(width=800, height=300))
    path = write_audio("in/song.wav", seconds=2, sample_rate=RATE)
    track = one(LoadAudio(), one(LoadBinary(location=str(path.parent)), "song.wav"))
    track = one(SpecToPlot(settings, title="{stem} of {element}"), one(GetSpec(settings), track))
    tree = OutputTree(str(tmp_path / "out"))
    track = one(UploadPlots(settings, tree), track)
    assert [file.name for file in track.files] == ["spectrogram.png"]
    with Image.open(tmp_path / "out" / "song" / "spectrogram.png") as picture:
        assert picture.size == (800, 300)


# In Beam -----------------------------------------------------------------------------------------


def test_one_bad_recording_is_an_output_of_its_own(write_audio: WriteAudio, tmp_path: Path) -> None:
    good = write_audio("good.wav", seconds=3, sample_rate=RATE)
    (tmp_path / "bad.wav").write_text("no audio")
    paths = [str(good), str(tmp_path / "bad.wav"), str(tmp_path / "gone.wav")]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        binaries, failed = (
            pipeline | beam.Create(paths) | beam.ParDo(LoadBinary()).with_exception_handling()
        )
        stft = binaries | beam.ParDo(LoadAudio()) | beam.ParDo(GetSTFT())
        magnitude = stft | beam.ParDo(GetMagnitude()).with_outputs()
        names = magnitude.phase | beam.Map(lambda track: track.element)
        assert_that(names, equal_to([str(good)]), label="good")
        lost = failed | beam.Map(lambda each: (each[0], each[1][0].__name__))
        assert_that(
            lost,
            equal_to([(paths[1], "UndecodableAudioError"), (paths[2], "StorageError")]),
            label="bad",
        )


def test_one_bad_recording_ends_a_pipeline_that_does_not_take_it(tmp_path: Path) -> None:
    pipeline = beam.Pipeline(runner="FnApiRunner")
    pipeline | beam.Create([str(tmp_path / "gone.wav")]) | beam.ParDo(LoadBinary())
    with pytest.raises(Exception, match=r"gone\.wav"):
        pipeline.run()


def test_branches_meet_again(write_audio: WriteAudio, tmp_path: Path) -> None:
    """As in Klio's example, but with what one element lacks left out."""
    path = write_audio("in/song.wav", seconds=5, sample_rate=RATE)
    write_audio("in/other.wav", seconds=5, sample_rate=RATE, seed=1)
    expected = separate(loaded(path).samples, RATE, LIBROSA)
    settings, tree = SplitSettings(), OutputTree(str(tmp_path / "out"))
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        messages = pipeline | beam.Create(
            [new_message(name).SerializeToString() for name in ("song", "other")]
        )
        full = (
            messages
            | beam.ParDo(LoadBinary(Storage(), location=str(path.parent), file_suffix=".wav"))
            | beam.ParDo(LoadAudio())
            | beam.ParDo(GetSTFT())
            | beam.ParDo(GetMagnitude()).with_outputs()
        ).spectrogram
        nearest = (
            full
            | beam.Filter(lambda track: track.element == "song")
            | beam.ParDo(FilterNearestNeighbors(LIBROSA))
        )
        masks = {
            stem: {"full": full, "nearest": nearest}
            | f"group {stem}" >> CoGroupTracks()
            | stem >> beam.ParDo(GetSoftMask(stem, **mask_options(LIBROSA, stem)))
            for stem in ("background", "foreground")
        }
        stems = masks | "group stems" >> CoGroupTracks() | beam.ParDo(InverseSTFT())
        encoded = stems | beam.ParDo(EncodeStems(settings, tree))
        paths = encoded | beam.FlatMap(path_messages, tree.location)
        told = paths | beam.Map(lambda data: parse_message(data).data)
        names = told | beam.Map(lambda data: (data.element, data.payload.decode()))
        folder = tmp_path / "out" / "song"
        assert_that(
            names,
            equal_to([(b"song", str(folder / f"{stem}.flac")) for stem in expected]),
        )
    for stem, samples in expected.items():
        written = soundfile.read(folder / f"{stem}.flac", dtype="float32", always_2d=True)[0].T
        np.testing.assert_allclose(written, samples, atol=2**-15)


@handle_klio
@handle_binary(skip_dump=True)
def shape_of(ctx: Any, item: Any) -> str:
    return json.dumps([item.element.decode(), *item.payload.shape])


def test_messages_lead_to_steps_of_klio(write_audio: WriteAudio) -> None:
    path = write_audio("song.wav", seconds=1, channels=2, sample_rate=RATE)
    track = magnitude_of(path)
    payload = parse_message(message_of(track, "magnitude")).data.payload
    np.testing.assert_array_equal(array_from_bytes(payload), track.magnitude)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        shapes = (
            pipeline
            | beam.Create([str(path)])
            | beam.ParDo(LoadBinary())
            | beam.ParDo(LoadAudio())
            | beam.Map(message_of, "samples")
            | beam.Map(shape_of)
            | beam.Map(lambda data: json.loads(parse_message(data).data.payload))
        )
        assert_that(shapes, equal_to([[str(path), 2, RATE]]))


@pytest.mark.parametrize("name", ["stft", "masks.vocals", "nothing"])
def test_an_array_that_is_not_there_is_told(name: str, write_audio: WriteAudio) -> None:
    with pytest.raises(ValueError, match=name):
        message_of(loaded(write_audio("song.wav", seconds=1)), name)


def test_a_track_of_a_graph_of_ones_own_can_be_published(
    write_audio: WriteAudio, tmp_path: Path
) -> None:
    settings, tree = SplitSettings(), OutputTree(str(tmp_path / "out"))
    path = write_audio("in/song.wav", seconds=3, sample_rate=RATE)
    track = one(LoadAudio(), one(LoadBinary(location=str(path.parent)), "song.wav"))
    track = one(FilterNearestNeighbors(), one(GetMagnitude(), one(GetSTFT(), track), "spectrogram"))
    track = one(InverseSTFT(), one(GetSoftMask("background"), track))
    receipt = one(PublishTrack(settings, tree), one(EncodeStems(settings, tree), track))
    manifest = json.loads((tmp_path / "out" / "song" / "manifest.json").read_text())
    assert [file["name"] for file in manifest["files"]] == ["background.flac"]
    assert receipt.folder == "song"


def test_features_are_taken_in_a_graph_of_ones_own(write_audio: WriteAudio, tmp_path: Path) -> None:
    path = write_audio("a.wav", seconds=2, sample_rate=8000)
    settings = SplitSettings(
        features=FeatureSetSettings(sets={"mfcc": {"n_mels": 20, "n_mfcc": 13}}, plots=True),
        plots=PlotSettings(enabled=False),
    )
    tree = OutputTree(str(tmp_path / "out"))
    track = one(TakeFeatures(settings, tree), loaded(path))
    one(PublishTrack(settings, tree), track)
    (folder,) = (path.parent for path in (tmp_path / "out").rglob("manifest.json"))
    assert (folder / "features.png").exists()
    with np.load(folder / "features.npz") as arrays:
        made = arrays["mfcc/mixture"]
    samples = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    right = librosa.feature.mfcc(y=samples, sr=8000, n_mels=20, n_mfcc=13).T
    np.testing.assert_allclose(made, right, atol=0.01)


def test_every_step_of_the_room_is_there() -> None:
    assert all(getattr(steps, name) is not None for name in steps.__all__)
