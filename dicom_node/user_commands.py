"""The commands `marginwatch user …`: who may log in to the review page. A password is never an argument."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.opened import opened_ledger, opened_trail, operator
from dicom_node.refusal import Refused

if TYPE_CHECKING:
    from dicom_node.accounts import Accounts
    from dicom_node.audit.trail import AuditTrail

user_app = typer.Typer(no_args_is_help=True, help="Who may log in to the review page, or send to it.")

Config = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="The node's settings, a TOML file.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="A file whose first line is the password; else it is asked for."),
]


@user_app.command("add")
def add(
    name: str,
    *,
    role: Annotated[str, typer.Option(help="reader: sees; admin: also acts; sender: a program that sends by STOW-RS.")],
    password_file: PasswordFile = None,
    config: Config = None,
) -> None:
    """Add a user. From the first one on, the review page asks for a login."""
    from dicom_node.accounts import ROLES

    if role not in ROLES:
        raise typer.BadParameter(f"{role} is not one of {', '.join(ROLES)}", param_hint="--role")
    with _accounts(config) as (accounts, trail):
        name = name.lower()
        accounts.add(name, role, _password(password_file))  # type: ignore[arg-type]  # checked above
        trail.users_changed(operator(), f"user {name} was added as {role}")
    typer.echo(f"User {name} was added as {role}.")


@user_app.command("list")
def list_users(config: Config = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the users."""
    with _accounts(config) as (accounts, _):
        users = accounts.users()
    if as_json:
        typer.echo(json.dumps([vars(user) for user in users], indent=2))
        return
    for user in users:
        since = datetime.fromtimestamp(user.added_at, UTC).strftime("%Y-%m-%d")
        typer.echo(f"{user.name}  {user.role}  since {since}")


@user_app.command("remove")
def remove(name: str, config: Config = None) -> None:
    """Remove a user, who is logged out at once."""
    with _accounts(config) as (accounts, trail):
        name = name.lower()
        accounts.remove(name)
        trail.users_changed(operator(), f"user {name} was removed")
        is_last = not accounts.exist()
    typer.echo(f"User {name} was removed.")
    if is_last:
        typer.echo("There is no user any more: on 127.0.0.1 the page is open to everybody on this machine.", err=True)


@user_app.command("password")
def password(name: str, password_file: PasswordFile = None, config: Config = None) -> None:
    """Give a user another password; the user is logged out everywhere."""
    with _accounts(config) as (accounts, trail):
        name = name.lower()
        accounts.set_password(name, _password(password_file))
        trail.users_changed(operator(), f"user {name} was given another password")
    typer.echo(f"User {name} has another password.")


@contextmanager
def _accounts(config: Path | None) -> Iterator[tuple[Accounts, AuditTrail]]:
    from dicom_node.accounts import Accounts

    with opened_ledger(config) as (settings, ledger), opened_trail(settings) as trail:
        yield Accounts(ledger.engine, clock=time.time), trail


def _password(file: Path | None) -> str:
    """The password: from the file, typed twice on a terminal, or the first line of stdin."""
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise Refused("bad_password", f"{file.name} is no text in UTF-8.") from None
        return lines[0] if lines else ""
    if not _is_terminal():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != first:
        raise Refused("bad_password", "The two passwords are not the same; nothing was changed.")
    return first


def _is_terminal() -> bool:
    return sys.stdin.isatty()
