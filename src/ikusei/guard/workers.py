"""Computes rewards in worker processes, which are killed when they hang and replaced when they end.

        specs ─► RewardWorkers.submit(group) ─► Pending ─► result(): the group with a score in every response

A reward is user code, called on unreviewed model output. Whatever it does, the run continues and reports a status: an exception, a wrong
type or a wrong count is an `error`, a call over its time limit a `timeout`, a process that ended `crashed`, and NaN or infinity
`not_finite`. A failed reward has no value, and affects no other response.

A thread of the trainer sends its worker one group for one reward, and receives each response's result as soon as it is computed. So the
response that hangs is known, the time limit is exact, no call is made twice, and sending a group costs about as much as one call.

A library's process pool is not used, since its workers share a pipe and dead ones are detected by polling: under a busy trainer, rewards
that exit at once broke pebble 5.2's pool at the third of sixty, and an exit with code 0 was taken for a hang.

Learned rewards (reward models) run in the trainer's process instead, on all pending groups at once.

Left out: rewards that fork; Windows; a limit on what a reward prints.
"""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from ikusei.guard.outcomes import RewardSpec, score
from ikusei.guard.process import Call, RewardResults, Worker
from ikusei.types import Group

InProcessReward = Callable[[Sequence[Group]], list[list[RewardResults]]]  # the results of each response of each group


@dataclass(frozen=True)
class Pool:
    """Workers for the rewards of one kind: those that are trusted, or those that run model-written code and work in a sandbox."""

    specs: tuple[RewardSpec, ...]
    workers: list[Worker]
    calls: SimpleQueue[Call | None]

    def submit(self, prompt: bytes, texts: list[str]) -> list[Call]:
        """One call for each reward."""
        made = [Call(which, prompt, texts, Future()) for which in range(len(self.specs))]
        for call in made:
            self.calls.put(call)
        return made

    def serve(self, worker: Worker) -> None:
        """The loop of a worker's thread, until it gets None."""
        for call in iter(self.calls.get, None):
            try:
                call.outcome.set_result(worker.score(call))
            except BaseException as error:  # raised where the result is awaited
                call.outcome.set_exception(error)
        worker.kill()


def loading_problem(worker: Worker) -> str | None:
    try:
        worker.load()
    except ValueError as error:
        return str(error)
    return None


