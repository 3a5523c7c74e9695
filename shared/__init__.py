"""What every service uses: messages, the bus, jobs, tensors, the worker loop, telemetry."""
