//! Who is at the other end of the admin socket. Authority comes from here alone.

use tokio::net::UnixStream;

/// The largest user database that is read for a name, in bytes.
const MAX_PASSWD: usize = 1024 * 1024;

/// The peer of a connection, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its user id; absent when the kernel did not say.
    pub uid: Option<u32>,
}

impl Peer {
    /// Whoever is at the other end.
    pub fn of(stream: &UnixStream) -> Self {
        Self {
            uid: stream.peer_cred().ok().map(|cred| cred.uid()),
        }
    }

    /// Who decides, as it is recorded: `unix:<user>`.
    pub async fn identity(self) -> Option<String> {
        let uid = self.uid?;
        let name = tokio::task::spawn_blocking(move || user_name(uid))
            .await
            .ok()
            .flatten();
        Some(name.map_or_else(|| format!("unix:uid {uid}"), |name| format!("unix:{name}")))
    }
}

fn user_name(uid: u32) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open("/etc/passwd").ok()?;
    file.take(MAX_PASSWD as u64).read_to_string(&mut text).ok()?;
    name_in(&text, uid)
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    let wanted = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_id_and_not_by_anything_else() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:0::/:\nbroken\n";
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("alice"));
        assert_eq!(name_in(passwd, 7), None);
    }
}
