"""Eight times what the fleet can serve: who is in time, who is refused how soon, what is wasted.

A fleet with the layout of `darkroom up` gets Poisson requests of one kind for ten seconds, at 8
times the highest rate with 90% in time, each with a deadline of 2 times what it takes alone; over
HTTP and over NATS; on a quiet fleet, and right after ten seconds of busy loops, as many as there
are cores. Beside it, request batching in order of arrival gets the same over HTTP
(`benchmarks.baselines`: the same network, as the same graph).

`attainment_over_possible`: requests in time, over the most that anybody could have had in time who
knew all of them beforehand, with the step costs that this fleet was measured to have
(`possible.py`; an upper bound). `attainment_after_disturbance`: the same after the busy loops.
`request_batching_over_possible`: the baseline's, on a quiet machine. `refused_ms_p95`: from a
request until its refusal, as clients see it. `wasted_share`: of the steps that rows took, those of
jobs without a picture. `admitted_in_time`: of requests that were not refused at once.
`light_p95_ratio`: p95 of a user with one job at a time, beside one with 200 jobs of 50 steps, over
p95 alone; none of them has a deadline.
"""
