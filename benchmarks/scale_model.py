"""How a sharded save scales: a discrete-event simulation of its data, its meeting and its commit, to 16,384 ranks.

Constants of the rendezvous and of the metadata are measured on this machine; what is known of S3 is documented or
assumed, and named in `scale/assumptions.py`. Findings: scale.md.

    python benchmarks/scale_model.py             the scenes, 220 s of CPU in two processes
    python benchmarks/scale_model.py --measure   measures the constants first, and uses them
    python benchmarks/scale_model.py --validate  beside 2, 3 and 4 real ranks
    python benchmarks/scale_model.py --check     the model's own laws
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from readme_section import write_section
from scale.assumptions import MB, Job, Layout, MeetingCosts, ObjectCosts
from scale.local_costs import measure_assembling, measure_s3
from scale.meeting import meet
from scale.report import draw, tables, validation_table
from scale.scenes import PROPOSED, scenes, simulate_all
from scale.store_costs import measure_store
from scale.validating import validate
from scale.writing import write_data

from asynchooks._cli.demo._environment import describe_environment, environment_line

HERE = Path(__file__).parent


def measured(costs: MeetingCosts) -> MeetingCosts:
    """Measure, print, and return the constants."""
    constants, series = measure_store()
    for each in series:
        print(
            f"{each['action']:>10} {each['bytes']:>9,} B, {each['clients']} clients: {each['s_per_op'] * 1e6:,.1f} µs"
        )
    assembling = measure_assembling()
    known = asdict(costs)
    found: dict[str, Any] = {key: value for key, value in (constants | assembling).items() if key in known}
    found["item_bytes"] = round(assembling["item_bytes"])
    print(json.dumps({**constants, **assembling, "S3 on this machine": measure_s3()}, indent=2))
    return replace(costs, **found)


def check() -> None:
    """Assert the model's laws: work is conserved, a seed decides everything, limits hold, more ranks cost more."""
    objects = ObjectCosts()
    for ranks, part in ((8, 8), (64, 64), (700, 512)):
        job, layout = Job(ranks), Layout(part_bytes=part * MB, paced=True)
        first, again = (write_data(job, layout, objects, 3) for _ in range(2))
        assert first == again, "the same seed gave another save"
        assert first.failed == 0
        assert first.nbytes == ranks * job.rank_bytes, "bytes were lost or written twice"
        parts = -(-400 // part)
        assert first.requests == ranks * (parts + 2 if parts > 1 else 1), first.requests
        assert first.peak_per_s <= 2 * objects.writes_per_s, (
            first.peak_per_s
        )  # a second's worth saved, and one
        met = meet(job, PROPOSED, MeetingCosts(), objects, first.done_s, 3)
        assert met == meet(job, PROPOSED, MeetingCosts(), objects, first.done_s, 3)
        assert max(first.done_s) <= met.arrived_s <= met.assembled_s <= met.committed_s <= met.departed_s
        assert met.server_bytes >= (ranks - 1) * met.result_bytes
        assert met != meet(job, PROPOSED, MeetingCosts(), objects, first.done_s, 4)
    local = measure_s3()
    for found in (validate(ranks, replace(MeetingCosts(), item_s=0.0), local) for ranks in (2, 4)):
        ratio = found.model_meeting_s / found.real_meeting_s[1]
        assert 0.1 < ratio < 10, f"{found}: the model is {ratio:.2f} of what real ranks take"
    print("the model's laws hold")


def show(lines: Iterable[str]) -> list[str]:
    """Print, and return them."""
    told = list(lines)
    print("\n".join(told))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for flag in ("--quick", "--measure", "--validate", "--check", "--write"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    if chosen.check:
        check()
        return
    costs = measured(MeetingCosts()) if chosen.measure else MeetingCosts()
    lines = show([f"{environment_line(describe_environment('torch', 'simpy'))}.", ""])
    if chosen.validate or chosen.write:
        local = measure_s3()
        without = replace(costs, item_s=0.0)  # the ranks there assemble nothing
        lines += show([*validation_table([validate(ranks, without, local) for ranks in (2, 3, 4)]), ""])
    outcomes = simulate_all(list(scenes(quick=chosen.quick)), costs)
    lines += show(tables(outcomes))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(each) for each in outcomes], default=sorted))
    if chosen.plot or chosen.write:
        draw(outcomes, chosen.plot or HERE / "scale_model.svg")
    if chosen.write:
        write_section("scale_model", "\n".join(lines), HERE / "scale.md")


if __name__ == "__main__":
    main()
