"""Dataflow up to its edge: refusals, the graph of a dry run, submissions, and what is staged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from framebank.features.errors import UsageError
from framebank.features.stores import storage
from framebank.pipelines.runners.dataflow import submission
from tests import ROOT
from tests.clips.plain_clips import write_clip
from tests.made import bare_environment, forked
from tests.made.made_cache import SPEC, make_cache
from tests.made.made_model import make_model
from tests.servers import bucket_servers
from tests.servers.dataflow_service import DataflowService, serve_dataflow

CLOUD = ["--project=my-project-1", "--region=us-central1", "--temp_location=gs://clips/temp"]
QUICK = ["--backbone=mobilenet_v2", "--weights=random:0", "--sample=uniform=2"]
IMAGE = "--sdk_container_image=europe-docker.pkg.dev/p/r/worker:1"
PRIME = "--dataflow_service_options=enable_prime"

# Runs a staged job graph in the interpreter that runs this, in place of the service's containers.
RUN_STAGED = """
import sys
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2 as api
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
pipeline = api.Pipeline.FromString(open(sys.argv[1], "rb").read())
for environment in pipeline.components.environments.values():
    environment.urn, environment.payload = "beam:env:embedded_python:v1", b""
    del environment.dependencies[:]
print(FnApiRunner().run_via_runner_api(pipeline, PipelineOptions()).wait_until_finish())
import framebank
print(framebank.__file__)
"""


def prepared(*words: str, accelerator: str | None = None, wait: bool = False) -> PipelineOptions:
    options = PipelineOptions([*CLOUD, "--no_auth", *words])
    submission.prepare(options, accelerator=accelerator, wait=wait)
    return options


def test_a_list_of_ones_own_must_have_what_the_package_needs(tmp_path: Path) -> None:
    listed = (ROOT / "infra" / "docker" / "worker-cpu.txt").read_text()
    own = tmp_path / "requirements.txt"
    own.write_text("mine==1\nkeras\n")
    with pytest.raises(
        UsageError, match=r"would lack libraries[\s\S]*apache-beam, av, [\s\S]*IMAGE"
    ):
        prepared(f"--requirements_file={own}")
    own.write_text(f"mine==1\n{listed}")
    kept = prepared(f"--requirements_file={own}").view_as(SetupOptions)
    assert kept.requirements_file == str(own) and kept.requirements_cache is None
    listed_only = prepared().view_as(SetupOptions)
    assert listed_only.requirements_cache == "skip"
    assert prepared(IMAGE, f"--requirements_file={own}").view_as(SetupOptions).setup_file is None


def hints(*words: str, accelerator: str | None = None) -> dict[str, str]:
    return submission.resource_hints(
        prepared(IMAGE, *words, accelerator=accelerator), accelerator=accelerator
    )


@pytest.mark.parametrize(
    ("words", "more", "told"),
    [
        (["--project="], {}, "needs --project"),
        (["--project=12345678"], {}, "--project is not right"),
        (["--region=Europe"], {}, "--region is not right"),
        (["--temp_location=/tmp/x"], {}, "--temp_location is not right"),
        (["--staging_location=s3://clips/x"], {}, "--staging_location is not right"),
        (["--job_name=My_Job"], {}, "--job_name is not right"),
        (["--job_name=j-"], {}, "--job_name is not right"),
        (["--save_main_session"], {}, "--save_main_session"),
        (["--streaming"], {}, "--streaming"),
        (["--template_location=gs://clips/t"], {}, "framebank template build"),
        (["--experiments=use_multiple_sdk_containers"], {}, "one SDK process"),
        (["--dry_run=true"], {"wait": True}, "--wait with --dry_run"),
        (["--dry_run=perhaps"], {}, "--dry_run is not right"),
        (["--max_num_workers=0"], {}, "--max_num_workers must be above 0"),
        (["--num_workers=9", "--max_num_workers=3"], {}, "above --max_num_workers"),
        (["--setup_file=/nowhere/setup.py"], {}, "no Framebank"),
        ([IMAGE], {"accelerator": "nvidia-t4"}, "--accelerator is not right"),
        ([IMAGE], {"accelerator": "nvidia-l4:0"}, "--accelerator is not right"),
        ([], {"accelerator": "nvidia-l4"}, "worker-gpu.Dockerfile"),
        ([IMAGE, "--machine_type=n1-standard-4"], {"accelerator": "nvidia-l4"}, "g2-"),
        ([IMAGE, "--resource_hint=min_ram=4GB"], {"accelerator": "nvidia-l4"}, "exclude each"),
        (["--dataflow_service_options=worker_accelerator=type:x"], {}, "give --accelerator"),
        ([PRIME, "--machine_type=n1-standard-4"], {}, "Prime takes no --machine_type"),
        ([PRIME, "--flexrs_goal=COST_OPTIMIZED"], {}, "with Prime"),
    ],
)
def test_what_cannot_work_is_one_message(words: list[str], more: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        prepared(*words, **more)
    assert told in str(caught.value)


def test_no_credentials_are_told_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(UsageError, match="no credentials for Google Cloud"):
        submission.prepare(PipelineOptions([*CLOUD, IMAGE]), accelerator=None)


def test_hints_are_those_of_the_mode() -> None:
    assert hints() == {"min_ram": "8GB"}
    assert hints(accelerator="nvidia-l4") == {}  # worker_accelerator and right fitting: not both
    assert hints("--flexrs_goal=COST_OPTIMIZED") == {}
    assert hints(PRIME, accelerator="nvidia-l4:2") == {
        "min_ram": "8GB",
        "accelerator": "type:nvidia-l4;count:2;install-nvidia-driver",
    }


def test_what_the_user_says_stays() -> None:
    given = prepared(
        "--machine_type=n2-highmem-8", "--disk_size_gb=200", "--max_num_workers=3",
        "--number_of_worker_harness_threads=7", "--labels=framebank-command=mine",
    )  # fmt: skip
    submission.name_job(given, "framebank-extract", command="extract")
    said = given.get_all_options(drop_default=True)
    assert (said["machine_type"], said["disk_size_gb"]) == ("n2-highmem-8", 200)
    assert (said["max_num_workers"], said["number_of_worker_harness_threads"]) == (3, 7)
    assert said["labels"] == ["framebank-command=mine", "framebank-version=0-1-0"]
    assert said["setup_file"] == str(ROOT / "setup.py")
    assert said["staging_location"] == "gs://clips/temp"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Point this process at a bucket with three clips under in/."""
    folder = tmp_path_factory.mktemp("bucket")
    with bucket_servers.serve("gcp-storage-emulator", folder / "server") as server:
        more = {"NO_GCE_CHECK": "true", "FRAMEBANK_CACHE": str(folder)}
        with bucket_servers.environment(**server.environment, **more):
            for number in range(3):
                clip = write_clip(folder / f"c{number}.mp4", seed=number)
                storage.write_atomic(f"{server.bucket}/in/{clip.name}", clip.read_bytes())
            yield server.bucket


