//! About the node itself: health, readiness, metrics, namespaces, cluster.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};
use unisondb_api::body::answer::NamespaceMade;
use unisondb_api::body::request::{NewMember, NewNamespace};
use unisondb_api::{ApiError, Route};
use unisondb_types::Namespace;

use crate::dispatch::Call;
use crate::envelope::{self, Reply};
use crate::host::{ClusterNode, Standing, State};
use crate::kv::missing;
use crate::{Role, guard, intake, metrics, outcome, path};

/// All routes outside of a namespace.
pub(crate) async fn answer(call: &Call<'_>, route: Route<'_>, body: Body) -> Reply {
    match route {
        Route::Health => Ok(health(call)),
        Route::Live => Ok(envelope::json(&json!({"status": "ok"}))),
        Route::Ready => ready(call, None),
        Route::Primary => ready(call, Some("leader")),
        Route::Replica => ready(call, Some("replica")),
        Route::Metrics => Ok(scraped(call)),
        Route::Cluster => Ok(cluster(call)),
        Route::Members => add_node(call, body).await,
        Route::Member(node) => remove_node(call, node).await,
        Route::Namespaces if call.parts.method == Method::POST => make(call, body).await,
        Route::Namespaces => Ok(list(call)),
        Route::Namespace(name) => remove(call, name).await,
        Route::In(..) => unreachable!("routes in a namespace are answered elsewhere"),
    }
}

/// GET `/health`: 200 as long as the process can say how it is.
fn health(call: &Call<'_>) -> Response {
    let host = &call.app.host;
    let about = host.about();
    let standings = host.namespaces();
    let mut states = Map::new();
    let mut notes = Vec::new();
    let mut fields = Map::new();
    let mut degraded = false;
    for Standing { namespace, state } in &standings {
        let name = namespace.as_str();
        let (word, reason) = match state {
            State::Open {
                engine,
                notes: found,
            } => {
                for note in found {
                    degraded |= note.degraded;
                    fields
                        .entry(note.field)
                        .or_insert_with(|| note.value.clone().into());
                    notes.push(json!({
                        "namespace": name, "field": note.field, "value": note.value, "text": note.text,
                    }));
                }
                match engine.stopped() {
                    Some(reason) => ("stopped", Some(reason)),
                    None => ("open", None),
                }
            }
            State::Starting { doing } => ("starting", Some(doing.clone())),
            State::Failed { reason } => ("failed", Some(reason.clone())),
        };
        degraded |= word != "open";
        if let Some(text) = reason {
            notes.push(json!({"namespace": name, "field": "state", "value": word, "text": text}));
        }
        states.insert(name.to_owned(), word.into());
    }
    if let Some(text) = host.cluster_waits() {
        degraded = true;
        notes.push(json!({"field": "cluster", "value": "waiting", "text": text}));
    }
    if let Some(text) = &about.unnamed {
        degraded = true;
        notes.push(json!({"field": "state", "value": "starting", "text": text}));
    }
    let names: Vec<&str> = standings.iter().map(|s| s.namespace.as_str()).collect();
    let mut answer = Map::new();
    let status = if degraded { "degraded" } else { "ok" };
    answer.insert("status".into(), status.into());
    answer.insert("namespaces".into(), names.into());
    answer.insert("node".into(), about.node.into());
    answer.insert("role".into(), about.role.into());
    answer.insert(
        "cluster".into(),
        about.cluster.map(|c| c.to_string()).into(),
    );
    answer.insert("version".into(), about.version.into());
    answer.insert("durability".into(), about.durability.into());
    // Not known yet is not said: who looks for `true` waits, who looks for `false` is not misled.
    if let Some(isolated) = about.isolated {
        answer.insert("isolated".into(), isolated.into());
    }
    answer.insert("states".into(), states.into());
    answer.insert("notes".into(), notes.into());
    // A note never hides what the contract promises under a name of its own.
    for (field, value) in fields {
        answer.entry(field).or_insert(value);
    }
    envelope::json(&answer)
}

