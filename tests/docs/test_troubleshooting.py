"""Whatever the programs end with or the doctor says has a line in docs/troubleshooting.md, and no line is too many."""

import ast
import re

from edge.errors import exit_meanings
from export.edgetpu.commands import NOT_MAPPED
from tests.conftest import ROOT
from tests.docs.pages import rows

PAGE = ROOT / "docs" / "troubleshooting.md"
USUAL = {0, 1, 2, 130}  # done, some fault, argparse, Ctrl-C (edge/system/shutdown.py)


def trees() -> list[ast.Module]:
    files = [file for room in ("edge", "train", "export") for file in sorted((ROOT / room).rglob("*.py"))]
    return [ast.parse(file.read_text()) for file in files]


def codes_of_errors() -> set[int]:
    """The constants that classes assign to ``exit_code``."""
    return {
        step.value.value
        for tree in trees()
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef)
        for step in kind.body
        if isinstance(step, ast.Assign)
        and isinstance(step.targets[0], ast.Name)
        and step.targets[0].id == "exit_code"
        and isinstance(step.value, ast.Constant)
        and isinstance(step.value.value, int)
    }


def test_exit_codes_are_documented_and_no_others() -> None:
    documented = [int(row[0]) for row in rows(PAGE, "code")]
    assert documented == sorted(codes_of_errors() | {NOT_MAPPED} | USUAL)
    assert set(exit_meanings()) <= set(documented)
    assert [row for row in rows(PAGE, "code") if not row[1] or not (row[2] or row[0] in ("0", "130"))] == []


def test_help_names_no_code_that_is_not_documented() -> None:
    documented = {row[0] for row in rows(PAGE, "code")}
    for files in ((ROOT / "edge" / "cli").glob("*.py"), [ROOT / "export" / "help_texts.py"]):
        _, _, listed = "".join(file.read_text() for file in files).partition("exit codes: ")
        named = set(re.findall(r"(?:^|; )\s*(\d+) ", re.sub(r"\n\s*", " ", listed.partition('"""')[0])))
        assert len(named) > 5
        assert named <= documented


def findings() -> dict[str, set[str]]:
    """By name of each Finding that edge/diagnostics makes, the levels that its code can give it."""
    found: dict[str, set[str]] = {}
    modules = [ast.parse(file.read_text()) for file in (ROOT / "edge" / "diagnostics").glob("*.py")]
    for function in [node for module in modules for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]:
        given = {
            target.id: step.value
            for step in ast.walk(function)
            if isinstance(step, ast.Assign | ast.AnnAssign) and step.value
            for target in (step.targets if isinstance(step, ast.Assign) else [step.target])
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Finding":
                name, level = call.args[:2]
                if isinstance(name, ast.Constant):
                    meant = given[level.id] if isinstance(level, ast.Name) else level
                    words = {part.value for part in ast.walk(meant) if isinstance(part, ast.Constant)}
                    found.setdefault(str(name.value), set()).update(words & {"fail", "warn"})
    return found


def test_every_finding_of_the_doctor_is_documented_with_what_to_do() -> None:
    documented = {
        name: ({"fail"} if fails else set()) | ({"warn"} if warns else set())
        for name, fails, warns, _ in rows(PAGE, "check")
    }
    assert documented == findings()
    assert [name for name, *_, do in rows(PAGE, "check") if not do] == []


def test_every_check_of_the_doctor_is_in_its_example() -> None:
    """Those that only a device with an Edge TPU has may be missing."""
    shown = set(re.findall(r"^(?:ok|warn|fail) +(\w+(?: \w+)?)  ", PAGE.read_text(), re.MULTILINE))
    assert set(findings()) - shown == {"libedgetpu", "tpu trial"}


def test_every_symptom_has_something_to_do() -> None:
    assert len(rows(PAGE, "what you see")) > 15
    assert [row[0] for row in rows(PAGE, "what you see") if not row[2]] == []


def test_the_page_is_found_where_errors_are_defined() -> None:
    assert str(PAGE.relative_to(ROOT)) in (ROOT / "edge" / "errors.py").read_text()
