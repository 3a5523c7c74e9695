"""Steps with ControlNets, which are asked first, and waited for halfway. On one thread.

A step is not held up by one row for long. Who is not answered in time goes back to where rows wait,
and takes the step when its answers are there; from then on it is asked about ahead of its steps,
until answers come in time again.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import torch

from services.denoiser.controlnet.state import Answer, ControlState, ControlUse, Share
from services.denoiser.forward.predictors import Interrupted, Predictor, StepTime
from services.denoiser.forward.step import Batch, network_input, settle, whole
from services.denoiser.rows.row import Row
from shared.errors import DarkroomError
from shared.messages import ControlledRow
from shared.models.contracts.network import Network, Residuals
from shared.policy.row_view import StepCost
from shared.policy.step_work import total

LEAST_PATIENCE: Final = 0.25
"""Seconds for which a batch waits in any case."""
PATIENCE_STEPS: Final = 2.0
"""Predicted steps for which it waits."""


class Ask(Protocol):
    def __call__(
        self, model: str, rows: Sequence[ControlledRow], x: torch.Tensor
    ) -> Future[Answer]:
        """What ControlNet `model` says of `rows`, whose latents are x (rows, C, H, W). Answers come
        in another thread; the future fails if none does in time."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Use:
    row: Row
    state: ControlState
    images: tuple[int, ...]
    """The row's, in the batch."""
    share: Share


class ResidualExchange(Predictor):
    """Takes the steps in which a ControlNet has a say. It waits at most `PATIENCE_STEPS` times as
    long as the step is predicted to take, and then interrupts it."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._wake: Callable[[], object] = _nobody
        self._patience = LEAST_PATIENCE
        self.rounds = 0
        """Questions whose answers were used,"""
        self.seconds = 0.0
        """how long those took,"""
        self.hops = 0.0
        """of that, all but what the ControlNets say they took,"""
        self.waited = 0.0
        """and how long steps waited for them."""
        self.message_bytes = self.tensor_bytes = 0
        """Of those questions and answers; see `Traffic`."""

    def attach(self, wake: Callable[[], object]) -> None:
        self._wake = wake

    def applies(self, batch: Batch, cost: StepCost, lonely: bool) -> bool:
        seconds = cost.predict(total(row.work for row in batch.rows))
        self._patience = max(LEAST_PATIENCE, PATIENCE_STEPS * seconds)
        return any(_active(row) for row in batch.rows)

    def predict(
        self, network: Network, batch: Batch, x: torch.Tensor, t: torch.Tensor, time: StepTime
    ) -> torch.Tensor:
        self.ask(batch.rows, x)
        uses = [
            _Use(row, state, batch.images(i), share)
            for i, row in enumerate(batch.rows)
            if (state := row.extension(ControlState)) is not None
            for share in state.needs().values()
        ]
        waited = self.waited
        time.representative = all(row.computed_in_full for row in batch.rows)
        try:
            control = partial(self._answers, uses, len(batch.source), x)
            return whole(network, batch, x, t, {"control": control})
        finally:
            time.waited = self.waited - waited

    def stepped(self, row: Row, network: Network) -> None:
        """Ask for the row's next step already, if it was late. If that fails, it is asked about
        again when the step is taken."""
        state = row.extension(ControlState)
        if state is not None and state.late and not row.finished:
            with contextlib.suppress(DarkroomError):
                self.ask([row], network_input([row], network.dtype))

    def statistics(self) -> Mapping[str, float]:
        return {
            "control_rounds": self.rounds,
            "control_seconds": self.seconds,
            "control_hops": self.hops,
            "control_waited": self.waited,
            "control_message_bytes": self.message_bytes,
            "control_tensor_bytes": self.tensor_bytes,
        }

    def ask(self, rows: Sequence[Row], x: torch.Tensor) -> None:
        """Ask for the next steps of `rows`, where that was not done yet. One request to each
        ControlNet."""
        shares: dict[Row, dict[int, Share]] = {}
        requests: defaultdict[str, list[tuple[int, Row, int]]] = defaultdict(list)
        state = {row: found for row in rows if (found := row.extension(ControlState)) is not None}
        for i, row in enumerate(rows):
            if row not in state or state[row].was_asked(row.step):
                continue
            shares[row] = {}
            for number in state[row].active(row.step, row.table.steps):
                requests[state[row].controls[number].model].append((i, row, number))
        for model, those in requests.items():
            which = [i for i, _, _ in those]
            every = which == list(range(len(x)))
            answer = self._ask(
                model,
                [_wire(row, state[row].controls[k]) for _, row, k in those],
                x if every else x[which],
            )
            answer.add_done_callback(lambda _: self._wake())
            for place, (_, row, number) in enumerate(those):
                shares[row][number] = Share(answer, place)
        for row, asked in shares.items():
            state[row].ask(row.step, dict(sorted(asked.items())))

    def _answers(self, uses: Sequence[_Use], images: int, like: torch.Tensor) -> Residuals:
        answers, patience = {use.share.answer for use in uses}, self._patience
        if not all(answer.done() for answer in answers):
            settle(like.device)  # as long as the encoder half computes, nobody waits
        began = time.perf_counter()
        done, _ = wait(answers, patience)
        self.waited += time.perf_counter() - began
        late = {use.row for use in uses if use.share.answer not in done}
        failed = {use.row: error for use in uses if (error := _error(use.share)) is not None}
        for use in uses:
            in_time = use.share.answer in done and not (
                use.share.answer.exception() is None
                and use.share.answer.result().seconds > patience
            )
            use.state.late = use.row in late or (use.state.late and not in_time)
        if late or failed:
            raise Interrupted(late, failed)
        for use in uses:
            use.state.used()
        self._count([answer.result() for answer in done])
        return _summed(uses, images, like)

    def _count(self, answers: Sequence[Answer]) -> None:
        self.rounds += len(answers)
        for answer in answers:
            self.seconds += answer.seconds
            self.hops += answer.hop
            self.message_bytes += answer.traffic.messages
            self.tensor_bytes += answer.traffic.tensors


def _nobody() -> None:
    """Waits for no answer."""


def _active(row: Row) -> bool:
    """Whether a ControlNet has a say in the row's next step."""
    state = row.extension(ControlState)
    return state is not None and bool(state.active(row.step, row.table.steps))


