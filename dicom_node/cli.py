"""The command line: `marginwatch`. Heavy modules are imported inside the commands, so that each starts fast."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dicom_node.interrupt import ended_by_ctrl_c
from dicom_node.notice import NOT_FOR_DIAGNOSIS
from dicom_node.opened import opened_ledger, opened_trail, operator
from dicom_node.refusal import Refused
from dicom_node.terminal import (
    addresses,
    batch_complaint,
    batch_lines,
    check_lines,
    first_sentence,
    plan_line,
    simulated_lines,
    stages,
    verdict,
)
from dicom_node.user_commands import user_app

if TYPE_CHECKING:
    from dicom_node.records import RegisteredPlan

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=f"Did the ablation zone cover the tumor with enough margin? {NOT_FOR_DIAGNOSIS}",
)

plan_app = typer.Typer(no_args_is_help=True, help="The plans that follow-ups are assessed against.")
app.add_typer(plan_app, name="plan")
app.add_typer(user_app, name="user")

Config = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="The node's settings, a TOML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Folder = Annotated[Path, typer.Option(exists=True, file_okay=False, readable=True)]


def main() -> None:
    """Run the command line.

    Exit status: 0 done, 1 input that cannot be assessed or is broken, 2 wrong usage, 130 stopped by Ctrl+C.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # pydicom warns on every odd header; what matters is in `reasons`
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    logging.getLogger("pydicom").propagate = False  # a level would not do: pydicom sets its own when it is imported
    try:
        with ended_by_ctrl_c():
            app()
    except Refused as refused:
        _complain(refused.text)
        raise SystemExit(1) from None
    except OSError as problem:
        _complain(f"Cannot read or write {problem.filename or 'a file'}: {problem.strerror or problem}.")
        raise SystemExit(1) from None


