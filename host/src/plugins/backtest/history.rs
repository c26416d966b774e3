//! Where a backtest's observations come from: the recorder, or files of somebody else's telemetry.
//!
//! An imported file is CSV with a header line, in one of two forms; times are UTC where no offset stands:
//! - `timestamp,value`: one series, named by the mapping;
//! - `timestamp,subject,metric,unit,value`: many. A row without a value is an event of that name. Further columns
//!   `attribute.NAME` are attributes of the series or event.

use super::{Error, when};
use aether_core::{
    id::Digest,
    observation::Input,
    subject::{SubjectKind, SubjectRef},
    telemetry::{DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::{Excerpt, ExcerptQuery, Excerpts, Recorder};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Rows of all files of one import together.
pub const ROWS_LIMIT: u64 = 5_000_000;
/// Bytes of one text in a row.
const TEXT_LIMIT: usize = 256;

/// What a file of two columns does not say of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub metric: String,
    pub unit: String,
    /// None: the node of the file's name without its ending.
    pub subject: Option<SubjectRef>,
}

impl Default for Mapping {
    /// What the scorers that ship with Aether read where telemetry comes from elsewhere.
    fn default() -> Self {
        Self { metric: "aether.imported.value".into(), unit: "1".into(), subject: None }
    }
}

/// History that came in files.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    subjects: BTreeMap<SubjectRef, Arc<Excerpt>>,
    /// The subject of each file of two columns, by the file's name without its ending.
    files: BTreeMap<String, SubjectRef>,
    hashes: Vec<Digest>,
}

/// Collects the rows of all files.
#[derive(Default)]
struct Rows {
    series: BTreeMap<SeriesKey, Vec<Sample>>,
    events: Vec<DiscreteEvent>,
    count: u64,
}

impl Imported {
    /// Reads files, each with its name without ending.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>, mapping: &Mapping) -> Result<Self, Error> {
        let (mut rows, mut imported) = (Rows::default(), Self::default());
        for (name, bytes) in files {
            imported.hashes.push(Digest::of(bytes));
            if let Some(subject) = rows.read(name, bytes, mapping)? {
                imported.files.insert(name.to_owned(), subject);
            }
        }
        let mut subjects: BTreeMap<SubjectRef, (Vec<SeriesSamples>, Vec<DiscreteEvent>)> = BTreeMap::new();
        for (key, samples) in rows.series {
            subjects
                .entry(key.subject.clone())
                .or_default()
                .0
                .push(SeriesSamples { key: key.into(), samples: samples.into() });
        }
        for event in rows.events {
            subjects.entry(event.subject.clone()).or_default().1.push(event);
        }
        imported.subjects = subjects
            .into_iter()
            .map(|(subject, (series, events))| (subject, Arc::new(Excerpt::of(series, events))))
            .collect();
        Ok(imported)
    }

    pub fn subjects(&self) -> impl Iterator<Item = (&SubjectRef, &Arc<Excerpt>)> {
        self.subjects.iter()
    }

    /// Whose series the file of two columns of this name is.
    pub fn subject_of(&self, file: &str) -> Option<&SubjectRef> {
        self.files.get(file)
    }
}