/// `/readyz`, `/primary`, `/replica`: 200 or 503, for a balancer.
fn ready(call: &Call<'_>, role: Option<&str>) -> Reply {
    let (host, query) = (&call.app.host, call.query);
    let asked = query.text("role")?;
    let role = role.or(asked.as_deref()).unwrap_or("any");
    let max_lag_lsn: Option<u64> = query.parse("maxLagLsn", "a number")?;
    let max_lag_ms: Option<u64> = query.parse("maxLagMs", "a number of milliseconds")?;
    let only = query.text("namespace")?;
    let about = host.about();
    let wanted = match role {
        "any" => true,
        "leader" => about.role == "leader",
        "replica" => about.role != "leader",
        other => {
            return Err(ApiError::bad_request(format_args!(
                "role={other:?}: any, leader or replica is wanted"
            )));
        }
    };
    if about.ignores_cluster {
        return Err(ApiError::unavailable(
            "not ready: this is a restored directory that ignored its cluster settings; start it with --cluster or --config on the command line",
        ));
    }
    if !wanted {
        return Err(ApiError::unavailable(format_args!(
            "not ready: this node is a {}",
            about.role
        )));
    }
    // One that has data serves it, also while it waits to be one of several.
    if let Some(why) = host.cluster_waits()
        && host.namespaces().is_empty()
    {
        return Err(ApiError::unavailable(format_args!("not ready: {why}")));
    }
    // Asked for after `about`: a namespace that gets its name in between is in one of the two.
    let mut standings = host.namespaces();
    if let Some(doing) = about.unnamed {
        return Err(ApiError::unavailable(format_args!("not ready: {doing}")));
    }
    if let Some(only) = only {
        let name: Namespace = only.parse().map_err(ApiError::bad_request)?;
        standings.retain(|s| s.namespace == name);
        if standings.is_empty() {
            return Err(ApiError::namespace_not_found(&name));
        }
    }
    let now = call.app.clock().now();
    for Standing { namespace, state } in standings {
        let engine = match state {
            State::Open { engine, .. } => engine,
            State::Starting { doing } => return Err(not_ready(&namespace, &doing)),
            State::Failed { reason } => return Err(not_ready(&namespace, &reason)),
        };
        if let Some(reason) = engine.stopped() {
            return Err(not_ready(&namespace, &reason));
        }
        // What it shows ends at a hole: nobody may take it for the one to write to.
        if let (Some(why), true) = (engine.read_only(), role == "leader") {
            return Err(not_ready(&namespace, &format!("read-only: {why}")));
        }
        let p = engine.positions();
        let behind = p.committed.get().saturating_sub(p.applied.get());
        if max_lag_lsn.is_some_and(|max| behind > max) {
            return Err(not_ready(&namespace, &format!("{behind} records behind")));
        }
        let late_ms = now.micros_since(p.applied_stamp) / 1_000;
        if behind > 0 && max_lag_ms.is_some_and(|max| late_ms > max) {
            return Err(not_ready(&namespace, &format!("{late_ms} ms behind")));
        }
    }
    Ok(envelope::json(
        &json!({"status": "ready", "node": about.node, "role": about.role}),
    ))
}

fn not_ready(namespace: &Namespace, why: &str) -> ApiError {
    ApiError::unavailable(format_args!("not ready: namespace {namespace}: {why}"))
}

