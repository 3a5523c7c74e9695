"""What people run today, speaking the gateway's HTTP routes, with the same weights and noise.

`serial` draws one request after another with one diffusers pipeline. `request_batching` waits for a
window or a full batch of compatible requests and runs them together from first step to last, which
is what most servers call dynamic batching. Both choose the fastest of all numbers of threads and
memory layouts, and run the UNet as the graph that our denoisers run unless they are `--eager`."""
