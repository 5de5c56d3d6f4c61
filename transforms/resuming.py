"""What of a recording is done already, and what is still to do. No Beam: launchers ask, too."""

import dataclasses
import errno
import os
from collections.abc import Sequence

from ..audio.extensions import has_audio_extension
from ..errors import BeamsplitterError
from ..models.datasets.stem_folders import DatasetError
from ..storage import FileStat, OutputTree, Storage, StorageError
from .manifest import (
    FoundManifest,
    differences,
    finished_branches,
    read_manifest,
    write_manifest,
)
from .records import PendingRecording, Receipt
from .roots import Root, name_below, place_below, without_extension
from .settings import SplitSettings, digest_of
from .true_stems import find_true_stems


class OtherResultsError(BeamsplitterError):
    """What would be replaced was made with other settings, or of another recording."""


class Resumption:
    """What is still to do of each recording.

    Parameters
    ----------
    location
        folder of the recordings; an element is a path below it, or a whole `gs://` path, as
        storage notifications have it
    tree
        where the results go; its storage reads the recordings, too
    settings
        what is to be made of each recording
    suffix
        added to each element that is a path below the location
    roots
        what the recordings are called below in the output tree; None: the location
    finished_suffix
        a recording is finished, too, if this added to its element names a file in the
        output tree: Klio's check
    replace
        replace what other settings have made, or what was made of another recording
    """

    def __init__(
        self,
        location: str,
        tree: OutputTree,
        settings: SplitSettings,
        *,
        suffix: str = "",
        roots: Sequence[Root] | None = None,
        finished_suffix: str = "",
        replace: bool = False,
    ) -> None:
        self.location = location
        self.suffix = suffix
        self.roots = roots
        self.tree = tree
        self.settings = settings
        self.described = settings.described()
        self.digests = {branch: digest_of(self.described[branch]) for branch in settings.branches}
        self.finished_suffix = finished_suffix
        self.replace = replace

    def pending_or_receipt(
        self, element: str, *, force: bool, message: bytes = b"", renew: bool = False
    ) -> PendingRecording | Receipt:
        """The pending recording of an element, or the receipt of a finished one.

        Parameters
        ----------
        force
            do it again if it is finished
        message
            the bytes of the event
        renew
            have the manifest of a file that was touched tell its new generation

        Raises
        ------
        StorageError
            the recording is not there, and was not finished before, or can't be accessed
        OtherResultsError
            what would be replaced may not be
        """
        element, uri = self.place_of(element)
        name = element if self.roots is None else name_below(uri, self.roots)
        try:
            found = self.tree.storage.stat(uri)
        except StorageError as error:
            finished_before = None if force else self._receipt_without(element, name, uri, message)
            if error.errno != errno.ENOENT or finished_before is None:
                raise
            return finished_before
        folder, manifest = self._folder_of(name, uri)
        if not force and self._is_finished_as_klio_has_it(element):
            return Receipt(element, folder, 0.0, (), skipped=True, message=message)
        is_same = manifest is not None and self._is_same(manifest, found, uri)
        todo = tuple(self.digests)
        if manifest and is_same and not force:
            finished = finished_branches(manifest, self.tree, folder, self.digests)
            if "scores" in finished and self._has_other_references(manifest, uri, folder):
                finished.discard("scores")
            todo = self._todo_after(finished)
            if not todo:
                if renew:
                    self._renew(manifest, folder, found, uri)
                return _receipt_of(element, folder, manifest, message)
        kept: set[str] = set()
        if manifest:
            self._require_replaceable(manifest, todo, folder, uri, is_same=is_same)
            kept = self._kept_branches(manifest, todo) if is_same else set()
        files = manifest.content.files if manifest else ()
        branches = manifest.content.branches if manifest else {}
        return PendingRecording(
            element=element,
            uri=uri,
            folder=folder,
            size_bytes=found.size_bytes,
            generation=found.generation,
            todo=todo,
            kept=tuple(file for file in files if file.branch in kept),
            kept_branches={branch: branches[branch] for branch in sorted(kept)},
            stale=tuple(file.name for file in files if file.branch not in kept),
            message=message,
        )

    def _is_finished_as_klio_has_it(self, element: str) -> bool:
        return bool(self.finished_suffix) and self.tree.is_there(element + self.finished_suffix)

    def _receipt_without(self, element: str, name: str, uri: str, message: bytes) -> Receipt | None:
        """The receipt of a recording that was finished before it went away; None if it was not."""
        folders = dict.fromkeys((without_extension(name), name))
        for folder in folders if has_audio_extension(name) else (name,):
            manifest = read_manifest(self.tree, folder)
            if manifest and manifest.content.input.uri == uri:
                finished = finished_branches(manifest, self.tree, folder, self.digests)
                if not self._todo_after(finished):
                    return _receipt_of(element, folder, manifest, message)
        if self._is_finished_as_klio_has_it(element):
            return Receipt(element, without_extension(name), 0.0, (), skipped=True, message=message)
        return None

    def place_of(self, element: str) -> tuple[str, str]:
        """The path below the location, and the whole path, of an element that is either.

        Raises
        ------
        StorageError
            it leads out of the location
        """
        return place_below(self.location, element, self.suffix)

    def _folder_of(self, name: str, uri: str) -> tuple[str, FoundManifest | None]:
        """The folder of a recording in the output tree, and the manifest in it, if there is one.

        It is its path without the extension. The extension stays where that folder is another
        recording's, or where another recording beside it would have it. What has a folder keeps
        it, whatever comes to lie beside it, or is taken away.
        """
        if not has_audio_extension(name):
            return name, read_manifest(self.tree, name)
        short = without_extension(name)
        manifest = read_manifest(self.tree, short)
        if manifest and os.path.basename(manifest.content.input.uri) == os.path.basename(uri):
            return short, manifest
        long_manifest = read_manifest(self.tree, name)
        if manifest or long_manifest or shares_name(uri, self.tree.storage):
            return name, long_manifest
        return short, None

    def _is_same(self, manifest: FoundManifest, found: FileStat, uri: str) -> bool:
        """Whether a manifest is about the content that lies there now."""
        told = manifest.content.input
        if told.generation == found.generation:
            return True
        # It was touched, copied or moved: what it holds counts.
        if told.size_bytes != found.size_bytes:
            return False
        return self.tree.storage.sha256_of(uri) == told.sha256

    def _has_other_references(self, manifest: FoundManifest, uri: str, folder: str) -> bool:
        """Whether the true stems are others now; where there are none any more, scores stay."""
        told = [file.references for file in manifest.content.files if file.references]
        try:
            found = find_true_stems(uri, folder, self.settings, self.tree.storage)
            return told != [found.digest(self.tree.storage)]
        except (DatasetError, StorageError):
            return False

    def _todo_after(self, finished: set[str]) -> tuple[str, ...]:
        todo = tuple(branch for branch in self.digests if branch not in finished)
        if "stems" not in todo:
            return todo
        # Plots show what the stems hold: new stems, new plots.
        shown = self.settings.branches_of_stems
        return tuple(each for each in self.digests if each in todo or each in shown)

    def _kept_branches(self, manifest: FoundManifest, todo: Sequence[str]) -> set[str]:
        """The branches whose files stay: those that this job does not make, unless they show other
        stems."""
        kept = manifest.content.branches.keys() - set(todo)
        if "stems" in todo and manifest.content.digests.get("stems") != self.digests["stems"]:
            branches = manifest.content.branches
            kept -= {"plots", "scores"}
            kept -= {each for each in kept if "stems" in branches[each].settings}
        return kept

    def _require_replaceable(
        self,
        manifest: FoundManifest,
        todo: Sequence[str],
        folder: str,
        uri: str,
        *,
        is_same: bool,
    ) -> None:
        """Refuse to replace what nobody asked to be replaced.

        Raises
        ------
        OtherResultsError
            other settings made it, or it was made of another recording
        """
        if self.replace:
            return
        content = manifest.content
        if not is_same and content.input.uri != uri:
            raise OtherResultsError(
                f"{folder} in {self.tree.location} holds the results of {content.input.uri}: name "
                "another output folder, or give --replace (replace: true)"
            )
        for branch in todo:
            before = content.branches.get(branch)
            if before and before.digest != self.digests[branch]:
                raise OtherResultsError(
                    f"its {branch} were made with other settings "
                    f"({differences(before.settings, self.described[branch])}): "
                    "--replace (replace: true) makes them anew, in place of what is there"
                )

    def _renew(self, manifest: FoundManifest, folder: str, found: FileStat, uri: str) -> None:
        """Have the manifest of a file that was touched tell its new generation.

        That makes the manifest newer than its files: all of them are held against it before.
        """
        content = manifest.content
        if content.input.generation == found.generation:
            return
        digests = content.digests
        if finished_branches(manifest, self.tree, folder, digests) == set(digests):
            renewed = dataclasses.replace(content.input, generation=found.generation, uri=uri)
            write_manifest(dataclasses.replace(content, input=renewed), self.tree, folder)


def _receipt_of(element: str, folder: str, manifest: FoundManifest, message: bytes) -> Receipt:
    """The receipt of a recording that its manifest shows as finished."""
    content = manifest.content
    return Receipt(
        element, folder, content.input.duration_s, content.files, skipped=True, message=message
    )


def shares_name(uri: str, storage: Storage) -> bool:
    """Whether another recording beside this one differs from it in the extension only."""
    return sum(map(has_audio_extension, storage.files_of(uri).names_alike(uri))) > 1
