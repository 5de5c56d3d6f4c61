"""The commands `beamsplitter config` and `train`: separators of one's own."""

import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ...errors import BeamsplitterError
from ...models.documents import write_json
from ...models.networks.settings import SETTINGS, NetworkSettings, network_settings
from ...models.packages.trained import NETWORK_FILE, WEIGHTS_FILE, read_network
from ...models.training.settings import (
    RECIPES,
    AugmentationSettings,
    DisplaySettings,
    ExcerptSettings,
    LoadingSettings,
    LossSettings,
    OptimizerSettings,
)
from .progress import clock
from .running import INTERRUPTED
from .setting_options import with_options
from .tables import table_console

if TYPE_CHECKING:
    from ...models.training.fitting import TrainingPlan
    from ...models.training.telling import TrainingState

USUAL_TARGETS = ("bass", "drums", "other", "vocals")
ROWS = 20
NEEDED = ("torch", "lightning", "tensorboard", "safetensors")

Display = Annotated[bool, typer.Option("--display", help="Print the settings.")]


class ConfigError(BeamsplitterError):
    """A network that can't be described as asked for; the message says why."""


@with_options(
    (NetworkSettings, "All networks"),
    *((settings, name) for name, settings in SETTINGS.items()),
    skip=("model_type", "targets"),
)
def config(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=", ".join(SETTINGS) + ".")],
    save: Annotated[
        Path, typer.Option("--save", metavar="DIR", help="The folder; it may be there already.")
    ],
    targets: Annotated[
        str | None, typer.Option(help="The stems to estimate, with commas between.")
    ] = None,
    bass: Annotated[bool, typer.Option("--bass", help="A stem to estimate.")] = False,
    drums: Annotated[bool, typer.Option("--drums", help="A stem to estimate.")] = False,
    other: Annotated[bool, typer.Option("--other", help="A stem to estimate.")] = False,
    vocals: Annotated[bool, typer.Option("--vocals", help="A stem to estimate.")] = False,
    display: Display = False,
    **given: Any,
) -> None:
    """Choose a network, and write its settings into a folder: DIR/model.json.

    What is not given is as it suits the network; `--display` shows it. A folder that holds a
    trained network is left as it is.
    """
    flags = dict(zip(USUAL_TARGETS, (bass, drums, other, vocals), strict=True))
    names = [each.strip() for each in (targets or "").split(",") if each.strip()]
    names += [name for name, is_set in flags.items() if is_set and name not in names]
    if not names:
        raise ConfigError("say which stems to estimate: --targets speech,music, or --vocals …")
    try:
        settings = network_settings({"model_type": model, "targets": names, **given})
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if (save / WEIGHTS_FILE).exists():
        raise ConfigError(f"{save}: holds a trained network: name another folder")
    if (save / NETWORK_FILE).exists():
        # A file of this name that is not ours is not overwritten.
        read_network(save, str(save))
    save.mkdir(parents=True, exist_ok=True)
    write_json(save / NETWORK_FILE, settings.model_dump(mode="json"))
    if display:
        print(settings.model_dump_json(indent=2))
    print(f"{save / NETWORK_FILE}: {settings.about}, for {', '.join(names)}", file=sys.stderr)


@with_options(
    (LossSettings, "What is made small"),
    (OptimizerSettings, "How, and how long"),
    (ExcerptSettings, "Which excerpts"),
    (AugmentationSettings, "How excerpts are varied"),
    (LoadingSettings, "How they are read"),
    (DisplaySettings, "What is shown and kept"),
    varying={name for recipe in RECIPES.values() for name in recipe},
)
def train(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="With model.json, see `beamsplitter config`.")
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="DATA/train/TRACK/vocals.wav … and DATA/val, or one of tracks."
        ),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")
    ] = False,
    display: Display = False,
    silent: Annotated[bool, typer.Option("--silent", help="Print errors only.")] = False,
    accelerator: Annotated[
        str, typer.Option(help="auto, cpu, gpu, mps: as Lightning has it.")
    ] = "auto",
    devices: Annotated[str, typer.Option(help="How many, or which: 2, or 0,1.")] = "auto",
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    strategy: Annotated[
        str, typer.Option(help="auto, ddp, fsdp, deepspeed: as Lightning has it.")
    ] = "auto",
    **given: Any,
) -> None:
    """Train the network of a folder on tracks with their stems.

    Afterwards DIR is a separator: `beamsplitter separate INPUT --separator DIR`. The weights in it
    are those of the best epoch so far, from the first epoch on.
    """
    require_installed(NEEDED)
    from ...models.training.fitting import plan_training, run_training
    from ...models.training.lightning_runs import Devices

    where = Devices(accelerator, devices, num_nodes, strategy)
    plan = plan_training(folder, data, given, resume=resume, devices=where)
    silent |= not plan.is_first
    if display and plan.is_first:
        print(plan.settings.model_dump_json(indent=2))
    console = Console(stderr=True, quiet=silent)
    for line in _lines_about(plan):
        console.print(Text(line), soft_wrap=True)
    try:
        with _showing(console) as tell:
            record = run_training(plan, tell)
    except KeyboardInterrupt:
        console.print("interrupted; --resume goes on from the last checkpoint")
        raise typer.Exit(INTERRUPTED) from None
    if not silent:
        _print_record(record)
        console.print(Text(f"beamsplitter separate INPUT -o OUT --separator {folder}"))