@app.callback(invoke_without_command=True)
def _options(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        typer.echo(version("marginwatch"))
        raise typer.Exit


@app.command()
def assess(
    *,
    plan: Annotated[Path, typer.Option(exists=True, readable=True, help="The plan's plan.json, or its folder.")],
    baseline: Folder,
    followup: Folder,
    out: Annotated[Path, typer.Option(help="The result folder; it appears whole or not at all.")],
    previous: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="Result folder of an earlier follow-up; may be repeated."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Assess one follow-up, without a server."""
    from dicom_node.assessing import assess_files
    from dicom_node.settings import load_settings

    with stages() as progress:
        document = assess_files(
            plan / "plan.json" if plan.is_dir() else plan,
            baseline=_files(baseline),
            followup=_files(followup),
            previous=previous or [],
            out=out,
            simulation=load_settings(config).simulation,
            progress=progress,
        )
    typer.echo(json.dumps(document, indent=2) if as_json else verdict(document, out))
    if document["outcome"] == "not_assessable":
        _complain(first_sentence(document))
        raise typer.Exit(1)


@app.command()
def simulate(
    plan: Annotated[Path, typer.Argument(exists=True, readable=True, help="The plan's plan.json, or its folder.")],
    *,
    out: Annotated[Path, typer.Option(help="The result folder; it appears whole or not at all.")],
    baseline: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, readable=True, help="The scan that the plan was made on."),
    ] = None,
    isotherm_c: Annotated[
        float | None, typer.Option(help="Where the zone of a cryoablation ends, -80 to 0 °C; else as configured (-20).")
    ] = None,
    spacing_mm: Annotated[float, typer.Option(help="Width of the cells, 0.4 to 3 mm.")] = 1.0,
    uniform: Annotated[bool, typer.Option("--uniform", help="Take all tissue to be the organ.")] = False,
    no_spread: Annotated[
        bool, typer.Option("--no-spread", help="Do not look how far tissue and devices may move the zone.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Simulate the ablation zone of a plan from its applicators and protocol."""
    from dicom_node.settings import load_settings
    from dicom_node.simulating import Wishes, simulate_files, simulation_settings

    wishes = Wishes(isotherm_c, spacing_mm, by_tissue=not uniform, with_spread=not no_spread)
    site = load_settings(config).simulation
    try:
        simulation_settings(site, wishes)
    except ValueError as problem:
        key = str(problem).split(maxsplit=1)[0].replace("_", "-")
        raise typer.BadParameter(str(problem), param_hint=f"--{key}") from None
    with stages() as progress:
        document = simulate_files(
            plan / "plan.json" if plan.is_dir() else plan,
            baseline=None if baseline is None else _files(baseline),
            out=out,
            site=site,
            wishes=wishes,
            progress=progress,
        )
    typer.echo(json.dumps(document, indent=2) if as_json else simulated_lines(document, out))


@app.command()
def serve(
    config: Config = None,
    only: Annotated[str, typer.Option(help="Some of the parts: listener, worker, review; comma-separated.")] = "",
) -> None:
    """Run the node: DICOM listener, worker and review page, until it is told to stop."""
    from dicom_node.logs import set_up_logs
    from dicom_node.serve import PARTS, Node
    from dicom_node.settings import load_settings

    parts = tuple(part for part in PARTS if not only or part in _names(only))
    if unknown := _names(only) - set(PARTS):
        raise typer.BadParameter(f"{sorted(unknown)[0]} is not one of {', '.join(PARTS)}", param_hint="--only")
    if not parts:
        raise typer.BadParameter(f"names no part; give some of {', '.join(PARTS)}", param_hint="--only")
    settings = load_settings(config)
    set_up_logs(settings.logs)
    node = Node(settings, parts=parts)
    node.start()
    for line in addresses(node.settings, parts):
        typer.echo(line, err=True)
    _until_told_to_stop()
    node.stop()
    _leave(0)


@plan_app.command("add")
def plan_add(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help="The folder with plan.json and the objects it names; what the node has received need not be there.",
        ),
    ],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Register a plan; the node keeps a copy. One with the same plan_id is replaced, its follow-ups assessed anew."""
    from dicom_node.plans import change_of, register_plan

    with opened_ledger(config) as (settings, ledger):
        before = ledger.plans()
        plan = register_plan(folder, ledger, settings.data_folder)
    change = change_of(plan, before)
    typer.echo(json.dumps(_plan_json(plan) | {"change": change}) if as_json else plan_line(plan, change))


@plan_app.command("list")
def plan_list(config: Config = None, as_json: Json = False) -> None:
    """List the registered plans."""
    with opened_ledger(config) as (_, ledger):
        plans = ledger.plans()
    if as_json:
        typer.echo(json.dumps([_plan_json(plan) for plan in plans], indent=2))
        return
    for plan in plans:
        typer.echo(f"{plan.plan_id}  patient {plan.patient_id}, procedure of {plan.procedure_date}")


@plan_app.command("show")
def plan_show(plan_id: str, config: Config = None, as_json: Json = False) -> None:
    """Show one plan and what became of its follow-ups."""
    from dicom_node.plans import find_plan
    from dicom_node.worklist import worklist

    with opened_ledger(config) as (settings, ledger):
        plan = find_plan(ledger, plan_id)
        studies = [entry.as_json() for entry in worklist(ledger) if entry.plan_id == plan_id]
        document = json.loads((settings.data_folder / plan.folder / "plan.json").read_text(encoding="utf-8-sig"))
    if as_json:
        typer.echo(json.dumps(_plan_json(plan) | {"plan": document, "studies": studies}, indent=2))
        return
    typer.echo(json.dumps(document, indent=2))
    for study in sorted(studies, key=lambda study: str(study["acquired"])):
        typer.echo(f"{study['acquired']}  {study['outcome'] or study['state']}  {study['study_instance_uid']}")
    typer.echo(NOT_FOR_DIAGNOSIS)


@app.command()
def batch(
    source: Annotated[Path, typer.Argument(exists=True, readable=True, help="A folder tree, or its DICOMDIR.")],
    out: Annotated[
        Path | None, typer.Option(help="Where results and state go; else the configured data folder.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Assess every follow-up in an archive. Safe to stop and start again: nothing is done twice.

    Exit status 1 where a follow-up was refused or failed, or a plan cannot be used; the others are assessed all the
    same.
    """
    from dataclasses import replace

    from dicom_node.batch import run_batch
    from dicom_node.progress import shown
    from dicom_node.settings import DatabaseSettings, load_settings

    settings = load_settings(config)
    if out is not None:
        settings = replace(settings, data_folder=out.resolve(), database=DatabaseSettings())
    with shown() as progress:
        report = run_batch(source, settings, progress)
    if as_json:
        typer.echo(json.dumps({"assessed": report.assessed, "skipped": report.skipped}, indent=2))
    else:
        for line in batch_lines(report):
            typer.echo(line)
    if complaint := batch_complaint(report):
        _complain(complaint)
        _leave(1)
    _leave(0)


@app.command()
def release(
    study: Annotated[str, typer.Argument(help="The Study Instance UID, as the review page shows it.")],
    config: Config = None,
) -> None:
    """Have a held study assessed as it is, though images of it seem to be missing.

    A series with a slice missing inside is then refused, with the reason: nothing is measured across a gap.
    """
    from dicom_node.audit.message import StudyPart

    with opened_ledger(config) as (settings, ledger), opened_trail(settings) as trail:
        if not ledger.release(study):
            text = f"There is no held study {study} in {settings.data_folder}; the review page shows those there are."
            raise Refused("not_held", f"{text} Is it the node of another --config?")
        trail.acted(operator(), StudyPart(study, ledger.patient_id(study)), f"marginwatch release {study}")
    text = (
        "The study is assessed as it is, or refused where a slice is missing inside, until another image of it comes."
    )
    typer.echo(f"{text} {NOT_FOR_DIAGNOSIS}")


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Where everything is kept; else a new temporary folder.")] = None,
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Leave the review page up.")] = False,
) -> None:
    """Send a made patient through a running node and show the verdict."""
    import tempfile

    from dicom_node.demo import run_demo
    from dicom_node.progress import shown

    folder = Path(tempfile.mkdtemp(prefix="marginwatch-demo-")) if out is None else out.resolve()
    with shown() as progress, run_demo(folder, progress) as shown_result:
        typer.echo(verdict(shown_result.document, shown_result.result_folder))
        if keep_running:
            typer.echo(f"review page: {shown_result.page}  (Ctrl+C ends it)")
            _until_told_to_stop()
        else:
            typer.echo("review page: run again with --keep-running")
    if shown_result.document["outcome"] == "not_assessable":
        _complain(first_sentence(shown_result.document))
        _leave(1)
    _leave(0)


