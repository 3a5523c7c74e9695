"""What can be wrong with a model, and what goes with it."""

from shared.errors.base import DarkroomError


class AdapterUnusable(DarkroomError):
    """Adapter `adapter` cannot be applied; `reason` says what is wrong with it."""

    code = "adapter_unusable"

    def __init__(self, adapter: str, reason: str) -> None:
        super().__init__(
            f"the adapter {adapter} cannot be used: {reason}", adapter=adapter, reason=reason
        )


class ControlUnavailable(DarkroomError):
    """ControlNet `control` did not give what the next step needs; `reason` says why."""

    code = "control_unavailable"

    def __init__(self, control: str, reason: str) -> None:
        super().__init__(
            f"the ControlNet {control} is not available: {reason}", control=control, reason=reason
        )


class ModelRemoved(DarkroomError):
    """An operator removed `model` while the job waited for it, or ran."""

    code = "model_removed"

    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model} was removed, and is served no more", model=model)


class NotServed(DarkroomError):
    """Every `service` for `model` says that it takes no work, and that this is there to stay."""

    code = "not_served"

    def __init__(self, service: str, model: str, reason: str) -> None:
        super().__init__(
            f"no {service} for {model} takes work: {reason}",
            service=service,
            model=model,
            reason=reason,
        )
