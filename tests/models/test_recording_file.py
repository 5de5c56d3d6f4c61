"""Files of a recording's features: what is written is what everyone reads."""

import io
import json
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from beamsplitter.models.feature_sets.arrays import (
    DTYPES,
    FORMATS_OF,
    ArrayEntry,
    RecordingFormat,
    require_dtype,
)
from beamsplitter.models.feature_sets.errors import FeatureSetError
from beamsplitter.models.feature_sets.recording_file import (
    open_recording_file,
    write_recording_file,
)
from beamsplitter.models.feature_sets.samples import Sample, samples_of

FORMATS: tuple[RecordingFormat, ...] = ("npz", "safetensors")
NAMES = ("log_mel/mixture", "log_mel/Gesang ü", "stft/mixture", "stft/Gesang ü")
METADATA = {"format": 1, "element": "a\udcff.wav", "statistics": {"mean": [1.5, -0.25]}}
any_arrays = st.dictionaries(
    st.sampled_from(NAMES),
    hnp.arrays(
        st.sampled_from([*DTYPES.values()]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
    ),
)


def entry_of(name: str, array: np.ndarray, block: int = 2) -> ArrayEntry:
    """What writes an array in blocks of some frames."""
    starts = range(0, len(array), block)
    return ArrayEntry(
        name,
        array.shape,
        array.dtype.name,
        lambda: (array[start : start + block] for start in starts),
    )


def written(
    arrays: dict[str, np.ndarray],
    format: RecordingFormat,
    metadata: dict[str, Any] = METADATA,
    block: int = 2,
) -> bytes:
    file = io.BytesIO()
    entries = [entry_of(name, array, block) for name, array in arrays.items()]
    write_recording_file(file, entries, metadata, format)
    return file.getvalue()


def opened(data: bytes) -> Any:
    return open_recording_file(io.BytesIO(data), name="song/features")


def read_by_libraries(path: Path, format: RecordingFormat) -> tuple[dict[str, Any], Any]:
    """What NumPy's and safetensors' own readers make of a file: its arrays, and the metadata."""
    if format == "npz":
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(arrays.pop("metadata.json"))
    with safe_open(path, "np") as file, safe_open(path, "pt") as of_torch:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, array in arrays.items():
            np.testing.assert_array_equal(of_torch.get_tensor(name).numpy(), array)
        return arrays, json.loads(file.metadata()["metadata.json"])


@pytest.mark.parametrize("format", FORMATS)
@given(arrays=any_arrays)
@settings(deadline=None)
def test_every_reader_reads_what_was_written(
    format: RecordingFormat, arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("files") / "features"
    data = written(arrays, format)
    path.write_bytes(data)
    ours = opened(data)
    theirs, metadata = read_by_libraries(path, format)
    assert ours.names == tuple(arrays)
    assert ours.metadata == metadata == METADATA
    assert {*theirs} == {*arrays}
    for name, array in arrays.items():
        for read in (ours.read(name), theirs[name]):
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
            assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_blocks_and_their_order_in_memory_make_no_difference(format: RecordingFormat) -> None:
    array = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    of_columns = np.asfortranarray(array)
    files = {
        written({"a/b": each}, format, block=block)
        for each in (array, of_columns)
        for block in (1, 9)
    }
    assert len(files) == 1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "blocks",
    [
        [np.zeros((2, 3), np.float32)],
        [np.zeros((3, 3), np.float32), np.zeros((2, 3), np.float32)],
        [np.zeros((4, 2), np.float32)],
        [np.zeros((4, 3), np.float64)],
        [np.zeros((4, 3), ">f4")],
    ],
)
def test_blocks_that_do_not_make_up_the_array_are_refused(
    format: RecordingFormat, blocks: list[np.ndarray]
) -> None:
    entry = ArrayEntry("mel/mixture", (4, 3), "float32", lambda: blocks)
    with pytest.raises(ValueError, match="mel/mixture"):
        write_recording_file(io.BytesIO(), [entry], {}, format)


@pytest.mark.parametrize("format", FORMATS)
def test_files_that_storage_gives_will_do(format: RecordingFormat, tmp_path: Path) -> None:
    """On disk, and held in memory until they are large."""
    entries = [entry_of(name, array) for name, array in ARRAYS.items()]
    with (
        tempfile.SpooledTemporaryFile(100) as spooled,
        (tmp_path / "features").open("x+b") as on_disk,
    ):
        for file in (spooled, on_disk):
            write_recording_file(file, entries, METADATA, format)
            file.seek(0)
            assert file.read() == written(ARRAYS, format)


@pytest.mark.parametrize("format", FORMATS)
def test_no_more_than_a_block_is_held(format: RecordingFormat, tmp_path: Path) -> None:
    block = np.zeros((256, 1024), np.float32)
    entry = ArrayEntry("mel/mixture", (64 * 256, 1024), "float32", lambda: [block] * 64)
    with (tmp_path / "features").open("w+b") as file:
        tracemalloc.start()
        write_recording_file(file, [entry], {}, format)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert file.tell() > 64 * block.nbytes
    assert peak < 3 * block.nbytes


@pytest.mark.parametrize(
    "names", [("mel",), ("mel/",), ("../mel",), ("mel/a\nb",), ("a/b", "a/b"), ("a\\b/c",)]
)
def test_names_that_not_all_formats_can_hold_are_refused(names: tuple[str, ...]) -> None:
    entries = [entry_of(name, np.zeros((1, 1), np.float32)) for name in names]
    with pytest.raises(FeatureSetError):
        write_recording_file(io.BytesIO(), entries, {}, "npz")


def test_which_formats_hold_what() -> None:
    assert {*FORMATS_OF} == {*DTYPES}
    require_dtype("complex64", "safetensors")
    with pytest.raises(FeatureSetError, match=r"parquet holds no complex64: take .* or one of npz"):
        require_dtype("complex64", "parquet")
    with pytest.raises(FeatureSetError, match="float64"):
        require_dtype("float64", "npz")


# Damaged and hostile files ------------------------------------------------------------------------

ARRAYS = {
    "log_mel/mixture": np.arange(12, dtype=np.float32).reshape(4, 3),
    "stft/mixture": (np.arange(8) * 1j).astype(np.complex64).reshape(2, 4),
}


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_a_damaged_file_is_told_or_read_as_it_was(format: RecordingFormat, data: Any) -> None:
    """An `.npz` has checksums; of `.safetensors` only the header is held against anything."""
    content = bytearray(written(ARRAYS, format))
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]
    else:
        content[data.draw(st.integers(0, len(content) - 1), "place")] ^= data.draw(
            st.integers(1, 255), "bits"
        )
    try:
        recording = opened(bytes(content))
        arrays = {name: recording.read(name) for name in recording.names}
    except FeatureSetError as error:
        assert str(error).startswith("song/features: is not whole: ")
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(content)
    if format == "npz":
        for name in {*arrays} & {*ARRAYS}:
            np.testing.assert_array_equal(arrays[name], ARRAYS[name])


