"""The faults of the references that are not here: each by its number, with the tests that would fail if it were.

The numbers are those of the project's inventory of MMEngine 0.10.7 and MMCV 1.7.2; the sentence says what they do.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

HERE = "test_no_reference_faults.py::"
FAULTS: dict[str, tuple[str, ...]] = {
    # The oldest checkpoint is removed before the new one is written.
    "D1": (
        "hooks/test_checkpoint_failure.py::test_a_failed_save_with_warn_goes_on_and_removes_nothing_that_is_needed",
        "crash/test_bad_stores.py::test_a_disk_that_is_full_for_a_while_costs_only_the_saves_of_that_time",
        "crash/test_every_instant.py::test_of_a_run_that_prunes_and_keeps_the_best",
    ),
    # A file that last_checkpoint names is written over in place.
    "D2": (
        "crash/test_every_instant.py::test_of_saves_that_replace_each_other_under_one_name",
        "hooks/test_checkpoint_best.py::test_a_step_that_is_saved_already_is_not_saved_again_for_its_best",
    ),
    # No write is atomic, and a resume falls back to no older checkpoint.
    "D3": (
        "crash/test_every_call.py::test_a_loss_of_power_at_any_call_keeps_what_is_committed",
        "crash/test_killed_runs.py::test_killed_runs_end_as_one_that_was_not_killed_on_a_local_disk",
        "runner/test_resume_sources.py::test_resume_falls_back_past_a_truncated_checkpoint",
    ),
    # What hooks put into a checkpoint is live.
    "D4": (
        HERE + "test_what_a_hook_puts_into_a_checkpoint_is_copied",
        "hooks/test_ema.py::test_a_checkpoint_holds_the_average_as_its_weights",
        "hooks/test_ema.py::test_async_runs_leave_the_files_of_sync_runs",
    ),
    # On the CPU everything in a checkpoint is live.
    "D5": (
        "checkpoint/test_capture.py::test_later_training_never_shows_in_a_snapshot",
        "runner/test_train_state.py::test_a_snapshot_of_a_loop_does_not_change_with_it",
    ),
    # The best checkpoint before is removed before the new one is written.
    "D6": (
        "hooks/test_checkpoint_failure.py::test_the_old_best_stays_when_the_new_one_cannot_be_saved",
        "hooks/test_checkpoint_failure.py::test_a_best_that_could_not_be_saved_is_not_believed",
    ),
    # A best score of exactly 0 is dropped.
    "D7": (
        "runner/mmcv/test_mmcv_evaluation.py::test_the_best_checkpoint_is_kept",
        "hooks/test_checkpoint_best.py::test_zero_is_a_score_and_none_and_nan_are_not",
    ),
    # A validation on its own fails, or replaces checkpoints.
    "D8": (
        "hooks/test_checkpoint_best.py::test_a_validation_outside_of_training_saves_nothing",
        "hooks/test_with_runner.py::test_a_validation_alone_changes_no_checkpoint",
        HERE + "test_a_validation_before_any_training_saves_nothing",
    ),
    # Hooks of a lower priority rely on a file that nothing promises to be there.
    "D9": (
        HERE + "test_a_hook_of_a_lower_priority_that_reads_checkpoints_finds_the_file",
        "hooks/test_checkpoint_interval.py::test_listeners_hear_of_a_checkpoint_when_it_is_durable",
    ),
    # A misspelled argument fails at the first save.
    "D10": ("hooks/test_checkpoint_options.py::test_a_wrong_argument_is_named_at_construction",),
    # out_dir grows with every run.
    "D11": (
        "hooks/test_checkpoint_interval.py::test_out_dir_takes_the_name_of_the_run_and_does_not_grow",
        "hooks/test_logger_runner.py::test_the_remote_folder_is_the_same_for_every_run_and_keeps_what_it_had",
    ),
    # The user's own frame is lost when a hook raises a TypeError.
    "D12": (HERE + "test_a_hooks_error_keeps_its_frames_and_names_the_hook",),
    # Remote stores are few and each is written in one piece.
    "D13": (
        "hooks/test_checkpoint_interval.py::test_a_bucket_keeps_the_same_checkpoints_as_a_folder",
        "hooks/test_checkpoint_interval.py::test_a_memory_store_takes_checkpoints",
        "checkpoint/test_faults.py::test_a_transient_failure_is_tried_again",
    ),
    # Backends are used after they were closed: train(), then val().
    "D14": ("hooks/test_logger_runner.py::test_train_then_val_then_test_reach_the_same_backends",),
    # Early stopping builds a training in test(), and forgets its count.
    "D15": (
        HERE + "test_a_test_builds_no_training",
        "hooks/test_early_stopping.py::test_a_resumed_run_waits_on",
    ),
    # A look-up that fails keeps a lock for ever.
    "D16": (
        HERE + "test_a_look_up_that_fails_holds_no_lock",
        "visualization/test_backends.py::test_an_instance_is_found_by_its_name_and_an_error_holds_no_lock",
    ),
    # Workers are forked while a thread holds locks.
    "D17": (
        "execution/test_lifecycle.py::test_a_forked_child_gets_a_closed_executor",
        "execution/test_lifecycle.py::test_a_forked_child_leaves_the_parents_parts_and_makes_its_own_executor",
        "runner/test_resume.py::test_loader_workers_resume",
    ),
    # What is in flight is lost when a run ends by an exception.
    "D18": (
        HERE + "test_a_run_that_fails_commits_what_is_in_flight",
        "execution/test_failure.py::test_leaving_with_an_exception_still_finishes_what_is_in_flight",
        "crash/test_interrupted_saves.py::test_a_first_ctrl_c_finishes_the_saves_in_flight",
    ),
    # Checkpoints cannot be loaded without running code.
    "D19": (
        "runner/test_resume_sources.py::test_a_checkpoint_is_loadable_without_running_code_and_has_mmengines_keys",
        "checkpoint/test_restore.py::test_loading_runs_no_code_unless_told_to",
    ),
    # (a) published files of old bests stay, (b) the hash is not the file's, (c) (d) a metric that is missing,
    # (e) a rule without a metric, (f) a message without its value, (g) a type as a default value.
    "D20": (
        "hooks/test_checkpoint_publish.py::test_the_published_form_of_a_superseded_best_is_removed",
        "hooks/test_checkpoint_publish.py::test_the_last_and_the_best_are_published_with_the_hash_of_their_bytes",
        HERE + "test_a_metric_that_was_never_there_keeps_no_other_from_being_published",
        "hooks/test_checkpoint_best.py::test_one_of_several_metrics_may_be_missing_from_a_validation",
        HERE + "test_a_rule_without_a_metric_is_said_in_words",
        HERE + "test_a_refused_begin_is_in_the_message",
        HERE + "test_no_default_value_of_a_hooks_method_is_a_type",
    ),
    # A run that saves its best alone cannot be resumed.
    "D21": (HERE + "test_a_run_that_saves_its_best_alone_can_be_resumed",),
    # MMCV's iteration-based runs: positions that lag, points that are not called, hooks of one run alone.
    "D22": (
        "runner/mmcv/test_mmcv_checkpoints.py::test_a_checkpoint_stores_what_its_name_says",
        "runner/mmcv/test_mmcv_order.py::test_before_and_after_epoch_stand_around_an_iteration_based_run",
        "runner/mmcv/test_mmcv_order.py::test_one_hook_serves_two_runners",
    ),
    # Runs sleep for seconds.
    "D23": (HERE + "test_nothing_in_a_run_sleeps",),
    # A resumed run loads what it skips.
    "D24": (
        "runner/test_resume.py::test_what_is_skipped_is_not_loaded",
        HERE + "test_a_resumed_run_of_iterations_loads_nothing_that_it_skips",
    ),
    # A collective in a hook of one rank alone waits for ever.
    "D25": (
        HERE + "test_hooks_with_collectives_block",
        "hooks/test_rank_sync.py::test_ranks_have_the_same_statistics_and_sizes_afterwards",
    ),
    # What is not due is decoded, and what was due before a resume is never done.
    "D26": (
        "hooks/test_det_visualization.py::test_nothing_is_looked_at_when_nothing_is_due",
        "hooks/test_mode_switch.py::test_a_run_that_is_resumed_after_the_switch_has_switched",
    ),
    # Logs reach a remote folder at the end of a run alone, and a test writes over the results before.
    "D27": (
        "hooks/test_logger.py::test_logs_are_copied_to_a_store_while_the_run_goes_on",
        "hooks/test_logger_runner.py::test_the_results_of_each_test_are_added_to_a_file_of_their_own",
    ),
}


@cache
def functions_in(path: str) -> set[str]:
    tree = ast.parse((Path(__file__).parent / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_fault_is_named_once() -> None:
    assert list(FAULTS) == [f"D{number}" for number in range(1, 28)]
    assert all(FAULTS.values())


@pytest.mark.parametrize("node", sorted({node for nodes in FAULTS.values() for node in nodes}))
def test_every_test_that_is_named_is_there(node: str) -> None:
    path, _, name = node.partition("::")

    assert name in functions_in(path)
