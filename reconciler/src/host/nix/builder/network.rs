//! What a build would fetch, and whether it may.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8Path;

use super::{Building, NixBuilder};
use crate::host::HostError;
use crate::host::blocking::blocking;
use crate::host::nix::derivation::Derivation;
use crate::host::nix::fault::Stage;
use crate::model::build::NixInputs;

/// The most hosts that are asked about.
const MAX_HOSTS: usize = 16;
/// The largest derivation that is read, in bytes.
const MAX_DERIVATION: u64 = 4 * 1024 * 1024;

impl NixBuilder {
    /// Refuses what would fetch from hosts that the operator did not name.
    pub(super) async fn check_network(
        &self,
        job: &Building<'_>,
        nix: &NixInputs,
        wanted: &[String],
    ) -> Result<(), HostError> {
        let mut words = vec!["--realise".to_owned(), "--dry-run".to_owned()];
        words.extend(wanted.iter().cloned());
        let ended = self.store(job, Stage::Building, words).await?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let mut asked = BTreeMap::new();
        for path in to_be_built(&said) {
            let path = self.options.store.path(path)?;
            let file = path.root().to_owned();
            let text = blocking(file.to_string(), move || read_bounded(&file)).await?;
            let derivation = Derivation::parse(&text)
                .ok_or_else(|| HostError::refused(path.to_string(), "is no derivation that can be read"))?;
            if derivation.is_fixed {
                let name = path.name().trim_end_matches(".drv").to_owned();
                asked.insert(name, derivation.hosts());
            }
        }
        judge(&asked, &nix.hosts)
    }
}

/// What fetches, each with the hosts it names, held against what is allowed.
fn judge(asked: &BTreeMap<String, Vec<String>>, allowed: &BTreeSet<String>) -> Result<(), HostError> {
    let is_allowed =
        |hosts: &Vec<String>| !hosts.is_empty() && hosts.iter().all(|host| allowed.contains(host));
    let others: Vec<(&String, &Vec<String>)> = asked.iter().filter(|(_, hosts)| !is_allowed(hosts)).collect();
    if others.is_empty() {
        return Ok(());
    }
    let named = others.iter().map(|(name, hosts)| match hosts.as_slice() {
        [] => format!("{name} (it does not say from where)"),
        hosts => format!("{name} (from {})", hosts.join(", ")),
    });
    let message = format!(
        "it would fetch over the network: {}. The operator allows hosts in builder.hosts of the spec; what the store has \
         already needs none",
        named.collect::<Vec<_>>().join("; ")
    );
    let hosts: BTreeSet<String> = others
        .iter()
        .flat_map(|(_, hosts)| hosts.iter())
        .filter(|host| !allowed.contains(*host))
        .cloned()
        .collect();
    let all_say_where = others.iter().all(|(_, hosts)| !hosts.is_empty());
    // More than somebody would read is not asked about.
    if all_say_where && hosts.len() <= MAX_HOSTS {
        let subject = "the build".to_owned();
        return Err(HostError::WantsHosts {
            subject,
            message,
            hosts,
        });
    }
    Err(HostError::refused("the build", message))
}

/// The derivations that a dry run says it would build.
fn to_be_built(said: &str) -> Vec<&str> {
    let start = |text: &str| text.contains("will be built:");
    said.lines()
        .skip_while(|text| !start(text))
        .skip(1)
        .map_while(|text| text.strip_prefix("  "))
        .collect()
}

fn read_bounded(file: &Utf8Path) -> Result<Vec<u8>, HostError> {
    use std::io::Read as _;
    let failed = || HostError::io("read", file.as_str());
    let mut text = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed())?;
    opened
        .take(MAX_DERIVATION + 1)
        .read_to_end(&mut text)
        .map_err(failed())?;
    if text.len() as u64 > MAX_DERIVATION {
        return Err(HostError::refused(file.as_str(), "is too large a derivation"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(asked: &[(&str, &[&str])], allowed: &[&str]) -> Result<(), HostError> {
        let owned = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
        let asked = asked
            .iter()
            .map(|(name, hosts)| ((*name).to_owned(), owned(hosts)));
        let allowed = allowed.iter().map(|host| (*host).to_owned()).collect();
        judge(&asked.collect(), &allowed)
    }

    #[test]
    fn hosts_that_are_not_declared_are_asked_about_by_name() {
        assert!(judged(&[], &[]).is_ok());
        assert!(judged(&[("a", &["x.example"])], &["x.example"]).is_ok());
        let error = judged(
            &[("a", &["x.example", "y.example"]), ("b", &["x.example"])],
            &["x.example"],
        );
        let Err(HostError::WantsHosts { hosts, message, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(hosts, BTreeSet::from(["y.example".to_owned()]));
        assert!(
            message.contains("a (from x.example, y.example)") && !message.contains("b ("),
            "{message}"
        );
    }

    #[test]
    fn what_does_not_say_from_where_or_names_too_many_is_refused() {
        let names: Vec<String> = (0..=MAX_HOSTS)
            .map(|number| format!("h{number}.example"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for asked in [
            vec![("a", &[][..])],
            vec![("a", &[][..]), ("b", &["x.example"][..])],
            vec![("a", &names[..])],
        ] {
            let error = judged(&asked, &[]);
            assert!(matches!(error, Err(HostError::Refused { .. })), "{error:?}");
        }
        assert!(matches!(
            judged(&[("a", &names[1..])], &[]),
            Err(HostError::WantsHosts { .. })
        ));
    }

    #[test]
    fn what_would_be_built_is_read_from_a_dry_run() {
        let said = "warning: x\nthese 2 derivations will be built:\n  /nix/store/a.drv\n  /nix/store/b.drv\nthese 1 paths \
                    will be fetched (0 MiB download):\n  /nix/store/c\n";
        assert_eq!(to_be_built(said), ["/nix/store/a.drv", "/nix/store/b.drv"]);
        assert_eq!(
            to_be_built("this derivation will be built:\n  /nix/store/a.drv\n"),
            ["/nix/store/a.drv"]
        );
        assert_eq!(
            to_be_built("these paths will be fetched:\n  /nix/store/c\n"),
            [""; 0]
        );
    }
}
