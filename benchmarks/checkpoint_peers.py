"""What a checkpoint costs the training beside it: asynchooks, its peers, and the machine's floor, in one run.

Every contender saves the same state (a transformer's parameters with Adam's moments) beside the same steps, each
time in a fresh process, in rounds of shuffled order. Between saves the steps change the state. Each checkpoint is
loaded again and compared with the state at its capture. Prints one table per scene (store, size, kind of step) and
the goals of the project beside what was measured; asserts nothing.

    python benchmarks/checkpoint_peers.py --json peers.json --plot peers.png
    python benchmarks/checkpoint_peers.py --quick
    python benchmarks/checkpoint_peers.py --stores local --sizes 792 --peers asynchooks floor torch_checkpointing

benchmarks/README.md says what the columns mean, and what each peer does not do.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers.case import Case, Outcome
from peers.contender import Place
from peers.contenders import CONTENDERS, contender_class
from peers.places import Places, open_places
from peers.report import Scene, plot, scene_text, summarize
from peers.running import be_child, run_case
from peers.scenes import default_scenes, quick_scenes
from peers.verifying import Verifier, be_verifier
from readme_section import write_section

PACKAGES = ("torch", "asynchooks", "lightning", "torchsnapshot", "torch_checkpointing", "obstore")


def main() -> None:
    options = parse()
    if options.child:
        be_child(options.child)
        return
    if options.verifier:
        be_verifier()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or what was saved would stay
    from asynchooks._cli.demo._environment import describe_environment, environment_line

    scenes = chosen_scenes(options)
    environment = describe_environment(*PACKAGES)
    caption = f"{environment_line(environment)}; one torch thread"
    print(f"{caption}\n", flush=True)
    kinds = [scene.place for scene in scenes]
    results: list[dict[str, Any]] = []
    texts: list[str] = []
    with (
        open_places(kinds, options.folder, options.slow_mb_s, options.latency_ms / 1e3) as places,
        Verifier(__file__) as verifier,
    ):
        for scene in scenes:
            outcomes, refused = run_scene(scene, places, verifier, options)
            summary = summarize(scene, outcomes, refused)
            texts.append(scene_text(scene, summary))
            print(f"\n{texts[-1]}", flush=True)
            raw = {name: [asdict(outcome) for outcome in rounds] for name, rounds in outcomes.items()}
            results.append({"scene": asdict(scene), "summary": summary, "rounds": raw})
            if options.json:  # after each scene: a run that is stopped leaves what it has
                report = {"environment": environment, "scenes": results}
                options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(results, caption, options.plot)
    if options.write_readme:
        write_section("checkpoint_peers", "\n".join([f"{caption}.\n", *texts]))


def chosen_scenes(options: argparse.Namespace) -> list[Scene]:
    """Return the scenes to run, and say what is left out for want of a device."""
    import torch

    scenes = quick_scenes() if options.quick else default_scenes()
    has_cuda = torch.cuda.is_available()
    if not has_cuda:
        print("no CUDA device: its scenes are left out")
    scenes = [scene for scene in scenes if has_cuda or scene.device == "cpu"]
    if options.stores or options.sizes or options.workloads:
        scenes = [
            Scene(place, size_mb, workload, options.device, options.rounds or 2, 4)
            for place in options.stores or ["local"]
            for size_mb in options.sizes or [792]
            for workload in options.workloads or ["launch"]
        ]
    return [scene.narrowed(options.peers, options.rounds, options.saves) for scene in scenes]


def run_scene(
    scene: Scene, places: Places, verifier: Verifier, options: argparse.Namespace
) -> tuple[dict[str, list[Outcome]], dict[str, str]]:
    """Run all contenders of a scene in rounds; return what each found, and who cannot save there and why."""
    refused = {name: why for name in scene.peers if (why := _refusal(name, scene))}
    names = [name for name in scene.peers if name not in refused]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    order = random.Random(options.seed)
    for number in range(scene.rounds):
        order.shuffle(names)
        for name in names:
            start = time.perf_counter()
            with places.visit(scene.place) as visit:
                case = Case(
                    peer=name,
                    place=scene.place,
                    url=visit.url,
                    options=visit.options,
                    size_mb=scene.size_mb,
                    workload=scene.workload,
                    device=scene.device,
                    saves=scene.saves,
                    quiet_s=options.quiet_s,
                )
                outcome = run_case(__file__, case, visit, verifier, options.deadline_s or scene.deadline_s)
            outcomes[name].append(outcome)
            took_s = time.perf_counter() - start
            print(f"  {number + 1}/{scene.rounds} {name}: {took_s:.0f} s {outcome.error}", file=sys.stderr)
    return outcomes, refused


def _refusal(name: str, scene: Scene) -> str:
    return contender_class(name).refusal(Place(scene.place, "", {}))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small scene per kind of store")
    parser.add_argument("--stores", nargs="+", choices=["local", "tmpfs", "s3", "slow-s3"])
    parser.add_argument("--sizes", nargs="+", type=int, help="of the state, MB")
    parser.add_argument("--workloads", nargs="+", choices=["launch", "compute"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peers", nargs="+", help=f"parts of names; of: {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, help="fresh processes for each contender")
    parser.add_argument("--saves", type=int, help="in each; the first is told apart")
    parser.add_argument("--quiet-s", type=float, default=0.6, help="stepping between saves")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="of the local store")
    parser.add_argument("--slow-mb-s", type=float, default=75.0, help="speed of the slow S3 link")
    parser.add_argument("--latency-ms", type=float, default=20.0, help="of the slow S3 link, one way")
    parser.add_argument("--deadline-s", type=float, help="after which a process is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="write a picture (PNG) to this file")
    parser.add_argument(
        "--write-readme", action="store_true", help="put the tables into benchmarks/README.md"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--verifier", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
