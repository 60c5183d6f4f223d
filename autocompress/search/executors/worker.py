"""The worker process: evaluates what the driver sends until the driver is gone.

Messages over the connection: the driver sends tasks as JSON; the worker answers with JSON, first
``{"ready": true}`` (or ``{"fatal": reason}``), then one evaluation a task. The driver never
unpickles anything; the worker unpickles the evaluator from a file that only the driver could write.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import Evaluation
from autocompress.search.executors.guarded import evaluate, failed


def encode_task(candidate: Candidate, fidelity: Fidelity, seed: int) -> bytes:
    """A task as the worker reads it."""
    task = {"candidate": candidate.to_json(), "fidelity": str(fidelity), "seed": seed}
    return json.dumps(task).encode()


def decode_evaluation(value: dict[str, Any]) -> Evaluation:
    """An evaluation as the worker sent it; NaN and infinities survive."""
    return Evaluation(
        metrics={str(k): float(v) for k, v in value["metrics"].items()},
        seconds=float(value["seconds"]),
        train_steps=int(value["train_steps"]),
        error=value["error"],
        details=value["details"],
    )


def _encode_evaluation(evaluation: Evaluation) -> bytes:
    from autocompress.search.store import plain

    value = asdict(evaluation)
    value["metrics"] = {str(k): float(v) for k, v in evaluation.metrics.items()}
    value["details"] = plain(evaluation.details)
    return json.dumps(value).encode()


def main(fd: int, evaluator_fd: int) -> None:
    """Run as a worker.

    Args:
        fd: the worker's end of the connection to the driver.
        evaluator_fd: a file with the evaluator, written with cloudpickle by the driver.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    os.dup2(2, 1)  # what an evaluator prints must not mix with the driver's output
    connection = Connection(fd)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    try:
        import cloudpickle

        evaluator = cloudpickle.loads(_content(evaluator_fd))
    except BaseException as error:
        connection.send_bytes(json.dumps({"fatal": failed(error).error}).encode())
        raise
    connection.send_bytes(b'{"ready": true}')
    while True:
        task = json.loads(tasks.get())
        evaluation = evaluate(
            evaluator,
            Candidate.from_json(task["candidate"]),
            fidelity=Fidelity(task["fidelity"]),
            seed=task["seed"],
        )
        try:
            answer = _encode_evaluation(evaluation)
        except (TypeError, ValueError, AttributeError) as error:
            answer = _encode_evaluation(failed(error, seconds=evaluation.seconds))
        sys.stdout.flush()
        connection.send_bytes(answer)


def _content(fd: int) -> bytes:
    """The whole file, whose offset is shared with other workers; it is closed."""
    parts: list[bytes] = []
    while part := os.pread(fd, 1 << 30, sum(map(len, parts))):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


def _listen(connection: Connection, tasks: queue.SimpleQueue[bytes]) -> None:
    """Pass tasks on; when the driver is gone, end this process and all it has started."""
    try:
        while True:
            tasks.put(connection.recv_bytes())
    except (EOFError, OSError):
        os.killpg(os.getpgid(0), signal.SIGKILL)
