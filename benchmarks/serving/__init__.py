"""Serving many users: Darkroom against one pipeline at a time, and against request batching.

Three systems on the same cores with the same weights and the same HTTP routes: a fleet as
`darkroom up` lays it out, and the two servers of `benchmarks.baselines`, whose UNet runs as the
same graph as ours, so that scheduling is what is compared (`--eager-baselines`: as diffusers has
it). Open-loop Poisson requests of
10 to 40 steps, with guidance and without. A request is in time within 2 times its solo latency,
which is that of the fastest system at that request, so that all three have the same deadlines;
every request that is judged by one carries it, and all three honour it.

`rate_ratio`: the highest rate with 90% in time, ours over the best baseline's.
`burst_attainment`, `burst_recovery_seconds`: ours, in and after 10 s of 8 times that rate.
`p95_ratio`: at 70% of our rate, the best baseline's over ours.
`cpu_overhead`: CPU seconds per image at saturation of all our processes, over the network's alone.
"""
