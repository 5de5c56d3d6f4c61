"""The flex template: its parameters, its metadata, and the job that it makes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from facts import assert_names
from storage_server import BUCKET, StorageServer

from beamsplitter.pipelines.flex_template import (
    NAMES_IN_JOB_FILES,
    argument_parser,
    job_of,
    split_pairs,
)
from beamsplitter.pipelines.job.job_config import JobFileError, PipelineSettings
from beamsplitter.pipelines.services.dataflow import describe

ROOT = Path(__file__).parents[2]
METADATA = json.loads((ROOT / "pipelines" / "flex_template.json").read_text())
PARAMETERS = {each["name"]: each for each in METADATA["parameters"]}
ACCELERATOR = "type:nvidia-l4;count:1;install-nvidia-driver"
PLAIN = {
    "job_name": "from-the-file",
    "pipeline_options": {
        "runner": "DataflowRunner",
        "streaming": False,
        "project": "${PROJECT}",
        "region": "europe-west4",
        "temp_location": f"gs://{BUCKET}/temp",
        "sdk_container_image": "docker.pkg.dev/p/r/image:1",
        "worker_machine_type": "n2-standard-4",
        "labels": ["team=audio"],
        "experiments": ["no_use_multiple_sdk_containers"],
        "max_num_workers": 3,
    },
    "job_config": {
        "blocking": True,
        "events": {"inputs": [{"type": "folder", "location": f"gs://{BUCKET}/in"}]},
        "data": {"outputs": [{"type": "gcs", "location": f"gs://{BUCKET}/out"}]},
    },
}
TEMPLATES = "--templates=PROJECT=my-project"


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(PLAIN))
    return path


def test_each_parameter_is_described_and_each_description_is_a_parameter() -> None:
    actions = {action.dest: action for action in argument_parser()._actions}
    pipeline_options = PipelineOptions([]).get_all_options()
    assert set(PARAMETERS) == {*actions, "sdk_container_image"}
    for name, parameter in PARAMETERS.items():
        assert name in actions or name in pipeline_options
        required = name in actions and actions[name].required
        assert parameter["isOptional"] is not required
        assert set(parameter) == {
            "name",
            "label",
            "helpText",
            "paramType",
            "regexes",
            "isOptional",
        }
        assert parameter["label"] and parameter["helpText"].endswith(".")
    text = (ROOT / "docs" / "dataflow.md").read_text()
    assert all(f"`{name}`" in text for name in PARAMETERS)


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("job_file", "gs://my-bucket/jobs/job.yaml", True),
        ("job_file", "/template/job.yaml", True),
        ("job_file", "gs://my-bucket", False),
        ("job_file", "job.yaml", False),
        ("overrides", "", True),
        ("overrides", "stems.format=wav;separation.duration_s=30", True),
        ("overrides", "stems.format=wav\nseparation.duration_s=30\n", True),
        ("overrides", "a.b=type:x;;count:1; c=d", True),
        ("overrides", "a.0.location=gs://b/c=d", True),
        ("overrides", "stems.format", False),
        ("overrides", "a=b;c", False),
        ("templates", "PROJECT=my-project;BUCKET=b", True),
        ("templates", "dotted.name=x", False),
        ("sdk_container_image", "gcr.io/p/i:1", True),
        ("sdk_container_image", "two words", False),
    ],
)
def test_the_described_patterns_fit_what_is_meant(name: str, value: str, fits: bool) -> None:
    (pattern,) = PARAMETERS[name]["regexes"]
    assert bool(re.fullmatch(pattern, value)) is fits


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("a=1", ["a=1"]),
        ("a=1;b=2", ["a=1", "b=2"]),
        (" a=1 ;\n b=2\n\n", ["a=1", "b=2"]),
        ("a=x;;y;b=2", ["a=x;y", "b=2"]),
        ("a=x;;;b=2", ["a=x;", "b=2"]),
    ],
)
def test_pairs_of_a_parameter(text: str, pairs: list[str]) -> None:
    assert split_pairs(text) == pairs


def test_a_job_is_that_of_the_file_with_the_parameters(job_file: Path) -> None:
    doubled = ACCELERATOR.replace(";", ";;")
    job = job_of(
        [
            f"--job_file={job_file}",
            f"--overrides=stems.format=wav;pipeline_options.accelerator={doubled}",
            TEMPLATES,
        ]
    )
    assert job.job_name == "from-the-file"
    assert job.stems.format == "wav"
    assert job.pipeline_options.accelerator == ACCELERATOR
    assert job.pipeline_options.project == "my-project"


def test_the_launcher_s_options_win_over_the_file_s(job_file: Path) -> None:
    job = job_of(
        [
            f"--job_file={job_file}",
            TEMPLATES,
            "--job_name=from-the-launcher",
            "--runner=DataflowRunner",
            "--project=other-project",
            "--region=us-central1",
            "--temp_location=gs://other/temp",
            "--staging_location=gs://other/staging",
            "--template_location=gs://other/staging/job_object",
            "--machine_type=e2-standard-2",
            "--num_workers=2",
            "--max_num_workers=5",
            "--sdk_container_image=gcr.io/p/i:2",
            "--service_account_email=worker@p.iam.gserviceaccount.com",
            "--labels=stage=test",
            "--experiments=use_runner_v2,another",
            "--disk_provisioned_iops=100",
        ]
    )
    settings = job.pipeline_options
    assert job.job_name == "from-the-launcher"
    assert (settings.project, settings.region) == ("other-project", "us-central1")
    assert settings.temp_location == "gs://other/temp"
    assert settings.staging_location == "gs://other/staging"
    assert settings.template_location == "gs://other/staging/job_object"
    assert settings.worker_machine_type == "e2-standard-2"
    assert (settings.num_workers, settings.max_num_workers) == (2, 5)
    assert settings.sdk_container_image == "gcr.io/p/i:2"
    assert settings.service_account_email == "worker@p.iam.gserviceaccount.com"
    assert settings.labels == ["team=audio", "stage=test"]
    assert settings.experiments == ["no_use_multiple_sdk_containers", "use_runner_v2", "another"]
    assert settings.model_extra == {"disk_provisioned_iops": 100}


def test_options_have_the_names_of_job_files() -> None:
    dests = set(PipelineOptions([]).get_all_options())
    renamed = set(PipelineSettings.model_fields) - dests - {"accelerator"}
    assert renamed == set(NAMES_IN_JOB_FILES.values())
    assert set(NAMES_IN_JOB_FILES) <= dests


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--overrides=stems.format"], ["-O stems.format: ", "dotted.path=value"]),
        (["--templates=PROJECT"], ["--templates: PROJECT: ", "NAME=value"]),
        ([TEMPLATES, "--max_workers=3"], ["'max_workers'"]),
        ([TEMPLATES, "--num_workers=many"], ["pipeline option"]),
    ],
)
def test_wrong_arguments_are_told(job_file: Path, arguments: list[str], facts: list[str]) -> None:
    with pytest.raises(JobFileError) as error:
        job_of([f"--job_file={job_file}", *arguments])
    assert_names(error.value, *facts)


def launched(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the module as the launcher runs its program."""
    return subprocess.run(
        [sys.executable, "-m", "beamsplitter.pipelines.flex_template", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_the_launcher_gets_the_job_that_run_would_submit(
    gcs: StorageServer, job_file: Path, tmp_path: Path
) -> None:
    gcs.fill(["in/song.wav"])
    gcs.bucket.blob("jobs/job.yaml").upload_from_filename(str(job_file))
    template = tmp_path / "job_object"
    done = launched(
        f"--job_file=gs://{BUCKET}/jobs/job.yaml",
        TEMPLATES,
        "--job_name=launched",
        f"--template_location={template}",
        "--dataflow_endpoint=http://localhost:1",  # nothing answers there: it is not asked
        "--no_auth",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(template)
    job: dict[str, Any] = json.loads(template.read_text())
    assert job["name"] == "launched"
    assert job["labels"] == {"team": "audio"}
    (staged,) = [name for name in gcs.names("temp") if name.endswith("/pipeline.pb")]
    content = gcs.bucket.blob(staged).download_as_bytes()
    graph = beam_runner_api_pb2.Pipeline.FromString(content)
    described = describe(job_of([f"--job_file={job_file}", TEMPLATES]))
    names = {each.unique_name for each in graph.components.transforms.values()}
    expected = described.pipeline.components.transforms.values()
    assert names == {each.unique_name for each in expected}


def test_mistakes_end_the_launcher_with_one_line(tmp_path: Path, job_file: Path) -> None:
    done = launched(f"--job_file={tmp_path / 'none.yaml'}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'none.yaml'}: can't be read")
    done = launched(f"--job_file={job_file}", TEMPLATES, "--runner=DirectRunner")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert_names(line, "error: pipeline_options.runner: ", "Dataflow")