def _wire(row: Row, control: ControlUse) -> ControlledRow:
    """The next step of `row`, as `control` is asked for it."""
    return ControlledRow(
        job_id=row.job_id,
        t=row.t,
        scalars=row.scalars,
        texts=tuple(
            tuple(one.values()) for one in (row.texts[-1:] if control.guess_mode else row.texts)
        ),
        hint=control.hint,
        scale=control.scale,
        guess_mode=control.guess_mode,
    )


def _error(share: Share) -> Exception | None:
    """Why the row has no answer, if it is known."""
    if not share.answer.done():
        return None
    error = share.answer.exception()
    if error is not None:
        return error if isinstance(error, Exception) else RuntimeError(repr(error))
    return share.answer.result().failures.get(share.place)


def _summed(uses: Sequence[_Use], images: int, like: torch.Tensor) -> Residuals:
    """For each of the batch's images the sum of what its controls say; zero where it has none. Of
    the device and dtype of `like`: a ControlNet may compute in another one."""
    pairs: defaultdict[Future[Answer], list[tuple[int, int]]] = defaultdict(list)
    for use in uses:
        own = use.share.answer.result().images[use.share.place]
        pairs[use.share.answer] += zip(use.images[-len(own) :], own, strict=True)
    (answer, first), *others = pairs.items()
    if not others and sorted(first) == [(k, k) for k in range(images)]:
        return [tensor.to(like) for tensor in answer.result().residuals]
    sums = [like.new_zeros(images, *tensor.shape[1:]) for tensor in answer.result().residuals]
    for answer, those in pairs.items():
        to = torch.tensor([target for target, _ in those], device=like.device)
        of = [source for _, source in those]
        for summed, tensor in zip(sums, answer.result().residuals, strict=True):
            summed.index_add_(0, to, tensor[of].to(like))
    return sums
