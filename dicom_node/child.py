"""One assessment in a process of its own: it can be stopped, it gives its memory back, and it dies with its parent."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from dicom_node.refusal import Refused
from dicom_node.settings import SimulatedZone

#: The last lines of a broken child's stderr that are kept for whoever has to find out why.
_KEPT_STDERR_CHARACTERS = 4000


class ChildBroke(Exception):
    """The child ended without an answer: a bug, a kill, no memory, or the time limit."""


@dataclass(frozen=True)
class Job:
    """What `assess_files` is called with; paths as text."""

    plan: str
    baseline: tuple[str, ...]
    followup: tuple[str, ...]
    previous: tuple[str, ...]
    out: str
    simulation: SimulatedZone = field(default_factory=SimulatedZone)
    supersedes: tuple[str, ...] = ()
    """The result folders of earlier assessments of the same follow-up, the last one first."""


def assess_in_child(
    job: Job,
    *,
    time_limit_s: float,
    command: Sequence[str] = (sys.executable, "-m", "dicom_node.child"),
    watch: Callable[[subprocess.Popen[str]], None] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The `assessment.json` document of the job, assessed by a new process.

    watch: is handed the process, so that another thread can stop it; environment: its variables, else ours. Raises
    `Refused` as the child did, and `ChildBroke` when it ended without an answer or took longer than the limit.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,  # a Ctrl+C is for us: a child that it ended would count as broken
    )
    watch(process)
    stdout, stderr = _converse(process, json.dumps(asdict(job)) + "\n", time_limit_s)
    try:
        answer = json.loads(stdout)
    except json.JSONDecodeError:
        end = f"status {process.returncode}" if process.returncode >= 0 else f"signal {-process.returncode}"
        last_words = stderr[-_KEPT_STDERR_CHARACTERS:].strip()
        raise ChildBroke(f"the assessment process ended with {end} and no answer\n{last_words}".strip()) from None
    if "refused" in answer:
        raise Refused(answer["refused"]["code"], answer["refused"]["text"])
    return cast(dict[str, Any], answer["document"])


def _converse(process: subprocess.Popen[str], question: str, time_limit_s: float) -> tuple[str, str]:
    """What the process said. Its stdin stays open while it works: the child takes the end of it for our death."""
    heard: dict[str, str] = {}

    def listen(name: str, stream: Any) -> None:
        heard[name] = stream.read()
        stream.close()

    assert process.stdin is not None
    listeners = [
        threading.Thread(target=listen, args=("stdout", process.stdout), daemon=True),
        threading.Thread(target=listen, args=("stderr", process.stderr), daemon=True),
    ]
    for listener in listeners:
        listener.start()
    try:
        with suppress(BrokenPipeError):  # it died at once; its stderr says why
            process.stdin.write(question)
            process.stdin.flush()
        process.wait(time_limit_s)
    except subprocess.TimeoutExpired:
        raise ChildBroke(f"the assessment took longer than {time_limit_s:g} s and was stopped") from None
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()
        for listener in listeners:
            listener.join()
    return heard["stdout"], heard["stderr"]


def answer_one(assess: Callable[..., dict[str, Any]]) -> None:
    """Read one job from stdin, assess it, print the answer as JSON: `document` or `refused`. The child's whole life.

    Anything else that is printed meanwhile goes to stderr. A process whose stdin ends while it works stops at once:
    its parent is gone, and another one will do the work.
    """
    answer_to = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        document = assess(
            Path(job["plan"]),
            baseline=[Path(path) for path in job["baseline"]],
            followup=[Path(path) for path in job["followup"]],
            previous=[Path(path) for path in job["previous"]],
            out=Path(job["out"]),
            simulation=SimulatedZone(**job["simulation"]),
            supersedes=[Path(path) for path in job["supersedes"]],
        )
        answer = {"document": document}
    except Refused as refused:
        answer = {"refused": {"code": refused.code, "text": refused.text}}
    with answer_to:
        json.dump(answer, answer_to)


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _main() -> None:
    from dicom_node.assessing import assess_files

    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR)
    answer_one(assess_files)


if __name__ == "__main__":
    _main()
