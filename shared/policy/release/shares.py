"""Fair shares of users: start-time fair queueing over predicted seconds (Goyal, Vin & Cheng 1996),
and who has had more than others lately. Pure.

A user's next job starts, in virtual time, when its last one was over, or now, if that is later:
nobody saves up what it did not use. Of several users, the one whose job starts first is served.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import exp2, inf
from typing import Final

from shared.policy.release.jobs import Shares, WaitingJob
from shared.policy.row_view import RANK

HALF_LIFE: Final = 30.0
"""Seconds after which half of what a user has had is forgotten."""
FORGOTTEN: Final = 1e-3
"""Seconds of use that are none."""
SLACK: Final = 1e-6
"""Share by which sums may be off."""
LITTLE: Final = 0.75
"""Share of what others have that is clearly less."""
ASKED: Final = 0.1
"""Seconds of use that a refusal counts as."""
PATIENCE: Final = 30.0
"""Seconds of waiting that count as one service class more."""


def rank(job: WaitingJob, now: float) -> int:
    """Its service class, from 0; one better for each `PATIENCE` seconds that it has waited."""
    return max(0, RANK[job.service_class] - int((now - job.arrival) / PATIENCE))


class FairOrder:
    """Shares as they change during a decision. `weights`: of users, where it is not 1."""

    def __init__(self, shares: Shares, now: float, weights: Mapping[str, float]) -> None:
        kept = exp2(-max(0.0, now - shares.at) / HALF_LIFE)
        self._now = now
        self._weights = weights
        self._virtual = dict(shares.virtual)
        self._start = shares.now
        used = {user: seconds * kept for user, seconds in shares.used.items()}
        self._used = {user: seconds for user, seconds in used.items() if seconds > FORGOTTEN}
        self._total = sum(self._used.values())
        self._weight = sum(map(self._weight_of, self._used))

    def __repr__(self) -> str:
        return f"<FairOrder of {len(self._virtual)} users at {self._start:.2f}>"

    def start(self, user: str) -> float:
        """The start tag of its next job."""
        return max(self._virtual.get(user, 0.0), self._start)

    def charge(self, user: str, seconds: float) -> None:
        """So much was released for it."""
        self._start = self.start(user)
        self._virtual[user] = self._start + seconds / self._weight_of(user)
        self._use(user, self._used.get(user, 0.0) + seconds)

    def ask(self, user: str) -> None:
        """It wanted something, and got nothing: it is somebody to leave room for."""
        self._use(user, max(self._used.get(user, 0.0), ASKED))

    def exceeds(self, user: str) -> bool:
        """Whether it had more than its share of what all users had lately."""
        used = self._used.get(user, 0.0)
        if used == 0.0 or len(self._used) < 2:
            return False
        return used * self._weight > (1.0 + SLACK) * self._weight_of(user) * self._total

    def asking_little(self, wanted: Mapping[str, float]) -> set[str]:
        """Of the users that wait for so many seconds, those that would have had clearly less than
        the others even if they got all of it. It hardly takes anything from anybody, and nobody is
        among them by asking for more. The others' level is that of max-min fairness, by which what
        all of them had lately would be shared out (Bertsekas & Gallager 1992, 6.5.2)."""
        demands = {user: self._used.get(user, 0.0) + wants for user, wants in wanted.items()}
        level = LITTLE * self._level(demands)
        return {user for user in wanted if demands[user] < level * self._weight_of(user)}

    def _level(self, demands: Mapping[str, float]) -> float:
        """Seconds, for each unit of weight, that those have who want more."""
        left = sum(self._used.get(user, 0.0) for user in demands)
        weight = sum(map(self._weight_of, demands))
        for user in sorted(demands, key=lambda user: demands[user] / self._weight_of(user)):
            own = self._weight_of(user)
            if demands[user] * weight >= left * own:
                return left / weight
            left, weight = left - demands[user], weight - own
        return inf

    def _use(self, user: str, seconds: float) -> None:
        before = self._used.get(user)
        self._weight += self._weight_of(user) if before is None else 0.0
        self._total += seconds - (before or 0.0)
        self._used[user] = seconds

    def _weight_of(self, user: str) -> float:
        return self._weights.get(user, 1.0)

    def order(self, jobs: Iterable[tuple[WaitingJob, float]]) -> Iterator[tuple[WaitingJob, float]]:
        """`jobs`, each with its seconds, as they would be served one after another, from the shares
        as they are when this is called: best rank first, then by fair share; each user's own in
        order of rank and arrival."""
        queues: defaultdict[int, defaultdict[str, list[tuple[float, str, WaitingJob, float]]]]
        queues = defaultdict(lambda: defaultdict(list))
        for job, seconds in jobs:
            queues[rank(job, self._now)][job.user].append((job.arrival, job.job_id, job, seconds))
        virtual, now = dict(self._virtual), self._start
        for place in sorted(queues):
            for queue in queues[place].values():
                queue.sort(reverse=True)
            heads = [
                (max(virtual.get(u, 0.0), now), q[-1][:2], u) for u, q in queues[place].items()
            ]
            heapq.heapify(heads)
            while heads:
                tag, _, user = heapq.heappop(heads)
                now = max(now, tag)
                *_, job, seconds = queues[place][user].pop()
                virtual[user] = max(tag, now) + seconds / self._weight_of(user)
                if queues[place][user]:
                    heapq.heappush(heads, (virtual[user], queues[place][user][-1][:2], user))
                yield job, seconds

    def shares(self, before: Shares) -> Shares:
        """To be remembered; users who would start now anyway are forgotten."""
        virtual = {user: tag for user, tag in self._virtual.items() if tag > self._start}
        return replace(before, virtual=virtual, now=self._start, used=self._used, at=self._now)
