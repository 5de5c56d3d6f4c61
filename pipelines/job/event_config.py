"""The event inputs and outputs of a job file, in Klio's spelling."""

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ...storage.file_facts import GCS_SCHEME
from ...transforms.section import Section
from .locations import Location

# What is kept of a deleted topic by the subscriptions that had it.
DELETED_TOPIC = "_deleted-topic_"
# As Google has them, and Beam requires them.
PROJECT_ID = re.compile(r"[a-z][-a-z0-9:.]{4,61}[a-z0-9]")
PUBSUB_ID = re.compile(r"(?!goog)[A-Za-z][-\w.~+%]{2,254}", re.ASCII)
Compression = Literal["auto", "bzip2", "deflate", "gzip", "lzma", "uncompressed", "zstd"]
OptionalPath = Annotated[Location, BeforeValidator(lambda path: "" if path is None else path)]
TABLE = re.compile(r"(?:(?P<project>.+)[:.])?(?P<dataset>\w+)\.(?P<table>[^.:]+)")
COLUMN = re.compile(r"\s*(?P<name>\w+)\s*:\s*(?P<type>\w+)\s*")
SHARD_NAME = "-SSSSS-of-NNNNN"
DIGITS = re.compile("S+|N+")
ROW_CODER = "apache_beam.io.gcp.bigquery_tools.RowAsDictJsonCoder"


def _joined(folder: str, name: str) -> str:
    return os.path.join(folder, name) if folder and name else folder or name


class NamedSection(Section):
    """An input or output."""

    name: str | None = Field(
        None, min_length=1, description="what `-O` calls it, in place of its number"
    )


