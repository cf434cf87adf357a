//! What a build would fetch, and whether it may.

use std::collections::BTreeMap;

use camino::Utf8Path;

use super::{Building, NixBuilder};
use crate::host::HostError;
use crate::host::blocking::blocking;
use crate::host::nix::derivation::Derivation;
use crate::host::nix::fault::Stage;
use crate::model::build::NixInputs;

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
        let is_allowed =
            |hosts: &Vec<String>| !hosts.is_empty() && hosts.iter().all(|host| nix.hosts.contains(host));
        let refused: Vec<String> = asked
            .iter()
            .filter(|(_, hosts)| !is_allowed(hosts))
            .map(|(name, hosts)| match hosts.as_slice() {
                [] => format!("{name} (it does not say from where)"),
                hosts => format!("{name} (from {})", hosts.join(", ")),
            })
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        Err(HostError::refused(
            "the build",
            format!(
                "it would fetch over the network: {}. The operator allows hosts in builder.hosts of the spec; what \
                 the store has already needs none",
                refused.join("; ")
            ),
        ))
    }
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
