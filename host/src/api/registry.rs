//! The registry over HTTP: uploads are streamed to the disk within a bound and checked there; everything that changes
//! something is in the audit, refusals included.

use super::{
    App, Error, Problem,
    extract::{Body, Id, Params},
    view::{AssetsUpload, CollectGarbage, Collected, Plugin, PullPlugin, Registered, UploadedPlugin},
};
use crate::{
    auth::Principal,
    clock,
    plugins::registry::{
        self, AssetsRecord, ComponentRecord, Provenance, Registry, Spool, Stored, Upload, oci, signature,
    },
    store::audit::ActOutcome,
};
use aether_core::id::Digest;
use axum::{
    Json,
    body::Body as Stream,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};
use utoipa::IntoParams;

/// A signature of the component that is sent, as its document says it, in one line.
pub const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("aether-signature");
/// How long an upload may send nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// The components that this host has, in a slot or not.
#[utoipa::path(get, path = "/plugins", tag = "plugins", operation_id = "listPlugins",
    responses((status = 200, body = Vec<Plugin>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn plugins(State(app): State<App>) -> Result<Json<Vec<Plugin>>, Error> {
    let mut needed = app.registry().references().await?;
    let mut standing: BTreeMap<Digest, Plugin> =
        app.plane().plugins().into_iter().map(|plugin| (plugin.digest.clone(), plugin)).collect();
    let mut plugins: Vec<Plugin> = Vec::new();
    for record in app.registry().list().await? {
        let needed = needed.remove(&record.digest).unwrap_or_default();
        let stands = standing.remove(&record.digest);
        plugins.push(known(record, stands, needed));
    }
    // What the registry would not take stands nevertheless, and is shown.
    plugins.extend(standing.into_values());
    Ok(Json(plugins))
}

fn known(record: ComponentRecord, stands: Option<Plugin>, needed_by: Vec<String>) -> Plugin {
    let ComponentRecord {
        digest,
        name,
        version: _,
        role,
        bytes,
        description,
        imports,
        provenance,
        signature,
        uploaded_at,
        uploaded_by,
        used_at,
        quarantine,
    } = record;
    let (component, slots) = stands.map_or((name, vec![]), |plugin| (plugin.component, plugin.slots));
    let registered =
        Registered { imports, provenance, signature, uploaded_at, uploaded_by, used_at, quarantine, needed_by };
    Plugin { component, digest, role, description, size_bytes: bytes, slots, registered: Some(registered) }
}

/// One component with all that is known of it.
#[utoipa::path(get, path = "/plugins/{digest}", tag = "plugins", operation_id = "getPlugin", params(("digest" = String, Path)),
    responses((status = 200, body = Plugin), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn plugin(State(app): State<App>, Id(digest): Id) -> Result<Json<Plugin>, Error> {
    let digest = Digest(digest);
    let stands = app.plane().plugins().into_iter().find(|plugin| plugin.digest == digest);
    match (app.registry().record(&digest).await, stands) {
        (Ok(record), stands) => {
            let needed = app.registry().references().await?.remove(&digest).unwrap_or_default();
            Ok(Json(known(record, stands, needed)))
        }
        (Err(registry::Error::Unknown { .. }), Some(stands)) => Ok(Json(stands)),
        (Err(error), _) => Err(error.into()),
    }
}

/// A component's bytes.
#[utoipa::path(get, path = "/plugins/{digest}/component", tag = "plugins", operation_id = "downloadPlugin", params(("digest" = String, Path)),
    responses((status = 200, description = "The component", body = String, content_type = "application/wasm"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn download(State(app): State<App>, Id(digest): Id) -> Result<Response, Error> {
    let digest = Digest(digest);
    let record = app.registry().record(&digest).await?;
    let bytes = app.registry().bytes(&digest).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/wasm".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
        // The name is checked to be plain when the component is loaded; the version is its author's.
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}-{}.wasm\"", record.name, digest.short())),
    ];
    Ok((headers, bytes).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParams {
    /// The file's name, for people.
    file: Option<String>,
}

/// Upload a component. The body is the component itself; the header `Aether-Signature` may hold its signature. The
/// same bytes are the same component: 200 if it was there before, 201 if it is new.
#[utoipa::path(post, path = "/plugins", tag = "plugins", operation_id = "uploadPlugin",
    params(UploadParams, ("aether-signature" = Option<String>, Header, description = "The signature's document, as `aether plugin sign` writes it")),
    request_body(content = String, content_type = "application/wasm"),
    responses((status = 200, body = UploadedPlugin), (status = 201, body = UploadedPlugin), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn upload(
    State(app): State<App>,
    principal: Principal,
    Params(params): Params<UploadParams>,
    headers: HeaderMap,
    body: Stream,
) -> Result<(StatusCode, Json<UploadedPlugin>), Error> {
    let file = named(params.file)?;
    is_of_type(&headers, "application/wasm")?;
    let told = BTreeMap::from([("file".to_owned(), file.clone().unwrap_or_default())]);
    let taken = async {
        let signature = match headers.get(SIGNATURE_HEADER) {
            Some(text) => Some(signature::parse(text.as_bytes())?),
            None => None,
        };
        let spool = receive(app.registry().spool_component()?, &headers, body).await?;
        Ok((spool.read().await?, signature))
    };
    let by = principal.id.clone();
    act(&app, principal, "plugin.push", told, taken, move |registry, (bytes, signature)| async move {
        registry.put(bytes, Upload { provenance: Provenance::Upload { file }, signature, by }).await
    })
    .await
}

/// Have the host pull a component from a registry.
#[utoipa::path(post, path = "/plugins/pull", tag = "plugins", operation_id = "pullPlugin", request_body = PullPlugin,
    responses((status = 200, body = UploadedPlugin), (status = 201, body = UploadedPlugin), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn pull(
    State(app): State<App>,
    principal: Principal,
    Body(request): Body<PullPlugin>,
) -> Result<(StatusCode, Json<UploadedPlugin>), Error> {
    let PullPlugin { reference, username, password } = request;
    let login = match (username, password) {
        (Some(username), Some(password)) => Some(oci::Login { username, password }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(Error::Body("`username` and `password` go together; one of them is missing".into()));
        }
    };
    let told = BTreeMap::from([("reference".to_owned(), reference.chars().take(256).collect())]);
    let by = principal.id.clone();
    act(&app, principal, "plugin.pull", told, async { Ok(()) }, move |registry, ()| async move {
        registry.pull(&reference, login, by).await
    })
    .await
}

/// Does what brings a component in, in a task of its own: once the bytes are here, a caller who leaves stops nothing.
async fn act<T, F>(
    app: &App,
    principal: Principal,
    action: &'static str,
    mut told: BTreeMap<String, String>,
    taken: impl Future<Output = Result<T, registry::Error>>,
    store: impl FnOnce(Registry, T) -> F + Send + 'static,
) -> Result<(StatusCode, Json<UploadedPlugin>), Error>
where
    T: Send + 'static,
    F: Future<Output = Result<Stored, registry::Error>> + Send,
{
    let taken = match taken.await {
        Ok(taken) => taken,
        Err(error) => return Err(refused(app, &principal, action, "component", told, error).await?),
    };
    let (here, registry) = (app.clone(), app.registry().clone());
    let work = async move {
        match store(registry, taken).await {
            Ok(Stored { record, is_new, same_version }) => {
                let target = format!("component/{}", record.digest);
                told.insert("component".into(), format!("{} {}", record.name, record.version));
                told.insert("new".into(), is_new.to_string());
                let signed = record.signature.as_ref().map_or("nobody", |signed| &signed.key_name);
                told.insert("signed-by".into(), signed.into());
                here.audit(&principal, action, target, ActOutcome::Done, told).await?;
                Ok((is_new, UploadedPlugin { component: record, is_new, same_version }))
            }
            Err(error) => Err(refused(&here, &principal, action, "component", told, error).await?),
        }
    };
    let done = app.0.parts.tasks.spawn(work).await;
    let (is_new, uploaded) = done.map_err(Error::internal)??;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(uploaded)))
}

/// Writes a refusal into the audit and gives it back as the answer.
async fn refused(
    app: &App,
    principal: &Principal,
    action: &str,
    target: &str,
    mut told: BTreeMap<String, String>,
    error: registry::Error,
) -> Result<Error, Error> {
    told.insert("reason".into(), error.code().into());
    app.audit(principal, action, target.into(), ActOutcome::Refused, told).await?;
    Ok(error.into())
}

/// The body, on the disk. What is too large is refused before it is read where its length is told.
async fn receive(mut spool: Spool, headers: &HeaderMap, body: Stream) -> Result<Spool, registry::Error> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    spool.expect(length.unwrap_or(0))?;
    let mut parts = body.into_data_stream();
    loop {
        match tokio::time::timeout(SILENCE, parts.next()).await {
            Ok(Some(Ok(part))) => spool.write(&part).await?,
            Ok(None) => return Ok(spool),
            Ok(Some(Err(error))) => return Err(registry::Error::BrokeOff(error.to_string())),
            Err(_) => {
                return Err(registry::Error::BrokeOff(format!("nothing came for {} s", SILENCE.as_secs())));
            }
        }
    }
}

fn is_of_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Error> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim();
    if given == wanted || given == "application/octet-stream" {
        return Ok(());
    }
    Err(Error::Body(format!("the header `Content-Type: {wanted}` is missing")))
}

fn named(file: Option<String>) -> Result<Option<String>, Error> {
    match &file {
        Some(name) if name.len() > 256 || name.chars().any(char::is_control) => Err(Error::Parameter {
            name: "file".into(),
            reason: "it has more than 256 bytes or control characters".into(),
        }),
        Some(_) | None => Ok(file),
    }
}

/// Remove a component that neither a slot, nor the active bundle, nor a recorded decision needs.
#[utoipa::path(delete, path = "/plugins/{digest}", tag = "plugins", operation_id = "removePlugin", params(("digest" = String, Path)),
    responses((status = 204, description = "Removed"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove(State(app): State<App>, principal: Principal, Id(digest): Id) -> Result<StatusCode, Error> {
    let digest = Digest(digest);
    let target = format!("component/{}", digest.0.chars().take(64).collect::<String>());
    match app.registry().remove(&digest).await {
        Ok(record) => {
            let told = BTreeMap::from([("component".to_owned(), format!("{} {}", record.name, record.version))]);
            app.audit(&principal, "plugin.remove", target, ActOutcome::Done, told).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => Err(refused(&app, &principal, "plugin.remove", &target, BTreeMap::new(), error).await?),
    }
}

/// Let slots take a component again that was quarantined.
#[utoipa::path(post, path = "/plugins/{digest}/lift-quarantine", tag = "plugins", operation_id = "liftQuarantine", params(("digest" = String, Path)),
    responses((status = 204, description = "Lifted"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn lift_quarantine(
    State(app): State<App>,
    principal: Principal,
    Id(digest): Id,
) -> Result<StatusCode, Error> {
    let digest = Digest(digest);
    let record = app.registry().record(&digest).await?;
    if record.quarantine.is_none() {
        return Err(Error::Conflict("the component is not in quarantine".into()));
    }
    app.registry().lift_quarantine(&digest).await?;
    let told = BTreeMap::from([("component".to_owned(), format!("{} {}", record.name, record.version))]);
    app.audit(&principal, "plugin.lift-quarantine", format!("component/{digest}"), ActOutcome::Done, told).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove what the policy lets go (`[plugins]` in the configuration); with `dry_run` only say what that would be.
#[utoipa::path(post, path = "/plugins/collect-garbage", tag = "plugins", operation_id = "collectGarbage", request_body = CollectGarbage,
    responses((status = 200, body = Vec<Collected>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn collect_garbage(
    State(app): State<App>,
    principal: Principal,
    Body(request): Body<CollectGarbage>,
) -> Result<Json<Vec<Collected>>, Error> {
    let removed = app.registry().collect_garbage(clock::now(), request.dry_run).await?;
    if !request.dry_run {
        let told = BTreeMap::from([("removed".to_owned(), removed.len().to_string())]);
        app.audit(&principal, "plugin.collect-garbage", "registry".into(), ActOutcome::Done, told).await?;
    }
    Ok(Json(removed.into_iter().map(Collected::from).collect()))
}

/// The sets of assets that this host has.
#[utoipa::path(get, path = "/assets", tag = "plugins", operation_id = "listAssets",
    responses((status = 200, body = Vec<AssetsRecord>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_assets(State(app): State<App>) -> Result<Json<Vec<AssetsRecord>>, Error> {
    Ok(Json(app.registry().list_assets().await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AssetsParams {
    /// For people, and what keeps versions together: 1 to 63 of a-z, 0-9, `-` and `.`.
    name: String,
}

/// Upload a set of assets as a tar archive of plain files. The same files are the same set: 200 if it was there
/// before, 201 if it is new.
#[utoipa::path(post, path = "/assets", tag = "plugins", operation_id = "uploadAssets", params(AssetsParams),
    request_body(content = String, content_type = "application/x-tar"),
    responses((status = 200, body = AssetsUpload), (status = 201, body = AssetsUpload), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn upload_assets(
    State(app): State<App>,
    principal: Principal,
    Params(params): Params<AssetsParams>,
    headers: HeaderMap,
    body: Stream,
) -> Result<(StatusCode, Json<AssetsUpload>), Error> {
    is_of_type(&headers, "application/x-tar")?;
    let name: String = params.name.chars().filter(|c| !c.is_control()).take(256).collect();
    let told = BTreeMap::from([("assets".to_owned(), name.clone())]);
    let taken = async { receive(app.registry().spool_assets()?, &headers, body).await?.read().await };
    let archive = match taken.await {
        Ok(archive) => archive,
        Err(error) => return Err(refused(&app, &principal, "assets.push", "assets", told, error).await?),
    };
    let (here, registry) = (app.clone(), app.registry().clone());
    let work = async move {
        match registry.put_archive(&name, archive, principal.id.clone()).await {
            Ok((record, is_new)) => {
                let target = format!("assets/{}", record.digest);
                here.audit(&principal, "assets.push", target, ActOutcome::Done, told).await?;
                Ok(AssetsUpload { assets: record, is_new })
            }
            Err(error) => Err(refused(&here, &principal, "assets.push", "assets", told, error).await?),
        }
    };
    let uploaded = app.0.parts.tasks.spawn(work).await.map_err(Error::internal)??;
    Ok((if uploaded.is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(uploaded)))
}

/// Remove a set of assets that neither a slot nor a recorded decision needs.
#[utoipa::path(delete, path = "/assets/{digest}", tag = "plugins", operation_id = "removeAssets", params(("digest" = String, Path)),
    responses((status = 204, description = "Removed"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove_assets(
    State(app): State<App>,
    principal: Principal,
    Id(digest): Id,
) -> Result<StatusCode, Error> {
    let digest = Digest(digest);
    let target = format!("assets/{}", digest.0.chars().take(64).collect::<String>());
    match app.registry().remove_assets(&digest).await {
        Ok(record) => {
            let told = BTreeMap::from([("assets".to_owned(), record.name)]);
            app.audit(&principal, "assets.remove", target, ActOutcome::Done, told).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => Err(refused(&app, &principal, "assets.remove", &target, BTreeMap::new(), error).await?),
    }
}