fn scraped(call: &Call<'_>) -> Response {
    let app = call.app;
    let render = app.settings.render_metrics.as_ref();
    let text = metrics::scrape(app.host.as_ref(), &app.missed, &app.requests, render);
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Namespaces that the caller may know of (P15).
fn visible(call: &Call<'_>) -> Vec<Standing> {
    let mut standings = call.app.host.namespaces();
    if let Some(token) = call.who {
        standings.retain(|s| token.knows(s.namespace.as_str()));
    }
    standings
}

fn about_namespaces(standings: &[Standing]) -> Vec<Value> {
    let one = |s: &Standing| {
        let name = s.namespace.as_str();
        match &s.state {
            State::Open { engine, .. } => json!({
                "name": name,
                "state": if engine.stopped().is_some() { "stopped" } else { "open" },
                "lineage": engine.lineage(),
                "appliedLsn": engine.applied(),
            }),
            State::Starting { doing } => {
                json!({"name": name, "state": "starting", "reason": doing})
            }
            State::Failed { reason } => json!({"name": name, "state": "failed", "reason": reason}),
        }
    };
    standings.iter().map(one).collect()
}

/// GET `/api/v1/namespaces`.
fn list(call: &Call<'_>) -> Response {
    let standings = visible(call);
    let names: Vec<&str> = standings.iter().map(|s| s.namespace.as_str()).collect();
    envelope::json(&json!({"namespaces": names, "details": about_namespaces(&standings)}))
}

/// GET `/api/v1/cluster`: what this node knows of its cluster. Alone it is one of one.
fn cluster(call: &Call<'_>) -> Response {
    let about = call.app.host.about();
    let nodes = match call.app.host.cluster() {
        None => json!([{"node": about.node, "role": about.role, "version": about.version}]),
        Some(view) => {
            let role = |leads| if leads { "leader" } else { "follower" };
            let one = |n: ClusterNode| json!({"node": n.name, "id": n.id, "address": n.address, "role": role(n.leads), "votes": n.votes});
            let nodes: Vec<Value> = view.nodes.into_iter().map(one).collect();
            let known = |name: &String| call.who.is_none_or(|token| token.knows(name));
            let leaders = view.leaders.into_iter().filter(|(name, _)| known(name));
            return envelope::json(&json!({
                "cluster": about.cluster,
                "isolated": about.isolated,
                "nodes": nodes,
                "wanted": view.wanted,
                "waits": view.waits,
                "leaders": leaders.collect::<BTreeMap<_, _>>(),
                "namespaces": about_namespaces(&visible(call)),
            }));
        }
    };
    envelope::json(&json!({
        "cluster": about.cluster,
        "isolated": about.isolated,
        "nodes": nodes,
        "namespaces": about_namespaces(&visible(call)),
    }))
}

/// POST `/api/v1/cluster/members`.
async fn add_node(call: &Call<'_>, body: Body) -> Reply {
    guard::allow_all(call.who, Role::Admin)?;
    let body = call.body(body).await?;
    let asked: NewMember<'_> = intake::json(&body)?;
    let address = asked.address.ok_or_else(|| missing("address"))?;
    let added = call.app.host.add_node(address.as_str()).await;
    added.map_err(outcome::host)?;
    tracing::info!(target: "audit", who = call.name(), route = "POST /api/v1/cluster/members", address = address.as_str(), result = "ok");
    Ok(envelope::json(
        &json!({"success": true, "address": address.as_str()}),
    ))
}

/// DELETE `/api/v1/cluster/members/{node}`.
async fn remove_node(call: &Call<'_>, raw: &str) -> Reply {
    guard::allow_all(call.who, Role::Admin)?;
    let node = path::node(raw)?;
    let removed = call.app.host.remove_node(&node).await;
    removed.map_err(outcome::host)?;
    tracing::info!(target: "audit", who = call.name(), route = "DELETE /api/v1/cluster/members/{node}", node, result = "ok");
    Ok(envelope::json(&json!({"success": true, "node": node})))
}

/// POST `/api/v1/namespaces`.
async fn make(call: &Call<'_>, body: Body) -> Reply {
    let body = call.body(body).await?;
    let asked: NewNamespace<'_> = intake::json(&body)?;
    let name = asked.name.ok_or_else(|| missing("name"))?;
    let namespace: Namespace = name.as_str().parse().map_err(ApiError::bad_request)?;
    guard::allow(call.who, &[Role::Admin], namespace.as_str())?;
    call.app
        .host
        .create(&namespace)
        .await
        .map_err(outcome::host)?;
    tracing::info!(target: "audit", who = call.name(), route = "POST /api/v1/namespaces", %namespace, result = "ok");
    Ok(envelope::json(&NamespaceMade {
        success: true,
        name: namespace.to_string(),
    }))
}

/// DELETE `/api/v1/namespaces/{name}?confirm={name}`.
async fn remove(call: &Call<'_>, raw: &str) -> Reply {
    let namespace = path::namespace(raw)?;
    guard::allow(call.who, &[Role::Admin], namespace.as_str())?;
    if call.query.text("confirm")?.as_deref() != Some(namespace.as_str()) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!(
                "this moves {namespace} with all its data to the trash: repeat it with ?confirm={namespace}"
            ),
        ));
    }
    call.app
        .host
        .delete(&namespace)
        .await
        .map_err(outcome::host)?;
    tracing::info!(target: "audit", who = call.name(), route = "DELETE /api/v1/namespaces/{name}", %namespace, result = "ok");
    Ok(envelope::json(&NamespaceMade {
        success: true,
        name: namespace.to_string(),
    }))
}
