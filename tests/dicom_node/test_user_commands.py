"""`marginwatch user`: the password comes by stdin, file or terminal, never as an argument."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from dicom_node.cli import app
from dicom_node.identity import identity_of
from dicom_node.opened import opened_ledger
from dicom_node.refusal import Refused
from dicom_node.schema import STUDIES


@pytest.fixture
def config(tmp_path) -> Path:
    (tmp_path / "node.toml").write_text('data_folder = "data"')
    return tmp_path / "node.toml"


def run(config: Path, *arguments: str, stdin: str = "") -> str:
    """What the command printed. Raises what it raised."""
    done = CliRunner().invoke(app, ["user", *arguments, "--config", str(config)], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_users_are_added_listed_changed_and_removed(config, tmp_path):
    assert "anna was added as reader" in run(config, "add", "Anna", "--role", "reader", stdin="correct horse\n")
    (tmp_path / "secret").write_text("another horse\nsecond line\n")
    run(config, "add", "root", "--role", "admin", "--password-file", str(tmp_path / "secret"))
    assert [line.split()[:2] for line in run(config, "list").splitlines()] == [["anna", "reader"], ["root", "admin"]]
    listed = json.loads(run(config, "list", "--json"))
    assert [set(user) for user in listed] == [{"name", "role", "added_at"}] * 2
    assert "has another password" in run(config, "password", "anna", stdin="a third horse\n")
    run(config, "remove", "anna")
    assert "no user any more" in run(config, "remove", "root")
    assert run(config, "list") == ""
    trail = "".join(file.read_text() for file in (tmp_path / "data" / "audit").iterdir())
    assert trail.count("User Security Attributes Changed") == 5
    assert "horse" not in trail


def test_what_cannot_be_is_refused_in_a_sentence(config):
    with pytest.raises(Refused, match="10 to 256 characters"):
        run(config, "add", "anna", "--role", "reader", stdin="short\n")
    with pytest.raises(Refused, match="no user anna"):
        run(config, "password", "anna", stdin="correct horse\n")
    assert "not one of reader, admin, sender" in " ".join(run(config, "add", "anna", "--role", "chief").split())


def test_who_releases_a_held_study_is_in_the_audit_trail(config, bench, tmp_path):
    dataset = bench.patient("P7").slice("followup", "20260215", 0)
    uid = str(dataset.StudyInstanceUID)
    with opened_ledger(config) as (_, ledger):
        ledger.arrived(identity_of(dataset), Path("x.dcm"))
        with ledger.transaction() as connection:
            connection.execute(update(STUDIES).values(held="1 slice is missing."))
    for status in (0, 1):  # the second time there is nothing to release
        assert CliRunner().invoke(app, ["release", uid, "--config", str(config)]).exit_code == status
    (line,) = "".join(file.read_text() for file in (tmp_path / "data" / "audit").iterdir()).splitlines()
    for said in ("DICOM Instances Accessed", 'EventActionCode="U"', f"marginwatch release {uid}", "P7", "localhost"):
        assert said in line


def test_a_password_is_no_argument(config):
    assert "No such option" in run(config, "add", "anna", "--role", "reader", "--password", "correct horse")
    assert "unexpected extra argument" in run(config, "add", "anna", "correct horse", "--role", "reader")


def test_on_a_terminal_it_is_typed_twice(config, monkeypatch):
    typed = iter(["correct horse", "correct house", "correct horse", "correct horse"])
    monkeypatch.setattr("dicom_node.user_commands._is_terminal", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
    with pytest.raises(Refused, match="not the same"):
        run(config, "add", "anna", "--role", "reader")
    assert "was added" in run(config, "add", "anna", "--role", "reader")
