"""Users and sessions: what is kept of a password, who is verified, when a session ends."""

from __future__ import annotations

import sqlite3
import stat
import time
from contextlib import closing

import pytest

from dicom_node.accounts import Accounts, SessionLimits
from dicom_node.passwords import NOBODYS, check_password, hashed, matches
from dicom_node.refusal import Refused

CHEAP = (2**4, 8, 1)
LIMITS = SessionLimits(idle_s=600, longest_s=3600)


@pytest.fixture
def now() -> list[float]:
    return [1_700_000_000.0]


@pytest.fixture
def accounts(bench, now, monkeypatch):
    monkeypatch.setattr("dicom_node.accounts.hashed", lambda password: hashed(password, CHEAP))
    ledger = bench.ledger()
    yield Accounts(ledger.engine, clock=lambda: now[0])
    ledger.close()


def test_a_password_is_known_again_and_nothing_of_it_is_kept():
    kept = hashed("correct horse")
    assert matches("correct horse", kept)
    assert not matches("correct hors", kept)
    assert not matches("", NOBODYS)
    assert "correct" not in kept
    assert hashed("correct horse") != kept


def test_the_same_letters_typed_otherwise_are_the_same_password():
    assert matches("pa\u0308sswordpassword", hashed("p\u00e4sswordpassword", CHEAP))


@pytest.mark.parametrize("password", ["", "123456789", "x" * 257])
def test_too_short_and_too_long_are_refused(password):
    with pytest.raises(Refused, match="10 to 256"):
        check_password(password)


def test_who_is_nobody_takes_as_long_as_who_has_a_wrong_password(bench):
    ledger = bench.ledger()
    accounts = Accounts(ledger.engine, clock=time.time)
    accounts.add("anna", "reader", "correct horse")

    def took(name: str) -> float:
        began = time.process_time()
        assert accounts.verified(name, "wrong horse!") is None
        return time.process_time() - began

    known = min(took("anna") for _ in range(4))
    unknown = min(took("nobody") for _ in range(4))
    assert 0.5 < known / unknown < 2
    ledger.close()


def test_users_are_added_once_listed_verified_and_removed(accounts):
    assert not accounts.exist()
    accounts.add("anna", "reader", "correct horse")
    accounts.add("root", "admin", "correct horse")
    with pytest.raises(Refused, match="marginwatch user password anna"):
        accounts.add("anna", "admin", "another horse")
    assert [(user.name, user.role) for user in accounts.users()] == [("anna", "reader"), ("root", "admin")]
    assert accounts.verified("anna", "correct horse")[0].role == "reader"
    assert accounts.verified("anna", "another horse") is None
    accounts.set_password("anna", "another horse")
    assert accounts.verified("anna", "another horse")
    accounts.remove("anna")
    assert accounts.verified("anna", "another horse") is None
    for act in (lambda: accounts.remove("anna"), lambda: accounts.set_password("anna", "another horse")):
        with pytest.raises(Refused, match="no user anna"):
            act()


@pytest.mark.parametrize("name", ["", "Anna", "a b", "../x", "a" * 65, "anna\n", "<b>"])
def test_a_name_is_a_plain_word(accounts, name):
    with pytest.raises(Refused, match="cannot be a user's name"):
        accounts.add(name, "reader", "correct horse")


def test_a_session_ends_when_idle_when_old_and_when_logged_out(accounts, now):
    accounts.add("anna", "reader", "correct horse")
    user, _ = accounts.verified("anna", "correct horse")
    token = accounts.log_in(user, LIMITS)
    for _ in range(6):  # in use, it goes on past the idle time …
        now[0] += 500
        assert accounts.session_user(token, LIMITS) == user
    now[0] += 650  # … but not past the longest one
    assert accounts.session_user(token, LIMITS) is None
    token = accounts.log_in(user, LIMITS)
    now[0] += 601
    assert accounts.session_user(token, LIMITS) is None
    token = accounts.log_in(user, LIMITS)
    accounts.log_out(token)
    assert accounts.session_user(token, LIMITS) is None


def test_a_removed_user_and_a_new_password_end_every_session(accounts):
    for end in (lambda: accounts.set_password("anna", "another horse"), lambda: accounts.remove("anna")):
        if not accounts.exist():
            accounts.add("anna", "reader", "correct horse")
        tokens = [accounts.log_in(accounts.users()[0], LIMITS) for _ in range(2)]
        assert all(accounts.session_user(token, LIMITS) for token in tokens)
        end()
        assert not any(accounts.session_user(token, LIMITS) for token in tokens)


def test_the_database_holds_no_token_and_is_private(accounts, bench):
    accounts.add("anna", "reader", "correct horse")
    token = accounts.log_in(accounts.users()[0], LIMITS)
    file = bench.settings.data_folder / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as database:
        said = str(
            database.execute("SELECT * FROM sessions").fetchall() + database.execute("SELECT * FROM users").fetchall()
        )
    assert "anna" in said
    assert token not in said
    assert "horse" not in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