impl Rows {
    /// Answers the one subject of a file of two columns.
    fn read(&mut self, name: &str, bytes: &[u8], mapping: &Mapping) -> Result<Option<SubjectRef>, Error> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
        let form = |reason: String| Error::Form { name: name.to_owned(), reason };
        let header = reader.headers().map_err(|error| form(error.to_string()))?.clone();
        let column = |wanted: &str| header.iter().position(|title| title.eq_ignore_ascii_case(wanted));
        let asked = || {
            format!(
                "its first line is `{}`, and must name timestamp,value or timestamp,subject,metric,unit,value",
                header.iter().collect::<Vec<_>>().join(",")
            )
        };
        let (Some(at), Some(value)) = (column("timestamp"), column("value")) else { return Err(form(asked())) };
        let named = match (column("subject"), column("metric"), column("unit")) {
            (None, None, None) => None,
            (Some(subject), Some(metric), Some(unit)) => Some((subject, metric, unit)),
            _ => return Err(form(asked())),
        };
        let attributes: Vec<(usize, String)> = header
            .iter()
            .enumerate()
            .filter_map(|(number, title)| Some((number, title.strip_prefix("attribute.")?.to_owned())))
            .collect();
        let single = match (&named, &mapping.subject) {
            (Some(_), _) => None,
            (None, Some(subject)) => Some(subject.clone()),
            (None, None) => Some(SubjectRef::node(name)),
        };
        for record in reader.records() {
            let record = record.map_err(|error| form(error.to_string()))?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |reason: String| Error::Line { name: name.to_owned(), line, reason };
            self.count += 1;
            if self.count > ROWS_LIMIT {
                return Err(Error::TooLong { limit: ROWS_LIMIT });
            }
            let cell = |number: usize| record.get(number).unwrap_or_default();
            let at = when::time(cell(at)).map_err(wrong)?;
            let of_row = |(number, title): &(usize, String)| Some((title.clone(), record.get(*number)?.to_owned()));
            let attributes: BTreeMap<String, String> =
                attributes.iter().filter_map(of_row).filter(|(_, text)| !text.is_empty()).collect();
            let (subject, metric, unit) = match (&named, &single) {
                (Some((subject, metric, unit)), _) => {
                    (subject_of(cell(*subject)).map_err(wrong)?, cell(*metric).to_owned(), cell(*unit).to_owned())
                }
                (None, single) => {
                    let subject = single.clone().unwrap_or_else(|| SubjectRef::node(name));
                    (subject, mapping.metric.clone(), mapping.unit.clone())
                }
            };
            if metric.is_empty() || [&subject.id, &metric, &unit].iter().any(|text| text.len() > TEXT_LIMIT) {
                return Err(wrong(format!("a name is empty or longer than {TEXT_LIMIT} bytes")));
            }
            let text = cell(value);
            if text.is_empty() && named.is_some() {
                self.events.push(DiscreteEvent { subject, name: metric, at, attributes });
                continue;
            }
            let value: f64 = text.parse().map_err(|_| wrong(format!("`{text}` is no number")))?;
            let key = SeriesKey { subject, metric, unit, attributes };
            self.series.entry(key).or_default().push(Sample { at, value });
        }
        Ok(single)
    }
}

/// `node/node-a`, or just `node-a` for a node.
pub fn subject_of(text: &str) -> Result<SubjectRef, String> {
    let (kind, id) = text.split_once('/').unwrap_or(("node", text));
    let kind = match kind {
        "node" => SubjectKind::Node,
        "gpu" => SubjectKind::Gpu,
        "workload" => SubjectKind::Workload,
        "pool" => SubjectKind::Pool,
        "participant" => SubjectKind::Participant,
        other => {
            return Err(format!("`{other}` is no kind of subject; it is node, gpu, workload, pool or participant"));
        }
    };
    if id.is_empty() || id.len() > TEXT_LIMIT {
        return Err(format!("the subject's id `{id}` is empty or longer than {TEXT_LIMIT} bytes"));
    }
    Ok(SubjectRef { kind, id: id.to_owned() })
}

/// A part of a history, and what it lacks.
pub(super) struct Part {
    pub(super) subjects: BTreeMap<SubjectRef, Arc<Excerpt>>,
    pub(super) cut: bool,
    pub(super) unreadable: usize,
}

/// A history to test on.
#[derive(Clone)]
pub enum History {
    Imported(Arc<Imported>),
    /// What this host has recorded; read from threads that may block.
    Recorded {
        recorder: Recorder,
        runtime: tokio::runtime::Handle,
        from: Time,
        to: Time,
    },
}

impl History {
    /// How far back an evaluation sees: a recorded history shows what the hot window showed at the time.
    pub(super) fn reach_ms(&self) -> Option<u64> {
        match self {
            History::Imported(_) => None,
            History::Recorded { recorder, .. } => Some(recorder.settings().hot_window_ms),
        }
    }

