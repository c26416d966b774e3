//! Limits on files that stand for a cgroup of either version, and the real cgroups of this machine where it has them.

use super::*;

fn limits(files: &[(&str, &str)]) -> (tempfile::TempDir, Limits) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let path = folder.path().to_owned();
    (folder, Limits { cpu: Ok(path.clone()), memory: Ok(path) })
}

fn arguments(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
    pairs.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect()
}

const MIB: u64 = 1 << 20;

#[test]
fn arguments_become_the_files_of_either_version() {
    let two =
        [("cpu.max", "max 50000\n"), ("memory.max", "max\n"), ("memory.high", "max\n"), ("memory.current", "4096\n")];
    let one = [
        ("cpu.cfs_quota_us", "-1\n"),
        ("cpu.cfs_period_us", "100000\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.usage_in_bytes", "4096\n"),
    ];
    let wish = arguments(&[("cpus", Value::Number(1.5)), ("memory-max", Value::Bytes(64 * MIB + 5))]);
    let (_folder, two) = limits(&two);
    let wanted = two.wanted(&wish).unwrap();
    assert_eq!(format!("{wanted:?}"), r#"{"cpu.max": "75000 50000", "memory.max": "67108864"}"#);
    let (_folder, one) = limits(&one);
    let wanted = one.wanted(&wish).unwrap();
    assert_eq!(format!("{wanted:?}"), r#"{"cpu.cfs_quota_us": "150000", "memory.limit_in_bytes": "67108864"}"#);
    let high = arguments(&[("memory-high", Value::Bytes(64 * MIB))]);
    assert_eq!(two.wanted(&high).unwrap()["memory.high"], "67108864");
    assert_eq!(one.wanted(&high).unwrap_err().code, "cgroup.controller");
}

#[test]
fn a_limit_below_what_is_used_is_refused() {
    let (_folder, limits) = limits(&[("memory.max", "max\n"), ("memory.current", "100000000\n")]);
    let refused = limits.wanted(&arguments(&[("memory-max", Value::Bytes(64 * MIB))])).unwrap_err();
    assert_eq!(refused.code, "cgroup.below-use");
    assert_eq!(limits.wanted(&arguments(&[])).unwrap_err().code, "order.arguments");
    assert_eq!(limits.wanted(&arguments(&[("cpus", Value::Number(1.0))])).unwrap_err().code, "cgroup.controller");
}

#[test]
fn a_process_that_shares_its_cgroup_has_none_of_its_own() {
    let cgroups = Cgroups::probe();
    let me = ProcessRef::find(std::process::id()).unwrap();
    // This test runs beside others, in whatever cgroup the session has.
    for kind in [Kind::Cpu, Kind::Memory, Kind::Freezer] {
        let refused = cgroups.own(&me, kind).unwrap_err();
        assert!(["cgroup.shared", "cgroup.controller"].contains(&refused.code.as_str()), "{kind:?}: {refused:?}");
    }
}
