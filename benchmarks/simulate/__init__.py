"""Clusters that are not there: the simulator against reality, and Darkroom against whole pipelines.

First a fleet here is measured, loaded, and simulated with the same requests: those of `serving` at
60% of what it can draw, and those of `overload`, eight times what it can have in time. Then the
published workflows and traces (SD3, SD3.5 Large, FLUX dev and schnell with ControlNets, both
families, and SDXL) on 8, 32 and 1,024 simulated devices, with deadlines of twice the solo latency,
against three ways to serve whole pipelines (`docs/simulator.md`). All but the first part is the
same in every run.

`predicted_over_measured_p95`: of latencies, simulated over real, of the setting that is predicted
worst (`..._serving`, `..._overload`: of each); `..._p50` as well.
`rate_ratio_8`, `rate_ratio_32`, `rate_ratio_1024`: the highest rate with 90% in time, ours over the
best baseline's, the median of all settings. `burst_ratio`: the same of the largest burst, on 8
devices. `gpus_ratio`: the devices that we need for the best baseline's rate, over those it has.
`possible_ratio_8` and so on: what no system can exceed, over the best baseline's rate: as much as
devices can compute of the cheapest 90% of the requests, in batches of the best size.
`decide_us`: a decision of a planner; `step_us`: of a denoiser. `place_ms_per_job`: all
decisions about who holds what, over the requests. `seconds_simulated_per_second`: on
1,024 devices.
"""
