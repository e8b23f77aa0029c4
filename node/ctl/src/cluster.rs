//! `udbctl cluster` and `udbctl namespace`: what a node is asked to do for all of them.

use serde_json::{Value, json};
use unisondb_api::Client;

use crate::cli::{ClusterCommand, NamespaceCommand, NodeArgs};
use crate::exit::Failure;
use crate::output::{Output, table};
use crate::remote::ask;

/// `udbctl cluster`.
pub(crate) fn cluster(what: &ClusterCommand, output: &Output) -> Result<(), Failure> {
    match what {
        ClusterCommand::Status(node) => {
            let status = ask(node, async |client: Client| client.cluster().await)?;
            output.print(&status, in_words)
        }
        ClusterCommand::Add { node, address } => {
            add(node, address)?;
            done(output, "added", address)
        }
        ClusterCommand::Remove { node, who } => {
            remove(node, who)?;
            done(output, "removed", who)
        }
        ClusterCommand::Replace { node, who, address } => {
            let status = ask(node, async |client: Client| client.cluster().await)?;
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            let is_meant = |n: &Value| {
                let is = |name: &str| n[name].as_str() == Some(who);
                is("node") || is("id") || is("address")
            };
            let stays = |n: &Value| is_meant(n) && n["address"].as_str() == Some(address);
            if nodes.iter().any(stays) {
                // A new node under the old one's address: that has to be free first.
                remove(node, who)?;
                add(node, address)?;
            } else {
                // The new one first: at no moment are there fewer than before.
                add(node, address)?;
                remove(node, who)?;
            }
            done(output, "replaced", who)
        }
    }
}

fn remove(node: &NodeArgs, who: &str) -> Result<(), Failure> {
    ask(node, async |client: Client| client.remove_node(who).await)
}

fn add(node: &NodeArgs, address: &str) -> Result<(), Failure> {
    ask(node, async |client: Client| client.add_node(address).await)
}

fn done(output: &Output, did: &str, what: &str) -> Result<(), Failure> {
    output.print(&json!({"success": true, did: what}), |_| {
        format!("{did} {what}\n")
    })
}

fn in_words(status: &Value) -> String {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or("-").to_owned();
    let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let mut out = format!("cluster {}\n", text(status, "cluster"));
    let head = ["node", "id", "address", "role", "votes"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for node in list("nodes") {
        rows.push(vec![
            text(&node, "node"),
            text(&node, "id"),
            text(&node, "address"),
            text(&node, "role"),
            match node["votes"].as_bool() {
                Some(true) => "yes".to_owned(),
                Some(false) => "not yet".to_owned(),
                None => "-".to_owned(),
            },
        ]);
    }
    out.push_str(&table(&rows));
    let leaders = status["leaders"].as_object().cloned().unwrap_or_default();
    for (namespace, leader) in leaders {
        let leader = leader.as_str().unwrap_or("-");
        out.push_str(&format!("namespace {namespace}: led by {leader}\n"));
    }
    for wanted in list("wanted") {
        let wanted = wanted.as_str().unwrap_or("-");
        out.push_str(&format!("wanted, and not in yet: {wanted}\n"));
    }
    if let Some(waits) = status["waits"].as_str() {
        out.push_str(&format!("note: {waits}\n"));
    }
    out
}

/// `udbctl namespace`.
pub(crate) fn namespace(what: &NamespaceCommand, output: &Output) -> Result<(), Failure> {
    match what {
        NamespaceCommand::List(node) => {
            let listed = ask(node, async |client: Client| client.namespaces().await)?;
            output.print(&listed, |listed| {
                let names = listed["namespaces"].as_array().into_iter().flatten();
                names
                    .filter_map(Value::as_str)
                    .map(|name| format!("{name}\n"))
                    .collect()
            })
        }
        NamespaceCommand::Create { node, name } => {
            ask(node, async |client: Client| {
                client.create_namespace(name.as_str()).await
            })?;
            done(output, "created", name.as_str())
        }
        NamespaceCommand::Delete {
            node,
            name,
            confirm,
        } => {
            ask(node, async |client: Client| {
                client
                    .delete_namespace(name.as_str(), confirm.as_str())
                    .await
            })?;
            done(output, "deleted", name.as_str())
        }
    }
}
