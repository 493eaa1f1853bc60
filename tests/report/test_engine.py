"""Jobs run once, need each other, and fail alone."""

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from inline_machine import InlineMachine

from trm_interp.report.sweep.engine import run_jobs
from trm_interp.report.sweep.jobs import Job, JobInputs, JobRecord, Placed, with_bases
from trm_interp.report.sweep.machines import at_most
from trm_interp.runtime.outputs import maker


@pytest.fixture
def program(tmp_path: Path) -> None:
    """Stands for `trm-interp`: does to its second word what the first says."""
    (tmp_path / "program.py").write_text(
        """import os
import signal
import sys
from pathlib import Path

what, out, *more = sys.argv[1:]
Path(out).mkdir(exist_ok=True)
with (Path(out) / "calls").open("a") as calls:
    calls.write(" ".join(["call", *more]) + "\\n")
calls = (Path(out) / "calls").read_text().splitlines()
if what == "die":
    print("call", len(calls), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if what == "stop" and not more:
    print("stopped")
    raise SystemExit(130)
if what == "fail":
    print("error: no luck", file=sys.stderr)
    raise SystemExit(2)
(Path(out) / "summary.json").write_text("{}")
"""
    )


BOTH = ("--resume", "--overwrite")


def job(tmp_path: Path, name: str, what: str = "write", words=(), **more) -> Job:
    program = (sys.executable, str(tmp_path / "program.py"))
    words = [what, str(tmp_path / name), *words]
    return Job(name, words, tmp_path / name, program=program, **({"flags": ()} | more))


def calls(tmp_path: Path, name: str) -> list[str]:
    file = tmp_path / name / "calls"
    return file.read_text().splitlines() if file.exists() else []


Went = tuple[dict[str, str], list[str], list[tuple[int, int]]]


def go(jobs, identity: str = "a", **more) -> Went:
    lines: list[str] = []
    counted: list[tuple[int, int]] = []
    told = lambda *done: counted.append(done)  # noqa: E731
    failed = run_jobs(jobs, identity, lines.append, told, machine=InlineMachine(), **more)
    return failed, lines, counted