class RewardWorkers:
    """Scores groups in worker processes; a context manager, or `start()` and `close()`.

        with RewardWorkers([RewardSpec("right", "exact"), RewardSpec("format", "think_format", gate=True)]) as workers:
            pending = [workers.submit(group) for group in sampler.sample(...)]      # returns at once: scoring overlaps with sampling
            groups = [each.result() for each in pending]

    Each response gets exactly one result from each reward. In the batched signature, a failure costs the reward's results for the whole
    group: the call is not repeated with fewer responses, since its values may be relative to the group.
    `in_process` are the rewards, by name, that are computed in the trainer's process. `memory_mb` limits the memory of each worker; what
    they print goes to `log`, or nowhere.
    """

    def __init__(
        self,
        specs: Sequence[RewardSpec],
        num_workers: int = 1,
        memory_mb: int = 2048,
        log: Path | None = None,
        in_process: Mapping[str, InProcessReward] | None = None,
    ) -> None:
        names = [spec.name for spec in specs]
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"rewards: got {twice[0]!r} twice; allowed: each name once; give one of them another name")
        if num_workers < 1 or memory_mb < 1:
            raise ValueError(f"rewards: got num_workers={num_workers}, memory_mb={memory_mb}; allowed: 1 or more")
        self.specs = tuple(specs)
        self.in_process = dict(in_process or {})
        self._waiting: list[tuple[Group, dict[str, Future[list[RewardResults]]]]] = []
        called = [spec for spec in specs if spec.name not in self.in_process]
        kinds = [tuple(spec for spec in called if spec.sandboxed is sandboxed) for sandboxed in (False, True)]
        self._pools = [Pool(each, [Worker(each, memory_mb, log) for _ in range(num_workers)], SimpleQueue()) for each in kinds if each]
        self._threads = [
            threading.Thread(target=pool.serve, args=(worker,), daemon=True) for pool in self._pools for worker in pool.workers
        ]
        self._open = False

    @property
    def _workers(self) -> list[Worker]:
        return [worker for pool in self._pools for worker in pool.workers]

    def start(self) -> None:
        """Loads every reward in every worker. Raises one ValueError for all rewards that cannot be loaded, with reasons and fixes."""
        try:
            for worker in self._workers:
                worker.launch()
            problems = [problem for pool in self._pools for problem in dict.fromkeys(filter(None, map(loading_problem, pool.workers)))]
            if problems:
                raise ValueError("\n".join(problems))
        except BaseException:
            for worker in self._workers:
                worker.kill()
            raise
        for thread in self._threads:
            thread.start()
        self._open = True

    def submit(self, group: Group) -> Pending:
        """Sends the group to the workers and returns at once."""
        if not self._open:
            raise RuntimeError("reward workers that are not running; allowed: between start() and close(); use `with RewardWorkers(...)`")
        try:
            prompt = pickle.dumps(group.prompt)
        except Exception as error:
            given = ", ".join(f"{name} ({type(value).__name__})" for name, value in group.prompt.columns.items())
            raise ValueError(
                f"prompt {group.prompt.id}: columns {given} cannot be sent to a reward: {error}; allowed: plain data"
            ) from error
        texts = [response.text for response in group.responses]
        outcomes = [call.outcome for pool in self._pools for call in pool.submit(prompt, texts)]
        computed_here: dict[str, Future[list[RewardResults]]] = {name: Future() for name in self.in_process}
        if computed_here:
            self._waiting.append((group, computed_here))
        return Pending(group, self.specs, (*outcomes, *computed_here.values()), self._compute_in_process)

    def score(self, groups: Iterable[Group]) -> list[Group]:
        """The groups with their scores, in the order given."""
        return [pending.result() for pending in [self.submit(group) for group in groups]]

    def close(self) -> None:
        """Ends the workers, also during a call; pending results raise RuntimeError."""
        if not self._open:
            return
        self._open = False
        for worker in self._workers:
            worker.stop()
        for pool in self._pools:
            for _ in pool.workers:
                pool.calls.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _compute_in_process(self) -> None:
        """Computes the in-process rewards of all pending groups, in the order of submission."""
        waiting, self._waiting = self._waiting, []
        for name, compute in self.in_process.items() if waiting else ():
            try:
                by_group = compute([group for group, _ in waiting])
            except BaseException as error:  # as in `Pool.serve`: no result stays pending for ever
                for _, outcomes in waiting:
                    outcomes[name].set_exception(error)
                continue
            for (_, outcomes), parts in zip(waiting, by_group, strict=True):
                outcomes[name].set_result(parts)


@dataclass(frozen=True)
class Pending:
    """A group that is being scored."""

    group: Group
    specs: tuple[RewardSpec, ...]
    outcomes: tuple[Future[list[RewardResults]], ...]  # for each reward, the results of each response
    compute_in_process: Callable[[], None] = field(compare=False)

    def result(self) -> Group:
        """Waits, and returns the group with a score in every response, in their order."""
        self.compute_in_process()
        by_reward = [outcome.result() for outcome in self.outcomes]
        scores = []
        for position in range(len(self.group.responses)):
            results = {name: result for outcomes in by_reward for name, result in outcomes[position].items()}
            order = [spec.name for spec in self.specs]
            parts = dict(sorted(results.items(), key=lambda each: order.index(each[0].partition("/")[0])))
            scores.append(score(self.specs, parts))
        responses = zip(self.group.responses, scores, strict=True)
        return replace(self.group, responses=tuple(replace(response, score=score) for response, score in responses))
