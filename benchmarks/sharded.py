"""What a checkpoint of many ranks costs the training: `torch.distributed.checkpoint` and asynchooks, in one run.

Ranks on one machine, with gloo, hold a transformer's state with Adam's moments, replicated or sharded by FSDP2, and
do steps that meet in an all_reduce. All contenders live in the same ranks and take turns, in an order shuffled anew
for each turn. Each checkpoint is read back by plain `dcp.load` in another process and compared, shard by shard,
with the state at the call. Prints one table per scene; asserts nothing.

    python benchmarks/sharded.py --json sharded.json --s3fs FOLDER
    python benchmarks/sharded.py --quick
    python benchmarks/sharded.py --only ours,dcp_process --ranks 2 --store local

benchmarks/README.md says what the columns mean. benchmarks/sharded_constants.py measures what lies below.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers.places import Places, Visit
    from sharded_peers.case import SaveResult, Scene

_PACKAGES = ("torch", "asynchooks", "fsspec", "obstore")
_LOOK_S = 0.01


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or what was saved would stay
    from peers.places import open_places
    from readme_section import write_section
    from sharded_peers.report import notes_text, scene_text, summarize

    from asynchooks._cli.demo._environment import describe_environment, environment_line

    if options.s3fs:
        sys.path.insert(0, str(options.s3fs))  # versions are asked of it
    scenes = chosen_scenes(options)
    environment = describe_environment(*_PACKAGES, "s3fs", "aiobotocore")
    caption = f"{environment_line(environment)}; one torch thread per rank; ranks, server and reader share the cores"
    print(f"{caption}\n", flush=True)
    texts: list[str] = []
    done: list[dict[str, Any]] = []
    with open_places([scene.store for scene in scenes], options.folder, 0.0, 0.0) as places:
        for scene in scenes:
            start = time.perf_counter()
            results, refused, problem = run_scene(scene, places, options)
            rows = summarize(scene, results, refused)
            texts.append(scene_text(scene, rows, problem))
            print(f"{texts[-1]}\n", flush=True)
            print(f"  {scene.title}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
            done.append(
                {
                    "scene": asdict(replace(scene, options={})),
                    "summary": rows,
                    "saves": [asdict(each) for each in results],
                }
            )
            if options.json:  # after each scene: a run that is stopped leaves what it has
                report = {"environment": environment, "scenes": done}
                options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    notes = notes_text(scenes[0].names)
    print(notes)
    if options.write_readme:
        write_section("sharded", "\n".join([f"{caption}.\n", *texts, notes]))


def chosen_scenes(options: argparse.Namespace) -> list[Scene]:
    """Return what to run; a single rank has nothing to shard."""
    from sharded_peers.case import Scene
    from sharded_peers.savers import SAVERS

    names = tuple(SAVERS)
    if options.only:
        names = tuple(name for name in SAVERS if name in options.only.split(","))
        unknown = set(options.only.split(",")) - set(SAVERS)
        if unknown:
            sys.exit(
                f"--only: no such contender: {', '.join(sorted(unknown))}; there are {', '.join(SAVERS)}"
            )
    ranks = options.ranks or ([2] if options.quick else [1, 2, 4])
    kinds = options.state or ["replicated", "fsdp2"]
    saves = options.saves or (2 if options.quick else 3)
    size_mb = options.size_mb or (60 if options.quick else 100)
    return [
        Scene(
            count, store, kind, size_mb, options.layers, saves, options.quiet_s, names,
            s3fs=str(options.s3fs.resolve()) if options.s3fs else "",
        )
        for store in options.store or ["local", "s3"]
        for count in ranks
        for kind in kinds
        if count > 1 or kind == "replicated"
    ]  # fmt: skip


def run_scene(
    scene: Scene, places: Places, options: argparse.Namespace
) -> tuple[list[SaveResult], dict[str, str], str]:
    """Run a scene; return what was measured, who cannot save there and why, and why it did not end, if so."""
    from peers.questions import Desk
    from sharded_peers.case import SaveResult
    from sharded_peers.on_rank import take_turns
    from sharded_peers.savers import saver_class

    from asynchooks.testing import Ranks

    refused = {name: why for name in scene.names if (why := saver_class(name).refusal(scene))}
    with places.visit(scene.store) as visit, tempfile.TemporaryDirectory(prefix="sharded-") as folder:
        able = tuple(name for name in scene.names if name not in refused)
        here = replace(scene, names=able, url=visit.url, options=visit.options)
        desk, over = Desk(Path(folder)), threading.Event()
        reader = threading.Thread(target=_answer, args=(desk, visit, over))
        problem = ""
        environment = {"TMPDIR": folder, **visit.environ}
        with Ranks(
            scene.ranks, take_turns, asdict(here), folder, options.seed, environment=environment
        ) as ranks:
            reader.start()
            try:
                outcomes = ranks.outcomes(timeout_s=options.deadline_s)
                problem = " / ".join(
                    f"rank {each.rank}: {(each.error or f'exit code {each.exit_code}').strip()[-500:]}"
                    for each in outcomes
                    if each.error or each.exit_code
                )
            except TimeoutError as error:
                problem = str(error)
            finally:
                over.set()
                reader.join()
        results = [SaveResult.of(fields) for fields in desk.find("results") or ()]
    return results, refused, problem


def _answer(desk: Any, visit: Visit, over: threading.Event) -> None:
    """Read back what the ranks saved, and delete it, until they are done."""
    from sharded_peers.reading_back import read_back

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if question["nothing"]:
            return {"verdict": "nothing", "rank_bytes": [], "other_bytes": 0}
        folder = visit.folder / f"iter_{question['step']}"
        found = read_back(folder, question["step"], question["shards"])
        shutil.rmtree(folder, ignore_errors=True)
        return found

    while not over.wait(_LOOK_S):
        desk.reply(answer)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two ranks, a small state, two saves")
    parser.add_argument("--only", help="contenders, as ours,dcp_process; a wrong name prints all")
    parser.add_argument("--ranks", nargs="+", type=int)
    parser.add_argument("--store", nargs="+", choices=["local", "s3"])
    parser.add_argument("--state", nargs="+", choices=["replicated", "fsdp2"])
    parser.add_argument("--saves", type=int, help="of each contender after its first")
    parser.add_argument("--size-mb", type=int, help="of the state, all ranks together")
    parser.add_argument("--layers", type=int, default=12, help="of the model: 32 tensors each")
    parser.add_argument("--quiet-s", type=float, default=0.2, help="stepping before and after each save")
    parser.add_argument("--s3fs", type=Path, help="folder with s3fs, where the environment cannot hold it")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="of the local store")
    parser.add_argument("--deadline-s", type=float, default=240.0, help="of a scene")
    parser.add_argument("--seed", type=int, default=0, help="of the order of turns")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--write-readme", action="store_true", help="put the tables into benchmarks/README.md"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
