//! What the routes see of a node: [`Host`], on the [`Registry`].

use std::sync::Arc;

use unisondb_api::Writer;
use unisondb_engine::Engine;
use unisondb_http::{About, Act, ClusterView, Host, HostError, Standing, Why};
use unisondb_platform::Platform;
use unisondb_types::Namespace;

use super::{Registry, Wanted};
use crate::cluster;
use crate::config::{self, Address};

impl Host for Registry {
    fn platform(&self) -> &Platform {
        &self.0.platform
    }

    fn writer(&self) -> Arc<dyn Writer> {
        self.0.writer.clone()
    }

    fn about(&self) -> About {
        // First: one that is opened in between is then among those that are looked at.
        let unknown = self.0.namespaces.are_any_unopened();
        let isolated = self.0.isolated();
        About {
            node: self.0.directory.name(),
            role: self.role(),
            cluster: match &self.0.ways {
                Some(ways) => ways.cluster(),
                None => Some(self.0.directory.cluster()),
            },
            isolated: (isolated || !unknown).then_some(isolated),
            unnamed: self.0.namespaces.unnamed(),
            ignores_cluster: isolated && !self.0.effective.cluster_settings().is_empty(),
            version: env!("CARGO_PKG_VERSION"),
            data_dir: self.0.directory.path().to_owned(),
            durability: match self.0.effective.config.durability {
                config::Durability::Always => "always",
                config::Durability::Interval => "interval",
            },
        }
    }

    fn role(&self) -> &'static str {
        let Some(ways) = &self.0.ways else {
            return "leader";
        };
        let own = self.0.namespaces.lane(ways.own());
        match own.is_ok_and(|lane| lane.group().leads()) {
            true => "leader",
            false => "follower",
        }
    }

    fn namespaces(&self) -> Vec<Standing> {
        self.0.namespaces.all()
    }

    fn find(&self, namespace: &Namespace) -> Option<Standing> {
        self.0.namespaces.find(namespace)
    }

    fn absent<'a>(&'a self, namespace: &'a Namespace) -> Why<'a> {
        Box::pin(async move {
            match &self.0.ways {
                Some(_) => cluster::absent(self, namespace).await,
                None => HostError::NotFound(namespace.clone()),
            }
        })
    }

    fn create<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, Engine> {
        Box::pin(async move {
            match &self.0.ways {
                Some(ways) => cluster::create(self, ways, namespace).await,
                None => {
                    self.make(namespace, Wanted::Folder(namespace.clone()))
                        .await
                }
            }
        })
    }

    fn auto_create(&self) -> bool {
        self.0.effective.config.auto_create() && !self.0.flat
    }

    fn delete<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, ()> {
        Box::pin(async move {
            match &self.0.ways {
                Some(ways) => cluster::delete(self, ways, namespace).await,
                None => self.discard(namespace).await,
            }
        })
    }

    fn cluster(&self) -> Option<ClusterView> {
        let ways = self.0.ways.as_ref()?;
        Some(cluster::view(self, ways))
    }

    fn cluster_waits(&self) -> Option<String> {
        Registry::cluster_waits(self)
    }

    fn add_node<'a>(&'a self, address: &'a str) -> Act<'a, ()> {
        Box::pin(async move {
            let Some(ways) = &self.0.ways else {
                return Err(HostError::alone());
            };
            let address: Address = address
                .parse()
                .map_err(|e| HostError::Refused(format!("{e}")))?;
            cluster::add(self, ways, &address.to_string()).await
        })
    }

    fn remove_node<'a>(&'a self, who: &'a str) -> Act<'a, ()> {
        Box::pin(async move {
            match &self.0.ways {
                Some(ways) => cluster::remove(self, ways, who).await,
                None => Err(HostError::alone()),
            }
        })
    }
}
