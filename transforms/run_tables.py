"""What a run tells of all its recordings together: tables, statistics, shards."""

from collections.abc import Iterable
from dataclasses import dataclass

import apache_beam as beam

from ..storage import OutputTree
from .records import FeatureFile, FileReceipt
from .settings import SplitSettings


@dataclass
class WriteRunTables(beam.PTransform):
    """Receipts of all recordings to what is told of all, or made of all."""

    settings: SplitSettings
    tree: OutputTree

    def expand(self, receipts: beam.PCollection) -> beam.PCollection:
        """Receipts to nothing that is of use."""
        if "labels" in self.settings.branches:
            from .labels import WriteLabelTable

            receipts | WriteLabelTable(self.tree)
        if "scores" in self.settings.branches:
            # SciPy's signals take a second to import.
            from .stem_scores import WriteScoreTables

            receipts | WriteScoreTables(self.settings, self.tree)
        if "features" in self.settings.branches:
            from .feature_shards import WriteFeatureShards, feature_files_in
            from .feature_statistics import WriteFeatureStatistics

            files = (
                receipts
                | "FeaturesIn"
                >> beam.FlatMap(
                    lambda receipt: (
                        (each.folder, each)
                        for each in feature_files_in(receipt.folder, receipt.files)
                    )
                ).with_output_types(tuple[str, FeatureFile])
                # An event may come twice.
                | "ByFolder" >> beam.GroupByKey()
                | "Once"
                >> beam.MapTuple(lambda _, files: next(iter(files))).with_output_types(FeatureFile)
            )
            files | WriteFeatureStatistics(self.tree)
            if self.settings.features.shards:
                files | WriteFeatureShards(self.settings, self.tree)
        return receipts


def write_run_tables(
    results: Iterable[tuple[str, tuple[FileReceipt, ...]]],
    settings: SplitSettings,
    tree: OutputTree,
) -> None:
    """Write the tables of recordings by their folders and files, where no graph does so."""
    results, branches = [*results], settings.branches
    if "labels" in branches:
        from .labels import labels_in, write_label_table

        write_label_table((labels_in(folder, files) for folder, files in results), tree)
    if "scores" in branches:
        from .stem_scores import write_tables_of

        write_tables_of(results, settings, tree)
    if "features" in branches:
        from .feature_shards import feature_files_in, write_feature_shards
        from .feature_statistics import write_feature_statistics

        # An event may come twice.
        files = {file: None for folder, each in results for file in feature_files_in(folder, each)}
        write_feature_statistics(files, tree)
        if settings.features.shards:
            write_feature_shards(files, settings, tree)
