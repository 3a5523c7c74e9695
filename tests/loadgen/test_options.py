from pathlib import Path

import pytest

from loadgen.cli.combinations import check_combinations
from loadgen.cli.options import LoadOptions
from loadgen.cli.workload import fields_of, workload_of
from loadgen.outcomes.outcome import RequestTemplate
from loadgen.workload.arrivals import Burst, Constant, Gamma, Poisson, Ramp, Steps
from loadgen.workload.controls import read_all
from loadgen.workload.files import load_trace, load_workload
from loadgen.workload.workload import Workload, schedule
from shared.errors import InvalidRequest

FILE = """
seconds = 30
seed = 4

[arrivals]
kind = "gamma"
rate = 2
cv = 3

[tenants]
ann = 3
bob = 1

[[mix]]
name = "fast"
weight = 2
request = { steps = 10, service_class = "interactive", deadline = 4.0 }

[[mix]]
name = "edit"
masks = "face_swap"
request = { steps = 40, width = 128, height = 128, loras = ["ink"] }
"""


def written(directory: Path, text: str, name: str = "load.toml") -> Path:
    file = directory / name
    file.write_text(text)
    return file


def test_a_workload_file_says_everything(tmp_path: Path) -> None:
    workload = load_workload(written(tmp_path, FILE))
    assert (workload.arrivals, workload.seconds, workload.seed) == (Gamma(rate=2, cv=3), 30, 4)
    assert workload.tenants == {"ann": 3, "bob": 1}
    fast, edit = workload.mix
    assert fast.request == RequestTemplate(steps=10, service_class="interactive", deadline=4.0)
    assert (edit.masks, edit.request.loras) == ("face_swap", ("ink",))


def test_json_says_the_same_as_toml(tmp_path: Path) -> None:
    text = '{"seconds": 5, "arrivals": {"kind": "constant", "rate": 2}, "mix": [{"name": "a"}]}'
    assert load_workload(written(tmp_path, text, "load.json")).arrivals == Constant(rate=2)


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("seconds = -1", "seconds", "-1"),
        ("seconds = nan", "seconds", "not allowed"),
        ("secs = 3", "secs", "this field"),
        ('[arrivals]\nkind = "often"\nrate = 1', "arrivals.kind", "often"),
        ('[arrivals]\nkind = "poisson"', "arrivals.rate", "missing"),
        ('[arrivals]\nkind = "poisson"\nrate = 0', "arrivals.rate", "0"),
        ("[tenants]\nann = 0", "tenants", "not allowed"),
        ("mix = []", "mix", "[]"),
        ("[[mix]]\n[[mix]]", "load.toml", "different names"),
        ('[[mix]]\nname = "a"\nmasks = "cat"', "mix[0].masks", '"cat"'),
        ('[[mix]]\nname = "a"\n[mix.request]\nstep = 3', "mix[0].request.step", "this field"),
        ("[[mix]]\n[mix.request]\nmask_ratio = 2", "mix[0].request.mask_ratio", "2"),
        ("[[mix]]\n[mix.request]\nwidth = 64", "mix[0].request", "width and height"),
        ("trace = 3", "trace", "3"),
        ("seconds = ", "load.toml", "TOML"),
    ],
)
def test_a_bad_workload_is_refused_by_field_and_value(
    tmp_path: Path, text: str, field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        load_workload(written(tmp_path, text))
    assert field in raised.value.fields["field"]
    assert said in raised.value.message
    assert "load.toml" in raised.value.message


def test_a_workload_may_name_a_trace_beside_it(tmp_path: Path) -> None:
    written(tmp_path, "ann 1\nbob 2\n", "trace.txt")
    workload = load_workload(written(tmp_path, 'trace = "trace.txt"'))
    assert [(shot.tenant, shot.at) for shot in schedule(workload)] == [("ann", 1), ("bob", 3)]


def test_a_bad_trace_is_refused_with_its_files_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"t.txt, line 1, gap_seconds: '-1'"):
        load_trace(written(tmp_path, "ann -1", "t.txt"))
    with pytest.raises(InvalidRequest, match="No such file"):
        load_trace(tmp_path / "none.txt")
    with pytest.raises(InvalidRequest, match="--workload"):
        load_workload(written(tmp_path, "", "load.yaml"))


def test_a_control_goes_with_every_request_that_the_command_line_describes(tmp_path: Path) -> None:
    file = f"edges={written(tmp_path, 'a picture', 'a.png')}:0.5"
    workload = workload_of(LoadOptions(control=[file], steps="10,20"))
    assert [entry.request.controls for entry in workload.mix] == [(file,), (file,)]
    read_all(workload)
    assert workload_of(LoadOptions(control=[])) == Workload()


