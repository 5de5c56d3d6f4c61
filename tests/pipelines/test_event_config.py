"""Events of Klio's job files load unchanged; mistakes are named with their fix."""

import json
from typing import Any

import pytest
import yaml
from apache_beam.io import ReadFromPubSub
from facts import assert_names
from google.cloud.bigquery import SchemaField

from beamsplitter.pipelines.job.event_config import (
    AvroEventOutput,
    AvroEvents,
    BigQueryEventOutput,
    BigQueryEvents,
    CustomEventOutput,
    CustomEvents,
    FileEventOutput,
    FileEvents,
)
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError, parse_job


def job_of(events: dict[str, Any], *, streaming: bool = False) -> JobConfig:
    plain = {
        "job_name": "j",
        "version": 2,
        "pipeline_options": {"runner": "DirectRunner", "streaming": streaming},
        "job_config": {"events": events},
    }
    job = parse_job(plain, source="job.yaml")
    # What one process tells another.
    again = parse_job(json.loads(json.dumps(job.model_dump(mode="json"))), source="again")
    assert again == job
    return job


def input_of(text: str, **options: Any) -> Any:
    return job_of({"inputs": [yaml.safe_load(text)]}, **options).job_config.events.inputs[0]


def output_of(text: str, **options: Any) -> Any:
    return job_of({"outputs": [yaml.safe_load(text)]}, **options).job_config.events.outputs[0]


# Klio's own ---------------------------------------------------------------------------------------


def test_inputs_of_klio() -> None:
    table = input_of(
        """
        type: bq
        columns: [entity_id]
        dataset: bigquery_dataset
        project: gcp_project
        table: bigquery_table
        """
    )
    assert isinstance(table, BigQueryEvents) and table.columns == ("entity_id",)
    assert table.location == "gcp_project.bigquery_dataset.bigquery_table"
    assert (table.validate_, table.use_standard_sql, table.flatten_results) == (True, False, True)
    query = input_of(
        """
        type: bq
        query: |
            SELECT * FROM [gcp_project.bigquery_dataset.bigquery_table]
        """
    )
    assert query.location == "query SELECT * FROM [gcp_project.bigquery_dataset.bigquery_table]"
    file = input_of("{type: file, location: ./audio_ids.txt}")
    assert file == FileEvents(type="file", location="./audio_ids.txt")
    assert input_of("{type: file, file_pattern: ./audio_ids.txt}") == file
    custom = input_of("{type: custom, my_custom_event_input_key: ./batch_track_ids.txt}")
    assert isinstance(custom, CustomEvents) and custom.skip_klio_read
    assert custom.model_extra == {"my_custom_event_input_key": "./batch_track_ids.txt"}


def test_inputs_as_klio_writes_them_out_in_full() -> None:
    table = input_of(
        """
        {type: bq, project: p, dataset: d, table: t, skip_klio_read: false, validate: true,
         kms_key: null, query: null, use_standard_sql: false, flatten_results: true, columns: null,
         coder: apache_beam.io.gcp.bigquery_tools.RowAsDictJsonCoder}
        """
    )
    assert table.columns is None and table.query is None
    avro = input_of(
        """
        {type: avro, skip_klio_read: true, file_pattern: null, location: gs://b/x,
         min_bundle_size: 0, validate: true}
        """
    )
    assert isinstance(avro, AvroEvents) and avro.pattern == "gs://b/x" and avro.skip_klio_read
    pubsub = input_of(
        """
        {type: pubsub, topic: projects/project/topics/topic, subscription: null, data_location: gs://b/x}
        """,
        streaming=True,
    )
    assert pubsub.location == "projects/project/topics/topic"


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("d.t", (None, "d", "t")),
        ("p-1:d.t", ("p-1", "d", "t")),
        ("p-1.d.t", ("p-1", "d", "t")),
        ("example.com:p:d.t", ("example.com:p", "d", "t")),
    ],
)
def test_a_table_may_name_its_dataset_and_project(
    table: str, parts: tuple[str | None, ...]
) -> None:
    for found in (
        input_of(f"{{type: bigquery, table: '{table}'}}"),
        output_of(f"{{type: bigquery, table: '{table}'}}"),
    ):
        assert (found.project, found.dataset, found.table) == parts


def test_outputs_of_klio() -> None:
    table = output_of(
        """
        dataset: klio_integration
        project: fluffy-zelda-glitch-toki-kobe
        schema:
          fields:
          - mode: nullable
            name: entity_id
            type: string
          - mode: nullable
            name: value
            type: string
        table: klio_bq_write_output
        type: bq
        write_disposition: WRITE_TRUNCATE
        """
    )
    assert isinstance(table, BigQueryEventOutput)
    assert table.create_disposition == "CREATE_IF_NEEDED"
    assert output_of("{type: bq, dataset: d, table: t}").write_disposition == "WRITE_EMPTY"
    file = output_of("{type: file, location: ./out, file_name_suffix: .txt, num_shards: 2}")
    assert isinstance(file, FileEventOutput) and file.append_trailing_newlines
    assert file.paths == ("./out-00000-of-00002.txt", "./out-00001-of-00002.txt")
    assert output_of("{type: file, file_path_prefix: ./out}").paths == ("./out-00000-of-00001",)
    avro = output_of(
        """
        {type: avro, location: gs://b/x, file_path_prefix: null, codec: deflate, num_shards: 0,
         file_name_suffix: "", shard_name_template: null, mime_type: application/x-avro,
         skip_klio_write: false}
        """
    )
    assert isinstance(avro, AvroEventOutput) and avro.paths == ("gs://b/x-00000-of-00001",)
    custom = output_of("{type: custom, some_key: some_value}")
    assert isinstance(custom, CustomEventOutput) and custom.skip_klio_write
    streamed = output_of("{type: pubsub, topic: projects/project/topics/topic}", streaming=True)
    assert not streamed.skip_klio_write


