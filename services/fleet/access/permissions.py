"""What each service may do on the bus, as its row in `shared/services.py` says; whatever does not
follow from it is denied. Pure.

`darkroom keys` writes this into the configuration of nats-server. Answers to a request need
no row: whoever receives one may answer it once.
"""

from typing import Final

from shared import subjects
from shared.bus.nats import grants
from shared.bus.nats.grants import EVERYTHING, NOTHING, Grants
from shared.bus.service import PREFIX as DISCOVERY
from shared.bus.service import VERBS
from shared.bus.topology import TOPOLOGY
from shared.security.keys import inbox_of
from shared.service_classes import CLASSES
from shared.services import ANY, SERVICES, Served, ServiceSpec, bus_name

STREAMS: Final = tuple(stream.name for stream in TOPOLOGY.streams)
BUCKETS: Final = tuple(bucket.name for bucket in TOPOLOGY.buckets)


def permissions(holder: str, public_key: str, served: Served) -> Grants:
    """What `holder` of this key may do, in a fleet that holds `served`."""
    return _granted(holder, served) + grants.own_inbox(inbox_of(public_key))


def _granted(holder: str, served: Served) -> Grants:
    if holder in SERVICES:
        return _process(holder) + _service(SERVICES[holder], served)
    return {"client": _submit(), "admin": EVERYTHING}[holder]


def _process(service: str) -> Grants:
    """What every process of a fleet does: make sure of the streams, show itself and be asked."""
    name = bus_name(service)
    return grants.total(
        grants.make_streams(*STREAMS),
        grants.make_bucket(*BUCKETS),
        grants.look_at_streams(*STREAMS),
        grants.read_bucket(subjects.MODELS),
        grants.subscribe(subjects.CHANGED_MODELS),
        grants.publish(f"{DISCOVERY}.STATS"),
        grants.publish(subjects.ALL_LOADS),
        grants.subscribe(subjects.ALL_METRICS),
        *(
            grants.subscribe(f"{DISCOVERY}.{verb}{suffix}")
            for verb in VERBS
            for suffix in ("", f".{name}", f".{name}.{ANY}")
        ),
    )


def _records() -> Grants:
    """Advance any job, and do whatever follows from that (`shared/jobs/record_store.py`)."""
    return grants.total(
        grants.write_bucket(subjects.RECORDS),
        grants.publish(
            subjects.ALL_WORK,
            subjects.result(ANY),
            subjects.ALL_DEAD,
            subjects.event(ANY),
            subjects.release(ANY),
        ),
        grants.read(subjects.RESULTS, subjects.result(ANY)),
        grants.read(subjects.WORK, subjects.ALL_WORK),
        grants.read(subjects.DEAD, subjects.ALL_DEAD),
    )


def _place() -> Grants:
    """Say what processes shall hold."""
    return grants.total(
        grants.read_bucket(subjects.PLACEMENT),
        grants.write_bucket(subjects.PLACEMENT),
        grants.publish(subjects.PLACED),
    )


def _serve() -> Grants:
    """Say which models are served."""
    return grants.write_bucket(subjects.MODELS) + grants.publish(subjects.CHANGED_MODELS)


def _submit() -> Grants:
    """Submit jobs, follow them, cancel them."""
    return grants.total(
        grants.look_at_streams(*STREAMS),
        grants.publish(subjects.ALL_SUBMITS, subjects.ALL_CANCELS, subjects.ALL_WAITING),
        grants.read(subjects.JOBS, subjects.ALL_SUBMITS),
        grants.read_bucket(subjects.RECORDS),
        grants.read(subjects.RESULTS, subjects.ALL_RESULTS),
        grants.subscribe(subjects.result(ANY), subjects.results(ANY), subjects.event(ANY)),
        grants.publish(f"{DISCOVERY}.STATS"),
    )


def _plan() -> Grants:
    """Take submissions, and change what streams are like."""
    return grants.total(
        _records(),
        grants.change_streams(*STREAMS),
        grants.change_bucket(*BUCKETS),
        grants.consume(subjects.JOBS, subjects.PLANNERS),
        grants.read(subjects.JOBS, subjects.ALL_SUBMITS),
        grants.subscribe(
            subjects.ALL_CANCELS, subjects.ALL_LOADS, subjects.ALL_WAITING, subjects.PLACED
        ),
        _place(),
    )


def _work(spec: ServiceSpec, served: Served) -> Grants:
    """Run nodes of its kinds, for the models (or ControlNets) that it holds."""
    queues = [
        subjects.work_consumer(kind, name, service_class)
        for kind in spec.nodes
        for name in getattr(served, spec.holds)
        for service_class in CLASSES
    ]
    return grants.total(
        _records(),
        grants.consume(subjects.WORK, *queues),
        grants.subscribe(subjects.ALL_CANCELS, subjects.release(ANY)),
        grants.read_bucket(subjects.PLACEMENT),
        grants.subscribe(subjects.PLACED),
    )


def _service(spec: ServiceSpec, served: Served) -> Grants:
    return grants.total(
        _submit() + _serve() if spec.submits else NOTHING,
        _plan() if spec.plans else NOTHING,
        _place() if spec.places else NOTHING,
        _work(spec, served) if spec.nodes else NOTHING,
        grants.publish(*spec.publishes(served)),
        grants.subscribe(*spec.subscribes(served)),
        *(grants.read(stream, subject) for stream, subject in spec.fetches),
    )


HOLDERS: Final = (*SERVICES, "client", "admin")
"""Who gets a key."""
