//! From the opening to an approval, or to the end that came before one.

use super::*;

#[test]
fn opening_leaves_three_artifacts_and_asks_for_a_plan() {
    let (story, effects) = Story::open();
    let told: String = effects.iter().map(|effect| story.effect(effect) + "\n").collect();
    expect![[r#"
        record observation_summary (complete)
        record anomaly_finding (complete)
        record root_cause_hypothesis (complete)
        plan
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_whole_migration() {
    check(
        "propose; judge demand; approve ann; reserve; accept; ok; reserve; accept; ok; reserve; ok; reserve; ok; \
         after 1s; read good; after 9s; read good; after 1s; read good",
        expect![[r#"
            propose -> gating
                record remediation_proposal (complete) 1 of 1
                judge
            judge demand -> awaiting approval, 0 given
                record execution_plan (pending) ["class"]
                ask for approval
                arm approval in 600000 ms
            approve ann -> executing 0 reserving
                disarm approval
                reserve process.checkpoint on node-a
            reserve -> executing 0 dispatched
                dispatch process.checkpoint on node-a with [], fence 41, within 30000 ms
                arm step 0 forward in 90000 ms
            accept -> executing 0 accepted
            ok -> executing 1 reserving
                disarm step 0 forward
                reserve process.restore on node-b
            reserve -> executing 1 dispatched
                dispatch process.restore on node-b with ["manifest"], fence 42, within 30000 ms
                arm step 1 forward in 90000 ms
            accept -> executing 1 accepted
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
            ok -> verifying, does not hold
                disarm step 3 forward
                record execution_result (complete) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] every step was done
                watch
                arm watch in 50000 ms
            read good -> verifying, holds
            read good -> verifying, holds
            read good -> closed Resolved
                disarm watch
                record verification_result (complete) verified=true []
                record incident_report (complete) Resolved: every condition of success held on fresh evidence for the whole watch window
                close
        "#]],
    );
}

#[test]
fn the_best_that_stands_is_taken() {
    check(
        "propose two",
        expect![[r#"
        propose two -> gating
            record remediation_proposal (complete) 1 of 3 | proposal.unknown-target: “Move it to nowhere” is refused: the target workload/nothing (generation 7) does not exist | proposal.ranked-lower: “Move train to node-b” stands, too, and ranks lower
            judge
    "#]],
    );
}

#[test]
fn proposals_that_do_not_stand_are_refused_by_name() {
    let scenes = [
        "propose none",
        "propose fault",
        "propose weak",
        "propose empty",
        "propose verb",
        "propose primitive",
        "propose argument",
        "propose target",
        "propose generation",
        "propose twice",
        "propose there",
        "propose unknown-node",
        "propose dead",
        "propose incapable",
        "propose silent-node",
        "propose unbounded",
        "propose infinite",
        "propose long-watch",
    ];
    expect![[r#"
        propose none
          record incident_report (refused) NoPlan: the planners proposed nothing
        propose fault
          record incident_report (refused) NoPlan: planner gave no plan: unreachable
        propose weak
          record incident_report (refused) ProposalOnly: confidence 90 % is below the 95 % that the posture asks for: proposed, not run | Decide on the proposal by hand.
        propose empty
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the proposal has no steps; an empty target set never means everything
        propose verb
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: verb `shell.run` is not in the catalogue
        propose primitive
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: `process.discard` is not a verb that a planner can propose
        propose argument
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: `process.migrate` has no argument `command`
        propose target
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the target workload/ghost (generation 7) does not exist
        propose generation
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the target workload/train (generation 6) is now of generation 7
        propose twice
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the target workload/train (generation 7) appears twice
        propose there
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: workload/train (generation 7) already runs on `node-b`
        propose unknown-node
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the node `node-b` does not exist
        propose dead
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the node `node-b` has no live agent
        propose incapable
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the agent on `node-a` cannot do `process.checkpoint`: criu is not installed
        propose silent-node
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the agent on `node-b` cannot do `process.restore`: the agent does not offer it
        propose unbounded
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the condition on `aether.workload.progress.rate` has no bound, or a number that canonical JSON does not carry exactly
        propose infinite
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the condition on `aether.workload.progress.rate` has no bound, or a number that canonical JSON does not carry exactly
        propose long-watch
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the watch window is longer than 86400000 ms
    "#]].assert_eq(&ends(&scenes));
}

#[test]
fn a_weak_finding_is_proposed_and_not_run() {
    check(
        "propose weak",
        expect![[r#"
        propose weak -> closed ProposalOnly
            record remediation_proposal (complete) 1 of 1
            record incident_report (refused) ProposalOnly: confidence 90 % is below the 95 % that the posture asks for: proposed, not run | Decide on the proposal by hand.
            close
    "#]],
    );
}

#[test]
fn gates_and_posture_decide_together() {
    let scenes = [
        "propose; judge deny",
        "propose; judge fault",
        "propose; judge nobody",
        "propose; judge allow",
        "propose; judge free; reserve refused",
    ];
    expect![[r#"
        propose; judge deny
          record incident_report (refused) DeniedByGate: denied: the class is impactful
        propose; judge fault
          record incident_report (refused) DeniedByGate: denied: gate `gate` gave no answer, which denies: out of fuel
        propose; judge nobody
          record incident_report (refused) DeniedByGate: denied: no gate stands in the slot, which denies
        propose; judge allow
          (open)
        propose; judge free; reserve refused
          record incident_report (refused) Refused: step 1 was not begun: another incident is acting on it
    "#]]
    .assert_eq(&ends(&scenes));
}

#[test]
fn what_the_gates_allow_the_posture_still_wants_approved() {
    check(
        "propose | judge allow; approve ann",
        expect![[r#"
        judge allow -> awaiting approval, 0 given
            record execution_plan (pending) ["class", "posture.approval-required"]
            ask for approval
            arm approval in 900000 ms
        approve ann -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn a_denial_says_why() {
    check(
        "propose | judge fault",
        expect![[r#"
        judge fault -> closed DeniedByGate
            record execution_plan (refused) ["gate.fault"] denied
            record incident_report (refused) DeniedByGate: denied: gate `gate` gave no answer, which denies: out of fuel
            close
    "#]],
    );
}

#[test]
fn approvals_that_do_not_count() {
    check(
        "propose; judge two | approve ann other-hash; approve ann viewer; approve ann operator; approve ann; \
         approve ann; withdraw eve; withdraw ann; approve ann; after 600s; approve ben; timer approval",
        expect![[r#"
            approve ann other-hash (this is not the hash of the plan that waits; look at the plan again before you approve) -> awaiting approval, 0 given
            approve ann viewer (this plan needs an approver of role approver) -> awaiting approval, 0 given
            approve ann operator (this plan needs an approver of role approver) -> awaiting approval, 0 given
            approve ann -> awaiting approval, 1 given
            approve ann (you have approved this plan already; another person has to) -> awaiting approval, 1 given
            withdraw eve -> awaiting approval, 1 given
            withdraw ann -> awaiting approval, 0 given
            approve ann -> awaiting approval, 1 given
            approve ben (the time to approve is over) -> awaiting approval, 1 given
            timer approval -> closed Expired
                record execution_result (refused) [] not executed: no sufficient approval came in time
                record incident_report (refused) Expired: no sufficient approval came in time
                close
        "#]],
    );
    check(
        "propose; judge comment | approve ann; approve ann because",
        expect![[r#"
        approve ann (this plan's approval needs a comment) -> awaiting approval, 0 given
        approve ann because -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
    check(
        "propose; judge admin | approve ann; approve ann policy-author; approve ann admin",
        expect![[r#"
        approve ann (this plan needs an approver of role admin) -> awaiting approval, 0 given
        approve ann policy-author (this plan needs an approver of role admin) -> awaiting approval, 0 given
        approve ann admin -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
    // A role that does not exist asks for the highest, one too small for the least that may approve.
    check(
        "propose; judge nonsense | approve ann policy-author; approve ann admin",
        expect![[r#"
        approve ann policy-author (this plan needs an approver of role admin) -> awaiting approval, 0 given
        approve ann admin -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
    check(
        "propose; judge viewer | approve ann viewer; approve ann operator; approve ann",
        expect![[r#"
        approve ann viewer (this plan needs an approver of role approver) -> awaiting approval, 0 given
        approve ann operator (this plan needs an approver of role approver) -> awaiting approval, 0 given
        approve ann -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn who_asked_does_not_approve() {
    check(
        "propose; judge requester | approve ann; approve ben",
        expect![[r#"
        approve ann (you asked for this plan yourself; another person has to approve it) -> awaiting approval, 0 given
        approve ben -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn a_plan_does_not_wait_for_ever() {
    check(
        "propose | judge forever",
        expect![[r#"
        judge forever -> awaiting approval, 0 given
            record execution_plan (pending) ["class"]
            ask for approval
            arm approval in 604800000 ms
    "#]],
    );
    check(
        "propose; judge demand | after 599s; timer approval; after 1s; timer approval; approve ann",
        expect![[r#"
        timer approval -> awaiting approval, 0 given
            arm approval in 1000 ms
        timer approval -> closed Expired
            record execution_result (refused) [] not executed: no sufficient approval came in time
            record incident_report (refused) Expired: no sufficient approval came in time
            close
        approve ann -> closed Expired
    "#]],
    );
}

#[test]
fn denied_by_a_person() {
    check(
        "propose; judge demand | deny ben; approve ann",
        expect![[r#"
        deny ben -> closed DeniedByPerson
            disarm approval
            record execution_result (refused) [] not executed: denied by ben
            record incident_report (refused) DeniedByPerson: denied by ben
            close
        approve ann -> closed DeniedByPerson
    "#]],
    );
}

#[test]
fn taken_back_before_the_first_dispatch() {
    check_begun(
        "",
        "withdraw eve; withdraw ann; reserve",
        expect![[r#"
        withdraw eve -> executing 0 reserving
        withdraw ann -> closed DeniedByPerson
            record execution_result (refused) [] not executed: ann took the approval back before anything was begun
            record incident_report (refused) DeniedByPerson: ann took the approval back before anything was begun
            close
        reserve -> closed DeniedByPerson
    "#]],
    );
    // Too late.
    check_begun(
        "reserve",
        "withdraw ann",
        expect![[r#"
        withdraw ann -> executing 0 dispatched
    "#]],
    );
}
