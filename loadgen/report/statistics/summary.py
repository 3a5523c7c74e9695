"""From what happened to a report. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from loadgen.outcomes.outcome import Outcome, Sample
from loadgen.report.statistics.distribution import bins, curve
from loadgen.report.statistics.histogram import TimeHistogram
from loadgen.report.statistics.model import Attainment, Failure, Group, Latency, Lateness, Report
from loadgen.report.statistics.series import occupancy, timeline
from loadgen.report.statistics.slo import Slo, deadline_of
from loadgen.report.statistics.wilson import wilson
from shared.errors import InvalidRequest

NO_REASON: Final = "unknown"


def summarise(
    outcomes: Sequence[Outcome],
    samples: Sequence[Sample],
    slo: Slo,
    seconds: float,
    about: Mapping[str, str] | None = None,
) -> Report:
    """The report of a run whose window was `seconds` long. `about` says in words what was run.
    What the generator itself could not send is listed among `failures`, and counts nowhere else.

    Raises `InvalidRequest` if `slo` needs a solo latency that it does not have, or without a
    window."""
    if not seconds > 0:
        raise InvalidRequest("seconds", seconds, "above 0")
    unsent = [outcome for outcome in outcomes if outcome.own]
    outcomes = [outcome for outcome in outcomes if not outcome.own]
    met = {id(outcome): meets(slo, outcome) for outcome in outcomes}

    def verdict(outcome: Outcome) -> bool | None:
        return met[id(outcome)]

    def good(outcome: Outcome) -> bool:
        return outcome.status == "done" and verdict(outcome) is not False

    def grouped(key: Callable[[Outcome], str]) -> dict[str, Group]:
        return {
            name: group(members, verdict, seconds)
            for name, members in sorted(_split(outcomes, key).items())
        }

    return Report(
        about=dict(about or {}),
        seconds=seconds,
        drain_seconds=max(0.0, max((o.ended_at for o in outcomes), default=0.0) - seconds),
        slo=slo,
        offered_per_second=len(outcomes) / seconds,
        overall=group(outcomes, verdict, seconds),
        by_class=grouped(_class),
        by_tenant=grouped(lambda outcome: outcome.shot.tenant),
        by_template=grouped(lambda outcome: outcome.shot.template),
        failures=failures([*outcomes, *unsent]),
        lateness=lateness(outcomes),
        curve=curve(_done_latencies(outcomes)),
        curve_by_class={
            name: curve(_done_latencies(members))
            for name, members in sorted(_split(outcomes, _class).items())
        },
        bins=bins(_done_latencies(outcomes)),
        timeline=timeline(outcomes, good, seconds),
        occupancy=occupancy(samples),
    )


def meets(slo: Slo, outcome: Outcome) -> bool | None:
    """Whether it was done by its deadline; None if it had none, or could not be sent from here."""
    deadline = deadline_of(slo, outcome.shot)
    if deadline is None or outcome.own:
        return None
    return outcome.status == "done" and outcome.latency <= deadline


def group(
    outcomes: Sequence[Outcome], verdict: Callable[[Outcome], bool | None], seconds: float
) -> Group:
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    in_window = [outcome for outcome in done if outcome.ended_at <= seconds]
    good = [outcome for outcome in in_window if verdict(outcome) is not False]
    return Group(
        requests=len(outcomes),
        done=len(done),
        failed=len(outcomes) - len(done),
        images=_images(done),
        bytes=sum(outcome.bytes for outcome in done),
        requests_per_second=len(in_window) / seconds,
        images_per_second=_images(in_window) / seconds,
        goodput_requests_per_second=len(good) / seconds,
        goodput_images_per_second=_images(good) / seconds,
        latency=latency(_done_latencies(done)),
        attainment=attainment([verdict(outcome) for outcome in outcomes]),
    )


def latency(seconds: Sequence[float]) -> Latency | None:
    if not seconds:
        return None
    times = TimeHistogram(seconds)
    p50, p90, p95, p99 = times.percentiles((50, 90, 95, 99))
    return Latency(p50=p50, p90=p90, p95=p95, p99=p99, max=times.max)


def lateness(outcomes: Sequence[Outcome]) -> Lateness | None:
    if not outcomes:
        return None
    times = TimeHistogram(outcome.sent_at - outcome.shot.at for outcome in outcomes)
    p50, p99 = times.percentiles((50, 99))
    return Lateness(p50=p50, p99=p99, max=times.max)


def attainment(verdicts: Iterable[bool | None]) -> Attainment | None:
    counts = Counter(verdicts)
    met, of = counts[True], counts[True] + counts[False]
    if of == 0:
        return None
    low, high = wilson(met, of)
    return Attainment(met=met, of=of, share=met / of, low=low, high=high)


def failures(outcomes: Iterable[Outcome]) -> list[Failure]:
    counts = Counter((o.status, o.failure or NO_REASON) for o in outcomes if o.status != "done")
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Failure(status=s, failure=why, count=count) for (s, why), count in ordered]


def _class(outcome: Outcome) -> str:
    return outcome.shot.request.service_class


def _done_latencies(outcomes: Iterable[Outcome]) -> list[float]:
    return [outcome.latency for outcome in outcomes if outcome.status == "done"]


def _images(outcomes: Iterable[Outcome]) -> int:
    return sum(outcome.images for outcome in outcomes)


def _split(outcomes: Iterable[Outcome], key: Callable[[Outcome], str]) -> dict[str, list[Outcome]]:
    parts: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        parts[key(outcome)].append(outcome)
    return parts
