"""The command `beamsplitter train-classifier`: labels for recordings by their features."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ...models.classifiers.errors import ClassifierError
from ...models.classifiers.settings import EncoderSettings, LearningSettings, ShareSettings
from .running import INTERRUPTED
from .setting_options import with_options
from .tables import table_console
from .train_command import require_installed

if TYPE_CHECKING:
    from ...models.classifiers.fitting import ClassifierPlan
    from ...models.classifiers.keeping import TrainingState
    from ...models.classifiers.report import Report

NEEDED = ("torch", "lightning", "tensorboard", "safetensors", "sklearn")


@with_options(
    (EncoderSettings, "The network"),
    (LearningSettings, "How it is trained"),
    (ShareSettings, "Which recordings"),
)
def train_classifier(
    features: Annotated[
        str, typer.Argument(metavar="FEATURE_SET", help="Folder of a feature set, here or on gs://")
    ],
    labels: Annotated[
        Path,
        typer.Option(
            metavar="CSV",
            help="A table with the columns element, label and, if wished, group, split.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the classifier.")
    ],
    set_name: Annotated[
        str | None, typer.Option("--set", help="Which features, if the feature set has several.")
    ] = None,
    signal: Annotated[
        str | None, typer.Option(help="What they are of; default mixture, or what there is.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="YAML", help="A file of settings; options go before them."),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Leave out rows of recordings without features."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")
    ] = False,
    silent: Annotated[bool, typer.Option("--silent", help="Print errors only.")] = False,
    accelerator: Annotated[
        str, typer.Option(help="auto, cpu, gpu, mps: as Lightning has it.")
    ] = "auto",
    **given: Any,
) -> None:
    """Train a classifier on the features of recordings and a table of their labels.

    Recordings, or groups of them, are on one side of the split: to train, to validate or to test.
    DIR gets the network of the best epoch and a report, with the figures of a classifier that gives
    the most frequent label beside each. `beamsplitter export DIR` makes a package of it.
    """
    require_installed(NEEDED)
    from ...models.classifiers.feature_set_source import open_source
    from ...models.classifiers.fitting import plan_classifier, run_training

    source = open_source(features, set_name=set_name, signal=signal)
    values = {**(_read_config(config) if config else {}), **given}
    plan = plan_classifier(
        output,
        source,
        labels,
        values,
        signal=source.signal,
        accelerator=accelerator,
        resume=resume,
        allow_missing=allow_missing,
    )
    console = Console(stderr=True, quiet=silent)
    for line in _lines_about(plan):
        console.print(Text(line), soft_wrap=True)
    try:
        with _showing(console) as tell:
            record, report = run_training(plan, tell)
    except KeyboardInterrupt:
        console.print("interrupted; --resume goes on from the last checkpoint")
        raise typer.Exit(INTERRUPTED) from None
    if not silent:
        _print_report(record, report)
        console.print(Text(f"report: {output / 'report.md'}"), soft_wrap=True)
        console.print(Text(f"beamsplitter export {output} --to PACKAGE"), soft_wrap=True)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ClassifierError(f"--config {path}: can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClassifierError(f"--config {path}: is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise ClassifierError(f"--config {path}: is no list of settings: write NAME: VALUE lines")
    return values


def _lines_about(plan: "ClassifierPlan") -> Iterator[str]:
    table, data = plan.table, plan.data
    kind = "several of" if table.is_multi_label else "one of"
    yield f"{plan.settings.encoder}, for {kind} {', '.join(table.classes)}"
    for name, side in data.sides.items():
        counts = zip(table.classes, side.targets.sum(axis=0).astype(int), strict=True)
        of_labels = ", ".join(f"{label} {count}" for label, count in counts)
        recordings = len(data.recordings[name])
        yield f"{name}: {len(side.places)} excerpts of {recordings} recordings: {of_labels}"
    for what, names in (
        ("recordings have no label and are left out", table.unlabelled),
        ("elements of the table have no features and are left out", table.missing),
    ):
        if names:
            more = ", …" if len(names) > 3 else ""
            yield f"{len(names)} {what}: {', '.join(names[:3])}{more}"
    if plan.resumes:
        yield "going on from the last checkpoint"


@contextmanager
def _showing(console: Console) -> Iterator[Callable[["TrainingState"], None]]:
    """A bar on a terminal; a line an epoch everywhere."""
    columns = TextColumn("epoch {task.description}"), BarColumn(16)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def tell(state: "TrainingState") -> None:
            if state.finished:
                record = state.finished
                console.print(
                    f"epoch {record.epoch}: loss {record.training_loss:.4g}, validation "
                    f"{record.validation_loss:.4g}, balanced accuracy "
                    f"{record.balanced_accuracy:.3f}{', the best' * record.is_best}"
                )
            progress.update(
                task,
                description=f"{state.epoch}/{state.epochs}",
                completed=state.batch,
                total=state.batches,
            )

        yield tell


def _print_report(record: dict[str, Any], report: "Report") -> None:
    from ...models.classifiers.report import ROW_HEAD, figure_rows

    table = Table(box=box.SIMPLE, caption="baseline: the most frequent label of the training")
    for number, name in enumerate(ROW_HEAD):
        table.add_column(name, justify="right" if number in (2, 4, 5) else "left")
    for row in figure_rows(report):
        table.add_row(*row)
    table_console().print(table)
    best = record["best"]
    print(
        f"{record['minutes']:.1f} min, {record['parameters']:,} parameters; epoch "
        f"{best['epoch']} of {len(record['epochs'])}, chosen by the validation",
    )
