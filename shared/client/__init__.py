"""The Python client: submit jobs over NATS, follow them, await their images, cancel them."""

from shared.client.client import Darkroom, checked_job_id, is_random, new_job_id

__all__ = ["Darkroom", "checked_job_id", "is_random", "new_job_id"]
