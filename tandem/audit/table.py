"""An audit's report for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from rich.console import Console
from rich.markup import escape

from tandem.audit.report import Report
from tandem.checklist import Judgement, counted, rule
from tandem.findings import Finding
from tandem.survey import verdict

_COLOURS = {"error": "red", "warning": "yellow"}
_VERDICTS = {"yes": "green", "with losses": "yellow", "no": "red"}


def show(report: Report, console: Console) -> None:
    """Print findings by object, the ways out once each, the exemptions, and whether each worker can be lost."""
    found = counted(report.judgements)
    for subject, group in groupby(found, key=lambda each: each.subject):
        console.print(f"[bold]{escape(str(subject))}[/bold] [dim]{escape(subject.source)}[/dim]", highlight=False)
        for each in group:
            _line(console, each, "inferred" if each.inferred else "")
    _ways_out(console, found)
    exempted = [each for each in report.judgements if each.exempted is not None]
    if exempted:
        console.print("\n[bold]Exempted[/bold]")
        for each in exempted:
            console.print(f"  {each.rule}  {escape(str(each.subject))}: {escape(str(each.exempted))}", highlight=False)
    if report.cluster:
        console.print("\n[bold]Cluster[/bold]")
        _live(console, report.cluster)
    if report.workers is not None:
        console.print("\n[bold]Can each worker be lost now?[/bold]")
        for node, findings in report.workers.items():
            word = verdict(findings)
            console.print(f"  {escape(node)}: [{_VERDICTS[word]}]{word}[/{_VERDICTS[word]}]", highlight=False)
            _live(console, findings)
    for note in report.notes:
        console.print(f"[dim]note: {escape(note)}[/dim]", highlight=False)
    _summary(console, report)


def _line(console: Console, found: Finding, mark: str) -> None:
    colour = _COLOURS[found.level]
    said = f" [dim]({mark})[/dim]" if mark else ""
    console.print(
        f"  [{colour}]{found.level:<7}[/{colour}] {found.rule}: {escape(found.message)}{said}", highlight=False
    )


def _live(console: Console, findings: Iterable[Finding]) -> None:
    for each in findings:
        _line(console, each, "")
        console.print(f"          [dim]way out: {escape(each.fix)}[/dim]", highlight=False)


def _ways_out(console: Console, found: Iterable[Judgement]) -> None:
    used = dict.fromkeys(each.rule for each in found)
    if not used:
        return
    console.print("\n[bold]Why it hurts on two workers, and the line that mends it[/bold]")
    for name in used:
        row = rule(name)
        console.print(f"  {name}: {escape(row.why)}", highlight=False)
        console.print(f"          [dim]way out: {escape(row.fix)}[/dim]", highlight=False)


def _summary(console: Console, report: Report) -> None:
    data = report.to_dict()
    by = f", profile {report.profile}" if report.profile else ""
    console.print(
        f"\n{data['judged']} objects, environment {report.environment}{by}: {data['errors']} errors, "
        f"{data['warnings']} warnings, {data['exempted']} exempted",
        highlight=False,
    )
