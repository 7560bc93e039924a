"""The numbers that the model starts from: measured ones, and named ones that cannot be measured here.

Sources of what is documented:

- requests per second and partitioned prefix, DELETE among them; latency of small objects:
  https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html
- 85 to 90 MB/s per concurrent request:
  https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html
- partitions split after 30 to 60 minutes of load, so never within one save:
  https://repost.aws/knowledge-center/s3-object-key-naming-pattern (an answer there, not the documentation)
- each object of a bulk delete counts against the limit:
  https://hadoop.apache.org/docs/current/api/org/apache/hadoop/fs/BulkDelete.html
- the backoff between retries is that of object_store, the Rust client below obstore: 0.1 s, doubled, at most 15 s,
  drawn anew each time; ten retries
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MB", "Job", "Layout", "MeetingCosts", "ObjectCosts"]

MB = 2**20


@dataclass(frozen=True, slots=True)
class MeetingCosts:
    """Seconds of a TCPStore's one thread and of the first rank: 2026-11-25, 2 cores, torch 2.13, see `--measure`."""

    set_s: float = 2e-6
    set_byte_s: float = 3e-9
    get_s: float = 38e-6  # torch's client asks twice
    get_byte_s: float = 1.5e-9
    add_s: float = 19e-6
    check_s: float = 19e-6
    check_key_s: float = 0.13e-6
    get_key_s: float = 1.9e-6
    item_s: float = 40e-6  # unpickle a result, and build and pickle its entries in `.metadata`
    item_bytes: int = 130  # in `.metadata`, and in a rank's full result
    cached_byte_s: float = 0.7e-9  # replace the save id in the last `.metadata`
    round_trip_s: float = 100e-6  # assumed: between machines; not part of the server's time


@dataclass(frozen=True, slots=True)
class ObjectCosts:
    """An object store as Amazon documents S3; the spread is assumed."""

    latency_s: float = 0.1  # median; documented: 100 to 200 ms for small objects
    latency_sigma: float = 0.35
    stream_bps: float = 88e6  # of one request; documented: 85 to 90 MB/s
    stream_sigma: float = 0.25
    start_spread_s: float = 0.05  # assumed: ranks do not begin at one instant
    node_bps: float = 12.5e9  # of the ranks of a node together: 100 Gbit/s
    ranks_per_node: int = 8
    slow_node_share: float = 0.002
    slow_node_factor: float = 4.0
    writes_per_s: float = 3_500.0  # documented, of each partition; one second's worth at once
    refusal_s: float = 0.03
    retries: int = 10
    retry_limit_s: float = 80.0  # as `open_store` sets it for its deadline of 120 s
    backoff_s: float = 0.1
    most_backoff_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How a save is laid out, and how its ranks meet.

    Attributes:
        part_bytes: of a multipart upload; a file of one part is one put.
        parts_in_flight: requests of one rank at a time.
        partitions: that the store has split the folder's names into; 1 for a folder that is new.
        ranks_per_file: how many ranks' data one of them writes.
        paced: each rank spaces its requests so that all together stay at 90 % of the store's limit.
        in_turns: each rank begins when those before it can have sent their requests at that rate.
        fan_in: ranks that arrive at one.
        compact: a rank's result is its files' sizes and checksums; names and offsets follow from the cached plan.
        deletes: who deletes the replaced save's files: the first rank before it decides, with so many at a time;
            0: each rank its own, after the decision.
        checks_per_s: that all waiting ranks together aim at.
        eager_parents: the few at which others arrive look every 0.1 s, however many ranks there are.
        questions: to the rendezvous' store at each look; with one, waits begin at a tenth of their longest pause.
    """

    part_bytes: int = 8 * MB
    parts_in_flight: int = 4
    partitions: int = 1
    ranks_per_file: int = 1
    paced: bool = False
    in_turns: bool = False
    fan_in: int = 64
    compact: bool = False
    deletes: int = 8
    checks_per_s: float = 20_000.0
    questions: int = 2
    eager_parents: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What is saved: the default is 3,000 names (parameters and moments), sharded over at most 512 ranks (HSDP)."""

    ranks: int
    rank_bytes: int = 400 * MB
    names: int = 3_000
    most_shards: int = 512
    file_bytes: int = 250  # of one data file's entry in the manifest, and of a compact result
    deadline_s: float = 120.0
    replaces: bool = True

    @property
    def items(self) -> int:
        """Entries of `.metadata`."""
        return self.names * min(self.ranks, self.most_shards)
