"""Every privacy sentence of docs/privacy.md and of the program names a test that fails when it is false."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedser.privacy.sentences import facts, sentences
from fedser.privacy.settings import MaskingSettings, PrivacySettings, Unit

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "privacy.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def claims(page: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Rows of the tables whose last column is headed *test*: the claim, and the tests that it names."""
    found, inside = [], False
    for line in page.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            inside = False
        elif cells[-1] == "test":
            inside = True
        elif inside and not set(cells[0]) <= {"-", ":"}:
            found.append((cells[0], TEST.findall(cells[-1])))
    return found


def missing(test: tuple[str, str]) -> str:
    """Why a named test does not protect anything; empty where it does."""
    path, name = ROOT / test[0], test[1]
    if not path.is_file() or not path.name.startswith("test_"):
        return f"{test[0]} is no file of tests"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
            return f"{name} is skipped or may fail" if re.search(r"\.skip\b|skipif|xfail", marks) else ""
    return f"{test[0]} has no {name}"


def normal(text: str) -> str:
    """Words alone: numbers, names of units and markup differ from policy to policy."""
    return " ".join(re.sub(r"[`*\\]|[0-9.]+(e-?[0-9]+)?", " ", text).split())


CLAIMS = claims(PAGE.read_text(encoding="utf-8"))


def test_the_page_makes_claims() -> None:
    assert len(CLAIMS) >= 40
    assert len({claim for claim, _ in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize(("claim", "tests"), CLAIMS, ids=[claim[:60] for claim, _ in CLAIMS])
def test_each_claim_has_a_test_that_is_there(claim: str, tests: list[tuple[str, str]]) -> None:
    assert tests, claim
    assert [why for why in map(missing, tests) if why] == []


def test_the_named_tests_are_collected() -> None:
    named = sorted({f"{path}::{name}" for _, tests in CLAIMS for path, name in tests})
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        *named,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    collected = {re.sub(r"\[.*", "", line) for line in done.stdout.splitlines() if "::" in line}
    assert set(named) <= collected


def test_what_is_no_test_would_be_noticed() -> None:
    assert missing(("tests/test_privacy_claims.py", "test_nothing_of_this_name"))
    assert missing(("tests/nowhere/test_nothing.py", "test_x"))
    assert missing(("tests/conftest.py", "corpora"))
    page = "| claim | test |\n|---|---|\n| a promise | none |\n\n| other | column |\n|---|---|\n| x | y |\n"
    assert claims(page) == [("a promise", [])]


def test_every_sentence_that_the_program_prints_is_a_claim_of_the_page() -> None:
    units: tuple[Unit, ...] = ("none", "site", "speaker", "utterance")
    peers = {"site-b": "ab" * 32}
    masks = [
        MaskingSettings(),
        MaskingSettings(required=True),
        MaskingSettings(required=True, peers=peers),
        MaskingSettings(required=True, peers=peers, active=True),
    ]
    policies = [PrivacySettings(unit=unit, masking=mask, delta=1e-6) for unit, mask in itertools.product(units, masks)]
    policies.append(PrivacySettings(unit="site", ledger=Path("/srv/ledger.jsonl")))
    policies.append(PrivacySettings(unit="site", form="central", masking=masks[1]))
    told = {normal(sentence) for policy in policies for sentence in sentences(facts(policy))}
    page = [normal(claim) for claim, _ in CLAIMS]
    assert [sentence for sentence in sorted(told) if sentence not in page] == []


def test_no_privacy_sentence_is_printed_from_elsewhere() -> None:
    """Words of a claim, outside the one module that makes them of the policy, the docs and the settings' own texts."""
    words = re.compile(r"differentially private|differential privacy|nothing masks|is private\b", re.IGNORECASE)
    allowed = {
        "fedser/privacy",
        "fedser/attacks",  # what holds without any
        "client/fedser_client/policies.py",  # conditions on the keys of the file that it stands in
        "client/fedser_client/commands/status.py",  # where the unit is none
    }
    found = []
    for top in ("fedser", "client", "server"):
        for path in (ROOT / top).rglob("*.py"):
            place = path.relative_to(ROOT).as_posix()
            if any(place.startswith(prefix) for prefix in allowed):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
                if words.search(text) and not docstring(text, path):
                    found.append(f"{place}: {text[:80]}")
    assert found == []


def docstring(text: str, path: Path) -> bool:
    """Whether a text is one that readers of the code see, and users do not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, owners) and ast.get_docstring(node, clean=False) == text for node in ast.walk(tree))
