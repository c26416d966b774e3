//! Telemetry that leaves: a part of history, or the frozen evidence of an incident, as Parquet or CSV.

use super::{
    App, Error, Problem,
    extract::{Id, Params},
    fleet::subject,
};
use crate::clock;
use aether_core::{id::IncidentId, subject::SubjectRef, time::Time};
use aether_recorder::{ExcerptQuery, Export};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};

/// The longest time that one export may span.
const SPAN_MS: u64 = 3_660 * 86_400_000;
/// Subjects, or names, that one export may name.
const NAMED: usize = 200;
const PARQUET: &str = "application/vnd.apache.parquet";
const CSV: &str = "text/csv; charset=utf-8";
/// Says that some of what was asked for could not be read.
const UNREADABLE: &str = "aether-unreadable-segments";

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ExportFormat)]
pub(super) enum Format {
    /// The columns of the recorder's own files.
    #[default]
    Parquet,
    /// `timestamp,subject,metric,unit,value,origin` and a column for each attribute: what `aether history put` takes.
    Csv,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportParams {
    /// `<kind>/<id>`, or several with commas between. Default: all.
    subject: Option<String>,
    /// Names of metrics or events, with commas between. Default: all.
    metric: Option<String>,
    /// Inclusive.
    from: i64,
    /// Inclusive. Default: now.
    to: Option<i64>,
    /// Default: `parquet`.
    #[param(inline)]
    format: Option<Format>,
}

/// A part of history as a file: every sample and event as it was recorded. More than 2,000,000 rows at a time are refused.
#[utoipa::path(get, path = "/telemetry/export", tag = "telemetry", operation_id = "exportTelemetry", params(ExportParams),
    responses((status = 200, description = "The file", body = String, content_type = "application/vnd.apache.parquet"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn export(State(app): State<App>, Params(params): Params<ExportParams>) -> Result<Response, Error> {
    let wrong = |name: &str, reason: String| Error::Parameter { name: name.into(), reason };
    let (from, to) = (Time(params.from), params.to.map_or_else(clock::now, Time));
    if from > to || to.since_ms(from) > SPAN_MS {
        return Err(wrong("from", format!("{} to {} is no span of at most {SPAN_MS} ms", from.0, to.0)));
    }
    let parts = |text: Option<String>, name: &str| {
        let parts: Vec<String> =
            text.iter().flat_map(|text| text.split(',')).map(|part| part.trim().to_owned()).collect();
        if parts.len() > NAMED || parts.iter().any(|part| part.is_empty() || part.len() > 512) {
            return Err(wrong(name, format!("at most {NAMED} are named, each with 1 to 512 bytes")));
        }
        Ok(parts)
    };
    let subjects = parts(params.subject, "subject")?;
    let subjects: BTreeSet<SubjectRef> = subjects.iter().map(|text| subject(text)).collect::<Result<_, _>>()?;
    let query = ExcerptQuery {
        subjects: (!subjects.is_empty()).then_some(subjects),
        names: parts(params.metric, "metric")?.into_iter().collect(),
        from,
        to,
    };
    let export = match app.recorder().export(&query).await {
        Ok(export) => export,
        Err(error @ aether_recorder::Error::TooMuch { .. }) => return Err(wrong("from", error.to_string())),
        Err(error) => return Err(Error::internal(error)),
    };
    let format = params.format.unwrap_or_default();
    let unreadable = export.unreadable;
    let bytes = tokio::task::spawn_blocking(move || match format {
        Format::Parquet => export.parquet(clock::now()).map_err(Error::internal),
        Format::Csv => csv(&export).map(Bytes::from).map_err(Error::internal),
    });
    let bytes = bytes.await.map_err(Error::internal)??;
    let mut answer = file(format, &format!("aether-{}-{}", from.0, to.0), bytes);
    if unreadable > 0 {
        answer.headers_mut().insert(UNREADABLE, unreadable.into());
    }
    Ok(answer)
}

/// What the incident's artifacts refer to, frozen: it is there when the segments are gone.
#[utoipa::path(get, path = "/incidents/{id}/evidence", tag = "incidents", operation_id = "getIncidentEvidence", params(("id" = String, Path)),
    responses((status = 200, description = "A Parquet file", body = String, content_type = "application/vnd.apache.parquet"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn evidence(State(app): State<App>, Id(id): Id) -> Result<Response, Error> {
    let missing = || Error::NotFound { what: "frozen evidence of an incident", id: id.clone() };
    let incident = app.store().incident(&IncidentId(id.clone())).await?.ok_or_else(missing)?;
    match app.recorder().frozen(incident.id.as_str()).await {
        Ok(found) => Ok(file(Format::Parquet, incident.id.as_str(), found.ok_or_else(missing)?)),
        Err(error) => Err(Error::internal(error)),
    }
}

fn file(format: Format, name: &str, bytes: Bytes) -> Response {
    let (kind, end) = match format {
        Format::Parquet => (PARQUET, "parquet"),
        Format::Csv => (CSV, "csv"),
    };
    let disposition = format!("attachment; filename=\"{name}.{end}\"");
    ([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)], bytes).into_response()
}

fn csv(export: &Export) -> Result<Vec<u8>, csv::Error> {
    let of_series = export.series.keys().map(|(key, _)| &key.attributes);
    let all = of_series.chain(export.events.iter().map(|(_, _, event)| &event.attributes));
    let attributes: BTreeSet<&String> = all.flat_map(|attributes| attributes.keys()).collect();
    let mut out = csv::Writer::from_writer(Vec::new());
    let titles = ["timestamp", "subject", "metric", "unit", "value", "origin"].map(str::to_owned);
    out.write_record(titles.into_iter().chain(attributes.iter().map(|name| format!("attribute.{name}"))))?;
    let mut row =
        |at: Time, subject: &SubjectRef, texts: [&str; 4], of_row: &std::collections::BTreeMap<String, String>| {
            let [metric, unit, value, origin] = texts;
            let head = [at.0.to_string(), subject.to_string(), metric.into(), unit.into(), value.into(), origin.into()];
            out.write_record(
                head.into_iter().chain(attributes.iter().map(|name| of_row.get(*name).cloned().unwrap_or_default())),
            )
        };
    for ((key, origin), samples) in &export.series {
        for (at, value) in samples {
            let value = value.to_string();
            row(*at, &key.subject, [&key.metric, &key.unit, &value, origin.as_str()], &key.attributes)?;
        }
    }
    for (at, origin, event) in &export.events {
        row(*at, &event.subject, [&event.name, "", "", origin.as_str()], &event.attributes)?;
    }
    out.into_inner().map_err(|error| std::io::Error::other(error.to_string()).into())
}
