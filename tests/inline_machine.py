"""In place of `LocalMachine`: jobs run at once, in this process, which saves starting others."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trm_interp.report.sweep.jobs import Job
from trm_interp.report.sweep.worker import Task

Cli = Callable[..., Any]


def command_of_its_own(task: Task) -> None:
    """The command runs in a process, and only what follows it is here."""
    task()


def in_this_process(cli: Cli) -> Callable[[Task], None]:
    """The command runs here as well."""

    def run(task: Task) -> None:
        word = [task.first] if task.first and Path(task.made).exists() else []
        answer = cli(*task.command[3:], *word)  # after `python -m trm_interp`
        Path(task.log).write_text(answer.out + answer.err)
        task.outcome_file.parent.mkdir(exist_ok=True)
        outcome = {"status": answer.code, "deaths": 0, "seconds": 0.0}
        task.outcome_file.write_text(json.dumps(outcome))

    return run


class InlineMachine:
    """One job after another. `run`: what starts it."""

    def __init__(self, run: Callable[[Task], None] = command_of_its_own) -> None:
        self.run = run

    def __call__(self, *args: Any, **more: Any) -> "InlineMachine":
        return self

    def room(self, running: int) -> int:
        return 1 - running

    def start(self, jobs: Sequence[tuple[Job, Task]]) -> list[tuple[Task, Any]]:
        for _, task in jobs:
            self.run(replace(task, alive=None))
        return [(task, None) for _, task in jobs]

    def state(self, handle: Any) -> str | None:
        return "finished"

    def again(self, task: Task, handle: Any, state: str) -> Any:
        return None

    def ended(self, handle: Any) -> None:
        pass

    def placed(self, handle: Any) -> str | None:
        return None

    def find(self, id: str) -> Any:
        return None

    def cancel(self, handle: Any) -> None:
        pass

    def stop(self, handles: Sequence[Any]) -> str:
        return ""
