//! What a class asks for at least, and what break-glass is good for.

use super::*;

#[test]
fn a_class_asks_for_its_own_least_whatever_the_gates_allow() {
    check(
        "propose | judge class-demand; approve ann; approve ann because; approve ben because",
        expect![[r#"
        judge class-demand -> awaiting approval, 0 given
            record execution_plan (pending) ["class", "posture.approval-required", "posture.class-demand"]
            ask for approval
            arm approval in 900000 ms
        approve ann (this plan's approval needs a comment) -> awaiting approval, 0 given
        approve ann because -> awaiting approval, 1 given
        approve ben because -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn under_break_glass_one_word_stands_for_all_and_says_why() {
    check(
        "propose; judge two-admins | approve ann; approve ann glass-silent; approve ann glass",
        expect![[r#"
        approve ann (this plan needs an approver of role admin) -> awaiting approval, 0 given
        approve ann glass-silent (this plan's approval needs a comment) -> awaiting approval, 0 given
        approve ann glass -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn break_glass_lets_nobody_approve_what_they_asked_for() {
    check(
        "propose; judge requester-two | approve ann glass; approve ben glass",
        expect![[r#"
        approve ann glass (you asked for this plan yourself; another person has to approve it) -> awaiting approval, 0 given
        approve ben glass -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn break_glass_is_no_longer_than_the_time_to_approve() {
    check(
        "propose; judge demand | after 601s; approve ann glass; timer approval",
        expect![[r#"
        approve ann glass (the time to approve is over) -> awaiting approval, 0 given
        timer approval -> closed Expired
            record execution_result (refused) [] not executed: no sufficient approval came in time
            record incident_report (refused) Expired: no sufficient approval came in time
            close
    "#]],
    );
}

#[test]
fn a_rung_that_was_tried_as_often_as_it_may_goes_to_a_person() {
    check(
        "| propose tried 2",
        expect![[r#"
        propose tried 2 -> closed Escalated
            record remediation_proposal (refused) 0 of 1 | proposal.rung-exhausted: “Move train to node-b” was tried 2 times on this trouble already
            tell: inc-1: “Move train to node-b” was tried 2 times on this trouble already
            record incident_report (refused) Escalated: “Move train to node-b” was tried 2 times on this trouble already | Decide what is to be done: what the planners know of has not helped.
            close
    "#]],
    );
}

#[test]
fn a_rung_with_an_attempt_left_is_taken() {
    check(
        "| propose tried 1",
        expect![[r#"
        propose tried 1 -> gating
            record remediation_proposal (complete) 1 of 1
            judge
    "#]],
    );
}

#[test]
fn a_relapse_goes_on_with_the_same_incident() {
    let done = "propose; judge demand; approve ann; reserve; ok; reserve; ok; reserve; ok; reserve; ok; after 1s; \
                read good; after 10s; read good";
    check(
        &format!("{done} | relapse other; relapse; propose; judge demand; approve ben"),
        expect![[r#"
        relapse other -> closed Resolved
        relapse -> planning
            record observation_summary (complete)
            record anomaly_finding (complete)
            record root_cause_hypothesis (complete)
            plan
        propose -> gating
            record remediation_proposal (complete) 1 of 1
            judge
        judge demand -> awaiting approval, 0 given
            record execution_plan (pending) ["class"]
            ask for approval
            arm approval in 600000 ms
        approve ben -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn what_failed_does_not_relapse_into_another_try() {
    check(
        "propose; judge demand; approve ann; reserve; unknown | relapse",
        expect![[r#"
        relapse -> closed Unknown
    "#]],
    );
}

#[test]
fn a_gap_in_what_was_looked_at_is_not_held() {
    let executed = "propose; judge demand; approve ann; reserve; ok; reserve; ok; reserve; ok; reserve; ok; after 1s";
    check(
        &format!("{executed} | look; after 11s; look; after 5s; look; after 5s; look"),
        expect![[r#"
            look -> verifying, holds
            look -> verifying, holds
            look -> verifying, holds
            look -> closed Resolved
                disarm watch
                record verification_result (complete) verified=true ["nobody looked for longer than a reading is good for, 1 time(s); the watch began anew after it"]
                record incident_report (complete) Resolved: every condition of success held on fresh evidence for the whole watch window
                close
        "#]],
    );
}