def safetensors_file(header: Any, content: bytes = b"\0" * 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def npz_file(header: str, content: bytes = b"\0" * 16, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("metadata.json", "{}")
        text = header.encode().ljust(117) + b"\n"
        archive.writestr(
            "a/b.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + content
        )
    return file.getvalue()


OF_SAFETENSORS = {"__metadata__": {"metadata.json": "{}"}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"not a file of any kind",
        struct.pack("<Q", 2**63) + b"{}",
        safetensors_file({}),
        safetensors_file([]),
        safetensors_file(b"[" * 200_000),
        safetensors_file({**OF_SAFETENSORS, "a/b": 3}),
        *(
            safetensors_file(
                {**OF_SAFETENSORS, "a/b": {"dtype": dtype, "shape": shape, "data_offsets": span}}
            )
            for dtype, shape, span in (
                ("F32", [2**40, 2**40], [0, 16]),
                ("F32", [2**62], [0, 2**64]),
                ("F32", [-4], [0, -16]),
                ("F32", [4.0], [0, 16]),
                ("F32", [True, 4], [0, 16]),
                ("F32", [2], [0, 8]),
                ("F32", [4], [8, 24]),
                ("F32", [], [0, 4]),
                ("F32", [1] * 60, [0, 4]),
                ("O", [2], [0, 16]),
                ("F64", [2], [0, 16]),
                ("F32", [4], ["0", "16"]),
                ("F32", [4], [0]),
            )
        ),
        npz_file("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}"),
        npz_file("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}"),
        npz_file("{'descr': '>f4', 'fortran_order': False, 'shape': (4,)}"),
        npz_file("{'descr': '<f4', 'fortran_order': True, 'shape': (4,)}"),
        npz_file("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npz_file("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}"),
        npz_file("__import__('os').abort()"),
        npz_file("{'descr': '<f4', 'fortran_order': False, 'shape': (4"),
        npz_file(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", method=zipfile.ZIP_DEFLATED
        ),
    ],
)
def test_hostile_files_are_refused(content: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(FeatureSetError, match=r"^song/features: is not whole: "):
        opened(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


def test_members_that_share_bytes_are_refused() -> None:
    """A zip whose members are more together than the file."""
    content = npz_file("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (wanted,) = (each for each in archive.infolist() if each.filename == "a/b.npy")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("a/b.npy", b"\0" * wanted.file_size)
        for number in range(9):
            again = zipfile.ZipInfo(f"a/{number}.npy")
            for name in ("CRC", "file_size", "compress_size", "header_offset"):
                setattr(again, name, getattr(archive.getinfo("a/b.npy"), name))
            archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(FeatureSetError, match="larger than the file"):
        opened(file.getvalue())


# Samples ------------------------------------------------------------------------------------------


def recording_of(*, indexed: bool, excerpts: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    metadata = {
        "format": 1,
        "element": "gs://bucket/song.wav",
        "folder": "album/song",
        "sets": {"log_mel": {"kind": "log_mel"}, "cqt": {"kind": "cqt"}},
        "signals": ["mixture", "vocals"],
        "excerpts": [{"start_s": 3.0 * index, "duration_s": 3.0} for index in range(excerpts)],
        "indexed": indexed,
    }
    numbers = [f"/{index:05d}" for index in range(excerpts)] if indexed else [""]
    arrays = {
        f"{name}/{signal}{number}": np.full((2, 3), float(seed), np.float32)
        for seed, number in enumerate(numbers)
        for name in ("log_mel", "cqt")
        for signal in ("mixture", "vocals")
    }
    return arrays, metadata


@pytest.mark.parametrize("format", FORMATS)
def test_an_array_that_is_not_there_is_no_damage(format: RecordingFormat) -> None:
    with pytest.raises(KeyError, match="mel/drums"):
        opened(written(ARRAYS, format)).read("mel/drums")


@pytest.mark.parametrize("format", FORMATS)
def test_samples_are_the_excerpts_of_a_recording(format: RecordingFormat) -> None:
    arrays, metadata = recording_of(indexed=True, excerpts=3)
    samples = [*samples_of(opened(written(arrays, format, metadata)))]
    assert [sample.key for sample in samples] == [f"album/song/{index:05d}" for index in range(3)]
    for index, sample in enumerate(samples):
        assert sample.facts == {
            "element": "gs://bucket/song.wav",
            "folder": "album/song",
            "index": index,
            "start_s": 3.0 * index,
            "duration_s": 3.0,
        }
        assert [*sample.arrays] == [
            "log_mel/mixture",
            "log_mel/vocals",
            "cqt/mixture",
            "cqt/vocals",
        ]
        assert {float(array.min()) for array in sample.arrays.values()} == {float(index)}


def test_a_recording_of_one_excerpt_is_one_sample() -> None:
    arrays, metadata = recording_of(indexed=False, excerpts=1)
    (sample,) = samples_of(opened(written(arrays, "npz", metadata)))
    assert sample.key == "album/song"
    assert {*sample.arrays} == {*arrays}
    arrays, metadata = recording_of(indexed=True, excerpts=0)
    assert [*samples_of(opened(written(arrays, "npz", metadata)))] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signals": ["mixture", "drums"]}, "has no log_mel/drums, cqt/drums: make it again"),
        ({"indexed": True}, "has no log_mel/mixture/00000"),
        ({"excerpts": []}, "0 excerpts"),
        ({"excerpts": [{}]}, "excerpts.0.start_s"),
        ({"folder": 3}, "folder"),
        ({"folder": "../x"}, "no key"),
    ],
)
def test_metadata_that_do_not_fit_are_told(change: dict[str, Any], message: str) -> None:
    arrays, metadata = recording_of(indexed=False, excerpts=1)
    recording = opened(written(arrays, "npz", metadata | change))
    with pytest.raises(FeatureSetError, match=message):
        list(samples_of(recording))


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/../b", ".", "a\0"])
def test_keys_that_are_no_paths_are_refused(key: str) -> None:
    with pytest.raises(FeatureSetError, match="no key"):
        Sample(key, {}, {})
