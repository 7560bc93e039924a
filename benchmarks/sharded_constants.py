"""What lies below a sharded checkpoint: DCP's planning, its metadata, who writes what, and a TCPStore's answers.

    python benchmarks/sharded_constants.py --json constants.json
    python benchmarks/sharded_constants.py --only planning

Prints tables; asserts nothing. Ranks, and the store's server, share the cores of one machine.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import time
from pathlib import Path
from typing import Any

_TENSORS = (300, 5_000)
_RANKS = (1, 2, 4)
_REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["planning", "store"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from sharded_peers.meeting_costs import as_rows, measure_store, store_table

    from asynchooks._cli.demo._environment import describe_environment, environment_line

    environment = describe_environment("torch")
    print(f"{environment_line(environment)}\n")
    report: dict[str, Any] = {"environment": environment}
    if options.only != "store":
        report["planning"] = rows = [
            measure_planning(ranks, tensors, kind)
            for tensors in _TENSORS
            for ranks in _RANKS
            for kind in ("replicated", "sharded")
            if ranks > 1 or kind == "replicated"
        ]
        print(planning_table(rows), flush=True)
    if options.only != "planning":
        costs = [cost for clients in (1, 2, 4) for cost in measure_store(clients)]
        report["store"] = as_rows(costs)
        print(f"\n{store_table(costs)}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure_planning(ranks: int, tensors: int, kind: str) -> dict[str, Any]:
    """Return milliseconds of each step of DCP's planning, on the rank where it took longest, and what comes out."""
    from asynchooks.testing import run_ranks

    found = run_ranks(ranks, _plan, tensors, kind, timeout_s=240.0)
    times = {name: max(each["ms"][name] for each in found if name in each["ms"]) for name in found[0]["ms"]}
    return {"ranks": ranks, "tensors": tensors, "kind": kind, **found[0], "ms": times}


def planning_table(rows: list[dict[str, Any]]) -> str:
    """Return it in Markdown."""
    head = (
        "| tensors | ranks | state | first plan ms | cached plan ms | local, compare, dedup + global, validate ms "
        "| all_reduce ms | .metadata KB | pickle, unpickle it ms | MB of each rank: balanced; to the lowest |"
    )
    lines = [head, "|---:|---:|---|" + "---:|" * 7]
    for row in rows:
        ms = row["ms"]
        lines.append(
            f"| {row['tensors']:,} | {row['ranks']} | {row['kind']} | {ms['first']:.1f} | {ms['cached']:.1f} "
            f"| {ms['local']:.1f}, {ms['compare']:.1f}, {ms['global']:.1f}, {ms['validate']:.1f} | {ms['vote']:.2f} "
            f"| {row['metadata_bytes'] / 1e3:,.0f} | {ms['pickle']:.1f}, {ms['unpickle']:.1f} "
            f"| {_megabytes(row['balanced'])}; {_megabytes(row['lowest'])} |"
        )
    return "\n".join(lines)


def _megabytes(counts: list[int]) -> str:
    return ", ".join(f"{count / 1e6:.1f}" for count in counts)


def _plan(rank: int, tensors: int, kind: str) -> dict[str, Any]:
    """On each rank."""
    import warnings

    import torch
    import torch.distributed as dist
    from torch.distributed.checkpoint.default_planner import (
        DefaultSavePlanner,
        _validate_global_plan,
        create_default_global_save_plan,
        create_default_local_save_plan,
    )
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.planner_helpers import _compare_save_plans
    from torch.distributed.checkpoint.utils import _DistWrapper

    warnings.simplefilter("ignore")
    state = _state(tensors, kind)
    group = _DistWrapper(None, use_dist=True, coordinator_rank=0)
    writer: Any = FileSystemWriter("unused")
    ms: dict[str, list[float]] = {}

    def timed(name: str, call: Any) -> Any:
        dist.barrier()
        start = time.perf_counter()
        answer = call()
        ms.setdefault(name, []).append((time.perf_counter() - start) * 1e3)
        return answer

    def through_dcp(planner: DefaultSavePlanner) -> Any:
        """What `dcp.save` does before it writes."""

        def local() -> Any:
            planner.set_up_planner(state, is_coordinator=rank == 0)
            return planner.create_local_plan()

        def together(plans: Any) -> Any:
            return writer.prepare_global_plan(planner.create_global_plan(plans)[0])

        return planner.finish_plan(group.reduce_scatter("plan", local, together))

    for _ in range(_REPEATS):
        timed("first", lambda: through_dcp(DefaultSavePlanner()))
    caching = DefaultSavePlanner(enable_plan_caching=True)
    through_dcp(caching)
    for _ in range(_REPEATS):
        timed("cached", lambda: through_dcp(DefaultSavePlanner(enable_plan_caching=True)))
    flag = torch.zeros(1, dtype=torch.uint8)
    for _ in range(20):
        timed("vote", lambda: dist.all_reduce(flag, dist.ReduceOp.MAX))
    flat = caching.state_dict
    for _ in range(_REPEATS):
        plan = timed("local", lambda: create_default_local_save_plan(flat, rank == 0))
    other = create_default_local_save_plan(flat, rank == 0)
    for _ in range(_REPEATS):
        timed("compare", lambda: _compare_save_plans(plan, other))
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, plan)

    def together(planner: DefaultSavePlanner) -> Any:
        return create_default_global_save_plan(planner._dedup_save_plans(list(every)))  # noqa: SLF001

    for _ in range(_REPEATS):
        plans, metadata = timed("global", lambda: together(DefaultSavePlanner()))
    timed("validate", lambda: _validate_global_plan(plans, metadata))
    lowest, _ = together(DefaultSavePlanner(dedup_save_to_lowest_rank=True))
    _as_written(metadata, plans)
    data = pickle.dumps(metadata)
    for _ in range(_REPEATS):
        timed("pickle", lambda: pickle.dumps(metadata))
        timed("unpickle", lambda: pickle.loads(data))
    return {
        "ms": {name: statistics.median(took) for name, took in ms.items()},
        "metadata_bytes": len(data),
        "balanced": [_bytes_of(plan) for plan in plans],
        "lowest": [_bytes_of(plan) for plan in lowest],
    }


def _as_written(metadata: Any, plans: Any) -> None:
    """Put in what `FileSystemWriter.finish` adds: where each item lies."""
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    metadata.storage_data = {
        item.index: _StorageInfo(f"__{rank}_0.distcp", 1_000_000 + number, 1_000_000)
        for rank, plan in enumerate(plans)
        for number, item in enumerate(plan.items)
    }


def _bytes_of(plan: Any) -> int:
    return sum(
        4 * item.tensor_data.chunk.sizes.numel() for item in plan.items if item.tensor_data is not None
    )


def _state(tensors: int, kind: str) -> dict[str, Any]:
    """So many tensors, a quarter of them large, as a transformer has them with Adam's moments."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    state: dict[str, Any] = {"meta": {"step": 0}}
    for number in range(tensors):
        tensor = torch.zeros(64, 64 if number % 4 == 0 else 1)
        value = distribute_tensor(tensor, mesh, [Shard(0)]) if kind == "sharded" else tensor
        state[f"optimizer.state.blocks.{number // 32}.attention.{number % 32}.exp_avg"] = value
    return state


if __name__ == "__main__":
    main()
