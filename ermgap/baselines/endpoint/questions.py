"""Questions sent to an endpoint by a few threads; each answer is kept before the next is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Event, Lock

from ermgap.baselines.endpoint.answer_file import AnswerFile
from ermgap.baselines.endpoint.client import Client, Stopped, Unanswered
from ermgap.baselines.endpoint.replies import Reply
from ermgap.errors import UserError


@dataclass(frozen=True)
class Question:
    """One utterance in one modality.

    Attributes:
        text: of the prompt.
        path, start_s, end_s: the clip.
        prompt, audio: hashes of the request without the clip, and of the clip.
    """

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
        """The key of its answer in the file (`answer_file.KEY`)."""
        return (self.utterance_id, self.modality, self.prompt, self.audio, self.model)


@dataclass
class Counts:
    """Results so far; `in_a_row`: failures since the last answer, `usage`: tokens by kind."""

    answered: int = 0
    failed: int = 0
    in_a_row: int = 0
    usage: Counter = field(default_factory=Counter)


class AnswerCollector:
    """Asks the questions that have no answer yet and adds the answers to their file.

    Args:
        client: of the endpoint.
        file: of the answers.
        body_of: makes the request of a question (JSON).
    """

    def __init__(
        self, client: Client, file: AnswerFile, body_of: Callable[[Question], bytes]
    ) -> None:
        self.client, self.file, self.body_of = client, file, body_of
        self.counts = Counts()
        self._began_with = len(file.rows)
        self._total = 0
        self._stop = Event()
        self._lock = Lock()

    def collect(self, questions: Sequence[Question], note: Callable[[str], None]) -> None:
        """Ask them all; raises UserError when going on is useless. Ctrl-C keeps what came."""
        self._total = len(questions)
        pool = ThreadPoolExecutor(self.client.target.limits.concurrent)
        try:
            futures = [pool.submit(self._ask_unless_stopped, question) for question in questions]
            for future in as_completed(futures):
                future.result()
        except UserError as problem:
            raise UserError(f"{problem} {self._resumption()}") from problem
        except KeyboardInterrupt:
            note(f"waiting for the requests that were sent. {self._resumption()}")
            raise
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)  # what was sent is paid for

    def _resumption(self) -> str:
        n = len(self.file.rows)
        return f"{n} answers are kept in {self.file.path}; running again asks only for the rest."

    def _ask_unless_stopped(self, question: Question) -> None:
        try:
            if not self._stop.is_set():
                self._ask(question)
        except Stopped:
            return
        except BaseException:
            self._stop.set()  # in this thread already, so that no other request starts
            raise

    def _ask(self, question: Question) -> None:
        try:
            reply = self.client.ask(self.body_of(question), self._stop)
        except Unanswered as problem:
            self.file.add(question.key, {"failed": str(problem)})
            self._count_failure(problem)
        else:
            self.file.add(question.key, vars(reply))
            self._count(reply)

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self.counts.answered += 1
            self.counts.in_a_row = 0
            self.counts.usage.update(reply.usage)

    def _count_failure(self, problem: Unanswered) -> None:
        """Raise UserError when requests fail in a row; one that was refused does not count."""
        counts, most = self.counts, self.client.target.limits.failures
        with self._lock:
            counts.failed += 1
            counts.in_a_row += not problem.refused
            never = not counts.answered and not self._began_with
            if counts.in_a_row < most and not (never and counts.failed >= min(most, self._total)):
                return
        what = f"the first {counts.failed}" if never else f"{counts.in_a_row} in a row"
        raise UserError(
            f"of the requests to {self.client.target.base} {what} failed ({problem}); "
            "fix that, or allow more with the option failures."
        )
