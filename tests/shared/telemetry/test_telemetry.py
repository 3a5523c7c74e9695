"""Traces against a real OTLP/HTTP collector, trace context in headers, and logs."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from shared.errors import Misconfigured
from shared.telemetry import logs, telemetry, tracing
from tests.conftest import HANG_SECONDS, run

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
CLIENT = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=opaque"}
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@dataclass
class Collector:
    """What an OTLP/HTTP collector has received."""

    url: str
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def listening() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the caller's OTEL_* variables, and none leaves tracing on."""
    for name in ("ENDPOINT", "PROTOCOL", "TRACES_ENDPOINT", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DARKROOM_LOG_FORMAT", raising=False)
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    tracing.shutdown()
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(name="collector")
def _collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that traces are exported to."""
    with listening() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        assert tracing.setup_tracing("denoiser")
        yield collector
        tracing.shutdown()


def denoise(
    headers: dict[str, str], ready_at: float | None = None, job_id: str = "job-1"
) -> AbstractContextManager[trace.Span]:
    return tracing.node_span(
        tracing.NodeAttempt(
            job_id=job_id,
            node="denoise-0",
            kind="denoise",
            model="pocket",
            attempt=2,
            headers=headers,
            ready_at=ready_at,
        )
    )


def values(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {p.key: getattr(p.value, str(p.value.WhichOneof("value"))) for p in pairs}


# ------------------------------------------------------------------------------------------- export


def test_a_node_is_exported_with_its_wait_its_run_and_its_steps(collector: Collector) -> None:
    with denoise(CLIENT, ready_at=time.time() - 3.0) as span:
        for step in range(1, 4):
            tracing.step_event(span, step, rows=8, seconds=0.25)
    tracing.shutdown()

    [exported] = collector.spans()
    assert (exported.name, exported.kind) == ("denoise", Span.SPAN_KIND_CONSUMER)
    assert exported.trace_id.hex() == TRACE_ID
    assert exported.parent_span_id.hex() == PARENT_ID
    attributes = values(exported.attributes)
    assert 3.0 <= float(str(attributes.pop("darkroom.queue_wait_seconds"))) < 60.0
    assert 0.0 <= float(str(attributes.pop("darkroom.run_seconds"))) < 60.0
    assert attributes == {
        "darkroom.job_id": "job-1",
        "darkroom.node": "denoise-0",
        "darkroom.kind": "denoise",
        "darkroom.model": "pocket",
        "darkroom.attempt": 2,
    }
    assert [values(event.attributes) for event in exported.events] == [
        {"step": step, "rows": 8, "seconds": 0.25} for step in (1, 2, 3)
    ]
    resource = values(collector.requests[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "denoiser"
    assert resource["service.namespace"] == "darkroom"


def test_nodes_of_one_job_form_one_chain_across_message_headers(collector: Collector) -> None:
    with tracing.request_span("POST /v1/images/generations", {}):
        submitted = tracing.inject()
    with denoise(submitted):
        published = tracing.inject()
    with denoise(published):
        pass
    tracing.shutdown()

    request, first, second = collector.spans()
    assert len({span.trace_id for span in (request, first, second)}) == 1
    assert not request.parent_span_id
    assert first.parent_span_id == request.span_id
    assert second.parent_span_id == first.span_id


def test_nodes_that_run_side_by_side_do_not_become_each_others_parents(
    collector: Collector,
) -> None:
    async def node(job_id: str, both: asyncio.Barrier) -> str:
        with denoise({}, job_id=job_id):
            await both.wait()
            return tracing.inject()["traceparent"]

    async def main() -> tuple[str, str]:
        both = asyncio.Barrier(2)
        return await asyncio.gather(node("job-1", both), node("job-2", both))

    sent = run(main())
    tracing.shutdown()
    assert {values(s.attributes)["darkroom.job_id"] for s in collector.spans()} == {
        "job-1",
        "job-2",
    }
    assert not any(span.parent_span_id for span in collector.spans())
    assert {header.split("-")[2] for header in sent} == {
        span.span_id.hex() for span in collector.spans()
    }


def test_an_error_marks_its_span_failed_whether_it_leaves_the_block_or_not(
    collector: Collector,
) -> None:
    with pytest.raises(RuntimeError), denoise({}):
        raise RuntimeError("no such tensor")
    with denoise({}):
        tracing.mark_failed(RuntimeError("no such tensor"))
    tracing.shutdown()

    for span in collector.spans():
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert "no such tensor" in span.status.message
        assert [event.name for event in span.events] == ["exception"]


def test_a_cancelled_node_is_exported_as_cancelled_and_not_as_failed(collector: Collector) -> None:
    async def main() -> None:
        entered = asyncio.Event()

        async def node() -> None:
            with denoise({}):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(node())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    tracing.shutdown()
    [span] = collector.spans()
    assert values(span.attributes)["darkroom.cancelled"] is True
    assert span.status.code == Status.STATUS_CODE_UNSET


def test_a_client_that_does_not_sample_is_not_exported_but_still_forwarded(
    collector: Collector,
) -> None:
    with denoise({"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}) as span:
        tracing.step_event(span, 1, rows=1, seconds=0.1)
        sent = tracing.inject()["traceparent"].split("-")
    tracing.shutdown()
    assert (sent[1], sent[3]) == (TRACE_ID, "00")
    assert collector.spans() == []


def test_leaving_waits_only_so_long_for_a_collector_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(tracing, "_provider", SimpleNamespace(shutdown=stuck.wait))
    leaving = threading.Thread(target=tracing.shutdown, args=(0.2,), daemon=True)
    leaving.start()
    leaving.join(HANG_SECONDS)
    stuck.set()
    assert not leaving.is_alive()


def test_the_variable_for_traces_alone_turns_tracing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        with telemetry("vae"), denoise({}):
            pass
        assert len(collector.spans()) == 1


def test_an_export_protocol_we_do_not_speak_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(Misconfigured, match=r"OTEL_EXPORTER_OTLP_PROTOCOL.*http/protobuf"):
        tracing.setup_tracing("vae")


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_the_standard_switches_turn_tracing_off(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    assert not tracing.setup_tracing("vae")


# ---------------------------------------------------------------------------------------- when off


def test_nothing_of_the_sdk_is_imported_while_nobody_listens() -> None:
    script = """
import sys
from shared.telemetry import telemetry, tracing
with telemetry("vae"):
    one = tracing.NodeAttempt(job_id="j", node="n", kind="k", model="m", attempt=1, headers={})
    with tracing.node_span(one) as s:
        tracing.step_event(s, 1, 1, 0.1)
        assert tracing.inject() == {}
heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests", "torch")
print([name for name in sys.modules if name.startswith(heavy)])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_clients_context_goes_through_unchanged_while_tracing_is_off() -> None:
    assert not tracing.setup_tracing("planner")
    with tracing.request_span("POST", CLIENT):
        assert tracing.inject() == CLIENT
        with denoise(tracing.inject()):
            assert tracing.inject() == CLIENT
    with tracing.carry(CLIENT):
        assert tracing.inject() == CLIENT
    assert tracing.inject() == {}


def test_header_names_are_read_without_regard_to_case() -> None:
    with tracing.carry({name.capitalize(): value for name, value in CLIENT.items()}):
        assert tracing.inject() == CLIENT


@pytest.mark.parametrize("broken", ["", "00-zz-zz-01", f"00-{'0' * 32}-{PARENT_ID}-01", "x" * 9999])
def test_a_malformed_context_is_as_good_as_none(broken: str) -> None:
    with tracing.carry({"traceparent": broken}):
        assert tracing.inject() == {}


# -------------------------------------------------------------------------------------------- logs


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_and_names_its_service_job_node_and_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup_logging("vae")
    with tracing.carry(CLIENT), logs.bind(job_id="job-1", node="decode-0"):
        logging.getLogger("services.vae").info("encoded %d bytes", 7, extra={"seconds": 0.5})
    [line] = logged(capsys)
    assert str(line.pop("time")).endswith("+00:00")
    assert line == {
        "level": "INFO",
        "service": "vae",
        "logger": "services.vae",
        "message": "encoded 7 bytes",
        "job_id": "job-1",
        "node": "decode-0",
        "trace_id": TRACE_ID,
        "seconds": 0.5,
    }


def test_an_exception_stays_on_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup_logging("vae")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("services.vae").exception("decode failed")
    [line] = logged(capsys)
    assert "ValueError: two\nlines" in str(line["exception"])
    assert "test_telemetry.py" in str(line["exception"])


def test_tasks_that_run_side_by_side_keep_their_own_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup_logging("denoiser")

    async def node(job_id: str, both: asyncio.Barrier) -> None:
        with logs.bind(job_id=job_id):
            await both.wait()
            await asyncio.to_thread(logging.getLogger("x").info, job_id)

    async def main() -> None:
        both = asyncio.Barrier(2)
        await asyncio.gather(node("job-1", both), node("job-2", both))

    run(main())
    lines = logged(capsys)
    assert [line["job_id"] for line in lines] == [line["message"] for line in lines]
    assert {line["job_id"] for line in lines} == {"job-1", "job-2"}
    assert logs.bound() == {}


def test_a_field_cannot_replace_what_every_line_has(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup_logging("vae")
    with logs.bind(service="forged", level="DEBUG"):
        logging.getLogger("x").warning("hello")
    [line] = logged(capsys)
    assert (line["service"], line["level"]) == ("vae", "WARNING")


def test_setting_logs_up_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup_logging("vae")
    logs.setup_logging("denoiser", "warning")
    logging.getLogger("x").info("below the level")
    logging.getLogger("x").warning("above it")
    [line] = logged(capsys)
    assert line["service"] == "denoiser"


def test_text_is_readable_and_keeps_the_fields(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_LOG_FORMAT", "text")
    logs.setup_logging("vae")
    with logs.bind(job_id="job-1"):
        logging.getLogger("x").warning("slow")
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING vae: slow [job_id=job-1]")


def test_a_wrong_format_or_level_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match=r"'loud' is unknown; set one of .*INFO"):
        logs.setup_logging("vae", "loud")
    monkeypatch.setenv("DARKROOM_LOG_FORMAT", "xml")
    with pytest.raises(Misconfigured, match="DARKROOM_LOG_FORMAT is 'xml'; set json or text"):
        logs.setup_logging("vae")