    /// Everything that observations of `inputs` from `from` to `to` need.
    pub(super) fn excerpts(
        &self,
        inputs: &[Input],
        subjects: Option<BTreeSet<SubjectRef>>,
        from: Time,
        to: Time,
    ) -> Result<Part, Error> {
        match self {
            History::Imported(imported) => {
                let wanted = |subject: &SubjectRef| subjects.as_ref().is_none_or(|subjects| subjects.contains(subject));
                let subjects = imported.subjects.iter().filter(|(subject, _)| wanted(subject));
                Ok(Part {
                    subjects: subjects.map(|(subject, excerpt)| (subject.clone(), Arc::clone(excerpt))).collect(),
                    cut: false,
                    unreadable: 0,
                })
            }
            History::Recorded { recorder, runtime, .. } => {
                let query = ExcerptQuery::observing(inputs, subjects, from, to, self.reach_ms());
                let Excerpts { subjects, cut, unreadable } = runtime.block_on(recorder.excerpts(&query))?;
                let subjects = subjects.into_iter().map(|(subject, excerpt)| (subject, Arc::new(excerpt))).collect();
                Ok(Part { subjects, cut, unreadable })
            }
        }
    }

    /// What names it: the same for the same content.
    pub(super) fn key(&self) -> String {
        match self {
            History::Imported(imported) => {
                imported.hashes.iter().map(|hash| hash.0.as_str()).collect::<Vec<_>>().join("+")
            }
            History::Recorded { .. } => "recorded".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Imported, Error> {
        Imported::read([(name, text.as_bytes())], &Mapping::default())
    }

    #[test]
    fn two_columns_are_one_series_of_the_file() {
        let text = "timestamp,value\n2014-02-14 14:30:00,0.132\n2014-02-14 14:35:00, 0.134\n";
        let imported = read("ec2_cpu", text).expect("reads");
        let (subject, excerpt) = imported.subjects().next().expect("one");
        assert_eq!((subject, imported.subject_of("ec2_cpu")), (&SubjectRef::node("ec2_cpu"), Some(subject)));
        assert_eq!((excerpt.samples(), excerpt.step_ms()), (2, Some(300_000)));
        assert_eq!(excerpt.names(), [("aether.imported.value", Some("1"))].into());
    }

    #[test]
    fn five_columns_are_many_series_and_events() {
        let text = "timestamp,subject,metric,unit,value,attribute.az\n\
                    0,node/a,price,USD,1.5,b\n0,node/a,price,USD,2.5,c\n60000,node/a,rebalance,,,\n0,gpu/7,temp,Cel,60,\n";
        let imported = read("any", text).expect("reads");
        let all: Vec<_> =
            imported.subjects().map(|(subject, excerpt)| (subject.to_string(), excerpt.samples())).collect();
        assert_eq!(all, [("node/a".to_owned(), 2), ("gpu/7".to_owned(), 1)]);
        let (_, a) = imported.subjects().next().expect("two");
        assert_eq!(a.span(), Some((Time(0), Time(60_000))));
        assert!(a.names().contains(&("rebalance", None)));
        assert_eq!(imported.subject_of("any"), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("time,value\n", "must name timestamp,value"),
            ("timestamp,metric,value\n", "must name timestamp,value"),
            ("timestamp,value\nnoon,1\n", "line 2: `noon` is no time"),
            ("timestamp,value\n0,1\n1,high\n", "line 3: `high` is no number"),
            ("timestamp,value\n0,\n", "line 2: `` is no number"),
            ("timestamp,value\n0,1,2\n", "3 fields"),
            ("timestamp,subject,metric,unit,value\n0,moon/a,m,1,1\n", "`moon` is no kind of subject"),
            ("timestamp,subject,metric,unit,value\n0,node/a,,1,1\n", "a name is empty"),
        ] {
            let error = read("f", text).expect_err(text);
            assert_eq!(error.code(), "AE0070");
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
