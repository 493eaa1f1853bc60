"""Static pictures of figures, drawn by one browser in a child process that can be abandoned.

A browser can fail in many ways: it is missing, ends at once, or never answers. The child holds it,
and draws what it reads as one line of JSON; the parent waits for every answer for a limited time.
After the first timeout there are no more attempts in this process.

This file is also the program of the child, which must not import the package.
"""

import atexit
import base64
import importlib.util
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

LIMIT = 90.0  # seconds for the browser to start, and again for every picture
DATE = re.compile(rb"(/(?:Creation|Mod)Date \(D:)\d{14}")  # of a PDF, to the second
NO_DATE = b"20000101000000"  # as long, for places in the file are counted in bytes
# what to do where pictures cannot be drawn
GET_KALEIDO = "for pictures `pip install 'trm-interp[figures]'` and run again"
GET_BROWSER = "for pictures install Chrome or Chromium, or name one in BROWSER_PATH, and run again"
GRACE = 5.0  # seconds to end in order, before the child and its browser are killed


class NoPictures(Exception):
    """Pictures cannot be drawn; the message says why. Raised once in a process."""


class Painter:
    """Draws with one browser; starts it for the first picture. Used through `draw`."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[str] | None = None
        self.answers: queue.Queue[str | None] = queue.Queue()
        self.given_up = False

    def draw(self, figure: str, kind: str, **size: int | float) -> bytes | None:
        """A figure (its JSON) as a file of this kind; None where an attempt failed before.

        The same figure gives the same bytes: a PDF carries a fixed date.

        ValueError for a figure that cannot be drawn, NoPictures where nothing can be.
        """
        if self.given_up:
            return None
        try:
            if self.child is None:
                self._start()
            wanted = {"figure": json.loads(figure), "options": {"format": kind, **size}}
            answer = self._ask(json.dumps(wanted))
        except NoPictures:
            self.given_up = True
            self.stop(at_once=True)
            raise
        if "error" in answer:
            raise ValueError(answer["error"])
        picture = base64.b64decode(answer["picture"])
        return undated(picture) if kind == "pdf" else picture

    def _start(self) -> None:
        if importlib.util.find_spec("kaleido") is None:
            raise NoPictures(f"kaleido is not installed; {GET_KALEIDO}")
        self.child = subprocess.Popen(
            [sys.executable, "-P", __file__],  # -P: this file's folder is not on its path
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # a group of its own, with the browser in it
        )
        threading.Thread(target=self._listen, args=(self.child,), daemon=True).start()
        atexit.register(self.stop)
        ready = self._ask("")
        if "error" in ready:
            raise NoPictures(f"{ready['error']}; {GET_BROWSER}")

    def _listen(self, child: "subprocess.Popen[str]") -> None:
        assert child.stdout is not None
        for line in child.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def _ask(self, line: str) -> dict[str, Any]:
        """Send a line, wait for the answer to it."""
        assert self.child is not None and self.child.stdin is not None
        began = time.monotonic()
        try:
            self.child.stdin.write(line + "\n")
            self.child.stdin.flush()
            answer = self.answers.get(timeout=LIMIT)
        except BrokenPipeError:
            answer = None
        except queue.Empty:
            waited = f"{time.monotonic() - began:.0f} s"
            raise NoPictures(f"the browser did not answer within {waited}") from None
        if answer is None:
            raise NoPictures("the browser ended")
        return json.loads(answer)

    def stop(self, at_once: bool = False) -> None:
        """End the child and its browser."""
        child, self.child = self.child, None
        if child is None:
            return
        atexit.unregister(self.stop)
        if not at_once and child.stdin is not None:
            try:
                child.stdin.close()
                child.wait(GRACE)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                pass
        _kill_group(child)
        child.wait()


def _kill_group(child: "subprocess.Popen[str]") -> None:
    """Kill a child and all that it started."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except ProcessLookupError:
        pass


def undated(pdf: bytes) -> bytes:
    """The same document without the moment at which it was made.

    >>> undated(b"/CreationDate (D:20261127212147+00'00')")
    b"/CreationDate (D:20000101000000+00'00')"
    """
    return DATE.sub(rb"\g<1>" + NO_DATE, pdf)


_painter = Painter()


def draw(figure: str, kind: str, **size: int | float) -> bytes | None:
    """`Painter.draw` of the one browser of this process."""
    return _painter.draw(figure, kind, **size)


# the child


async def _serve() -> None:
    """Start a browser, then answer a line with a line until there are no more."""
    import asyncio

    from choreographer.browsers.chromium import Chromium
    from kaleido import Kaleido

    class InOurGroup(Chromium):
        """A browser that is killed together with this process."""

        def get_popen_args(self) -> dict[str, Any]:
            return {**super().get_popen_args(), "start_new_session": False}

    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        """All lines; after the last one the browser has a while to end, whatever it is doing."""
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")
        time.sleep(GRACE)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=read, daemon=True).start()
    async with Kaleido(browser_cls=InOurGroup, mathjax=False) as browser:
        _answer({})
        await lines.get()
        while line := await lines.get():
            wanted = json.loads(line)
            try:
                picture = await browser.calc_fig(wanted["figure"], opts=wanted["options"])
                _answer({"picture": base64.b64encode(picture).decode()})
            except Exception as error:  # of this figure; the next one may be drawn
                _answer({"error": _in_one_line(error)})


def _answer(answer: dict[str, str]) -> None:
    print(json.dumps(answer), flush=True)


def _in_one_line(error: Exception) -> str:
    """The first sentence of a library's long message."""
    message = str(error.args[0]) if error.args else ""
    first_line = (message.strip().splitlines() or [type(error).__name__])[0]
    return first_line.split(". ")[0].rstrip(".")[:200]


def _main() -> None:
    import asyncio

    try:
        asyncio.run(_serve())
    except Exception as error:
        _answer({"error": _in_one_line(error)})


if __name__ == "__main__":
    _main()
