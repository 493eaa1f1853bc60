"""The matrix of verdicts as one page that needs no other file."""

from collections.abc import Iterator, Sequence
from html import escape

from trm_interp.analysis.estimates import span
from trm_interp.report.claims import Claim
from trm_interp.report.compare_subjects import Subject
from trm_interp.report.compare_tables import FACTS, OVER, ClaimOver, OverSubjects
from trm_interp.report.effects import (
    CONTRADICTED,
    IN_PART,
    INCONCLUSIVE,
    MIXED,
    NOT_MEASURED,
    NOT_TESTABLE,
    REPRODUCED,
)
from trm_interp.report.verdicts import not_measured

# a sign each, so that verdicts are told apart without colours, too
SIGNS = {REPRODUCED: "●", IN_PART: "◐", CONTRADICTED: "✕", MIXED: "⇄", INCONCLUSIVE: "?"}
SIGNS |= {NOT_TESTABLE: "∅", NOT_MEASURED: "-"}
COLOURS = {REPRODUCED: "#d6ebf7", IN_PART: "#ebf5fb", CONTRADICTED: "#fbdcc4", MIXED: "#fdf3c4"}
MEANING = {
    REPRODUCED: "every effect lies where the claim says, clear of its null",
    IN_PART: "some effects do, none lies on the other side",
    CONTRADICTED: "effects lie on the other side, none where the claim says",
    MIXED: "effects, or checkpoints, lie clearly on opposite sides",
    INCONCLUSIVE: "intervals hold the null, or estimates lie on both sides of it",
    NOT_TESTABLE: "the claim states nothing that these puzzles can test",
    NOT_MEASURED: "its study was left out, failed, or has too few runs",
}
STYLE = """
body { font: 15px/1.45 Helvetica, Arial, sans-serif; margin: 2rem auto; padding: 0 1.5rem;
  max-width: 110rem; color: #1c1c1c; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border: 1px solid #c8c8c8; padding: .45rem .6rem; text-align: left; vertical-align: top; }
thead th { background: #f3f3f3; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.matrix td { min-width: 8rem; max-width: 24rem; } .matrix th.claim { min-width: 15rem;
  max-width: 22rem; font-weight: normal; }
.claim, .over { position: sticky; left: 0; background: #fff; }
thead .over, thead .claim { background: #f3f3f3; }
.over { left: auto; right: 0; border-left: 3px solid #555; }
.sign { display: inline-block; width: 1.3em; font-weight: bold; }
summary { cursor: pointer; } summary b { font-weight: 600; }
details p, .note { font-size: .86rem; color: #444; margin: .4rem 0; }
code { font-size: .82rem; overflow-wrap: anywhere; }
ul { margin: .3rem 0; padding-left: 1.1rem; font-size: .86rem; }
"""