@pytest.fixture
def service() -> Iterator[DataflowService]:
    with serve_dataflow() as service:
        yield service


def framebank(*words: str) -> subprocess.CompletedProcess[str]:
    return forked.run("-m", "framebank", *words)


def extract_words(bucket: str, cache: str) -> list[str]:
    return [
        "extract", f"{bucket}/in", f"--cache={bucket}/{cache}", *QUICK, "--runner=DataflowRunner",
        "--no_auth", *CLOUD,
    ]  # fmt: skip


def submit(bucket: str, cache: str, *words: str) -> subprocess.CompletedProcess[str]:
    return framebank(*extract_words(bucket, cache), *words)


def test_a_dry_run_shows_the_job_and_writes_nothing(bucket: str) -> None:
    done = submit(bucket, "dry", "--dry_run=true", IMAGE, "--accelerator=nvidia-tesla-t4:2",
        "--max_num_workers=7", "--num_workers=2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["job"].startswith("framebank-extract-")
    assert job["labels"] == {"framebank-version": "0-1-0", "framebank-command": "extract"}
    assert job["main_session"] is False
    assert job["workers"] == {
        "images": ["europe-docker.pkg.dev/p/r/worker:1"],
        "machine": "n1-standard-4",
        "disk_gb": 50,
        "threads": 2,
        "first": 2,
        "most": 7,
    }
    gpu = "worker_accelerator=type:nvidia-tesla-t4;count:2;install-nvidia-driver"
    assert job["service_options"] == [gpu]
    assert "no_use_multiple_sdk_containers" in job["experiments"]
    names = [step["name"].split("/")[0] for step in job["steps"]]
    assert list(dict.fromkeys(names)) == [
        "CreatePlanPaths", "CheckWorkers", "KeyPlan", "GatherPlan", "ReadPlan", "SpreadShards",
        "ExtractShard", "KeyRows", "GatherRows", "FinishRun",
    ]  # fmt: skip
    assert not any("hints" in step for step in job["steps"])
    assert not storage.folder_exists(f"{bucket}/dry")


def test_a_place_for_packages_that_cannot_be_written_is_told_before_anything(bucket: str) -> None:
    nowhere = "gs://no-such-bucket-of-framebank/temp"
    done = submit(bucket, "unstaged", IMAGE, f"--temp_location={nowhere}")
    assert done.returncode == 2
    assert nowhere in done.stderr and "Traceback" not in done.stderr
    assert not storage.folder_exists(f"{bucket}/unstaged")


def test_on_prime_only_the_step_that_infers_asks_for_a_gpu(bucket: str) -> None:
    done = submit(bucket, "prime", "--dry_run=true", IMAGE, PRIME, "--accelerator=nvidia-l4")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["service_options"] == ["enable_prime"]
    asking = {step["name"]: step["hints"] for step in job["steps"] if "hints" in step}
    assert asking == {
        "ExtractShard": {
            "accelerator": "type:nvidia-l4;count:1;install-nvidia-driver",
            "min_ram_bytes": str(8 * 10**9),
        }
    }


def test_a_failed_job_is_told_with_its_link(bucket: str, service: DataflowService) -> None:
    service.end, service.message = "JOB_STATE_FAILED", "the quota of T4 is 0 in this region"
    done = submit(bucket, "fails", "--wait", IMAGE, f"--dataflow_endpoint={service.url}")
    assert done.returncode == 1
    assert "FAILED: the quota of T4 is 0 in this region" in done.stderr
    assert "https://console.cloud.google.com/dataflow/jobs/us-central1/2026-01-01" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cancelled_job_is_told(bucket: str, service: DataflowService) -> None:
    service.end = "JOB_STATE_CANCELLED"
    done = submit(bucket, "cancelled", "--wait", IMAGE, f"--dataflow_endpoint={service.url}")
    assert done.returncode == 1
    assert "CANCELLED: " in done.stderr


def test_a_refused_job_leaves_no_plan_and_built_no_model(
    bucket: str, service: DataflowService
) -> None:
    service.refusal = 403
    code = "import sys, framebank; print(framebank.main(sys.argv[1:]), 'tensorflow' in sys.modules)"
    words = [*extract_words(bucket, "refused"), IMAGE, f"--dataflow_endpoint={service.url}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split()[-2:] == ["1", "False"], done.stderr
    assert "did not take the job" in done.stderr and "lacks dataflow.jobs.create" in done.stderr
    assert "Traceback" not in done.stderr
    assert not storage.folder_exists(f"{bucket}/refused/runs")


def test_the_staged_job_runs_in_a_bare_environment(
    bucket: str, service: DataflowService, tmp_path: Path
) -> None:
    """Another python with the staged package runs what was submitted: the bytes of a local run."""
    done = submit(bucket, "staged", f"--dataflow_endpoint={service.url}")
    assert done.returncode == 0, done.stderr
    assert "submitted framebank-extract-" in done.stdout and "/dataflow/jobs/" in done.stdout
    (job,) = service.jobs
    assert [asked.split()[0] for asked in service.asked] == ["POST"]  # nobody waited
    pool = job["environment"]["workerPools"][0]
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 10
    staged = {package["name"]: package["location"] for package in pool["packages"]}
    package = tmp_path / "workflow.tar.gz"
    package.write_bytes(read_staged(staged["workflow.tar.gz"]))
    graph = tmp_path / "pipeline.pb"
    graph.write_bytes(storage.read_bytes(
        job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]))  # fmt: skip
    requirements = tmp_path / "requirements.txt"
    requirements.write_bytes(read_staged(staged["requirements.txt"]))
    python = bare_environment.install(package, requirements)
    ran = subprocess.run(
        [python, "-c", RUN_STAGED, graph], cwd=tmp_path, env=os.environ, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    state, where = ran.stdout.split()[-2:]
    assert state == "DONE" and "site-packages" in where
    # What the service computes in; here `auto` may take another.
    words = ("--precision=float32", *QUICK)
    local = framebank("extract", f"{bucket}/in", f"--cache={bucket}/local", *words)
    assert local.returncode == 0, local.stderr
    assert shards(f"{bucket}/staged") == shards(f"{bucket}/local")


def read_staged(location: str) -> bytes:
    return storage.read_bytes(location.replace("storage.googleapis.com/", "gs://", 1))


def shards(cache: str) -> dict[str, bytes]:
    """Return the records of a cache by shard."""
    found = {
        file.path.rsplit("/", 1)[1]: storage.read_bytes(file.path)
        for file in storage.list_files(f"{cache}/shards")
        if file.path.endswith(".tfrecord")
    }
    assert found
    return found


def test_score_shows_its_job_and_one_submitted_runs_to_its_summary(
    bucket: str, service: DataflowService, tmp_path: Path
) -> None:
    make_cache(f"{bucket}/made")
    model = make_model(tmp_path / "model", SPEC, width=8)
    for path in model.iterdir():
        storage.write_atomic(f"{bucket}/model/{path.name}", path.read_bytes())
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"video_id": "a.mp4", "question": "what?"}\n')
    words = [
        "score", f"--model={bucket}/model", f"--cache={bucket}/made", f"--out={bucket}/out",
        f"--questions={questions}", "--runner=DataflowRunner", "--no_auth", *CLOUD, IMAGE,
    ]  # fmt: skip
    before = sorted(file.path for file in storage.list_files(bucket))
    done = framebank(*words, "--dry_run=true")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["labels"]["framebank-command"] == "score"
    assert "AnswerQuestions" in {step["name"].split("/")[0] for step in job["steps"]}
    assert sorted(file.path for file in storage.list_files(bucket)) == before
    done = framebank(*words, f"--dataflow_endpoint={service.url}")
    assert done.returncode == 0 and "submitted framebank-score-" in done.stdout, done.stderr
    (sent,) = service.jobs
    graph = tmp_path / "pipeline.pb"
    url = sent["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    graph.write_bytes(storage.read_bytes(url))
    ran = forked.run("-c", RUN_STAGED, graph)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(storage.read_bytes(f"{bucket}/out/_summary.json"))
    assert (summary["questions"], summary["answered"]) == (1, 1)
    names = {file.path.rsplit("/", 1)[1] for file in storage.list_files(f"{bucket}/out")}
    assert not any(name.startswith("_plan-") for name in names), names