def test_a_picture_that_is_not_there_is_missed_before_the_run(tmp_path: Path) -> None:
    share = f'[[mix]]\nname = "a"\nrequest = {{ controls = ["edges={tmp_path}/a.png"] }}'
    with pytest.raises(InvalidRequest, match=r"controls: .*No such file"):
        read_all(load_workload(written(tmp_path, share)))
    line = f'{{"time": 1, "controls": ["edges={tmp_path}/a.png"]}}'
    trace = load_trace(written(tmp_path, line, "trace.jsonl"))
    with pytest.raises(InvalidRequest, match=r"controls: .*No such file"):
        read_all(Workload(trace=trace))


def test_without_options_there_is_a_default_workload() -> None:
    assert workload_of(LoadOptions()) == Workload()


@pytest.mark.parametrize(
    ("options", "arrivals"),
    [
        (LoadOptions(rate="2"), Poisson(rate=2)),
        (LoadOptions(rate="2", cv=3), Gamma(rate=2, cv=3)),
        (LoadOptions(arrivals="constant", rate="2"), Constant(rate=2)),
        (LoadOptions(arrivals="steps", rate="1,2,4"), Steps(rates=(1, 2, 4))),
        (LoadOptions(arrivals="ramp", rate="1,8", cv=0), Ramp(start=1, end=8, cv=0)),
        (
            LoadOptions(arrivals="burst", rate="1", duration=30),
            Burst(rate=1, factor=8, at=10, seconds=10),
        ),
        (
            LoadOptions(
                arrivals="burst", rate="1", burst_factor=3, burst_at=0, burst_seconds=5, cv=2
            ),
            Burst(rate=1, factor=3, at=0, seconds=5, cv=2),
        ),
    ],
)
def test_the_command_line_says_when_requests_come(options: LoadOptions, arrivals: object) -> None:
    assert workload_of(options).arrivals == arrivals


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (LoadOptions(rate="fast"), "--rate"),
        (LoadOptions(rate="1,2"), "--rate"),
        (LoadOptions(rate="0"), "arrivals.rate"),
        (LoadOptions(rate="nan"), "arrivals.rate"),
        (LoadOptions(arrivals="ramp", rate="1"), "--rate"),
        (LoadOptions(arrivals="often"), "--arrivals"),
        (LoadOptions(duration=0), "seconds"),
        (LoadOptions(steps="ten"), "--steps"),
        (LoadOptions(size="big"), "--size"),
        (LoadOptions(classes="urgent"), "--class"),
        (LoadOptions(masks="cats"), "--masks"),
        (LoadOptions(tenants=["ann=much"]), "--tenant"),
        (LoadOptions(tenants=["ann=0"]), "tenants"),
    ],
)
def test_a_bad_option_is_refused_by_name(options: LoadOptions, named: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        workload_of(options)
    assert named in raised.value.fields["field"]


def test_listed_values_make_an_entry_for_each_combination() -> None:
    options = LoadOptions(
        steps="10,40", guidance="1,5", size="64x64", classes="batch", deadline=3.0, model="m"
    )
    mix = workload_of(options).mix
    assert [entry.name for entry in mix] == [
        "10 steps, guidance 1",
        "10 steps, guidance 5",
        "40 steps, guidance 1",
        "40 steps, guidance 5",
    ]
    assert [(e.request.steps, e.request.guidance) for e in mix] == [
        (steps, guidance) for steps in (10, 40) for guidance in (1.0, 5.0)
    ]
    same = {(e.request.model, e.request.deadline, e.request.width, e.weight) for e in mix}
    assert same == {("m", 3.0, 64, 1.0)}
    assert {e.request.service_class for e in mix} == {"batch"}


def test_a_single_kind_of_request_is_called_what_it_is() -> None:
    [entry] = workload_of(LoadOptions(steps="4", size="64x32", classes="batch")).mix
    assert entry.name == "64x32, 4 steps, batch"
    [entry] = workload_of(LoadOptions(prompt="a cat")).mix
    assert entry.name == "default"


def test_the_command_line_replaces_what_the_file_says_and_nothing_else(tmp_path: Path) -> None:
    file = written(tmp_path, FILE)
    workload = workload_of(LoadOptions(workload=file, rate="9", seed=1, tenants=["eve=2"]))
    assert (workload.arrivals, workload.seed) == (Poisson(rate=9), 1)
    assert workload.tenants == {"eve": 2}
    assert (workload.seconds, len(workload.mix)) == (30, 2)


def test_only_fields_of_a_request_can_be_sent_too() -> None:
    assert fields_of(["steps", "seed"]) == {"steps", "seed"}
    with pytest.raises(InvalidRequest, match="--also"):
        fields_of(["shoes"])


@pytest.mark.parametrize(
    ("options", "users", "named"),
    [
        (LoadOptions(rate="2", trace=Path("t")), None, "--rate"),
        (LoadOptions(duration=2, trace=Path("t")), None, "--duration"),
        (LoadOptions(trace=Path("t")), 3, "--users"),
        (LoadOptions(rate="2"), 3, "--rate"),
        (LoadOptions(cv=2, arrivals="poisson"), None, "--cv"),
        (LoadOptions(burst_at=2, rate="2"), None, "--burst-at"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    options: LoadOptions, users: int | None, named: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_combinations(options, users)
    assert raised.value.fields["field"] == named
