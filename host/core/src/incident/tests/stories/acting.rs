//! From the first step to the report.

use super::*;

#[test]
fn what_is_called_off_is_undone_while_it_can_be() {
    // Before the first step nothing has to be undone.
    check_begun(
        "",
        "call-off ben",
        expect![[r#"
        call-off ben -> closed DeniedByPerson
            record execution_result (refused) [] not executed: called off by ben: the job ends tonight
            record incident_report (refused) DeniedByPerson: called off by ben: the job ends tonight
            close
    "#]],
    );
    // The step gives up, and undoes itself; what was done before it is undone.
    check_begun(
        "reserve; ok; reserve",
        "call-off ben; call-off ben; fail; reserve; ok",
        expect![[r#"
        call-off ben -> executing 1 dispatched
            call off on node-b: called off by ben: the job ends tonight
        call-off ben -> executing 1 dispatched
        fail -> undoing 0 reserving, then []
            disarm step 1 forward
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 43, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore criu.failed", "process.resume ok"] failed and undone: it failed; the process goes on
            record incident_report (failed) Undone: it failed; the process goes on
            close
    "#]],
    );
    // It never came to the agent, and the agent says that it never will.
    check_begun(
        "reserve; ok; reserve",
        "call-off ben; refuse",
        expect![[r#"
        call-off ben -> executing 1 dispatched
            call off on node-b: called off by ben: the job ends tonight
        refuse -> undoing 0 reserving, then []
            disarm step 1 forward
            reserve process.resume on node-a
    "#]],
    );
    // It succeeded all the same.
    check_begun(
        "reserve; ok; reserve",
        "call-off ben; ok",
        expect![[r#"
        call-off ben -> executing 1 dispatched
            call off on node-b: called off by ben: the job ends tonight
        ok -> undoing 1 reserving, then [0]
            disarm step 1 forward
            reserve process.discard on node-b
    "#]],
    );
    // After the last that can be undone the rest is done: stopping would leave no copy that is known to run.
    check_begun(
        "reserve; ok; reserve; ok; reserve",
        "call-off ben; ok",
        expect![[r#"
        call-off ben -> executing 2 dispatched
            call off on node-b: called off by ben: the job ends tonight
        ok -> executing 3 reserving
            disarm step 2 forward
            reserve process.retire on node-a
    "#]],
    );
    check_begun(
        "reserve; ok; reserve; ok; reserve; ok; reserve",
        "call-off ben; ok",
        expect![[r#"
        call-off ben -> executing 3 dispatched
        ok -> verifying, does not hold
            disarm step 3 forward
            record execution_result (complete) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] every step was done
            watch
            arm watch in 50000 ms
    "#]],
    );
    // What is undone already, or silent, ends as it would have.
    check_begun(
        "reserve; ok; reserve; fail",
        "call-off ben",
        expect![[r#"
        call-off ben -> undoing 0 reserving, then []
    "#]],
    );
    check_begun(
        "reserve",
        "call-off ben; unknown",
        expect![[r#"
        call-off ben -> executing 0 dispatched
            call off on node-a: called off by ben: the job ends tonight
        unknown -> closed Unknown
            disarm step 0 forward
            record execution_result (unknown) ["process.checkpoint agent.restarted"] the agent died in the middle
            tell: inc-1: the agent died in the middle
            record incident_report (unknown) Unknown: the agent died in the middle | Look at process.checkpoint on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
    "#]],
    );
}

#[test]
fn a_failure_at_each_step() {
    check_begun(
        "reserve",
        "fail",
        expect![[r#"
            fail -> closed Undone
                disarm step 0 forward
                record execution_result (failed) ["process.checkpoint criu.failed"] failed, with nothing done that had to be undone: it failed; the process goes on
                record incident_report (failed) Undone: it failed; the process goes on
                close
        "#]],
    );
    check_begun(
        "reserve; ok; reserve",
        "fail; reserve; accept; ok",
        expect![[r#"
        fail -> undoing 0 reserving, then []
            disarm step 1 forward
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 43, within 30000 ms
            arm step 0 compensate in 90000 ms
        accept -> undoing 0 accepted, then []
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore criu.failed", "process.resume ok"] failed and undone: it failed; the process goes on
            record incident_report (failed) Undone: it failed; the process goes on
            close
    "#]],
    );
    check_begun(
        "reserve; ok; reserve; ok; reserve",
        "fail; reserve; ok; reserve; ok",
        expect![[r#"
        fail -> undoing 1 reserving, then [0]
            disarm step 2 forward
            reserve process.discard on node-b
        reserve -> undoing 1 dispatched, then [0]
            dispatch process.discard on node-b with ["manifest"], fence 44, within 30000 ms
            arm step 1 compensate in 90000 ms
        ok -> undoing 0 reserving, then []
            disarm step 1 compensate
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 45, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore ok", "process.confirm criu.failed", "process.discard ok", "process.resume ok"] failed and undone: it failed; the process goes on
            record incident_report (failed) Undone: it failed; the process goes on
            close
    "#]],
    );
    check_begun(
        "reserve; ok; reserve; ok; reserve; ok; reserve",
        "fail",
        expect![[r#"
        fail -> closed Stuck
            disarm step 3 forward
            record execution_result (failed) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire criu.failed"] it failed; the process goes on
            tell: inc-1: it failed; the process goes on
            record incident_report (failed) Stuck: it failed; the process goes on | Look at process.retire on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
    "#]],
    );
}

#[test]
fn an_unknown_outcome_at_each_step_calls_a_person() {
    let scenes = [
        format!("{BEGUN}; reserve; unknown"),
        format!("{BEGUN}; reserve; ok; reserve; unknown"),
        format!("{BEGUN}; reserve; ok; reserve; ok; reserve; unknown"),
        format!("{BEGUN}; reserve; ok; reserve; ok; reserve; ok; reserve; unknown"),
    ];
    expect![[r#"
        ..; reserve; unknown
          record incident_report (unknown) Unknown: the agent died in the middle | Look at process.checkpoint on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; unknown
          record incident_report (unknown) Unknown: the agent died in the middle | Look at process.restore on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; unknown
          record incident_report (unknown) Unknown: the agent died in the middle | Look at process.confirm on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; ok; reserve; unknown
          record incident_report (unknown) Unknown: the agent died in the middle | Look at process.retire on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
    "#]].assert_eq(&ends(&scenes.each_ref().map(String::as_str)));
}

#[test]
fn an_undoing_that_does_not_succeed_is_stuck() {
    let failed = format!("{BEGUN}; reserve; ok; reserve; ok; reserve; fail");
    let scenes =
        ["reserve; fail", "reserve; unknown", "reserve refused", "reserve; refuse", "reserve; after 600s; timer step"]
            .map(|end| format!("{failed}; {end}"));
    expect![[r#"
        ..; reserve; ok; reserve; ok; reserve; fail; reserve; fail
          record incident_report (failed) Stuck: undoing failed: it failed; the process goes on | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; fail; reserve; unknown
          record incident_report (failed) Stuck: undoing failed: the agent died in the middle | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; fail; reserve refused
          record incident_report (failed) Stuck: undoing was refused: another incident is acting on it | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; fail; reserve; refuse
          record incident_report (failed) Stuck: undoing was refused: a precondition does not hold | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; fail; reserve; after 600s; timer step
          record incident_report (failed) Stuck: node-b gave no outcome for process.discard in time | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
    "#]].assert_eq(&ends(&scenes.each_ref().map(String::as_str)));
    check(
        &format!("{failed}; reserve; accept | refuse; fail"),
        expect![[r#"
        refuse -> undoing 1 accepted, then [0]
        fail -> closed Stuck
            disarm step 1 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore ok", "process.confirm criu.failed", "process.discard criu.failed"] undoing failed: it failed; the process goes on
            tell: inc-1: undoing failed: it failed; the process goes on
            record incident_report (failed) Stuck: undoing failed: it failed; the process goes on | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
    "#]],
    );
}

#[test]
fn refused_before_anything_was_done() {
    check_begun(
        "",
        "reserve refused",
        expect![[r#"
        reserve refused -> closed Refused
            record execution_result (refused) [] not executed: step 1 was not begun: another incident is acting on it
            record incident_report (refused) Refused: step 1 was not begun: another incident is acting on it
            close
    "#]],
    );
    check_begun(
        "reserve",
        "refuse",
        expect![[r#"
        refuse -> closed Refused
            disarm step 0 forward
            record execution_result (refused) ["process.checkpoint order.precondition"] not executed: node-a refused process.checkpoint: a precondition does not hold
            record incident_report (refused) Refused: node-a refused process.checkpoint: a precondition does not hold
            close
    "#]],
    );
}

#[test]
fn refused_after_something_was_done() {
    check_begun(
        "reserve; ok",
        "reserve refused; reserve; ok",
        expect![[r#"
        reserve refused -> undoing 0 reserving, then []
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 42, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.resume ok"] failed and undone: step 2 was not begun: another incident is acting on it
            record incident_report (failed) Undone: step 2 was not begun: another incident is acting on it
            close
    "#]],
    );
    check_begun(
        "reserve; ok; reserve",
        "refuse; reserve; ok",
        expect![[r#"
        refuse -> undoing 0 reserving, then []
            disarm step 1 forward
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 43, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore order.precondition", "process.resume ok"] failed and undone: node-b refused process.restore: a precondition does not hold
            record incident_report (failed) Undone: node-b refused process.restore: a precondition does not hold
            close
    "#]],
    );
    // The copy progresses by then: as the plan says, a person and not an undo.
    check_begun(
        "reserve; ok; reserve; ok; reserve; ok",
        "reserve refused",
        expect![[r#"
            reserve refused -> closed Stuck
                record execution_result (failed) ["process.checkpoint ok", "process.restore ok", "process.confirm ok"] step 4 was not begun: another incident is acting on it
                tell: inc-1: step 4 was not begun: another incident is acting on it
                record incident_report (failed) Stuck: step 4 was not begun: another incident is acting on it | Look at process.retire on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
                close
        "#]],
    );
}

#[test]
fn no_step_begins_after_the_time_to_execute() {
    check_begun(
        "",
        "after 300s; reserve",
        expect![[r#"
        reserve -> closed Refused
            record execution_result (refused) [] not executed: the time to execute ran out before the next step could begin
            record incident_report (refused) Refused: the time to execute ran out before the next step could begin
            close
    "#]],
    );
    check_begun(
        "reserve",
        "after 300s; ok; reserve; ok",
        expect![[r#"
        ok -> undoing 0 reserving, then []
            disarm step 0 forward
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 42, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.resume ok"] failed and undone: the time to execute ran out before the next step could begin
            record incident_report (failed) Undone: the time to execute ran out before the next step could begin
            close
    "#]],
    );
    check_begun(
        "after 290s",
        "reserve",
        expect![[r#"
        reserve -> executing 0 dispatched
            dispatch process.checkpoint on node-a with [], fence 41, within 10000 ms
            arm step 0 forward in 70000 ms
    "#]],
    );
}

#[test]
fn silence_is_unknown() {
    check_begun(
        "reserve",
        "after 89s; timer step; after 1s; timer step; ok",
        expect![[r#"
        timer step -> executing 0 dispatched
            arm step 0 forward in 1000 ms
        timer step -> closed Unknown
            record execution_result (unknown) ["process.checkpoint agent.silent"] node-a gave no outcome for process.checkpoint in time
            tell: inc-1: node-a gave no outcome for process.checkpoint in time
            record incident_report (unknown) Unknown: node-a gave no outcome for process.checkpoint in time | Look at process.checkpoint on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
        ok -> closed Unknown
    "#]],
    );
    check_begun(
        "reserve; accept",
        "after 90s; timer step",
        expect![[r#"
        timer step -> closed Unknown
            record execution_result (unknown) ["process.checkpoint agent.silent"] node-a gave no outcome for process.checkpoint in time
            tell: inc-1: node-a gave no outcome for process.checkpoint in time
            record incident_report (unknown) Unknown: node-a gave no outcome for process.checkpoint in time | Look at process.checkpoint on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
    "#]],
    );
}

#[test]
fn a_dry_run_changes_nothing_and_undoes_nothing() {
    check(
        "propose | judge dry; reserve; ok; reserve; ok; reserve; ok; reserve; ok",
        expect![[r#"
        judge dry -> executing 0 reserving
            record execution_plan (complete, dry run) ["class", "posture.dry-run"]
            reserve process.checkpoint on node-a
        reserve -> executing 0 dispatched
            dispatch process.checkpoint on node-a with [], fence 41, within 30000 ms
            arm step 0 forward in 90000 ms
        ok -> executing 1 reserving
            disarm step 0 forward
            reserve process.restore on node-b
        reserve -> executing 1 dispatched
            dispatch process.restore on node-b with ["manifest"], fence 42, within 30000 ms
            arm step 1 forward in 90000 ms
        ok -> executing 2 reserving
            disarm step 1 forward
            reserve process.confirm on node-b
        reserve -> executing 2 dispatched
            dispatch process.confirm on node-b with ["manifest"], fence 43, within 30000 ms
            arm step 2 forward in 150000 ms
        ok -> executing 3 reserving
            disarm step 2 forward
            reserve process.retire on node-a
        reserve -> executing 3 dispatched
            dispatch process.retire on node-a with [], fence 44, within 30000 ms
            arm step 3 forward in 150000 ms
        ok -> closed Resolved
            disarm step 3 forward
            record execution_result (complete, dry run) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] dry run: every step was checked, nothing was changed
            disarm watch
            record verification_result (complete, dry run) verified=true ["a dry run changes nothing that could be verified"]
            record incident_report (complete, dry run) Resolved: dry run: nothing to verify
            close
    "#]],
    );
    check(
        "propose; judge dry; reserve; ok; reserve; ok; reserve | fail",
        expect![[r#"
            fail -> closed Undone
                disarm step 2 forward
                record execution_result (failed, dry run) ["process.checkpoint ok", "process.restore ok", "process.confirm criu.failed"] failed, with nothing done that had to be undone: it failed; the process goes on
                record incident_report (failed, dry run) Undone: it failed; the process goes on
                close
        "#]],
    );
    check(
        "propose; judge dry; reserve; ok; reserve; ok; reserve; ok; reserve | fail",
        expect![[r#"
            fail -> closed Undone
                disarm step 3 forward
                record execution_result (failed, dry run) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire criu.failed"] failed, with nothing done that had to be undone: it failed; the process goes on
                record incident_report (failed, dry run) Undone: it failed; the process goes on
                close
        "#]],
    );
    // A class above what may run live.
    check(
        "propose | judge class",
        expect![[r#"
        judge class -> executing 0 reserving
            record execution_plan (complete, dry run) ["class", "posture.dry-run"]
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn a_simulated_executor_shows_in_every_artifact_after_it() {
    check_begun(
        "reserve; ok; reserve; ok; reserve; ok; reserve",
        "simulated; after 1s; read good; after 10s; read good",
        expect![[r#"
        simulated -> verifying, does not hold
            disarm step 3 forward
            record execution_result (complete, simulated) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] every step was done
            watch
            arm watch in 50000 ms
        read good -> verifying, holds
        read good -> closed Resolved
            disarm watch
            record verification_result (complete, simulated) verified=true []
            record incident_report (complete, simulated) Resolved: every condition of success held on fresh evidence for the whole watch window
            close
    "#]],
    );
}

/// The scene in which every step of the migration was done.
const DONE: &str = "reserve; ok; reserve; ok; reserve; ok; reserve; ok; after 1s";

#[test]
fn success_must_hold_on_fresh_samples_for_the_whole_watch() {
    // Flapping begins anew each time.
    check_begun(
        DONE,
        "read good; after 9s; read bad; after 1s; read good; after 9s; read good; after 1s; read good",
        expect![[r#"
        read good -> verifying, holds
        read bad -> verifying, does not hold
        read good -> verifying, holds
        read good -> verifying, holds
        read good -> closed Resolved
            disarm watch
            record verification_result (complete) verified=true []
            record incident_report (complete) Resolved: every condition of success held on fresh evidence for the whole watch window
            close
    "#]],
    );
    // Stale, older than the end of execution, missing, of something else: none of them counts.
    check_begun(
        DONE,
        "read good; read stale; read old; read none; read other",
        expect![[r#"
        read good -> verifying, holds
        read stale -> verifying, does not hold
        read old -> verifying, does not hold
        read none -> verifying, does not hold
        read other -> verifying, does not hold
    "#]],
    );
}

#[test]
fn success_that_never_shows() {
    check_begun(
        DONE,
        "read bad; timer watch; after 49s; timer watch",
        expect![[r#"
        read bad -> verifying, does not hold
        timer watch -> verifying, does not hold
            arm watch in 49000 ms
        timer watch -> closed NotVerified
            disarm watch
            record verification_result (failed) verified=false []
            tell: inc-1: success did not show within the watch window
            record incident_report (failed) NotVerified: success did not show within the watch window | Look at the workload: the action was done, its success did not show.
            close
    "#]],
    );
    check_begun(
        DONE,
        "after 49s; timer watch",
        expect![[r#"
        timer watch -> closed NotVerified
            disarm watch
            record verification_result (failed) verified=false ["aether.workload.progress.rate of workload/train (generation 8) was not sampled"]
            tell: inc-1: success did not show within the watch window
            record incident_report (failed) NotVerified: success did not show within the watch window | Look at the workload: the action was done, its success did not show.
            close
    "#]],
    );
    check_begun(
        DONE,
        "after 60s; read none",
        expect![[r#"
        read none -> closed NotVerified
            disarm watch
            record verification_result (failed) verified=false ["aether.workload.progress.rate of workload/train (generation 8) was not sampled"]
            tell: inc-1: success did not show within the watch window
            record incident_report (failed) NotVerified: success did not show within the watch window | Look at the workload: the action was done, its success did not show.
            close
    "#]],
    );
}

#[test]
fn a_plan_without_conditions_says_that_nothing_was_checked() {
    check(
        "propose no-success; judge demand; approve ann; reserve; ok; reserve; ok; reserve; ok; reserve | ok",
        expect![[r#"
            ok -> closed Unchecked
                disarm step 3 forward
                record execution_result (complete) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] every step was done
                disarm watch
                record verification_result (complete) verified=true ["the plan names no condition of success"]
                record incident_report (complete) Unchecked: no condition of success was given, so none was checked | Look at the subject: it was done, and nobody checked what it did.
                close
        "#]],
    );
}

#[test]
fn what_comes_early_late_or_twice_changes_nothing() {
    check(
        "judge allow; timer approval; timer watch; read good; approve ann; deny ann; recur",
        expect![[r#"
        judge allow -> planning
        timer approval -> planning
        timer watch -> planning
        read good -> planning
        approve ann -> planning
        deny ann -> planning
        recur -> planning
    "#]],
    );
    check_begun(
        "reserve",
        "reserve; propose; judge deny; approve ben; deny ben; timer watch; read bad; recur",
        expect![[r#"
        reserve -> executing 0 dispatched
        propose -> executing 0 dispatched
        judge deny -> executing 0 dispatched
        approve ben -> executing 0 dispatched
        deny ben -> executing 0 dispatched
        timer watch -> executing 0 dispatched
        read bad -> executing 0 dispatched
        recur -> executing 0 dispatched
    "#]],
    );
    check(
        "propose none | propose; judge allow; recur; timer approval",
        expect![[r#"
        propose -> closed NoPlan
        judge allow -> closed NoPlan
        recur -> closed NoPlan
        timer approval -> closed NoPlan
    "#]],
    );
}