def page(subjects: Sequence[Subject], claims: Sequence[ClaimOver], left_out: str) -> str:
    """The page: matrix, effects over checkpoints, subjects. `left_out`: a line on claims that were
    not asked for, or empty."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>Claims over checkpoints</title><style>{STYLE}</style></head><body>",
        "<h1>The seed paper's claims, by subject and over checkpoints</h1>",
        f'<p class="note">{escape(left_out)}</p>' if left_out else "",
        *_matrix(subjects, claims),
        *_legend(),
        *_effects(claims),
        *_subjects(subjects),
        "</body></html>",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def _matrix(subjects: Sequence[Subject], claims: Sequence[ClaimOver]) -> Iterator[str]:
    heads = "".join(f'<th scope="col">{escape(one.name)}</th>' for one in subjects)
    yield '<div class="wide"><table class="matrix"><thead><tr><th scope="col">claim</th>'
    yield f'{heads}<th scope="col" class="over">{OVER}</th></tr></thead><tbody>'
    for over in claims:
        claim = over.claim
        yield f'<tr><th scope="row" class="claim"><b>{claim.id}</b> {escape(claim.claim)}'
        yield f'<p class="note">published: {escape(claim.published)}</p></th>'
        for one in subjects:
            yield _cell(one, claim)
        yield _over_cell(over)
        yield "</tr>"
    yield "</tbody></table></div>"


def _verdict(verdict: str, text: str = "") -> str:
    sign = f'<span class="sign" aria-hidden="true">{SIGNS[verdict]}</span>'
    return f"{sign}<b>{escape(text or verdict)}</b>"


def _td(verdict: str, inner: str, kind: str = "") -> str:
    colour = COLOURS.get(verdict)
    style = f' style="background:{colour}"' if colour else ""
    return f"<td{kind}{style}>{inner}</td>"


def _cell(subject: Subject, claim: Claim) -> str:
    """A verdict; inside it the numbers, the commands and links to the folders of their results."""
    rows = [of.row for kind, of in subject.judged if kind.id == claim.id]
    row = rows[0] if rows else not_measured("its study was not run here").row
    commands = [f"<p><code>{escape(command)}</code></p>" for command in subject.commands(claim)]
    links = ", ".join(
        f'<a href="{escape(f"{subject.name}/{job.out.name}")}/">{escape(job.name)}</a>'
        for job in subject.jobs(claim)
        if job.out.is_dir()
    )
    n = f"n {row['n']}; " if str(row["n"]) else ""
    inside = [
        f"<p>{escape(str(row['ours']))} {escape(str(row['interval']))}</p>",
        f"<p>{escape(n + str(row['why']))}</p>",
        *commands,
        f"<p>results: {links}</p>" if links else "",
    ]
    summary = f"<summary>{_verdict(row['verdict'])}</summary>"
    return _td(row["verdict"], f"<details>{summary}{''.join(inside)}</details>")


def _over_cell(over: ClaimOver) -> str:
    verdict = over.verdict
    inside = "".join(f"<li>{escape(_sentence(one))}</li>" for one in over.effects)
    if over.k == 1:  # no verdict over checkpoints
        return _td("", f'<span class="sign">1</span>{escape(over.text)}', ' class="over"')
    summary = f"<summary>{_verdict(verdict, over.text)}</summary>"
    return _td(verdict, f"<details>{summary}<ul>{inside}</ul></details>", ' class="over"')


def _sentence(one: OverSubjects) -> str:
    return f"{one.side_in_words}: {one.effect.text}"


def _legend() -> Iterator[str]:
    yield "<h2>What the words mean</h2><table><tbody>"
    for verdict, meaning in MEANING.items():
        yield f"<tr>{_td(verdict, _verdict(verdict))}<td>{escape(meaning)}</td></tr>"
    yield "</tbody></table>"
    yield (
        '<p class="note">Intervals are 95 %: over puzzles for a subject; over checkpoints by a '
        "hierarchical bootstrap, which draws training runs, then puzzles. An effect counts over "
        "checkpoints where all estimates lie on one side of the null, clear of it each or with "
        "that interval. Of two to four checkpoints it is the range of the replicates, and too "
        "narrow for the next checkpoint: it holds the mean over all that could be trained in about "
        "50, 75 and 88 % of cases. Snapshots and puzzle sets of one training run are one "
        "checkpoint. Click on a verdict for its numbers and commands.</p>"
    )


def _effects(claims: Sequence[ClaimOver]) -> Iterator[str]:
    yield "<h2>Effects over checkpoints</h2>"
    yield '<div class="wide"><table><thead><tr><th>claim</th><th>effect</th><th>mean</th>'
    yield "<th>95 % interval</th><th>claimed</th><th>checkpoints</th><th>side</th></tr></thead>"
    yield "<tbody>"
    for over in claims:
        for one in over.effects:
            effect = one.effect
            interval = span(effect.low, effect.high, ".3g")
            claimed = f"{'above' if effect.claimed > 0 else 'below'} {effect.null:g}"
            yield f"<tr><td>{effect.claim}</td><td>{escape(effect.name)}</td>"
            yield f'<td class="number">{effect.estimate:.3g}</td>'
            yield f'<td class="number">{interval}</td><td>{claimed}</td>'
            yield f'<td class="number">{one.k}</td><td>{one.side_in_words}</td></tr>'
    yield "</tbody></table></div>"


def _subjects(subjects: Sequence[Subject]) -> Iterator[str]:
    yield '<h2>Subjects</h2><div class="wide"><table><thead><tr>'
    yield "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in FACTS)
    yield "<th>checkpoint</th></tr></thead><tbody>"
    for one in subjects:
        values = ["-" if one.facts[name] is None else str(one.facts[name]) for name in FACTS]
        values.append(str(one.checkpoint.path))
        yield f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
    yield "</tbody></table></div>"