def require_different_names(items: list[Any]) -> list[Any]:
    """The same inputs or outputs, if no two have the same name.

    Raises
    ------
    ValueError
        two have
    """
    names = [each.name for each in items if each.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two of them are called {name!r}: -O could not tell them apart")
    return items


def with_small_type(plain: Any) -> Any:
    """The same input or output, its type in small letters: Klio takes any."""
    if isinstance(plain, dict) and isinstance(plain.get("type"), str):
        return {**plain, "type": plain["type"].lower()}
    return plain


# Of Klio's files of events, and why they are not here.
GONE_OF_INPUTS = {
    "min_bundle_size": "files are read whole",
    "strip_trailing_newlines": "line ends are never part of an element",
    "validate": "the files must be there when the job starts",
    "coder": "elements are bytes, as they stand there",
}
GONE_OF_OUTPUTS = {
    "coder": "elements are bytes, as they are written",
    "footer": "a reader would take it for an element",
}


def without_gone(plain: Any, gone: Mapping[str, str]) -> Any:
    """The same input or output, if it has none of the options that are gone.

    Raises
    ------
    ValueError
        it has one
    """
    for name in plain if isinstance(plain, dict) else ():
        if name in gone:
            raise ValueError(f"{name}: leave it out: {gone[name]}")
    return plain


class FolderEvents(NamedSection):
    """Each audio file in a folder, and in those below. Hidden files and results are passed over."""

    type: Literal["folder"]
    location: Location = Field(description="the folder")
    skip_klio_read: Literal[False] = Field(False, description="Klio's: such inputs are read")


class GlobEvents(NamedSection):
    """Each audio file that a pattern matches; `**` goes down any number of folders."""

    type: Literal["glob"]
    location: Location = Field(description="the pattern, such as `songs/**/*.flac`")
    skip_klio_read: Literal[False] = Field(False, description="Klio's: such inputs are read")


class RecordingEvents(NamedSection):
    """One audio file."""

    type: Literal["recording"]
    location: Location = Field(description="the file")
    skip_klio_read: Literal[False] = Field(False, description="Klio's: such inputs are read")


class FileEvents(NamedSection):
    """Each line of the files that a pattern matches is an element, below the data input."""

    type: Literal["file"]
    location: Location = Field(
        min_length=1,
        validation_alias=AliasChoices("location", "file_pattern"),
        description="the file or pattern; also as `file_pattern`",
    )
    compression_type: Compression = Field("auto", description="`auto`: by the file's name")
    skip_header_lines: int = Field(0, ge=0, description="so many lines at the top of each file")
    skip_klio_read: bool = Field(
        False, description="leave this input to code of your own: see docs/porting-from-klio.md"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_gone(cls, plain: Any) -> Any:
        return without_gone(plain, GONE_OF_INPUTS)


class BigQueryTable(NamedSection):
    """A table; its name alone may say all: `PROJECT:DATASET.TABLE`, or `DATASET.TABLE`."""

    project: str | None = Field(None, description="of the table; default: that of the job")
    dataset: str | None = Field(None, description="of the table")
    table: str | None = Field(
        None, description="its name, or `DATASET.TABLE`, or `PROJECT:DATASET.TABLE`"
    )

    @model_validator(mode="before")
    @classmethod
    def _table_may_name_dataset_and_project(cls, plain: Any) -> Any:
        if not isinstance(plain, dict) or plain.get("dataset") or not plain.get("table"):
            return plain
        parts = TABLE.fullmatch(str(plain["table"]))
        if not parts:
            raise ValueError("name the dataset of the table")
        return {**plain, **{name: part for name, part in parts.groupdict().items() if part}}

    @property
    def location(self) -> str:
        """The table, for people."""
        return ".".join(filter(None, (self.project, self.dataset, self.table)))


class BigQueryEvents(BigQueryTable):
    """Each row of a table, or of a query, is an element.

    With one column in `columns`: its value. Else the row as JSON.
    """

    type: Literal["bq", "bigquery"]
    columns: tuple[str, ...] | None = Field(None, description="those to read; default: all")
    query: str | None = Field(None, description="in place of a table")
    validate_: bool = Field(
        True, alias="validate", description="look whether the table is there before the job begins"
    )
    coder: str | None = Field(None, description="Klio's own, or nothing")
    kms_key: str | None = Field(None, description="that the result of a query is encrypted with")
    use_standard_sql: bool = Field(False, description="of `query`; else it is legacy SQL")
    flatten_results: bool = Field(True, description="of a query in legacy SQL")
    skip_klio_read: bool = Field(
        False, description="leave this input to code of your own: see docs/porting-from-klio.md"
    )

    @field_validator("coder")
    @classmethod
    def _rows_need_no_coder(cls, coder: str | None) -> str | None:
        if coder not in (None, ROW_CODER):
            raise ValueError("rows are not stored on their way here: leave coder out")
        return coder

    @model_validator(mode="after")
    def _table_or_query(self) -> "BigQueryEvents":
        if (self.query is None) == (self.table is None):
            raise ValueError("name either a table (project, dataset, table) or a query")
        if self.query and not self.use_standard_sql and not self.flatten_results:
            raise ValueError(
                "flatten_results: legacy SQL keeps results nested in a table of their own only: "
                "set use_standard_sql: true, which never flattens"
            )
        return self

    @property
    def location(self) -> str:
        """What is read, for people."""
        return f"query {' '.join(self.query.split())}" if self.query else super().location


class AvroEvents(NamedSection):
    """Each record of Avro files is an element: its field `element`, or else the record as JSON."""

    type: Literal["avro"]
    location: OptionalPath = Field("", description="a folder of Avro files")
    file_pattern: OptionalPath = Field("", description="files, below `location` if there is one")
    min_bundle_size: int = Field(0, ge=0, description="Klio's; files are read whole here")
    validate_: bool = Field(True, alias="validate", description="refuse a pattern of no files")
    skip_klio_read: bool = Field(
        False, description="leave this input to code of your own: see docs/porting-from-klio.md"
    )

    @model_validator(mode="after")
    def _some_files(self) -> "AvroEvents":
        if not self.pattern:
            raise ValueError("name a location, a file_pattern, or a file_pattern below a location")
        return self

    @property
    def pattern(self) -> str:
        """A folder, a file, or a pattern of files."""
        return _joined(self.location, self.file_pattern)


def _full_name(kind: Literal["topics", "subscriptions"]) -> Callable[[str, ValidationInfo], str]:
    """What makes a full name of that of a topic or subscription, if Pub/Sub could have it.

    A name without slashes is one of the project that the section names, or else of the job's,
    which the context of the validation tells.
    """

    def full(name: str, info: ValidationInfo) -> str:
        if "/" not in name:
            project = info.data.get("gcp_project") or (info.context or {}).get("project")
            if not project:
                raise ValueError(
                    f"{name!r} names no project: write projects/PROJECT/{kind}/{name}, or set "
                    "pipeline_options.project"
                )
            name = f"projects/{project}/{kind}/{name}"
        _require_name_of_pubsub(name, kind)
        return name

    return full


def _require_name_of_pubsub(name: str, kind: str) -> None:
    parts = re.fullmatch(f"projects/([^/]+)/{kind}/([^/]+)", name)
    if not parts:
        raise ValueError(f"{name!r} is not of the form projects/…/{kind}/…, nor a name without /")
    project, id = parts.groups()
    if not PROJECT_ID.fullmatch(project):
        raise ValueError(
            f"{name}: {project!r} is no id of a project, which has at least 6 lower-case letters, "
            "digits and hyphens, and begins with a letter: see `gcloud projects list`"
        )
    if not PUBSUB_ID.fullmatch(id):
        raise ValueError(
            f"{name}: {id!r} is no name of a {kind.removesuffix('s')}, which has 3 to 255 letters, "
            "digits and -_.~+%, and begins with a letter, but not with goog: correct it"
        )


def _pattern(kind: str) -> dict[str, Any]:
    return {"pattern": f"^([^/]+|projects/[^/]+/{kind}/[^/]+)$"}


Topic = Annotated[
    str, AfterValidator(_full_name("topics")), Field(json_schema_extra=_pattern("topics"))
]
Subscription = Annotated[
    str,
    AfterValidator(_full_name("subscriptions")),
    Field(json_schema_extra=_pattern("subscriptions")),
]


class PubSubEvents(NamedSection):
    """Each message of a subscription is an event. A topic alone is given one of its own."""

    type: Literal["pubsub"]
    topic: Topic | None = Field(None, description="alone: it is given a subscription of the job's")
    subscription: Subscription | None = Field(
        None, description="what is read; without slashes, one of `pipeline_options.project`"
    )
    data_location: str | None = Field(None, description="of Klio's version 1, which 2 ignores")
    skip_klio_read: bool = Field(
        False, description="leave this input to code of your own: see docs/porting-from-klio.md"
    )

    @model_validator(mode="after")
    def _topic_or_subscription(self) -> "PubSubEvents":
        if not self.topic and not self.subscription:
            raise ValueError("name a topic or a subscription")
        return self

    @property
    def location(self) -> str:
        """What is read, for people."""
        return self.subscription or self.topic or ""


class StreamingSettings(Section):
    """How a stream is run on this machine: see docs/pubsub.md."""

    dead_letter_topic: Topic | None = Field(
        None,
        description="each message whose recording failed is published here, too, unchanged, with "
        "the attributes `beamsplitter_job`, `_element`, `_step`, `_exception`, `_message` (why) "
        "and `_message_id`",
    )
    max_tries: int = Field(
        3,
        ge=1,
        description="of a recording that takes its process down, before it is given up; where the "
        "subscription has a dead-letter policy, earlier deliveries count, too, once it has crashed "
        "here",
    )
    shutdown_grace_s: float = Field(
        25.0,
        ge=0,
        description="seconds that running work has to finish when the stream is told to end; "
        "Kubernetes gives 30 in all",
    )


class CustomEvents(NamedSection):
    """Events that code of your own reads, and gives to `build`; with keys of its own.

    See docs/porting-from-klio.md.
    """

    model_config = ConfigDict(extra="allow")

    type: Literal["custom"]
    location: str = Field("code of your own", description="what messages call it")
    skip_klio_read: Literal[True] = Field(True, description="Klio's")


EventInput = Annotated[
    FileEvents
    | FolderEvents
    | GlobEvents
    | RecordingEvents
    | BigQueryEvents
    | AvroEvents
    | PubSubEvents
    | CustomEvents,
    Field(discriminator="type"),
    BeforeValidator(with_small_type),
]


class ShardedOutput(NamedSection):
    """Files with names `PREFIX-00000-of-00001SUFFIX`: shards of the elements."""

    file_name_suffix: str = Field("", description="what the names of the files end in")
    num_shards: int = Field(0, ge=0, description="into how many files; 0: one")
    shard_name_template: str | None = Field(
        None,
        description="`S` and `N` stand for digits of the shard's number and of their count; "
        "default: `-SSSSS-of-NNNNN`. Without `S` all goes into one file",
    )
    skip_klio_write: bool = Field(False, description="leave this output out")

    @model_validator(mode="after")
    def _lies_in_a_bucket(self) -> "ShardedOutput":
        if self.prefix.startswith(GCS_SCHEME) and "/" not in self.prefix.removeprefix(GCS_SCHEME):
            raise ValueError(f"{self.prefix} is a bucket: name a place in it, gs://BUCKET/NAME")
        return self

    @property
    def prefix(self) -> str:
        """What the paths of the files begin with."""
        raise NotImplementedError

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, one a shard."""
        count = max(1, self.num_shards) if "S" in self._template else 1

        def middle(shard: int) -> str:
            numbers = {"S": shard, "N": count}
            return DIGITS.sub(lambda run: f"{numbers[run[0][0]]:0{len(run[0])}}", self._template)

        return tuple(
            f"{self.prefix}{middle(shard)}{self.file_name_suffix}" for shard in range(count)
        )

    @property
    def any_path(self) -> re.Pattern[str]:
        """Finds the files of this output, whatever the number of shards was."""
        middle = DIGITS.sub(lambda run: rf"\d{{{len(run[0])}}}", re.escape(self._template))
        return re.compile(re.escape(self.prefix) + middle + re.escape(self.file_name_suffix))

    @property
    def _template(self) -> str:
        return SHARD_NAME if self.shard_name_template is None else self.shard_name_template


class FileEventOutput(ShardedOutput):
    """A line for each element. (One that holds a line break needs an output of type avro.)"""

    type: Literal["file"]
    location: Location = Field(
        min_length=1,
        validation_alias=AliasChoices("location", "file_path_prefix"),
        description="what the paths of the files begin with; also as `file_path_prefix`",
    )
    append_trailing_newlines: bool = Field(True, description="end each element's line")
    compression_type: Compression = Field("auto", description="`auto`: by the file's name")
    header: str | None = Field(None, description="first line of each file")

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_gone(cls, plain: Any) -> Any:
        return without_gone(plain, GONE_OF_OUTPUTS)

    @property
    def prefix(self) -> str:
        """What the paths of the files begin with."""
        return self.location


def parsed_json(text: str) -> Any:
    """What a JSON text says.

    Raises
    ------
    ValueError
        it is no JSON
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is no JSON: {error}") from error


class BigQueryEventOutput(BigQueryTable):
    """A row for each recording: the message's payload, as far as the table has such columns."""

    type: Literal["bq", "bigquery"]
    dataset: str = Field(description="of the table; `table` may name it")
    table: str = Field(description="its name, or `DATASET.TABLE`, or `PROJECT:DATASET.TABLE`")
    schema_: dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="of a table that is made: `{fields: [{name: …, type: …, mode: …}]}`, also as "
        "JSON text, or `name:TYPE,name:TYPE`; default: all that is known",
    )
    create_disposition: Literal["CREATE_IF_NEEDED", "CREATE_NEVER"] = Field(
        "CREATE_IF_NEEDED", description="whether a table that is not there is made"
    )
    write_disposition: Literal["WRITE_EMPTY", "WRITE_APPEND", "WRITE_TRUNCATE"] = Field(
        "WRITE_EMPTY", description="`WRITE_EMPTY`: the table must be empty"
    )
    skip_klio_write: bool = Field(False, description="leave this output out")

    @field_validator("schema_", mode="before", json_schema_input_type=dict[str, Any] | str | None)
    @classmethod
    def _as_fields(cls, schema: Any) -> Any:
        if not isinstance(schema, str):
            return schema
        if schema.lstrip().startswith("{"):
            return parsed_json(schema)
        columns = [COLUMN.fullmatch(each) for each in schema.split(",")]
        if not all(columns):
            raise ValueError(
                f"{schema!r}: write it as name:TYPE,name:TYPE, or as the JSON of fields"
            )
        return {"fields": [column.groupdict() for column in columns if column]}

    @field_validator("schema_")
    @classmethod
    def _fields_have_name_and_type(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None and not _are_fields(schema.get("fields")):
            raise ValueError(
                "write fields: a list of columns, each with a name, a type and, if it is not "
                "nullable, a mode; or name:TYPE,name:TYPE"
            )
        return schema


def _are_fields(fields: Any) -> bool:
    return (
        isinstance(fields, list)
        and bool(fields)
        and all(
            isinstance(field, dict)
            and {"name", "type"} <= field.keys()
            and ("fields" not in field or _are_fields(field["fields"]))
            for field in fields
        )
    )


class AvroEventOutput(ShardedOutput):
    """A record for each element, with the one field `element`: bytes, as Klio writes them."""

    type: Literal["avro"]
    location: OptionalPath = Field("", description="folder of the files")
    file_path_prefix: OptionalPath = Field("", description="what their paths begin with, below it")
    codec: Literal["null", "deflate", "bzip2", "snappy", "xz", "zstandard", "lz4"] = Field(
        "deflate", description="how the records are compressed"
    )
    mime_type: str = Field("application/x-avro", description="of the files on `gs://`")

    @model_validator(mode="after")
    def _some_place(self) -> "AvroEventOutput":
        if not self.prefix:
            raise ValueError("name a location, a file_path_prefix, or a prefix below a location")
        return self

    @property
    def prefix(self) -> str:
        """What the paths of the files begin with."""
        return _joined(self.location, self.file_path_prefix)


class PubSubEventOutput(NamedSection):
    """Messages of finished recordings are published to a topic."""

    type: Literal["pubsub"]
    topic: Topic = Field(description="without slashes, one of `pipeline_options.project`")
    data_location: str | None = Field(None, description="of Klio's version 1, which 2 ignores")
    skip_klio_write: bool = Field(False, description="leave this output out")

    @property
    def location(self) -> str:
        """What is written, for people."""
        return self.topic


class CustomEventOutput(NamedSection):
    """Code of your own writes the messages that `build` gives; with keys of its own.

    See docs/porting-from-klio.md.
    """

    model_config = ConfigDict(extra="allow")

    type: Literal["custom"]
    location: str = Field("code of your own", description="what messages call it")
    skip_klio_write: Literal[True] = Field(True, description="Klio's")


EventOutput = Annotated[
    FileEventOutput | BigQueryEventOutput | AvroEventOutput | PubSubEventOutput | CustomEventOutput,
    Field(discriminator="type"),
    BeforeValidator(with_small_type),
]
