"""What is done already is left alone, under its name, whatever else comes and goes."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from beamsplitter.audio.decoding.audio_reader import AudioInfo
from beamsplitter.storage import OutputTree, Storage, StorageError
from beamsplitter.transforms.manifest import (
    differences,
    manifest_of,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from beamsplitter.transforms.plain import to_plain
from beamsplitter.transforms.published_files import published
from beamsplitter.transforms.records import PendingRecording, Receipt, Recording
from beamsplitter.transforms.resuming import OtherResultsError, Resumption
from beamsplitter.transforms.roots import Root
from beamsplitter.transforms.settings import SplitSettings

PLAIN = SplitSettings()
WITHOUT_PLOTS = SplitSettings(plots={"enabled": False})
INFO = AudioInfo("wav", "pcm_16", 44100, 1, 100, 16, False)


class World:
    """A folder of recordings, and one of results that need not be sound."""

    def __init__(self, folder: Path) -> None:
        self.music, self.out = folder / "music", folder / "out"
        self.music.mkdir()
        self.tree = OutputTree(str(self.out))

    def write(self, name: str, content: str = "sound") -> Path:
        path = self.music / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def resumption(self, settings: SplitSettings = PLAIN, **more: Any) -> Resumption:
        return Resumption(str(self.music), self.tree, settings, **more)

    def ask(
        self, name: str, settings: SplitSettings = PLAIN, *, force: bool = False, **more: Any
    ) -> PendingRecording | Receipt:
        return self.resumption(settings, **more).pending_or_receipt(name, force=force, renew=True)

    def finish(self, name: str, settings: SplitSettings = PLAIN, **more: Any) -> str:
        """Do what is still to do, as far as files and manifest go; gives the folder."""
        found = self.ask(name, settings, **more)
        if isinstance(found, Receipt):
            return found.folder
        names = {
            "stems": [f"{stem}.{settings.stems.format}" for stem in settings.wanted_stems],
            "plots": ["spectrogram.png"],
        }
        files = list(found.kept)
        for branch in found.todo:
            for file in names[branch]:
                data = f"{branch} of {name}".encode()
                self.tree.write(data, found.folder, file)
                stem = file.partition(".")[0] if branch == "stems" else None
                files.append(published(data, file, branch=branch, stem=stem))
        fields = {each.name: getattr(found, each.name) for each in dataclasses.fields(found)}
        recording = Recording(**fields, info=INFO, start_sample=0, total_samples=100)
        manifest = manifest_of(
            recording,
            tuple(files),
            settings,
            source_sha256=Storage().sha256_of(found.uri),
            work_s=1,
        )
        write_manifest(manifest, self.tree, found.folder)
        return found.folder

    def is_done(self, name: str, settings: SplitSettings = PLAIN, **more: Any) -> bool:
        return isinstance(self.ask(name, settings, **more), Receipt)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty one."""
    return World(tmp_path)


# Folders ------------------------------------------------------------------------------------------


def test_a_folder_is_the_path_without_extension(world: World) -> None:
    for name, folder in (("deep/a.b.wav", "deep/a.b"), ("deep/noise", "deep/noise")):
        world.write(name)
        assert world.finish(name) == folder
        assert world.is_done(name)


def test_recordings_that_would_share_a_folder_keep_their_extension(world: World) -> None:
    for name in ("a.wav", "a.MP3", "b.wav"):
        world.write(name)
    (world.music / "b.flac").mkdir()
    assert {name: world.finish(name) for name in ("a.wav", "a.MP3", "b.wav")} == {
        "a.wav": "a.wav",
        "a.MP3": "a.MP3",
        "b.wav": "b",
    }


def test_what_comes_or_goes_beside_a_recording_moves_and_redoes_nothing(world: World) -> None:
    world.write("a.wav")
    assert world.finish("a.wav") == "a"
    world.write("a.mp3")
    assert world.is_done("a.wav") and world.finish("a.wav") == "a"
    assert world.finish("a.mp3") == "a.mp3"
    (world.music / "a.wav").unlink()
    assert world.is_done("a.mp3") and world.finish("a.mp3") == "a.mp3"
    world.write("a.flac")
    assert world.finish("a.flac") == "a.flac"
    (world.music / "a.mp3").unlink()
    assert world.is_done("a.flac")


