"""The command line: exit status, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError
from typer.testing import CliRunner

import dicom_node.assessing
from dicom_node.batch import BatchReport
from dicom_node.cli import app, main
from dicom_node.ledger import Ledger
from dicom_node.refusal import Refused


@pytest.fixture
def folders(bench) -> list[str]:
    for name in ("baseline", "followup"):
        (bench.folder / name).mkdir()
        (bench.folder / name / "file").touch()
    plan = bench.patient().plan_folder(bench.folder / "plan") / "plan.json"
    return [
        "assess",
        "--plan",
        str(plan),
        "--baseline",
        str(bench.folder / "baseline"),
        "--followup",
        str(bench.folder / "followup"),
        "--out",
        str(bench.folder / "out"),
    ]


def invoke(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of the whole program."""
    monkeypatch.setattr(sys, "argv", ["marginwatch", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def answering(monkeypatch, answer) -> None:
    def assess_files(*_, **__):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(dicom_node.assessing, "assess_files", assess_files)


def test_assess_prints_the_verdict(monkeypatch, capsys, bench, folders):
    answering(monkeypatch, {**bench.document("1.2", "narrow_margin", 2.0), "plan_id": "P1-plan"})
    status, out, err = invoke(monkeypatch, capsys, *folders)
    assert (status, err) == (0, "")
    assert "narrow_margin" in out
    assert "2.0 mm (1.0 to 3.0)" in out
    assert "Not for primary diagnosis." in out


def test_assess_json_prints_one_document_and_nothing_else(monkeypatch, capsys, bench, folders):
    document = bench.document("1.2")
    answering(monkeypatch, document)
    status, out, err = invoke(monkeypatch, capsys, *folders, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == document


def test_not_assessable_is_status_1_with_the_first_reason(monkeypatch, capsys, bench, folders):
    document = {**bench.document("1.2", "not_assessable"), "plan_id": "P1-plan", "lesions": []}
    answering(monkeypatch, document)
    status, out, err = invoke(monkeypatch, capsys, *folders, "--json")
    assert status == 1
    assert err == "marginwatch: A stand-in was asked.\n"
    assert json.loads(out)["outcome"] == "not_assessable"


def test_refused_input_is_status_1_with_one_sentence(monkeypatch, capsys, folders):
    answering(monkeypatch, Refused("no_images", "The follow-up holds no images."))
    assert invoke(monkeypatch, capsys, *folders) == (1, "", "marginwatch: The follow-up holds no images.\n")


def test_a_full_disk_is_status_1_with_one_sentence(monkeypatch, capsys, folders):
    answering(monkeypatch, OSError(28, "No space left on device", "zone.nii.gz"))
    status, out, err = invoke(monkeypatch, capsys, *folders)
    assert (status, out) == (1, "")
    assert err == "marginwatch: Cannot read or write zone.nii.gz: No space left on device.\n"


def test_only_with_no_part_left_is_wrong_usage(monkeypatch, capsys):
    """A node of no parts would wait for ever."""
    monkeypatch.setattr("dicom_node.cli._until_told_to_stop", lambda: pytest.fail("a node of no parts was started"))
    status, out, err = invoke(monkeypatch, capsys, "serve", "--only", " , ")
    assert (status, out) == (2, "")
    assert "names no part" in err


@pytest.mark.parametrize(
    "arguments", [[], ["assess"], ["nothing"], ["assess", "--plan", "/nowhere"], ["serve", "--only", "x"]]
)
def test_wrong_usage_is_status_2(arguments):
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_plans_are_added_listed_and_shown(monkeypatch, capsys, bench):
    config = bench.folder / "node.toml"
    config.write_text('data_folder = "data"')
    plan = bench.patient().plan_folder(bench.folder / "plan")
    assert invoke(monkeypatch, capsys, "plan", "add", str(plan), "--config", str(config))[0] == 0
    status, out, err = invoke(monkeypatch, capsys, "plan", "list", "--json", "--config", str(config))
    assert (status, err) == (0, "")
    assert [item["plan_id"] for item in json.loads(out)] == ["P1-plan"]
    _, out, _ = invoke(monkeypatch, capsys, "plan", "show", "P1-plan", "--json", "--config", str(config))
    assert json.loads(out)["plan"]["organ"] == "liver"
    status, _, err = invoke(monkeypatch, capsys, "plan", "show", "other", "--config", str(config))
    assert (status, err) == (1, "marginwatch: There is no plan other; `marginwatch plan list` shows those there are.\n")


def test_a_plan_added_again_is_unchanged_or_replaced(monkeypatch, capsys, bench):
    config = bench.folder / "node.toml"
    config.write_text('data_folder = "data"')

    def add(*more: str, required_margin_mm: float = 5.0) -> str:
        plan = bench.patient().plan_folder(bench.folder / "plan", required_margin_mm=required_margin_mm)
        status, out, err = invoke(monkeypatch, capsys, "plan", "add", str(plan), "--config", str(config), *more)
        assert (status, err) == (0, "")
        return out

    assert add() == "Plan P1-plan of patient P1 is registered.\n"
    assert add() == "Plan P1-plan of patient P1 is unchanged: it was registered before with the same content.\n"
    assert add(required_margin_mm=7.0) == "Plan P1-plan of patient P1 is replaced; its follow-ups are assessed anew.\n"
    assert json.loads(add("--json"))["change"] == "replaced"


def test_a_wrong_setting_is_status_1_with_its_name(monkeypatch, capsys, bench):
    config = bench.folder / "node.toml"
    config.write_text("[review]\nprot = 3")
    status, _, err = invoke(monkeypatch, capsys, "serve", "--config", str(config))
    assert status == 1
    assert err == "marginwatch: node.toml: unknown key review.prot; did you mean review.port?.\n"


DAMAGED = (
    'data_folder = "data"',
    "The database {data}/ledger.sqlite cannot be used (file is not a database); restore {data} from a backup, or move "
    "ledger.sqlite* and queue.sqlite* out of it to begin anew.",
)
AWAY = (
    'data_folder = "data"\n[database]\nurl = "postgresql://someone:secret@127.0.0.1:1/marginwatch"',
    "The database postgresql://someone:***@127.0.0.1:1/marginwatch cannot be used (connection failed: connection to "
    'server at "127.0.0.1", port 1 failed: Connection refused); start it, or correct database.url in the '
    "configuration.",
)


@pytest.mark.parametrize(("settings", "text"), [DAMAGED, AWAY])
@pytest.mark.parametrize("command", [["plan", "list"], ["plan", "add", "{plan}"], ["serve"], ["batch", "{plan}"]])
def test_a_database_that_cannot_be_used_is_status_1_with_what_to_do(
    monkeypatch, capsys, bench, command, settings, text
):
    config = bench.folder / "node.toml"
    config.write_text(settings)
    data = bench.folder / "data"
    data.mkdir()
    (data / "ledger.sqlite").write_bytes(b"no database " * 1000)
    plan = str(bench.patient().plan_folder(bench.folder / "plan"))
    arguments = [plan if argument == "{plan}" else argument for argument in command]
    status, out, err = invoke(monkeypatch, capsys, *arguments, "--config", str(config))
    assert (status, out) == (1, "")
    assert err == f"marginwatch: {text.format(data=data)}\n"


def test_a_ledger_that_proves_damaged_only_when_read_is_status_1_too(monkeypatch, capsys, bench):
    bench.ledger().close()
    config = bench.folder / "node.toml"
    config.write_text('data_folder = "data"')

    def plans(_):
        raise DatabaseError("SELECT", {}, Exception("database disk image is malformed"))

    monkeypatch.setattr(Ledger, "plans", plans)
    status, out, err = invoke(monkeypatch, capsys, "plan", "list", "--config", str(config))
    assert (status, out) == (1, "")
    assert "(database disk image is malformed); restore " in err


def test_batch_on_an_empty_folder_is_status_1(monkeypatch, capsys, bench):
    (bench.folder / "empty").mkdir()
    status, out, err = invoke(
        monkeypatch, capsys, "batch", str(bench.folder / "empty"), "--out", str(bench.folder / "out")
    )
    assert (status, out) == (1, "")
    assert err.endswith(f"marginwatch: There is neither a DICOM study nor a plan in {bench.folder / 'empty'}.\n")


@pytest.mark.parametrize(
    ("state", "status", "text"),
    [
        ("refused", 1, "marginwatch: 1 follow-up refused; mend what the list says of them and run batch again.\n"),
        ("failed", 1, "marginwatch: 1 follow-up failed; mend what the list says of them and run batch again.\n"),
        ("baseline", 0, ""),
    ],
)
def test_batch_says_in_one_sentence_what_was_not_assessed(monkeypatch, capsys, bench, state, status, text):
    item = {"study_instance_uid": "1.2", "patient_id": "P1", "plan_id": "P", "state": state, "code": "x", "text": "X."}

    def left(number):
        raise SystemExit(number)

    monkeypatch.setattr("dicom_node.batch.run_batch", lambda *_: BatchReport([], [item]))
    monkeypatch.setattr("dicom_node.cli._leave", left)
    said = invoke(monkeypatch, capsys, "batch", str(bench.folder), "--out", str(bench.folder / "out"))
    assert (said[0], said[2]) == (status, text)
    assert said[1].startswith("not assessed: P1  1.2: X. [x]\n")


HEAVY = ("torch", "numpy", "scipy", "SimpleITK", "pydicom", "pynetdicom", "highdicom", "dbos", "fastapi", "matplotlib")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["plan", "--help"], ["assess", "--help"], ["simulate", "--help"], ["plan", "list"]],
)
def test_a_short_command_loads_nothing_heavy(arguments, tmp_path):
    code = f"""
import sys
from dicom_node import cli
sys.argv = ["marginwatch", *{arguments}]
try:
    cli.main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == "[]\n"


def test_the_console_script_is_installed():
    script = Path(sys.executable).with_name("marginwatch")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.count(".") == 2
