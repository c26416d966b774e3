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
