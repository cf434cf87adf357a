//! All that a config repo can tell of a ledger that is lost. Reads everything, changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use camino::Utf8Path;
use gix::ObjectId;
use gix::objs::Kind;
use jiff::Timestamp;
use shared::CommitOid;

use super::refs::{Refs, follow};
use super::repo::{MAX_META_BYTES, Repo, commit_oid};
use super::text::title_and_reason;
use crate::host::HostError;

/// A config repo as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepoSurvey {
    /// Where `main` points.
    pub main: Option<CommitOid>,
    /// The first commit of `main`, by first parents.
    pub root: Option<CommitOid>,
    /// The tags that lead to a commit, by name without `refs/tags/`.
    pub tags: BTreeMap<String, SurveyedTag>,
    /// What could not be followed: a ref, and why.
    pub broken: BTreeMap<String, String>,
}

/// A tag and the commit it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedTag {
    /// The commit.
    pub commit: CommitOid,
    /// The first commit of its history, by first parents.
    pub root: CommitOid,
    /// The annotation; empty for a lightweight tag.
    pub message: String,
    /// The time in the tag, to the second; 1970 for a lightweight tag.
    pub at: Timestamp,
    /// The commit's title. Untrusted.
    pub title: String,
    /// The rest of the commit's message. Untrusted.
    pub reason: String,
    /// Whether the commit is `main` or one of its ancestors.
    pub below_main: bool,
}

/// Reads the repository at `path`; `None` when there is none. Blocks.
///
/// # Errors
/// When there is something that cannot be read as a repository.
pub fn survey(path: &Utf8Path, subject: &str) -> Result<Option<RepoSurvey>, HostError> {
    let Some(repo) = Repo::open(path, subject.to_owned())? else {
        return Ok(None);
    };
    let refs = Refs::of(&repo);
    let mut found = RepoSurvey::default();
    let mut surveyor = Surveyor {
        repo: &repo,
        roots: HashMap::new(),
    };
    let mut below_main = HashSet::new();
    match refs.main().and_then(|main| {
        main.map(|main| Ok((main, surveyor.root(main)?, surveyor.ancestors(main)?)))
            .transpose()
    }) {
        Ok(None) => {}
        Ok(Some((main, root, ancestors))) => {
            found.main = Some(commit_oid(main)?);
            found.root = Some(root);
            below_main = ancestors;
        }
        Err(error) => {
            found.broken.insert("main".to_owned(), error.chain());
        }
    }
    for (name, object) in refs.tags()? {
        match surveyor.tag(object, &below_main) {
            Ok(Some(tag)) => {
                found.tags.insert(name, tag);
            }
            Ok(None) => {
                found.broken.insert(name, "it leads to no commit".to_owned());
            }
            Err(error) => {
                found.broken.insert(name, error.chain());
            }
        }
    }
    Ok(Some(found))
}

struct Surveyor<'a> {
    repo: &'a Repo,
    /// The first commit of each commit looked at.
    roots: HashMap<ObjectId, ObjectId>,
}

impl Surveyor<'_> {
    fn tag(
        &mut self,
        object: ObjectId,
        below_main: &HashSet<ObjectId>,
    ) -> Result<Option<SurveyedTag>, HostError> {
        let Some((commit, message)) = follow(self.repo, object)? else {
            return Ok(None);
        };
        let at = if commit == object {
            Timestamp::UNIX_EPOCH
        } else {
            let tag = self.repo.read(object, Kind::Tag, MAX_META_BYTES)?;
            tagged_at(&tag).unwrap_or(Timestamp::UNIX_EPOCH)
        };
        let (title, reason) = title_and_reason(&self.repo.commit(commit)?.message);
        Ok(Some(SurveyedTag {
            commit: commit_oid(commit)?,
            root: self.root(commit)?,
            message,
            at,
            title,
            reason,
            below_main: below_main.contains(&commit),
        }))
    }

    fn root(&mut self, commit: ObjectId) -> Result<CommitOid, HostError> {
        let mut path = Vec::new();
        let mut id = commit;
        let root = loop {
            if let Some(root) = self.roots.get(&id) {
                break *root;
            }
            path.push(id);
            match self.repo.commit(id)?.parents.first() {
                Some(parent) => id = *parent,
                None => break id,
            }
        };
        self.roots.extend(path.into_iter().map(|id| (id, root)));
        commit_oid(root)
    }

    fn ancestors(&self, commit: ObjectId) -> Result<HashSet<ObjectId>, HostError> {
        let mut seen = HashSet::from([commit]);
        let mut open = vec![commit];
        while let Some(id) = open.pop() {
            let parents = self.repo.commit(id)?.parents;
            open.extend(parents.into_iter().filter(|parent| seen.insert(*parent)));
        }
        Ok(seen)
    }
}

/// When a tag object says it was made.
fn tagged_at(tag: &[u8]) -> Option<Timestamp> {
    let text = String::from_utf8_lossy(tag);
    let (header, _) = text.split_once("\n\n")?;
    let tagger = header.lines().find_map(|line| line.strip_prefix("tagger "))?;
    let mut words = tagger.rsplit(' ');
    let (_zone, seconds) = (words.next()?, words.next()?);
    Timestamp::from_second(seconds.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_tag_is_read_whoever_is_named_in_it() {
        let at =
            |tagger: &str| tagged_at(format!("object x\ntagger {tagger}\n\ntagger y 9 +0000\n").as_bytes());
        let seconds = |n| Timestamp::from_second(n).ok();
        assert_eq!(
            at("hyperhive <hive@localhost> 1700000000 +0000"),
            seconds(1_700_000_000)
        );
        assert_eq!(at("a b c <d e> 5 -0700"), seconds(5));
        assert_eq!(at("nobody"), None);
        assert_eq!(tagged_at(b"object x\n\ntagger y 9 +0000\n"), None);
    }
}
