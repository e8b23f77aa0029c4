//! A namespace of the cluster on this node: had as the catalog means it, or discarded. Each step is by the row
//! as it is now, and only as long as it stays so.

use unisondb_api::peer::GroupId;
use unisondb_http::Note;
use unisondb_types::{LineageId, LineageReason, Lsn, Namespace, SegmentId};

use super::catalog::{At, Catalog, Change, Fate, MemberRow, NamespaceRow};
use super::line::Node;
use super::{decode, origin};
use crate::registry::Wanted;
use crate::writer::Lane;

impl Node {
    /// Whether there is nothing to do here for a namespace that is wanted.
    pub(super) fn is_in_line(
        &self,
        namespace: &Namespace,
        row: &NamespaceRow,
        set_down: Option<u64>,
    ) -> bool {
        let Some(lane) = self.registry.lane(namespace) else {
            return false;
        };
        if set_down != Some(lane.group().own()) || !self.is_meant(&lane, row) {
            return false;
        }
        if row.fate == Fate::Live {
            lane.open_to_clients();
        }
        true
    }

    /// Whether what lies here is the history that the cluster means, and not one that was restored.
    fn is_meant(&self, lane: &Lane, row: &NamespaceRow) -> bool {
        let own = lane.engine().history().lineage;
        row.lineage() == Some(own) && !self.registry.is_isolated(lane.engine())
    }

    /// Makes, joins or opens a namespace here, and says what it is. By the row as it is now, and only as
    /// long as it stays so.
    pub(super) async fn have(&self, namespace: &Namespace) -> Result<(), String> {
        let (mut row, written) = self.row(namespace)?;
        if !matches!(row.fate, Fate::Creating | Fate::Live) {
            return Err("it is wanted no more".to_owned());
        }
        let is_founder = row.founder == self.id();
        let lane = match self.registry.lane(namespace) {
            Some(lane) => lane,
            None if self.registry.is_known(namespace) => {
                return Err("it is being opened, or cannot be".to_owned());
            }
            None => {
                let wanted = if !row.origin.is_empty() {
                    Wanted::Join(namespace.clone(), Box::new(decode(&row.origin)?))
                } else if let Some(lineage) = row.lineage() {
                    self.parcel(namespace, lineage)?
                } else if is_founder && row.fate == Fate::Creating {
                    Wanted::Above(namespace.clone(), SegmentId::new(row.ids_above))
                } else {
                    return Err("its founder has not made it yet".to_owned());
                };
                let made = self.registry.make(namespace, wanted).await;
                made.map_err(|e| e.to_string())?;
                let lane = self.registry.lane(namespace);
                lane.ok_or("it was closed meanwhile")?
            }
        };
        let at = At::Namespace(namespace);
        let begins = origin(lane.engine());
        if row.lineage().is_none() && is_founder && !begins.is_empty() {
            row.origin = begins;
            let change = Change::default().only_if(&at, Some(written));
            return self.change(change.put(&at, &row)).await;
        }
        if !self.is_meant(&lane, &row) {
            return self.not_meant(&lane).await;
        }
        // Only as long as this node is one of the cluster.
        let node = At::Node(self.id());
        let known = node.written(self.lane.engine())?;
        let known = known.ok_or("this node is not in the catalog yet")?;
        let raft_id = lane.group().own();
        let change = Change::default()
            .only_if(&at, Some(written))
            .only_if(&node, Some(known))
            .put(&At::Member(namespace, self.id()), &MemberRow { raft_id });
        self.change(change).await
    }

    /// A snapshot to begin with, from a member that is set down: any has the same.
    fn parcel(&self, namespace: &Namespace, lineage: LineageId) -> Result<Wanted, String> {
        let catalog = Catalog::read(self.lane.engine())?;
        let of = catalog.members.get(namespace).into_iter().flatten();
        let mut others = of.filter(|(node, _)| **node != self.id());
        let (_, member) = others.next().ok_or("no node has set down that it has it")?;
        let namespace = namespace.clone();
        Ok(Wanted::Parcel(GroupId { namespace, lineage }, *member))
    }

