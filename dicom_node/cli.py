"""The command line: `marginwatch`. Heavy modules are imported inside the commands, so that each starts fast."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node.refusal import Refused

NOT_FOR_DIAGNOSIS = "Not for primary diagnosis."

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Did the ablation zone cover the tumor with enough margin? Not for primary diagnosis.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Folder = Annotated[Path, typer.Option(exists=True, file_okay=False, readable=True)]


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 input that cannot be assessed or is broken, 2 wrong usage."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # pydicom warns on every odd header; what matters is in `reasons`
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
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
    as_json: Json = False,
) -> None:
    """Assess one follow-up, without a server."""
    from dicom_node.assessing import assess_files

    with _stages() as progress:
        document = assess_files(
            plan / "plan.json" if plan.is_dir() else plan,
            baseline=_files(baseline),
            followup=_files(followup),
            previous=previous or [],
            out=out,
            progress=progress,
        )
    typer.echo(json.dumps(document, indent=2) if as_json else _verdict(document, out))
    if document["outcome"] == "not_assessable":
        _complain(_first_sentence(document))
        raise typer.Exit(1)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _first_sentence(document: dict[str, Any]) -> str:
    reasons = document.get("reasons") or [{"text": "The follow-up cannot be assessed."}]
    return str(reasons[0]["text"])


def _verdict(document: dict[str, Any], out: Path) -> str:
    """The answer in a few lines for a terminal."""
    days = document["days_since_procedure"]
    lines = [f"{document['outcome']}  (plan {document['plan_id']}, {days} days after the procedure)"]
    for lesion in document["lesions"]:
        margin = lesion.get("minimal_margin_mm")
        if margin is None:
            lines.append(f"  {lesion['lesion_id']}: {lesion['outcome']}, no margin measured")
            continue
        low, high = lesion["minimal_margin_interval_mm"]
        lines.append(
            f"  {lesion['lesion_id']}: {lesion['outcome']}, minimal margin {margin:.1f} mm ({low:.1f} to {high:.1f}), "
            f"required {lesion['required_margin_mm']:.1f} mm"
        )
    lines += [f"  {reason['text']}" for reason in document["reasons"]]
    lines += [f"  results: {out}", NOT_FOR_DIAGNOSIS]
    return "\n".join(lines)


@contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """A callback that shows the stage at work on a terminal; silent elsewhere, where stderr is for the one sentence."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda stage: status.update(f"{stage} …")


def _complain(text: str) -> None:
    typer.echo(f"marginwatch: {text}", err=True)


if __name__ == "__main__":
    main()
