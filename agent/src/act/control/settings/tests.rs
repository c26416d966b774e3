//! The one flow of all settings, against a machine of the test's own that can refuse, forget, and be meddled with.

use super::*;
use crate::{act::journal::Accepted, clock};
use aether_core::{
    order::OutcomeStatus::{Failed, Succeeded, Unknown},
    subject::{SubjectKind, Target},
};
use std::cell::RefCell;

/// Settings in memory.
#[derive(Default)]
struct Machine {
    values: RefCell<Values>,
    /// Names that cannot be written.
    refuses: RefCell<Vec<&'static str>>,
    /// Names whose writing is taken and forgotten.
    forgets: Vec<&'static str>,
}

impl Settings for Machine {
    fn read(&self, name: &str) -> Result<String, Failure> {
        self.values.borrow().get(name).cloned().ok_or_else(|| Failure::new("machine.read", format!("no {name}")))
    }
    fn write(&self, name: &str, value: &str) -> Result<(), Failure> {
        if self.refuses.borrow().contains(&name) {
            return Err(Failure::new("machine.refused", format!("{name} cannot be written")));
        }
        if !self.forgets.contains(&name) {
            self.values.borrow_mut().insert(name.into(), value.into());
        }
        Ok(())
    }
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
}

struct Scene {
    _folder: tempfile::TempDir,
    journal: Journal,
    key: IdempotencyKey,
    machine: Machine,
}

/// A machine with `a` = 1 and `b` = 2, and an order that was taken.
fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    let key = IdempotencyKey("key".into());
    let target = Target { kind: SubjectKind::Workload, id: "w".into(), generation: 1 };
    let (verb, plan, order) = ("cgroup.limit".into(), "{}".into(), "{}".into());
    journal.accept(Accepted { key: key.clone(), verb, target, fence: 1, plan, order, at: clock::now() }).unwrap();
    let machine = Machine { values: RefCell::new(values(&[("a", "1"), ("b", "2")])), ..Machine::default() };
    Scene { _folder: folder, journal, key, machine }
}

impl Scene {
    fn apply(&self, wanted: &[(&str, &str)]) -> Done {
        apply(&self.journal, &self.key, &self.machine, values(wanted))
    }
    fn undo(&self) -> Done {
        undo(&self.journal, &self.key, &self.machine)
    }
    fn settle(&self) -> Done {
        settle(&self.journal, &self.key, &self.machine)
    }
    fn meddle(&self, name: &str, value: &str) {
        self.machine.values.borrow_mut().insert(name.into(), value.into());
    }
    fn now(&self) -> Values {
        self.machine.values.borrow().clone()
    }
}

#[test]
fn what_was_set_is_put_back_exactly() {
    let scene = scene();
    let done = scene.apply(&[("a", "10"), ("b", "20")]);
    assert_eq!(
        (done.status, done.message.as_str()),
        (Succeeded, "set a from `1` to `10`, b from `2` to `20`, and read back")
    );
    assert_eq!(done.evidence["former.a"], Value::Text("1".into()));
    assert_eq!(scene.now(), values(&[("a", "10"), ("b", "20")]));
    let undone = scene.undo();
    assert_eq!(
        (undone.status, undone.message.as_str()),
        (Succeeded, "put back a from `10` to `1`, b from `20` to `2`")
    );
    assert_eq!(scene.now(), values(&[("a", "1"), ("b", "2")]));
    assert_eq!(scene.undo().status, Succeeded, "a repeat finds it so");
}

#[test]
fn what_somebody_else_changed_meanwhile_is_left_alone() {
    let scene = scene();
    scene.apply(&[("a", "10"), ("b", "20")]);
    scene.meddle("b", "99");
    let undone = scene.undo();
    assert_eq!((undone.status, undone.code.as_str()), (Failed, "setting.foreign"));
    assert!(undone.message.contains("b from `20` to `99`"), "{}", undone.message);
    assert_eq!(scene.now(), values(&[("a", "10"), ("b", "99")]), "not even the one that is still ours");
}

#[test]
fn what_somebody_else_put_back_already_is_fine() {
    let scene = scene();
    scene.apply(&[("a", "10"), ("b", "20")]);
    scene.meddle("b", "2");
    assert_eq!(scene.undo().status, Succeeded);
    assert_eq!(scene.now(), values(&[("a", "1"), ("b", "2")]));
}

