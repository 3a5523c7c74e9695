"""From the options of `darkroom load` to a workload. Pure but for reading files."""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from loadgen.cli.options import KINDS, LoadOptions
from loadgen.outcomes.outcome import RequestTemplate
from loadgen.workload.arrivals import Arrivals, Burst, Constant, Gamma, Poisson, Ramp, Steps
from loadgen.workload.files import load_trace, load_workload
from loadgen.workload.masks import USES, MaskUse
from loadgen.workload.strict import refuse
from loadgen.workload.workload import Entry, Workload, kind_of
from shared.errors import InvalidRequest
from shared.service_classes import ALLOWED, service_class

T = TypeVar("T")
Fields = dict[str, Any]
"""Some of a `RequestTemplate`."""


def workload_of(options: LoadOptions) -> Workload:
    """The workload file's, if there is one, with everything replaced that the command line says.
    Raises `InvalidRequest` naming the option."""
    base = Workload() if options.workload is None else load_workload(options.workload)
    changes: dict[str, Any] = {}
    seconds = base.seconds if options.duration is None else options.duration
    if (arrivals := _arrivals(options, seconds)) is not None:
        changes |= {"arrivals": arrivals, "trace": None}
    if options.trace is not None:
        changes["trace"] = load_trace(options.trace)
    if (mix := _mix(options)) is not None:
        changes["mix"] = mix
    if options.tenants:
        changes["tenants"] = dict(_weighted(tenant) for tenant in options.tenants)
    if options.seed is not None:
        changes["seed"] = options.seed
    return _checked(msgspec.structs.replace(base, seconds=seconds, **changes))


def rates_of(text: str) -> tuple[float, ...]:
    """`2` or `1,2,4`. Raises `InvalidRequest`."""
    return _list("--rate", text, float, "requests per second, such as 2 or 1,2,4")


def _arrivals(options: LoadOptions, seconds: float) -> Arrivals | None:
    """None if nothing was said about them."""
    if options.arrivals is None and options.rate is None and options.cv is None:
        return None
    kind = options.arrivals or ("poisson" if options.cv is None else "gamma")
    rates = rates_of(options.rate or "1")
    cv = 1.0 if options.cv is None else options.cv
    match kind, rates:
        case "constant", (rate,):
            return Constant(rate=rate)
        case "poisson", (rate,):
            return Poisson(rate=rate)
        case "gamma", (rate,):
            return Gamma(rate=rate, cv=cv)
        case "steps", _:
            return Steps(rates=rates, cv=cv)
        case "ramp", (start, end):
            return Ramp(start=start, end=end, cv=cv)
        case "burst", (rate,):
            return _burst(options, rate, cv, seconds)
        case (("constant" | "poisson" | "gamma" | "burst"), _):
            raise InvalidRequest("--rate", options.rate, f"one rate for {kind} arrivals")
        case "ramp", _:
            raise InvalidRequest("--rate", options.rate, "two rates for a ramp: START,END")
    raise InvalidRequest("--arrivals", kind, "one of " + ", ".join(KINDS))


def _burst(options: LoadOptions, rate: float, cv: float, seconds: float) -> Burst:
    """In the middle third, and 8 times the rate, unless the options say otherwise."""
    return Burst(
        rate=rate,
        factor=8.0 if options.burst_factor is None else options.burst_factor,
        at=seconds / 3 if options.burst_at is None else options.burst_at,
        seconds=seconds / 3 if options.burst_seconds is None else options.burst_seconds,
        cv=cv,
    )


def _mix(options: LoadOptions) -> tuple[Entry, ...] | None:
    """One entry, equally likely, for each combination of what was listed; None if nothing was."""
    given = (
        *(options.model, options.prompt, options.size, options.steps, options.guidance),
        *(options.classes, options.deadline, options.masks, options.control or None),
    )
    if all(each is None for each in given):
        return None
    lists = [
        [{}] if options.size is None else [_size(size) for size in options.size.split(",")],
        _values("--steps", options.steps, int, "steps", "whole numbers such as 10,20,40"),
        _values("--guidance", options.guidance, float, "guidance", "numbers such as 1,5"),
        _values("--class", options.classes, service_class, "service_class", ALLOWED),
    ]
    fixed = {
        name: value
        for name in ("model", "prompt", "deadline")
        if (value := getattr(options, name)) is not None
    }
    if options.control:
        fixed["controls"] = tuple(options.control)
    return tuple(
        Entry(
            name=_name(lists, parts),
            request=RequestTemplate(**functools.reduce(operator.or_, parts, fixed)),
            masks=_mask_use(options.masks),
        )
        for parts in itertools.product(*lists)
    )


def _name(lists: Sequence[Sequence[Fields]], parts: Sequence[Fields]) -> str:
    """Of what varies; of everything where nothing does."""
    varies = any(len(each) > 1 for each in lists)
    varying = [part for part, each in zip(parts, lists, strict=True) if len(each) > 1 or not varies]
    return kind_of(functools.reduce(operator.or_, varying, {})) or "default"


def _mask_use(text: str | None) -> MaskUse | None:
    if text is None:
        return None
    for use in USES:
        if use == text:
            return use
    raise InvalidRequest("--masks", text, "one of " + ", ".join(USES))


def _values(
    option: str, text: str | None, kind: Callable[[str], T], field: str, allowed: str
) -> list[Fields]:
    if text is None:
        return [{}]
    return [{field: value} for value in _list(option, text, kind, allowed)]


def _list(option: str, text: str, kind: Callable[[str], T], allowed: str) -> tuple[T, ...]:
    try:
        return tuple(kind(word.strip()) for word in text.split(","))
    except ValueError as error:
        raise InvalidRequest(option, text, allowed) from error


def _size(text: str) -> Fields:
    width, _, height = text.strip().lower().partition("x")
    if not all(side.isdecimal() and len(side) <= 5 for side in (width, height)):
        raise InvalidRequest("--size", text, "WIDTHxHEIGHT in pixels, such as 512x512")
    return {"width": int(width), "height": int(height)}


def _weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1)
    except ValueError as error:
        raise InvalidRequest("--tenant", text, "NAME or NAME=WEIGHT") from error


def _checked(workload: Workload) -> Workload:
    """`workload` after the checks that decoding a file would make."""
    data = msgspec.to_builtins(workload)
    try:
        return msgspec.convert(data, Workload)
    except msgspec.ValidationError as error:
        raise refuse("", data, error) from error


def fields_of(names: Sequence[str]) -> frozenset[str]:
    """`--also`: fields that a plain server takes beyond OpenAI's. Raises `InvalidRequest`."""
    known = RequestTemplate.__struct_fields__
    for name in names:
        if name not in known:
            raise InvalidRequest("--also", name, "one of " + ", ".join(known))
    return frozenset(names)