def require_installed(modules: Iterable[str]) -> None:
    """Refuse to train without what the extra `train` installs: ConfigError."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"training needs {module}, which is not installed: pip install "
                "'beamsplitter[train]'"
            )


def _lines_about(plan: "TrainingPlan") -> Iterator[str]:
    network, data = plan.training.model.settings, plan.data
    parameters = sum(each.numel() for each in plan.training.model.parameters())
    yield f"{network.model_type}, {parameters:,} parameters, for {', '.join(network.targets)}"
    for purpose, grid, count in (
        ("to train on", data.training_grid, data.training_grid.count),
        ("to validate by", data.validation_grid, len(data.validation_excerpts)),
    ):
        minutes = sum(each.samples / each.sample_rate for each in grid.tracks) / 60
        yield (
            f"{count:,} excerpts of {network.sample_length:g} s {purpose}, of "
            f"{len(grid.tracks)} tracks, {minutes:.1f} min"
        )
        if grid.short_tracks:
            names = ", ".join(grid.short_tracks[:3])
            more = ", …" if len(grid.short_tracks) > 3 else ""
            yield f"{len(grid.short_tracks)} of them are shorter than an excerpt: {names}{more}"
    if plan.resumes:
        yield "going on from the last checkpoint"
    if plan.data_has_changed:
        yield "the data is not what it was: losses are not those of a training that was not stopped"


@contextmanager
def _showing(console: Console) -> Iterator[Callable[["TrainingState"], None]]:
    """A bar on a terminal; a line an epoch everywhere."""
    columns = (
        TextColumn("epoch {task.description}"),
        BarColumn(16),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, text="")

        def tell(state: "TrainingState") -> None:
            if state.finished:
                console.print(Text(_epoch_line(state)), soft_wrap=True)
            progress.update(
                task,
                description=f"{state.epoch}/{state.epochs}",
                completed=state.batch,
                total=state.batches,
                text=_text(state),
            )

        yield tell


def _text(state: "TrainingState") -> str:
    best = f", best {state.best_loss:.4g}" if math.isfinite(state.best_loss) else ""
    return (
        f"loss {state.loss:.4g}{best}, {state.excerpts_per_s:.1f} excerpts/s, "
        f"{clock(state.left_s)} left"
    )


def _epoch_line(state: "TrainingState") -> str:
    record = state.finished
    assert record is not None
    ratios = ", ".join(f"{name} {value:.2f} dB" for name, value in record.si_sdr_db.items())
    return (
        f"epoch {record.epoch}: loss {record.training_loss:.4g}, validation "
        f"{record.validation_loss:.4g}, SI-SDR {ratios or '-'}{', the best' * record.is_best}"
    )


def _print_record(record: dict[str, Any]) -> None:
    targets = list(record["best"]["si_sdr_db"])
    table = Table(box=box.SIMPLE)
    for column in ("epoch", "loss", "validation", *(f"{name} (dB)" for name in targets), "rate"):
        table.add_column(column, justify="right")
    table.add_column("")
    last = record["epochs"][-ROWS:]
    best = record["best"]
    for each in last if best in last else [best, *last[1:]]:
        ratios = (each["si_sdr_db"].get(name) for name in targets)
        table.add_row(
            str(each["epoch"]),
            f"{each['training_loss']:.4g}",
            f"{each['validation_loss']:.4g}",
            *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            f"{each['learning_rate']:.2g}",
            "best" if each == best else "",
        )
    table_console().print(table)
    print(
        f"{record['minutes']:.1f} min, {record['parameters']:,} parameters; "
        f"{record['waited_share']:.1%} of the time was spent waiting for data"
    )
