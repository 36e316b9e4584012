"""Guessing gets slow, and whoever guesses slows only their own address."""

from __future__ import annotations

from dicom_node.review.attempts import Attempts


def fail(attempts: Attempts, address: str, name: str, times: int) -> list[float]:
    return [attempts.begin(address, name) for _ in range(times)]


def test_after_some_failures_each_one_doubles_the_wait():
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    assert fail(attempts, "10.0.0.1", "anna", 5) == [0.0] * 5
    waits = []
    for _ in range(12):
        waits.append(attempts.begin("10.0.0.1", "anna"))
        now[0] += waits[-1]
        assert attempts.begin("10.0.0.1", "anna") == 0
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == 300


def test_nobody_is_locked_out_from_another_address():
    attempts = Attempts(lambda: 0.0)
    fail(attempts, "10.0.0.1", "anna", 100)
    assert attempts.begin("10.0.0.1", "anna") > 0
    assert attempts.begin("10.0.0.2", "anna") == 0


def test_one_address_cannot_try_names_without_end():
    attempts = Attempts(lambda: 0.0)
    waits = [attempts.begin("10.0.0.1", f"user{n}") for n in range(60)]
    assert waits[:50] == [0.0] * 50
    assert min(waits[50:]) > 0


def test_a_machines_many_ipv6_addresses_are_one():
    attempts = Attempts(lambda: 0.0)
    for n in range(5):
        assert attempts.begin(f"fd00::{n + 1:x}", "anna") == 0
    assert attempts.begin("fd00::ffff", "anna") > 0
    assert attempts.begin("fd00:0:0:1::1", "anna") == 0


def test_a_success_and_time_wipe_failures_out():
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    fail(attempts, "10.0.0.1", "anna", 5)
    attempts.succeeded("10.0.0.1", "anna")
    assert attempts.begin("10.0.0.1", "anna") == 0
    fail(attempts, "10.0.0.1", "bert", 5)
    assert attempts.begin("10.0.0.1", "bert") > 0
    now[0] += 3600
    assert fail(attempts, "10.0.0.1", "bert", 5) == [0.0] * 5


def test_tries_that_have_no_answer_yet_count():
    attempts = Attempts(lambda: 0.0)
    assert sum(wait == 0 for wait in fail(attempts, "10.0.0.1", "anna", 40)) == 5


def test_memory_is_bounded():
    attempts = Attempts(lambda: 0.0)
    for n in range(6000):
        attempts.begin(f"10.0.{n // 250}.{n % 250}", "anna")
    assert len(attempts._failures) <= 10_000
