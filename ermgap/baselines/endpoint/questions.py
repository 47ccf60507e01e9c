"""Questions sent to an endpoint by a few threads; each answer is kept before the next is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event, Lock
from typing import NamedTuple

from ermgap.baselines.endpoint.answer_file import AnswerFile
from ermgap.baselines.endpoint.client import Client, Stopped, Unanswered
from ermgap.errors import UserError


class Question(NamedTuple):
    """One utterance in one modality.

    Attributes:
        key: of its answer in the file (`answer_file.KEY`).
        text: of the prompt.
        path, start_s, end_s: the clip.
    """

    key: tuple[str, ...]
    text: str
    path: str
    start_s: float
    end_s: float


class AnswerCollector:
    """Asks the questions that have no answer yet and adds the answers to their file.

    Args:
        client: of the endpoint.
        file: of the answers.
        body_of: makes the request of a question (JSON).

    Attributes:
        answered, failed, in_a_row: results so far; in a row: failures since the last answer.
        usage: tokens by kind.
    """

    def __init__(
        self, client: Client, file: AnswerFile, body_of: Callable[[Question], bytes]
    ) -> None:
        self.client, self.file, self.body_of = client, file, body_of
        self.answered = self.failed = self.in_a_row = 0
        self.usage: Counter[str] = Counter()
        self._began_with = len(file.rows)
        self._total = 0
        self._stop = Event()
        self._lock = Lock()

    def collect(self, questions: Sequence[Question], note: Callable[[str], None]) -> None:
        """Ask them all; raises UserError when going on is useless. Ctrl-C keeps what came."""
        self._total = len(questions)
        pool = ThreadPoolExecutor(self.client.target.concurrent)
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
            with self._lock:
                self.answered += 1
                self.in_a_row = 0
                self.usage.update(reply.usage)

    def _count_failure(self, problem: Unanswered) -> None:
        """Raise UserError when requests fail in a row; one that was refused does not count."""
        most = self.client.target.failures
        with self._lock:
            self.failed += 1
            self.in_a_row += not problem.refused
            never = not self.answered and not self._began_with
            if self.in_a_row < most and not (never and self.failed >= min(most, self._total)):
                return
        what = f"the first {self.failed}" if never else f"{self.in_a_row} in a row"
        raise UserError(
            f"of the requests to {self.client.target.base} {what} failed ({problem}); "
            "fix that, or allow more with the option failures."
        )
