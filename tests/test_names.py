"""What a name may be, and which name a misspelled one may stand for."""

from __future__ import annotations

import pytest

from hub.names import MAX_NAME_BYTES, fault, hint, mistyped, nearest, plain

KNOWN = ["topic", "last_event_id", "from", "envelope", "buffer-bytes"]


@pytest.mark.parametrize("name", ["a", "a/b/c", "*", "a/**/b", "订单", "a b", "x" * MAX_NAME_BYTES])
def test_a_name_or_pattern_without_a_fault(name: str):
    assert fault(name, "/") == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (None, "is not a string"),
        ("", "is empty"),
        ("/", "empty segment"),
        ("a//b", "empty segment"),
        ("a\n", "control"),
        ("a\u202e", "format"),
        ("\ud800", "UTF-8"),
        ("é" * 129, "256 bytes"),
        ("x" * 1_000_000, "256 bytes"),
        ("a/b/c/d", "more than 3 segments"),
        ("a*/b", "whole segments"),
        ("***", "whole segments"),
    ],
)
def test_a_fault_is_said(name: object, why: str):
    assert why in fault(name, "/", 3)


def test_spellings_differ_in_capitals_hyphens_and_underscores_only():
    assert plain("Last-Event_ID") == plain("lastEventId") == "lasteventid"
    assert plain("last.event.id") != plain("lastEventId")


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("Topic", "topic"),
        ("TOP_IC", "topic"),
        ("topc", "topic"),
        ("toppic", "topic"),
        ("topics", "topic"),
        ("tpoic", "topic"),
        ("frmo", "from"),
        ("lastEventId", "last_event_id"),
        ("lasteventi", "last_event_id"),
        ("lastEvnetId", "last_event_id"),
        ("last_event_idss", "last_event_id"),
        ("envelobe", "envelope"),
        ("bufferByte", "buffer-bytes"),
    ],
)
def test_a_typo_stands_for_what_was_meant(typo: str, meant: str):
    assert mistyped(typo, KNOWN) == meant


@pytest.mark.parametrize(
    "name", ["tonic", "tropic", "topical", "opic", "form2", "room", "user", "envoy", "event_id", "", "x" * 10_000]
)
def test_a_word_of_its_own_stands_for_nothing_else(name: str):
    assert mistyped(name, KNOWN) == ""


def test_a_hint_is_more_generous_than_a_verdict():
    assert mistyped("buffersize-bytes", KNOWN) == ""
    assert nearest("buffersize-bytes", KNOWN) == "buffer-bytes"
    assert hint("buffersize-bytes", KNOWN) == "did you mean buffer-bytes? "
    assert nearest("colour", KNOWN) == hint("colour", KNOWN) == ""