def test_what_was_finished_before_its_recording_went_stays_finished(world: World) -> None:
    """Klio passes on what is there, even if what it was made of is gone."""
    world.write("a.wav")
    world.write("b.wav")
    world.finish("a.wav")
    for name in ("a.wav", "b.wav"):
        (world.music / name).unlink()
    receipt = world.ask("a.wav")
    assert isinstance(receipt, Receipt)
    assert (receipt.folder, receipt.skipped) == ("a", True)
    assert receipt.files
    for name, more in (
        ("b.wav", {}),  # was not finished
        ("a.wav", {"force": True}),
        ("a.wav", {"settings": SplitSettings(stems={"format": "wav"})}),
    ):
        with pytest.raises(StorageError, match="is not there"):
            world.ask(name, **more)
    world.tree.write(b"", "b.wav.png")
    klio = world.resumption(finished_suffix=".png")
    assert isinstance(klio.pending_or_receipt("b.wav", force=False), Receipt)


def test_names_are_those_below_the_input_that_means_a_recording(world: World) -> None:
    """Whatever other inputs there are: they only decide what an element is called."""
    music = str(world.music)
    world.write("x/deep/a.wav")
    for roots, folder in (
        ([Root(f"{music}/x")], "deep/a"),
        ([Root(f"{music}/y"), Root(f"{music}/x/deep")], "a"),
        ([Root(music, ("*", "deep", "*.wav"))], "x/deep/a"),
        ([Root(music, ("*.wav",))], "a"),
        ([Root(music, ("**", "*.wav"))], "x/deep/a"),
        ([], "a"),
        (None, "x/deep/a"),
    ):
        assert world.ask("x/deep/a.wav", roots=roots).folder == folder


# Touched, copied and changed files ----------------------------------------------------------------


def test_a_touched_file_is_done_and_told_so_only_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.write("a.wav")
    world.finish("a.wav")
    os.utime(path, ns=(1, 1))
    assert world.is_done("a.wav")
    monkeypatch.setattr(Storage, "sha256_of", None)
    assert world.is_done("a.wav")


def test_a_look_changes_no_manifest(world: World) -> None:
    path = world.write("a.wav")
    world.finish("a.wav")
    os.utime(path, ns=(1, 1))
    before = (world.out / "a/manifest.json").read_bytes()
    found = world.resumption().pending_or_receipt("a.wav", force=False)
    assert isinstance(found, Receipt)
    assert (world.out / "a/manifest.json").read_bytes() == before


def test_a_manifest_is_not_made_newer_than_a_file_that_changed(world: World) -> None:
    """Or the change would not be seen any more: it is looked for in files that are newer."""
    path = world.write("a.wav")
    world.finish("a.wav")
    plot = world.out / "a/spectrogram.png"
    os.utime(world.out / "a/manifest.json", ns=(10**18, 10**18))
    plot.write_bytes(bytes(plot.stat().st_size))
    os.utime(path, ns=(1, 1))
    assert world.is_done("a.wav", WITHOUT_PLOTS)
    pending = world.ask("a.wav")
    assert isinstance(pending, PendingRecording) and pending.todo == ("plots",)


def test_changed_content_is_done_again(world: World) -> None:
    world.write("a.wav")
    world.finish("a.wav")
    world.write("a.wav", "other")
    pending = world.ask("a.wav", WITHOUT_PLOTS)
    assert isinstance(pending, PendingRecording)
    assert pending.todo == ("stems",) and not pending.kept
    assert set(pending.stale) == {"background.flac", "foreground.flac", "spectrogram.png"}


def test_results_of_another_recording_of_the_name_are_left_alone(world: World) -> None:
    world.write("x/a.wav")
    world.write("y/a.wav", "other")
    roots = [Root(str(world.music / "x")), Root(str(world.music / "y"))]
    world.finish("x/a.wav", roots=roots)
    with pytest.raises(OtherResultsError) as error:
        world.ask("y/a.wav", roots=roots)
    assert str(world.music / "x/a.wav") in str(error.value)
    assert isinstance(world.ask("y/a.wav", roots=roots, replace=True), PendingRecording)


# Other settings -----------------------------------------------------------------------------------

