"""Metrics of one process, and of the fleet over the bus."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

import pytest
from opentelemetry.trace import Span
from prometheus_client.parser import text_string_to_metric_families

from shared import subjects
from shared.bus.base import Message
from shared.bus.memory import MemoryBroker
from shared.telemetry.caches import CacheReading
from shared.telemetry.exposition import gather_metrics, merge, serve_metrics
from shared.telemetry.logs import bound
from shared.telemetry.metrics import Metrics
from shared.telemetry.nodes import observed
from shared.telemetry.tracing import NodeAttempt
from tests.conftest import eventually, run


def sample(text: bytes, name: str, **labels: str) -> float:
    """The one sample of this name that has at least these labels."""
    found = [
        float(sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, f"{name} {labels}: {len(found)} samples"
    return found[0]


# ------------------------------------------------------------------------------------- one process


def test_a_step_counts_its_rows_and_its_seconds() -> None:
    metrics = Metrics("denoiser")
    metrics.step("pocket", rows=8, seconds=0.04)
    metrics.step("pocket", rows=3, seconds=0.02)
    text = metrics.render()
    assert sample(text, "darkroom_batch_rows_sum", model="pocket") == 11
    assert sample(text, "darkroom_batch_rows_bucket", le="3.0") == 1
    assert sample(text, "darkroom_step_seconds_count", model="pocket") == 2
    assert sample(text, "darkroom_step_seconds_sum", model="pocket") == pytest.approx(0.06)


def test_a_cache_is_read_whenever_the_metrics_are() -> None:
    metrics, held = Metrics("denoiser"), [5]
    metrics.watch_cache("templates", lambda: CacheReading(held[0], 100, 3, 2, 1))
    metrics.watch_cache("loras", lambda: CacheReading(1, 10, 0, 0, 0), "pocket")
    assert sample(metrics.render(), "darkroom_cache_bytes", cache="templates") == 5
    held[0] = 7
    text = metrics.render()
    assert sample(text, "darkroom_cache_bytes", cache="templates") == 7
    assert sample(text, "darkroom_cache_bound_bytes", cache="templates") == 100
    assert sample(text, "darkroom_cache_hits_total", cache="templates") == 3
    assert sample(text, "darkroom_cache_misses_total", cache="templates") == 2
    assert sample(text, "darkroom_cache_evictions_total", cache="templates") == 1
    assert sample(text, "darkroom_cache_bound_bytes", cache="loras", model="pocket") == 10


def test_stages_queues_jobs_and_requests_are_told_apart_by_their_labels() -> None:
    metrics = Metrics("planner")
    metrics.queue_depth("denoise", "pocket", 5)
    metrics.queue_depth("encode", "pocket", 7)
    metrics.stage_waiting("denoise", "pocket", 0.5)
    metrics.stage_running("denoise", "pocket", 2.0)
    metrics.job_ended("pocket", "done")
    metrics.job_ended("pocket", "done")
    metrics.job_ended("pocket", "failed")
    metrics.http_request("POST", "/v1/images/generations", 200, 1.5)
    text = metrics.render()
    depth = "darkroom_queue_depth_nodes"
    assert sample(text, depth, kind="encode", model="pocket") == 7
    assert sample(text, "darkroom_stage_waiting_seconds_sum", kind="denoise") == 0.5
    assert sample(text, "darkroom_stage_running_seconds_sum", kind="denoise") == 2.0
    assert sample(text, "darkroom_jobs_total", outcome="done") == 2
    assert sample(text, "darkroom_jobs_total", outcome="failed") == 1
    assert sample(text, "darkroom_http_request_seconds_count", status="200") == 1


def test_an_arena_is_asked_for_its_bytes_only_when_somebody_reads() -> None:
    asked: list[int] = []

    def used() -> float:
        asked.append(1)
        return 4096.0 * len(asked)

    metrics = Metrics("vae")
    metrics.watch_arena("arena-1", used, capacity=1 << 20)
    assert asked == []
    assert sample(metrics.render(), "darkroom_arena_used_bytes", arena="arena-1") == 4096.0
    assert sample(metrics.render(), "darkroom_arena_used_bytes", arena="arena-1") == 8192.0
    assert sample(metrics.render(), "darkroom_arena_capacity_bytes") == 1 << 20


def test_two_services_in_one_process_do_not_share_their_metrics() -> None:
    one, other = Metrics("vae"), Metrics("vae")
    one.stage_running("decode", "pocket", 1.0)
    assert b'stage_running_seconds_count{kind="decode"' not in other.render()


def test_every_sample_names_its_service_and_the_labels_asked_for() -> None:
    metrics = Metrics("vae")
    metrics.stage_running("decode", "pocket", 1.0)
    for family in text_string_to_metric_families(metrics.render(instance="a").decode()):
        for each in family.samples:
            assert (each.labels["service"], each.labels["instance"]) == ("vae", "a")


UNITS = (
    *("_seconds", "_bytes", "_rows", "_nodes", "_jobs"),
    *("_refusals", "_hits", "_misses", "_evictions"),
)


def test_every_name_of_ours_starts_with_darkroom_and_ends_with_a_unit() -> None:
    families = list(text_string_to_metric_families(Metrics("vae").render().decode()))
    ours = [f.name for f in families if not f.name.startswith("process_")]
    assert len(ours) >= 9
    for name in ours:
        assert name.startswith("darkroom_")
        assert name.endswith(UNITS), name


# ----------------------------------------------------------------------------------------- merging


def lines_of(text: bytes, start: str) -> list[str]:
    return [line for line in text.decode().splitlines() if line.startswith(start)]


def decoded(instance: str, seconds: float) -> bytes:
    metrics = Metrics("vae")
    metrics.stage_running("decode", "pocket", seconds)
    metrics.job_ended("pocket", "done")
    return metrics.render(instance=instance)


def test_merged_texts_name_each_family_once_and_keep_each_sample() -> None:
    text = merge([decoded("a", 1.0), decoded("b", 2.0)])
    for start in ("# HELP", "# TYPE"):
        headings = [line.split()[2] for line in lines_of(text, start)]
        assert len(headings) == len(set(headings))
    assert sample(text, "darkroom_stage_running_seconds_sum", instance="a") == 1.0
    assert sample(text, "darkroom_stage_running_seconds_sum", instance="b") == 2.0
    assert sample(text, "darkroom_stage_running_seconds_bucket", instance="b", le="2.5") == 1
    assert sample(text, "darkroom_jobs_total", instance="b") == 1
    assert lines_of(text, "# TYPE darkroom_jobs") == ["# TYPE darkroom_jobs_total counter"]


def test_merging_one_text_changes_nothing() -> None:
    text = decoded("a", 1.0)
    assert merge([text]) == text
    assert merge([]) == b""


def test_label_values_survive_quotes_backslashes_and_newlines() -> None:
    metrics = Metrics("vae")
    metrics.job_ended('a "model"\\with\nall, of {them}', "done")
    text = merge([metrics.render(instance="a")])
    expected = 'a "model"\\with\nall, of {them}'
    assert sample(text, "darkroom_jobs_total", model=expected) == 1


@pytest.mark.parametrize("broken", [b"}{ not metrics", b"\xff\xfe", b'x{a="b} 1'])
def test_a_text_that_cannot_be_read_costs_only_itself(
    broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        text = merge([broken, decoded("a", 1.0)])
    assert sample(text, "darkroom_jobs_total", instance="a") == 1
    assert "could not be read" in caplog.text


def test_a_family_whose_type_differs_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = b"# HELP darkroom_batch_rows x\n# TYPE darkroom_batch_rows gauge\ndarkroom_batch_rows 1"
    with caplog.at_level(logging.WARNING):
        text = merge([decoded("a", 1.0), other])
    assert "darkroom_batch_rows is a histogram, not a gauge" in caplog.text
    assert b"darkroom_batch_rows 1" not in text


# -------------------------------------------------------------------------------------------- fleet


async def scrape(broker: MemoryBroker, fleet: Mapping[str, Metrics]) -> bytes:
    """What a scrape finds while every process of `fleet` (by instance) answers."""

    async def all_listen() -> bool:
        wants_no_answer = Message(subjects.ALL_METRICS, b"", {})
        return broker.route(wants_no_answer) == len(fleet)

    async with asyncio.TaskGroup() as group:
        serving = [
            group.create_task(serve_metrics(broker.connect(instance), metrics, instance))
            for instance, metrics in fleet.items()
        ]
        await eventually(all_listen)
        text = await gather_metrics(broker.connect("gateway"), timeout=1.0)
        for task in serving:
            task.cancel()
    return text


def test_one_scrape_shows_every_process_of_the_fleet() -> None:
    fleet = {"v1": Metrics("vae"), "v2": Metrics("vae"), "d1": Metrics("denoiser")}
    fleet["v1"].stage_running("decode", "pocket", 1.0)
    fleet["v2"].stage_running("decode", "pocket", 2.0)
    fleet["d1"].step("pocket", rows=4, seconds=0.1)
    text = run(scrape(MemoryBroker(), fleet))
    running = "darkroom_stage_running_seconds_sum"
    assert sample(text, running, service="vae", instance="v1") == 1.0
    assert sample(text, running, service="vae", instance="v2") == 2.0
    assert sample(text, "darkroom_batch_rows_sum", service="denoiser", instance="d1") == 4
    assert len(lines_of(text, "# TYPE darkroom_batch_rows ")) == 1


def test_a_fleet_of_none_is_an_empty_scrape() -> None:
    assert run(scrape(MemoryBroker(), {})) == b""


def test_an_answer_that_cannot_be_sent_does_not_end_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert run(scrape(MemoryBroker(max_payload=64), {"v1": Metrics("vae")})) == b""
    assert "metrics were not sent" in caplog.text


# -------------------------------------------------------------------------------------------- nodes


def test_an_observed_node_counts_its_wait_and_its_run_even_when_it_fails() -> None:
    metrics = Metrics("vae")

    def decode(ready_at: float | None) -> AbstractContextManager[Span]:
        one = NodeAttempt(
            job_id="job-1",
            node="decode-0",
            kind="decode",
            model="pocket",
            attempt=1,
            headers={},
            ready_at=ready_at,
        )
        return observed(metrics, one)

    with decode(ready_at=time.time() - 10.0):
        assert bound() == {"job_id": "job-1", "node": "decode-0"}
    with decode(ready_at=time.time() + 1000.0):  # another host's clock runs ahead
        pass
    with pytest.raises(RuntimeError), decode(ready_at=None):  # it never waited in a queue
        raise RuntimeError
    text = metrics.render()
    assert sample(text, "darkroom_stage_waiting_seconds_count", kind="decode") == 2
    assert 10.0 <= sample(text, "darkroom_stage_waiting_seconds_sum", model="pocket") < 70.0
    assert sample(text, "darkroom_stage_running_seconds_count", kind="decode") == 3