    /// Another history lies here than the cluster has: of a namespace that was deleted and made again while
    /// this node knew nothing of it, which goes to the trash; or of one that was restored here, which stays.
    async fn not_meant(&self, lane: &Lane) -> Result<(), String> {
        let namespace = lane.engine().namespace();
        let here = lane.engine().history().lineage;
        let catalog = self.fresh().await?;
        let row = catalog.namespaces.get(namespace);
        let row = row.ok_or("it is no longer in the catalog")?;
        if self.is_meant(lane, row) || row.lineage().is_none() {
            return Ok(());
        }
        let history = lane.engine().history();
        if matches!(history.reason, LineageReason::Restored(_))
            || self.registry.is_isolated(lane.engine())
        {
            lane.note(Note {
                field: "cluster",
                value: "apart".to_owned(),
                text: format!("restored here as lineage {here}, which is not the cluster's: it takes no writes; move its folder away to have the cluster's"),
                degraded: true,
            });
            return Err("it was restored here".to_owned());
        }
        tracing::warn!(%namespace, lineage = %here, "the cluster has another history under this name: the one that lies here goes to the trash");
        let discarded = self.registry.discard(namespace).await;
        discarded.map_err(|e| e.to_string())
    }

    /// Discards a namespace here, and says so: if that is so still.
    pub(super) async fn discard(
        &self,
        namespace: &Namespace,
        is_set_down: bool,
    ) -> Result<(), String> {
        self.fresh().await?;
        let (mut row, written) = self.row(namespace)?;
        if !matches!(row.fate, Fate::Deleting | Fate::Deleted) {
            return Err("it is wanted again".to_owned());
        }
        if let Some(lane) = self.registry.lane(namespace) {
            if row.lineage().is_some() && !self.is_meant(&lane, &row) {
                return self.not_meant(&lane).await;
            }
            let discarded = self.registry.discard(namespace).await;
            discarded.map_err(|e| e.to_string())?;
        } else if self.registry.is_known(namespace) {
            return Err("it is being opened, or cannot be".to_owned());
        }
        if !is_set_down {
            return Ok(());
        }
        let used = self.registry.directory().retired(namespace);
        row.ids_above = row.ids_above.max(used.map_or(0, SegmentId::get));
        let at = At::Namespace(namespace);
        let change = Change::default().only_if(&at, Some(written)).put(&at, &row);
        self.change(change.remove(&At::Member(namespace, self.id())))
            .await
    }

    pub(super) fn row(&self, namespace: &Namespace) -> Result<(NamespaceRow, Lsn), String> {
        let found = NamespaceRow::read(self.lane.engine(), namespace)?;
        found.ok_or_else(|| "it is no longer in the catalog".to_owned())
    }

    /// This node makes a namespace that another was to make and has not.
    pub(super) async fn take_over(&self, namespace: &Namespace) -> Result<(), String> {
        let at = At::Namespace(namespace);
        let (mut row, written) = self.row(namespace)?;
        if row.fate != Fate::Creating || !row.origin.is_empty() {
            return Err("it was made meanwhile".to_owned());
        }
        row.founder = self.id();
        // What the other may have made all the same has ids that nobody uses again (P12).
        row.ids_above = SegmentId::new(row.ids_above).next_block().get();
        self.change(Change::default().only_if(&at, Some(written)).put(&at, &row))
            .await
    }

    /// Changes a fate, if it is `from`.
    pub(super) async fn change_fate(
        &self,
        namespace: &Namespace,
        from: Fate,
        to: Fate,
    ) -> Result<(), String> {
        let at = At::Namespace(namespace);
        let (mut row, written) = self.row(namespace)?;
        if row.fate != from {
            return Err("it has another fate now".to_owned());
        }
        row.fate = to;
        self.change(Change::default().only_if(&at, Some(written)).put(&at, &row))
            .await
    }
}
