"""Which estimates go with which track, as tools name them."""

import pytest

from beamsplitter.models.datasets.stem_folders import (
    DatasetError,
    StemFile,
    StemTrack,
    group_tracks,
)
from beamsplitter.models.evaluation.matching import (
    RESIDUAL,
    Matched,
    match,
    references_for,
    separated_tracks,
)
from beamsplitter.storage import Storage

STEMS = ("vocals", "drums", "bass", "other")


def track(name: str, stems: tuple[str, ...] = STEMS) -> StemTrack:
    files = {stem: StemFile(f"/data/{name}/{stem}.wav") for stem in stems}
    return StemTrack(name, files, StemFile(f"/data/{name}/mixture.wav"))


def matched(paths: list[str], *tracks: StemTrack, names: dict[str, str] | None = None) -> Matched:
    """Estimates with these paths, matched with tracks."""
    found = group_tracks(paths, "/out", Storage().reading)
    return match("system", tracks, found, names=names)


def estimates_of(found: Matched) -> dict[str, dict[str, str]]:
    return {
        each.name: {stem: file.path for stem, file in each.estimates.items()}
        for each in found.tracks
    }


@pytest.mark.parametrize(
    "folder",
    [
        "AM Contra",  # spleeter, open-unmix, this tool
        "htdemucs/AM Contra",  # demucs
        "AM Contra/mixture",  # this tool, of a folder of a dataset
        "test/AM Contra/mixture",
        "AM Contra.stem",  # this tool, of a .stem.mp4
    ],
)
def test_trees_of_tools_are_recognised(folder: str) -> None:
    names = [f"{folder}/vocals.wav", f"{folder}/drums.flac"]
    found = matched(names, track("test/AM Contra"), track("test/Other"))
    assert estimates_of(found) == {
        "test/AM Contra": {"vocals": f"/out/{names[0]}", "drums": f"/out/{names[1]}"}
    }
    assert found.missing == ("test/Other",)
    assert found.unknown == found.ignored == ()


def test_more_of_a_path_decides() -> None:
    names = ["train/A/vocals.wav", "test/A/vocals.wav"]
    found = estimates_of(matched(names, track("train/A"), track("test/A")))
    assert found["train/A"]["vocals"] == "/out/train/A/vocals.wav"
    assert found["test/A"]["vocals"] == "/out/test/A/vocals.wav"


def test_what_may_be_of_several_tracks_is_refused() -> None:
    with pytest.raises(DatasetError, match="may be of train/A, test/A"):
        matched(["A/vocals.wav"], track("train/A"), track("test/A"))


def test_two_models_in_a_folder_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"htdemucs/A and mdx/A are both of A"):
        matched(["htdemucs/A/vocals.wav", "mdx/A/vocals.wav"], track("A"))


def test_names_are_mapped() -> None:
    names = ["song-1/lead.wav", "song-1/rest.wav"]
    found = matched(
        names,
        track("A"),
        names={"song-1": "A", "lead": "vocals", "rest": "accompaniment"},
    )
    assert set(estimates_of(found)["A"]) == {"vocals", "accompaniment"}


def test_what_goes_with_nothing_is_told() -> None:
    names = ["A/vocals.wav", "A/kazoo.wav", "B/vocals.wav"]
    found = matched(names, track("A"), track("C"))
    assert found.ignored == ("kazoo",)
    assert found.unknown == ("B",)
    assert found.missing == ("C",)
    assert matched(["A/kazoo.wav"], track("A")).missing == ("A",)


@pytest.mark.parametrize("name", ["accompaniment", "instrumental", "no_vocals"])
def test_all_but_the_vocals_is_their_sum(name: str) -> None:
    stems = track("A").stems
    found = references_for(stems, ["vocals", name])
    assert found["vocals"].files == (stems["vocals"],)
    assert set(found[name].files) == {stems[each] for each in ("drums", "bass", "other")}
    assert set(found) == {"vocals", name}


@pytest.mark.parametrize("estimated", [("vocals",), ("vocals", "residual"), STEMS, ("no_drums",)])
def test_references_are_the_whole_mixture(estimated: tuple[str, ...]) -> None:
    stems = track("A").stems
    found = references_for(stems, estimated)
    files = [file for reference in found.values() for file in reference.files]
    assert sorted(files, key=str) == sorted(stems.values(), key=str)
    assert (RESIDUAL in found) == (estimated != STEMS)


def test_a_separator_is_held_against_the_stems_that_it_gives() -> None:
    found = separated_tracks("net", [track("A"), track("B", ("piano",))], ("vocals", "residual"))
    (only,) = found.tracks
    assert only.name == "A"
    assert not only.estimates
    assert len(only.references["residual"].files) == 3
    assert found.missing == ("B",)
