"""Run the workloads and write RESULTS.md and results.json.

python -m bench.results                        # all groups but the soak: `make bench`
python -m bench.results --only table,mask      # these groups; the others stay as they were
python -m bench.results --only mining          # all groups whose names begin with mining_
python -m bench.results --quick                # small sizes, few rounds, into runs/bench-quick
python -m bench.results --only soak --draws 1e9        # `make soak`

Every group runs in a process of its own: its memory is given back, and a crash or an endless loop
costs one group.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import groups, report
from bench.groups import APART, NAMES
from bench.report import Group, Row
from bench.worlds import FULL, QUICK, Scale

HERE = Path(__file__).resolve().parent
_LIMIT = 3_600.0  # seconds for one group


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 where a group failed."""
    options = _parse(arguments)
    scale = QUICK if options.quick else FULL
    if options.child:
        _measure(options.child, scale, options.draws, Path(options.json))
        return 0
    default = Path("runs/bench-quick") if options.quick else HERE
    folder = Path(options.out) if options.out else default
    failed = []
    for name in _chosen(options.only):
        print(f"{name} ...", flush=True)
        found = _in_process(name, options)
        stored = report.load(folder / "results.json")
        stored["groups"][name] = found
        report.write(folder, stored, [*NAMES, *APART], quick=options.quick)
        if found["failed"]:
            failed.append(name)
        print(_summary(name, found), flush=True)
    print(f"written: {folder / 'RESULTS.md'}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.results", description=__doc__)
    names = ", ".join([*NAMES, *APART])
    parser.add_argument("--only", help=f"groups, separated by commas: {names}")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--draws", type=float, default=1e9, help="of the soak")
    parser.add_argument("--out", help="folder of RESULTS.md and results.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--json", help=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser.parse_args(arguments)


def _chosen(only: str | None) -> list[str]:
    if only is None:
        return list(NAMES)
    every, wanted = [*NAMES, *APART], []
    for name in [name.strip() for name in only.split(",") if name.strip()]:
        found = [known for known in every if known == name or known.startswith(f"{name}_")]
        if not found:
            sys.exit(f"no group {name}; there are {', '.join(every)}")
        wanted += found
    return list(dict.fromkeys(wanted))


def _measure(name: str, scale: Scale, draws: float, path: Path) -> None:
    """The child: one group, as JSON."""
    from bench.machine import facts

    machine = facts()
    if name == "soak":
        from bench.groups import soak

        group = Group(soak.TITLE)
        soak.run(scale, group, int(min(draws, 1e7) if scale.quick else draws))
    else:
        group = groups.run(name, scale)
    path.write_text(json.dumps({**report.as_json(group), "machine": machine}), encoding="utf-8")


def _in_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    reason = ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "group.json"
        command = [sys.executable, "-m", "bench.results", "--child", name, "--json", str(path)]
        command += ["--draws", str(options.draws)] + ["--quick"] * options.quick
        try:
            status = subprocess.run(command, check=False, timeout=_LIMIT).returncode
            reason = f"the process ended with status {status}" if status else ""
        except subprocess.TimeoutExpired:
            reason = f"not done after {_LIMIT:g} s"
        if not reason:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        else:
            found = _failure(name, reason)
    found["failed"] = bool(reason)
    found["seconds"] = time.perf_counter() - started
    found["when"] = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return found


def _failure(name: str, reason: str) -> dict[str, Any]:
    from bench.machine import facts

    group = Group(groups.find(name).TITLE, [Row("the whole group", note=f"FAILED: {reason}")])
    return {**report.as_json(group), "machine": facts()}


def _summary(name: str, found: dict[str, Any]) -> str:
    judged = [row for row in found["rows"] if row["reached"] is not None]
    missed = [row for row in judged if not row["reached"]]
    lines = [
        f"{name}: {len(judged) - len(missed)} of {len(judged)} goals, {found['seconds']:.0f} s"
    ]
    for row in missed:
        ratio = "" if row["ratio"] is None else f", ratio {row['ratio'][0]:.3g}"
        figure = "" if row["ours"] is None else f" {row['ours']:.3g} {row['unit']}"
        threads = f", {row['threads']} threads" if row["threads"] > 1 else ""
        against = f" against {row['against']}" if row["against"] else ""
        lines.append(
            f"  missed: {row['what']}, {row['size']}{threads}{against}:{figure}{ratio} "
            f"(goal {row['goal']})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
