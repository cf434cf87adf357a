//! Who is on trial with a new base, over all agents.

use shared::AgentName;

use super::Ledger;
use super::error::LedgerError;
use super::sql::{Columns as _, list};
use crate::model::records::Probation;

impl Ledger {
    /// How many agents there are, and which of them are on trial with a new base, by name. A trial that cannot be read
    /// is left out: it is told of where its agent is looked at, and others need not wait for it.
    pub async fn base_trials(&self) -> Result<(usize, Vec<(AgentName, Probation)>), LedgerError> {
        self.read(|db| {
            let sql = "SELECT count(*) FROM agents WHERE life = 'active'";
            let agents: i64 = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            let sql = "SELECT p.uid, a.name, p.doc FROM probations p JOIN agents a ON a.uid = p.uid
                       WHERE a.life = 'active'
                         AND CASE WHEN json_valid(p.doc) THEN json_extract(p.doc, '$.updatesBase') END";
            let trials = list(db, ("probations", &["uid"]), sql, [], |row| {
                Ok((row.parsed("name")?, row.json("doc")?))
            })?;
            Ok((usize::try_from(agents).unwrap_or_default(), trials.items))
        })
        .await
    }
}