#[test]
fn a_step_that_found_it_so_already_undoes_nothing() {
    let scene = scene();
    assert_eq!(scene.apply(&[("a", "1")]).message, "it was so already; nothing was changed");
    assert_eq!(scene.undo().status, Succeeded);
    scene.meddle("a", "7");
    assert_eq!(scene.undo().code, "setting.foreign");
    assert_eq!(scene.now()["a"], "7");
}

#[test]
fn a_failure_in_the_middle_leaves_all_as_it_was() {
    let scene = scene();
    scene.machine.refuses.borrow_mut().push("b");
    let done = scene.apply(&[("a", "10"), ("b", "20")]);
    assert_eq!((done.status, done.code.as_str()), (Failed, "machine.refused"));
    assert!(done.message.ends_with("All is as it was"), "{}", done.message);
    assert_eq!(scene.now(), values(&[("a", "1"), ("b", "2")]));
}

#[test]
fn success_is_what_was_read_back() {
    let mut scene = scene();
    scene.machine.forgets.push("b");
    let done = scene.apply(&[("a", "10"), ("b", "20")]);
    assert_eq!((done.status, done.code.as_str()), (Failed, "setting.not-kept"));
    assert_eq!(scene.now(), values(&[("a", "1"), ("b", "2")]));
}

#[test]
fn what_can_be_neither_set_nor_put_back_is_unknown() {
    let mut scene = scene();
    scene.machine.forgets.push("a");
    scene.apply(&[("b", "20")]);
    // `b` is ours now; then it refuses, in the middle of another step that changed `a` first.
    let other = IdempotencyKey("other".into());
    let target = Target { kind: SubjectKind::Workload, id: "v".into(), generation: 1 };
    let accepted = Accepted {
        key: other.clone(),
        verb: "cgroup.limit".into(),
        target,
        fence: 1,
        plan: "{}".into(),
        order: "{}".into(),
        at: clock::now(),
    };
    scene.journal.accept(accepted).unwrap();
    scene.machine.forgets.clear();
    scene.machine.refuses.borrow_mut().push("b");
    // `a` is written; `b` is refused; and meanwhile `a` cannot be written any more.
    struct Narrow<'a>(&'a Machine);
    impl Settings for Narrow<'_> {
        fn read(&self, name: &str) -> Result<String, Failure> {
            self.0.read(name)
        }
        fn write(&self, name: &str, value: &str) -> Result<(), Failure> {
            self.0.write(name, value)?;
            self.0.refuses.borrow_mut().push("a");
            Ok(())
        }
    }
    let done = apply(&scene.journal, &other, &Narrow(&scene.machine), values(&[("a", "10"), ("b", "21")]));
    assert_eq!(done.status, Unknown, "{}", done.message);
}

#[test]
fn a_crash_is_settled_by_reading() {
    let scene = scene();
    assert_eq!(scene.settle().status, Failed, "nothing was recorded, so nothing was begun");
    let former = Former { former: values(&[("a", "1"), ("b", "2")]), wanted: values(&[("a", "10"), ("b", "20")]) };
    scene.journal.former(&scene.key, former).unwrap();
    assert_eq!(scene.settle().status, Failed, "recorded, and not begun");
    scene.meddle("a", "10");
    let half = scene.settle();
    assert_eq!(half.status, Unknown);
    assert!(half.message.contains("a from `1` to `10`"), "{}", half.message);
    scene.meddle("b", "20");
    assert_eq!(scene.settle().status, Succeeded);
    assert_eq!(scene.undo().status, Succeeded);
    assert_eq!(scene.now(), values(&[("a", "1"), ("b", "2")]));
}

#[test]
fn without_a_record_nothing_is_put_back() {
    let scene = scene();
    assert_eq!(scene.undo().code, "setting.unrecorded");
}

#[test]
fn a_dry_run_tells_from_what_to_what() {
    let scene = scene();
    let (would, evidence) = foretell(&scene.machine, &values(&[("a", "10"), ("b", "2")])).unwrap();
    assert_eq!(would, "a from `1` to `10`");
    assert_eq!(evidence["wanted.a"], Value::Text("10".into()));
    assert_eq!(scene.now(), values(&[("a", "1"), ("b", "2")]));
}
