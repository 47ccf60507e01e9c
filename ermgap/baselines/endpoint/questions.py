"""Questions put to an endpoint by a few threads, each answer kept before the next is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Event, Lock

from ermgap.baselines.endpoint.kept_answers import Kept
from ermgap.baselines.endpoint.replies import Reply
from ermgap.baselines.endpoint.request import Server, Stopped, Unanswered
from ermgap.errors import UserError


@dataclass(frozen=True)
class Question:
    """One utterance in one modality: the words of the prompt, the clip's span, and two hashes."""

    utterance_id: str
    modality: str
    model: str
    text: str
    path: str
    start_s: float
    end_s: float
    prompt: str
    audio: str

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells its answer from every other (`_kept.KEY`)."""
        return (self.utterance_id, self.modality, self.prompt, self.audio, self.model)


@dataclass
class Counts:
    """What came of a run; `in_a_row` failures since the last answer, `usage` tokens by kind."""

    answered: int = 0
    failed: int = 0
    in_a_row: int = 0
    usage: Counter = field(default_factory=Counter)


class Run:
    """One pass over questions that have no answer yet."""

    def __init__(self, server: Server, kept: Kept, body_of: Callable[[Question], bytes]) -> None:
        self.server, self.kept, self.body_of = server, kept, body_of
        self.counts = Counts()
        self._began_with = len(kept.rows)
        self._total = 0
        self._stop = Event()
        self._lock = Lock()

    def complete(self, questions: Sequence[Question], note: Callable[[str], None]) -> None:
        """Ask them all; raises UserError when going on is useless. Ctrl-C keeps what came."""
        self._total = len(questions)
        pool = ThreadPoolExecutor(self.server.target.limits.concurrent)
        try:
            futures = [pool.submit(self._one, question) for question in questions]
            for future in as_completed(futures):
                future.result()
        except UserError as problem:
            raise UserError(f"{problem} {self._resumption()}") from problem
        except KeyboardInterrupt:
            note(f"waiting for the requests under way. {self._resumption()}")
            raise
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)  # what is under way is paid for

    def _resumption(self) -> str:
        n = len(self.kept.rows)
        return f"{n} answers are kept in {self.kept.path}; running again asks only for the rest."

    def _one(self, question: Question) -> None:
        try:
            if not self._stop.is_set():
                self._ask(question)
        except Stopped:
            return
        except BaseException:
            self._stop.set()  # here and not in the main thread, so that no other request starts
            raise

    def _ask(self, question: Question) -> None:
        try:
            reply = self.server.ask(self.body_of(question), self._stop)
        except Unanswered as problem:
            self.kept.add(question.key, {"failed": str(problem)})
            self._count_failure(problem)
        else:
            self.kept.add(question.key, vars(reply))
            self._count(reply)

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self.counts.answered += 1
            self.counts.in_a_row = 0
            self.counts.usage.update(reply.usage)

    def _count_failure(self, problem: Unanswered) -> None:
        """End the run when nothing gets through. A refused clip says nothing on the next one."""
        counts, most = self.counts, self.server.target.limits.failures
        with self._lock:
            counts.failed += 1
            counts.in_a_row += not problem.refused
            never = not counts.answered and not self._began_with
            if counts.in_a_row < most and not (never and counts.failed >= min(most, self._total)):
                return
        what = f"the first {counts.failed}" if never else f"{counts.in_a_row} in a row"
        raise UserError(
            f"of the requests to {self.server.target.base} {what} failed ({problem}); "
            "mend that, or allow more with the option failures."
        )
