"""Earlier work in an output: one law for all commands that write.

| what is there                      | neither flag | --resume               | --overwrite |
|------------------------------------|--------------|------------------------|-------------|
| nothing                            | begins       | begins                 | begins      |
| unfinished work, same settings     | refused      | goes on                | starts over |
| finished work, same settings       | refused      | told that it is complete | starts over |
| work with other settings           | refused      | refused, fields named  | starts over |
| another command's, or a stranger's | refused      | refused                | refused     |
| another process that writes there  | refused      | refused                | refused     |

A command without --resume names --overwrite alone. Refusals are one line: the path, the problem
and the next step. "Settings" are those that the result depends on; where, how often and how fast
it is saved may change. Of finished work only what follows from its saved parts is made again, such
as tables and figures. Training is longer when it is resumed with more --train-steps, since its
learning rate follows from the share of the run that is done; `train-sae` refuses them, since the
schedules of sae-lens are saved with their end.
"""

from dataclasses import dataclass
from pathlib import Path

from trm_interp.runtime.errors import UserError


class OutputExists(UserError, FileExistsError):
    """There is earlier work, and neither --resume nor --overwrite says what to do with it."""


@dataclass(frozen=True)
class Existing:
    """What a command was told to do with earlier work. `resumable`: whether it has --resume.

    UserError with both flags.
    """

    resume: bool = False
    overwrite: bool = False
    resumable: bool = True

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise UserError("give one of --resume and --overwrite")

    def require_choice(self, place: Path, what: str = "", replaceable: bool = True) -> None:
        """OutputExists unless a flag says what to do with the work at `place`.

        `what` describes it. `replaceable`: whether --overwrite may delete it.

        >>> Existing(resumable=False).require_choice(Path("a.csv"))
        Traceback (most recent call last):
            ...
        trm_interp.runtime.existing.OutputExists: a.csv exists: use --overwrite to replace it, or \
choose another output
        """
        if self.resume or self.overwrite:
            return
        if not replaceable:
            how = "--resume to continue, or delete it"
        elif self.resumable:
            how = "--resume to continue or --overwrite to start over"
        else:
            how = "--overwrite to replace it, or choose another output"
        is_there = f"holds {what}" if what else "exists"
        raise OutputExists(f"{place} {is_there}: use {how}")