OTHERS = {
    "format": {"stems": {"format": "wav"}},
    "select": {"stems": {"select": ["background"]}},
    "separator": {"separation": {"separator": "hpss"}},
    "start_s": {"separation": {"start_s": 1.0}},
    "range_db": {"plots": {"range_db": 60.0}},
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_what_other_settings_made_is_replaced_only_when_asked(
    name: str, force: bool, world: World
) -> None:
    other = SplitSettings(**OTHERS[name])
    world.write("a.wav")
    world.finish("a.wav")
    with pytest.raises(OtherResultsError) as error:
        world.ask("a.wav", other, force=force)
    assert f"{name}: " in str(error.value)
    pending = world.ask("a.wav", other, replace=True, force=force)
    assert isinstance(pending, PendingRecording)
    assert ("stems" in pending.todo) == (force or name != "range_db")


def test_settings_that_decide_no_content_replace_nothing(world: World) -> None:
    world.write("a.wav")
    world.finish("a.wav")
    assert world.is_done("a.wav", SplitSettings(separation={"device": "cpu", "batch_size": 3}))


def test_plots_of_stems_that_stay_the_same_are_kept(world: World) -> None:
    """A lost stem is made again, byte for byte; a job without plots does not delete them."""
    world.write("a.wav")
    world.finish("a.wav")
    (world.out / "a/background.flac").unlink()
    pending = world.ask("a.wav", WITHOUT_PLOTS)
    assert isinstance(pending, PendingRecording)
    assert pending.todo == ("stems",)
    assert [file.name for file in pending.kept] == ["spectrogram.png"]
    world.finish("a.wav", WITHOUT_PLOTS)
    assert world.is_done("a.wav")


def test_plots_of_other_stems_go_with_them(world: World) -> None:
    world.write("a.wav")
    world.finish("a.wav")
    settings = SplitSettings(separation={"separator": "hpss"}, plots={"enabled": False})
    pending = world.ask("a.wav", settings, replace=True)
    assert isinstance(pending, PendingRecording)
    assert not pending.kept and "spectrogram.png" in pending.stale


def test_branches_added_later_keep_what_made_the_others(world: World) -> None:
    world.write("a.wav")
    folder = world.finish("a.wav", WITHOUT_PLOTS)
    before = read_manifest(world.tree, folder)
    world.finish("a.wav")
    after = read_manifest(world.tree, folder)
    assert before and after
    assert after.content.branches["stems"] == before.content.branches["stems"]
    assert after.content.branches["plots"].settings["range_db"] == 80


# Manifests ----------------------------------------------------------------------------------------


def test_manifests_of_the_first_format_count(world: World) -> None:
    """Their digests are of another kind: what they tell is never replaced unasked."""
    world.write("a.wav")
    world.finish("a.wav")
    path = world.out / "a/manifest.json"
    content = json.loads(path.read_text())
    digests = {name: each["digest"] for name, each in content.pop("branches").items()}
    path.write_text(json.dumps({**content, "format": 1, "beamsplitter": "0", "digests": digests}))
    assert world.is_done("a.wav")
    with pytest.raises(OtherResultsError, match="earlier version"):
        world.ask("a.wav", SplitSettings(stems={"format": "wav"}))


def test_a_manifest_is_what_was_written(world: World) -> None:
    world.write("a.wav")
    folder = world.finish("a.wav")
    data = (world.out / folder / "manifest.json").read_bytes()
    manifest = parse_manifest(data)
    assert json.loads(data) == json.loads(json.dumps(to_plain(manifest)))
    settings = manifest.branches["stems"].settings
    assert settings["separator"] == "nn-filter" and settings["format"] == "flac"


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"format": 2}', b'{"format": 99, "files": []}', b"\xff\xfe"]
)
def test_what_is_no_manifest_is_told(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_manifest(data)


def test_differences_are_those_that_matter() -> None:
    before = {"separator": "a", "options": {"x": 1}, "format": "flac", "select": ["p", "q"]}
    now = {"separator": "b", "options": {"y": 2}, "format": "flac", "select": None}
    told = differences(before, now)
    assert "separator: a, now b" in told and "select: p q, now not set" in told
    assert "options" not in told and "format" not in told
    assert differences(before, {**before, "options": {"x": 2}}) == "options.x: 1, now 2"
    before = {"sets": {"a": {"kind": "mel", "n_mels": 64}}, "excerpts": {"take": "whole"}}
    sets = {"a": {"kind": "mel", "n_mels": 32}, "b": {"kind": "mfcc"}}
    now = {"sets": sets, "excerpts": {"take": "whole"}}
    told = differences(before, now)
    assert told == "sets.a.n_mels: 64, now 32; sets.b: not set, now mfcc"
    of_recording, of_stems = {"results_version": 2, "start_s": 0.0}, {"stems": "0123"}
    assert differences(of_recording, of_stems) == "without stems, now with them"
    assert differences(of_stems, of_recording) == "with stems, now without"
    told = differences(of_stems, {"stems": "4567", "of": "spectra", "width": 1})
    assert told == (
        "of stems that were made with other settings; by another join; width: not set, now 1"
    )
    assert differences({**of_recording, "results_version": 1}, of_recording).startswith(
        "by another version of beamsplitter"
    )