def test_schemas_as_text() -> None:
    output = output_of("{type: bq, dataset: d, table: t, schema: 'a:STRING, b : FLOAT'}")
    fields = [SchemaField.from_api_repr(field) for field in output.schema_["fields"]]
    assert fields == [SchemaField("a", "STRING"), SchemaField("b", "FLOAT")]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["x-00000-of-00001"]),
        ({"num_shards": 2}, ["x-00000-of-00002", "x-00001-of-00002"]),
        ({"num_shards": 2, "shard_name_template": ""}, ["x"]),
        ({"num_shards": 2, "shard_name_template": ".SS"}, ["x.00", "x.01"]),
        ({"shard_name_template": "_N_", "file_name_suffix": "y"}, ["x_1_y"]),
    ],
)
def test_names_of_shards(options: dict[str, Any], names: list[str]) -> None:
    output = FileEventOutput(type="file", location="x", **options)
    assert list(output.paths) == names
    assert all(output.any_path.fullmatch(name) for name in names)
    assert not output.any_path.fullmatch("x-00000-of-0000y")


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("{type: bq}", ["table", "dataset", "query"]),
        ("{type: bq, dataset: d, table: t, query: SELECT 1}", ["table", "query"]),
        ("{type: bq, table: t}", ["dataset"]),
        ("{type: bq, query: SELECT 1, flatten_results: false}", ["use_standard_sql: true"]),
        ("{type: bq, dataset: d, table: t, coder: my.Coder}", ["coder"]),
        ("{type: bq, dataset: d, table: t, column: [a]}", ["column:"]),
        ("{type: avro}", ["location", "file_pattern"]),
        ("{type: file}", ["location:"]),
        ("{type: file, location: x, compression_type: rar}", ["'auto'", "'bzip2'", "'deflate'"]),
        ("{type: file, location: x, skip_header_lines: -1}", ["skip_header_lines:", "0"]),
        ("{type: filee, location: x}", ["'file'", "'folder'"]),
        ("{type: pubsub, topic: projects/my-project/topics/ab}", ["'ab'", "topic"]),
        ("{type: pubsub, topic: projects/my-project/topics/google}", ["'google'", "with goog:"]),
        ("{type: pubsub, topic: projects/my-project/topics/1st}", ["'1st'", "letter"]),
        (
            "{type: pubsub, subscription: projects/my-project/subscriptions/ab}",
            ["'ab'", "subscription"],
        ),
        (
            "{type: pubsub, subscription: projects/123456/subscriptions/abc}",
            ["'123456'", "project"],
        ),
        (
            "{type: pubsub, subscription: projects/My-Project/subscriptions/abc}",
            ["'My-Project'", "lower-case"],
        ),
    ],
)
def test_mistakes_in_inputs(text: str, facts: list[str]) -> None:
    with pytest.raises(JobFileError) as error:
        input_of(text)
    assert_names(error.value, *facts)
    assert str(error.value).startswith("job.yaml: job_config.events.inputs.0")


@pytest.mark.parametrize("project", ["my-project", "example.com:music", "a23456"])
@pytest.mark.parametrize("name", ["abc", "a" * 255, "a-_.~+%1"])
def test_names_that_pubsub_has_are_taken(project: str, name: str) -> None:
    subscription = f"projects/{project}/subscriptions/{name}"
    read = input_of(f"{{type: pubsub, subscription: '{subscription}'}}", streaming=True)
    assert read.location == subscription
    # Beam's own rules: what is refused there would be a stack trace.
    ReadFromPubSub(subscription=subscription)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("{type: bq, table: t}", ["dataset"]),
        ("{type: bq, dataset: d}", ["table:"]),
        ("{type: bq, dataset: d, table: t, schema: name}", ["schema", "name:TYPE,name:TYPE"]),
        ("{type: bq, dataset: d, table: t, schema: {fields: []}}", ["schema", "fields"]),
        ("{type: bq, dataset: d, table: t, schema: {fields: [{name: a}]}}", ["schema", "fields"]),
        ("{type: bq, dataset: d, table: t, write_disposition: APPEND}", ["'WRITE_APPEND'"]),
        ("{type: avro}", ["location", "file_path_prefix"]),
        ("{type: avro, location: x, codec: gzip}", ["codec:", "'null'", "'deflate'"]),
        ("{type: file, location: x, num_shards: -1}", ["num_shards:", "0"]),
        ("{type: file, location: ''}", ["location:", "1 character"]),
        ("{type: file, location: gs://music}", ["gs://music ", "gs://BUCKET/"]),
        ("{type: avro, location: gs://music}", ["gs://music ", "gs://BUCKET/"]),
        ("{type: folder, location: x}", ["'file'", "'bq'", "'bigquery'"]),
    ],
)
def test_mistakes_in_outputs(text: str, facts: list[str]) -> None:
    with pytest.raises(JobFileError) as error:
        output_of(text)
    assert_names(error.value, *facts)
    assert str(error.value).startswith("job.yaml: job_config.events.outputs.0")
