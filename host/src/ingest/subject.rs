//! Whom a resource's metrics are about, and which of its attributes stay with its series.
//!
//! A resource with a `host.name` (or, without one, a `host.id`) that can be a node's name is that node; `aether.subject`
//! (`workload/job-7`), which our own forwarder sends, goes before it. Any other resource is a participant, by its
//! service's namespace, name and instance. Of what identifies a resource beside its subject, a short list stays, so that
//! two services of one node have two series; the rest (the SDK's version, a process's command line) is not kept.

use aether_core::{
    id::is_name,
    subject::{SubjectKind, SubjectRef},
};
use std::collections::BTreeMap;

pub(crate) const HOST_NAME: &str = "host.name";
const HOST_ID: &str = "host.id";
/// `<kind>/<id>`, where the sender knows it.
pub(crate) const SUBJECT: &str = "aether.subject";
const SERVICE: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];
/// What stays with a series.
const KEPT: [&str; 7] = [
    "service.namespace",
    "service.name",
    "service.instance.id",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.id",
];

/// Whom it is about, and what stays of the resource.
pub(super) fn of(resource: &BTreeMap<String, String>) -> (SubjectRef, BTreeMap<String, String>) {
    let mut kept: BTreeMap<String, String> = KEPT
        .iter()
        .filter_map(|name| resource.get(*name).filter(|value| !value.is_empty()).map(|value| (name, value)))
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let named = resource.get(SUBJECT).and_then(|subject| named(subject));
    let host = || {
        let hosts = [HOST_NAME, HOST_ID].into_iter().filter_map(|name| resource.get(name));
        hosts.map(|host| host.to_ascii_lowercase()).find(|host| is_name(host)).map(SubjectRef::node)
    };
    let subject = named.or_else(host).unwrap_or_else(|| {
        let parts: Vec<String> = SERVICE.iter().filter_map(|name| kept.remove(*name)).map(|part| sane(&part)).collect();
        let id = if parts.is_empty() { "unknown".to_owned() } else { parts.join("/") };
        SubjectRef { kind: SubjectKind::Participant, id }
    });
    (subject, kept)
}

fn named(text: &str) -> Option<SubjectRef> {
    let (kind, id) = text.split_once('/')?;
    let all = [SubjectKind::Node, SubjectKind::Gpu, SubjectKind::Workload, SubjectKind::Pool, SubjectKind::Participant];
    let kind = all.into_iter().find(|known| known.name() == kind)?;
    (!id.is_empty()).then(|| SubjectRef { kind, id: id.to_owned() })
}

/// A part of an id as the recorder takes it.
fn sane(part: &str) -> String {
    part.chars().map(|c| if c.is_ascii_alphanumeric() || "-._:@".contains(c) { c } else { '_' }).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_a_node_by_its_host_or_a_participant_by_its_service() {
        let check = |attributes: &[(&str, &str)], subject: &str, kept: &[&str]| {
            let resource = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let (found, left) = of(&resource);
            assert_eq!(found.to_string(), subject, "{attributes:?}");
            assert_eq!(left.keys().map(String::as_str).collect::<Vec<_>>(), kept, "{attributes:?}");
        };
        check(&[("host.name", "Node-A"), ("service.name", "train")], "node/node-a", &["service.name"]);
        check(&[("host.name", "not a name"), ("host.id", "i-0abc")], "node/i-0abc", &[]);
        check(&[("host.name", "node-a"), ("aether.subject", "workload/job-7")], "workload/job-7", &[]);
        check(&[("aether.subject", "planet/mars"), ("host.name", "node-a")], "node/node-a", &[]);
        check(
            &[
                ("service.name", "my svc"),
                ("service.namespace", "shop"),
                ("service.instance.id", "7"),
                ("process.pid", "1"),
            ],
            "participant/shop/my_svc/7",
            &[],
        );
        check(&[("service.name", "a"), ("k8s.pod.name", "a-1")], "participant/a", &["k8s.pod.name"]);
        check(&[], "participant/unknown", &[]);
    }
}