@pytest.mark.usefixtures("program")
class TestJobs:
    def test_what_is_done_is_not_done_again(self, tmp_path: Path):
        jobs = [job(tmp_path, "one"), job(tmp_path, "two", after=("one",))]
        assert go(jobs)[0] == {}
        failed, lines, counted = go(jobs)
        assert failed == {} and lines == ["one: done before", "two: done before"]
        assert calls(tmp_path, "one") == calls(tmp_path, "two") == ["call"]
        assert counted == [(120, 120)]

    def test_another_checkpoint_or_another_question_is_new(self, tmp_path: Path):
        jobs = [job(tmp_path, "one")]
        go(jobs)
        go(jobs, identity="b")
        assert len(calls(tmp_path, "one")) == 2
        go([job(tmp_path, "one", words=["more"])], identity="b")
        assert calls(tmp_path, "one")[-1] == "call more"

    def test_what_rests_on_something_new_is_made_anew(self, tmp_path: Path):
        jobs = [job(tmp_path, "one"), job(tmp_path, "two", after=("one",))]
        go(jobs)
        (tmp_path / "one" / "summary.json").unlink()
        go(jobs)
        assert len(calls(tmp_path, "one")) == len(calls(tmp_path, "two")) == 2

    def test_another_question_that_is_killed_leaves_nothing_done(self, tmp_path: Path):
        go([job(tmp_path, "one", flags=BOTH)])
        go([job(tmp_path, "one", "fail", flags=BOTH)])  # the old summary is still there
        assert (tmp_path / "one" / "summary.json").exists()
        go([job(tmp_path, "one", "fail", flags=BOTH)])
        assert calls(tmp_path, "one")[-1] == "call --resume"

    def test_what_a_job_rests_on_is_part_of_its_question(self, tmp_path: Path):
        def chain(size: str):
            jobs = [job(tmp_path, "one", words=[size]), job(tmp_path, "two", after=("one",))]
            return with_bases(jobs)

        go(chain("small"))
        go(chain("large")[:1])  # and killed before the second one
        failed, lines, _ = go(chain("large"))
        assert failed == {} and lines[0] == "one: done before"
        assert len(calls(tmp_path, "two")) == 2

    def test_a_failure_takes_only_what_needs_it(self, tmp_path: Path):
        jobs = [
            job(tmp_path, "bad", "fail"),
            job(tmp_path, "child", after=("bad",)),
            job(tmp_path, "fine"),
        ]
        failed, _, _ = go(jobs)
        assert set(failed) == {"bad", "child"}
        assert failed["bad"].startswith("exit status 2: error: no luck")
        assert failed["child"] == "needs bad, which failed"
        assert calls(tmp_path, "fine") == ["call"] and calls(tmp_path, "child") == []

    def test_one_that_was_begun_is_resumed(self, tmp_path: Path):
        jobs = [job(tmp_path, "one", flags=BOTH)]
        go(jobs)
        (tmp_path / "one" / "summary.json").unlink()
        go(jobs)
        go(jobs, identity="b")
        assert calls(tmp_path, "one") == ["call", "call --resume", "call --overwrite"]

    @pytest.mark.parametrize("identity", ["a", "b"])
    def test_a_folder_from_before_the_markers_is_marked(self, tmp_path: Path, identity: str):
        """Only where the job's note says that it made it, and what is unfinished inside as well."""
        jobs = [job(tmp_path, "one", "fail", flags=("--overwrite",))]
        assert "no luck" in go(jobs)[0]["one"] and maker(tmp_path / "one") is None
        for name in ("parts", "table.csv.parts", "other"):
            (tmp_path / "one" / name).mkdir()
        go(jobs, identity)
        made = {name: maker(tmp_path / "one" / name) for name in ("", "parts", "table.csv.parts")}
        assert set(made.values()) == {"fail"} and maker(tmp_path / "one" / "other") is None

    def test_a_folder_that_no_job_made_is_left_alone(self, tmp_path: Path):
        """Not even one whose note is damaged, which could be of anything."""
        (tmp_path / "one").mkdir()
        jobs = [job(tmp_path, "one", flags=BOTH)]
        for _ in range(2):
            failed, _, _ = go(jobs)
            assert "one was not made by this job (one-asked.json does not exist)" in failed["one"]
        assert not any((tmp_path / "one").iterdir())
        for text in ("", "[]", "null", '{"question": 3, "answered": true}', "\xff"):
            (tmp_path / "one-asked.json").write_text(text, encoding="latin-1")
            assert "(one-asked.json is damaged): move it away" in go(jobs)[0]["one"]

    def test_a_job_in_the_folder_of_another_replaces_only_its_own_file(self, tmp_path: Path):
        host = job(tmp_path, "host")
        guest = {"out": tmp_path / "host", "done": "measures.json", "after": ("host",)}
        words = [*host.words, "guest"]
        guest |= {"words": words, "is_guest": True, "flags": ("--overwrite",)}
        jobs = [host, replace(host, name="guest", **guest)]
        assert "it wrote no" in go(jobs)[0]["guest"]
        (tmp_path / "host" / "measures.json").touch()
        assert go(jobs)[0] == {}
        assert calls(tmp_path, "host") == ["call", "call guest", "call guest --overwrite"]
        assert maker(tmp_path / "host") is None

    def test_an_answer_that_was_changed_is_asked_again(self, tmp_path: Path):
        jobs = [job(tmp_path, "one")]
        go(jobs)
        (tmp_path / "one" / "summary.json").write_text("{")
        assert go(jobs)[0] == {} and len(calls(tmp_path, "one")) == 2
        assert (tmp_path / "one" / "summary.json").read_text() == "{}"

    def test_a_need_that_is_not_there_is_refused(self, tmp_path: Path):
        with pytest.raises(ValueError, match="no job two; there are one"):
            go([job(tmp_path, "one", after=("two",))])

    def test_jobs_that_need_each_other_are_refused(self, tmp_path: Path):
        pairs = (("one", "two"), ("two", "three"), ("three", "two"))
        with pytest.raises(ValueError, match="each other: two needs three needs two"):
            go([job(tmp_path, name, after=(need,)) for name, need in pairs])
        assert not any(tmp_path.glob("*-asked.json"))

    def test_what_failed_is_left_alone_until_it_is_asked_for(self, tmp_path: Path):
        jobs = [job(tmp_path, "bad", "fail"), job(tmp_path, "child", after=("bad",))]
        go(jobs)
        failed, lines, _ = go(jobs, retry_failed=False)
        assert failed["child"] == "needs bad, which failed" and calls(tmp_path, "bad") == ["call"]
        assert "failed before, exit status 2: error: no luck" in lines[0]
        assert (tmp_path / "bad-log.txt").read_text() == "error: no luck\n"
        go(jobs)
        assert len(calls(tmp_path, "bad")) == 2
        mended = job(tmp_path, "bad")  # another question: it is no failure of this one
        assert go([mended], retry_failed=False)[0] == {}

    def test_one_that_is_stopped_is_no_failure(self, tmp_path: Path):
        jobs = [job(tmp_path, "one", "stop", flags=BOTH)]
        assert "exit status 130: stopped" in go(jobs)[0]["one"]
        go(jobs, retry_failed=False)
        assert calls(tmp_path, "one") == ["call", "call --resume"]

    def test_a_full_disk_on_one_job_leaves_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Neither the command nor the note about it can be written."""
        write = Job.write

        def full(self: Job, record: object) -> None:
            if self.name == "full" and self.made.exists():
                raise OSError(errno.ENOSPC, "No space left on device", str(self.out))
            write(self, record)  # type: ignore[arg-type]

        monkeypatch.setattr(Job, "write", full)
        jobs = [job(tmp_path, "full"), job(tmp_path, "child", after=("full",))]
        failed, _, _ = go([*jobs, job(tmp_path, "fine")])
        assert set(failed) == {"full", "child"} and "No space left" in failed["full"]
        assert calls(tmp_path, "fine") == ["call"]

    def test_a_record_of_an_earlier_version_is_read(self, tmp_path: Path):
        one = job(tmp_path, "one")
        go([one])
        file = tmp_path / "one-asked.json"
        record = json.loads(file.read_text())
        assert {"seconds", "bytes"} <= record.keys()
        question = {"identity": "a", "words": list(one.words), "basis": []}
        earlier = {"question": question, "answered": True, "sha256": record["sha256"]}
        file.write_text(json.dumps(earlier))
        assert go([one])[1] == ["one: done before"]


def test_files_of_jobs_on_a_cluster_outlive_a_sweep_of_other_jobs(tmp_path: Path, program: None):
    """Such as one with --only: a job that waits in the queue reads them when it starts."""
    hidden, other = tmp_path / ".jobs", job(tmp_path, "other")
    for at, is_kept in ((Placed("7_0", str(hidden / "other-1")), True), (None, False)):
        hidden.mkdir(exist_ok=True)
        other.write(JobRecord(JobInputs("a", [], []), answered=False, placed=at))
        assert go([job(tmp_path, "one")])[0] == {} and hidden.exists() == is_kept


def test_lines_that_are_told_can_be_pasted(tmp_path: Path, program: None):
    _, lines, _ = go([job(tmp_path, "one", words=["a b"])])
    assert lines[0].endswith(" 'a b'")


def test_a_process_that_dies_is_started_again_once(tmp_path: Path, program: None):
    failed, _, _ = go([job(tmp_path, "one", "die", flags=BOTH)])
    why = "its process died 2 times, the last time by signal 9: call 2 "
    assert failed["one"].startswith(why), failed
    assert calls(tmp_path, "one") == ["call", "call --resume"]


def test_threads_are_no_more_than_the_user_allows(monkeypatch: pytest.MonkeyPatch):
    for own, of_eight in (("1", 1), ("16", 8), ("0", 8), ("4,2", 8), ("", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", own)
        assert at_most(8) == of_eight
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert at_most(8) == 8
