"""One call of the command line, from its arguments to its exit code.

0 done · 1 a gate, a verification or a measurement said no · 2 wrong usage, bad input, unsupported, missing extra ·
130 Ctrl-C · 143 terminated. A user's mistake is one `error[…]` line and its `help:`; a traceback is a bug of ours.

With --json, file descriptor 1 belongs to the one JSON document: everything else that is written to it, by a user's
metric or by a C library, goes to stderr.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from prunec.cli.answer import Answer, console
from prunec.diagnostics import Diagnostic, PrunecError

if TYPE_CHECKING:
    from rich.console import Console

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_INTERRUPTED, _TERMINATED = 130, 143


class Terminated(SystemExit):
    """SIGTERM came. Not an `Exception`, so that nothing on the way takes it for a mistake. `kept`: what is left."""

    kept = "nothing was written"


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    wants_json = "--json" in arguments
    with _termination_unwinds(), _only_json(wants_json) as stdout:
        try:
            result = _call(list(arguments) or ["--help"])
        except PrunecError as error:
            return _refuse(error.diagnostic, error.exit_code, stdout)
        except KeyboardInterrupt:
            result = _INTERRUPTED
        except Terminated as ended:
            return _refuse(Diagnostic("PC618", f"terminated; {ended.kept}"), _TERMINATED, stdout)
        except OSError as error:
            if error.errno == errno.EPIPE:
                return _closed_pipe()
            if error.errno not in _FULL:
                raise
            return _refuse(_disk_full(error), 2, stdout)
        if result == _INTERRUPTED:  # typer makes an exit code of Ctrl-C
            return _refuse(Diagnostic("PC618", "interrupted; nothing was written"), _INTERRUPTED, stdout)
        if isinstance(result, Answer):
            return _give(result, stdout)
    return int(result or 0)


def _call(arguments: list[str]) -> Any:
    """What the command returned, or an exit code. Wrong usage is a PrunecError like any other mistake."""
    import typer

    from prunec.cli.app import app

    warnings.simplefilter("ignore")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would leave a session file in TMPDIR
    try:
        return app(arguments, prog_name="prunec", standalone_mode=False)
    except typer.TyperException as usage:
        raise _usage_error(usage) from None


def _disk_full(error: OSError) -> Diagnostic:
    hint = "free some space, or point TMPDIR to another disk"
    return Diagnostic("PC605", "the disk is full; nothing was written", error.filename, hint)


def _usage_error(usage: Any) -> PrunecError:
    context = getattr(usage, "ctx", None)
    path = context.command_path if context is not None else "prunec"
    return PrunecError("PC200", usage.format_message().rstrip("."), hint=f"{path} --help")


def _give(answer: Answer, stdout: int | None) -> int:
    if stdout is not None:
        _write_json(stdout, answer.document)
        return answer.exit_code
    try:
        answer.show(console())
        sys.stdout.flush()
    except BrokenPipeError:  # `prunec inspect … | head`
        return _closed_pipe()
    return answer.exit_code


def _closed_pipe() -> int:
    """Whoever read our output has seen enough: not an error. What is still buffered must not fail at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _refuse(diagnostic: Diagnostic, code: int, stdout: int | None) -> int:
    show_diagnostic("error", diagnostic)
    if stdout is not None:
        _write_json(stdout, error_document(diagnostic, code))
    return code


def error_document(diagnostic: Diagnostic, code: int) -> dict[str, Any]:
    """`{"error": {"code", "message", "where", "hint", "details", "exit_code"}}`; what is not known is absent."""
    fields = {key: getattr(diagnostic, key) for key in ("code", "message", "where", "hint", "details")}
    return {"error": {**{key: value for key, value in fields.items() if value is not None}, "exit_code": code}}


def show_warnings(found: Iterable[Any]) -> None:
    """Warnings on stderr. Anything with the fields of a `Diagnostic` will do."""
    for warning in found:
        show_diagnostic("warning", Diagnostic(warning.code, warning.message, warning.where, warning.hint))


def show_diagnostic(kind: str, diagnostic: Diagnostic) -> None:
    """`error[PC201]: … (where)` and `help: …` on stderr; only the label is coloured."""
    from rich.text import Text

    style = {"error": "bold red", "warning": "bold yellow"}[kind]
    out = console(stderr=True)
    out.print(Text.assemble((kind, style), str(diagnostic)), soft_wrap=True)
    if diagnostic.details is not None and "curve" in diagnostic.details:
        _show_choices(out, diagnostic.details["curve"])
    if diagnostic.hint:
        out.print(Text.assemble(("help", "bold"), f": {diagnostic.hint}"), soft_wrap=True)


def _show_choices(out: Console, choices: Sequence[Mapping[str, Any]]) -> None:
    """What was judged on the way to a refusal, a line for each."""
    from rich.table import Table

    from prunec.report import units

    table = Table("times as fast", "", "drop", "at most (90 %)")
    for one in choices:
        how = "measured" if one["is_measured"] else "predicted"
        drops = (units.number(one[name]) if name in one else "–" for name in ("drop", "drop_upper"))
        table.add_row(units.factor(one["speedup"]), how, *drops)
    out.print(table)


def _write_json(stdout: int, document: Any) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with suppress(BrokenPipeError), os.fdopen(os.dup(stdout), "w", encoding="utf-8") as stream:
        stream.write(text)


@contextmanager
def _only_json(wanted: bool) -> Iterator[int | None]:
    """Keep the real stdout for the document and send everything else that is printed to stderr."""
    if not wanted:
        yield None
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield saved
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """SIGTERM leaves nothing behind either: it unwinds the stack, as Ctrl-C does."""

    def leave(number: int, frame: object) -> None:
        raise Terminated(_TERMINATED)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