@app.command()
def doctor(config: Config = None, as_json: Json = False) -> None:
    """Check configuration, disk, database, ports and PACSs, and say how to mend what is wrong.

    Exit status 1 where something keeps the node from running.
    """
    from dataclasses import asdict

    from dicom_node.doctor import examine

    checks = examine(config)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        for line in check_lines(checks):
            typer.echo(line)
    faults = [check for check in checks if check.level == "fault"]
    if faults:
        _complain(f"{faults[0].name}: {faults[0].text.rstrip('.')}. {faults[0].mend}")
        raise typer.Exit(1)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _plan_json(plan: RegisteredPlan) -> dict[str, Any]:
    return {name: value for name, value in vars(plan).items() if name != "folder"}


def _names(comma_separated: str) -> set[str]:
    return {name.strip() for name in comma_separated.split(",") if name.strip()}


def _until_told_to_stop() -> None:
    """Wait for SIGINT (Ctrl+C) or SIGTERM."""
    import signal
    import threading

    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(1.0):  # a wait without end would not let a signal in on every system
        pass


def _leave(status: int) -> NoReturn:
    """End the process now: the engine's threads may still sleep between two tries, and would hold it up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _complain(text: str) -> None:
    typer.echo(f"marginwatch: {text}", err=True)


if __name__ == "__main__":
    main()
