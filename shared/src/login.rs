//! A login of an agent's driver: the operator asks for it, the harness runs the driver's own program, the operator opens the
//! address that it names and hands back the code that is shown there. Nothing of it is stored by the daemon.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::LoginId;

/// The largest code, in bytes.
pub const MAX_CODE_BYTES: usize = 4096;
/// The longest address, in bytes.
pub const MAX_URL_BYTES: usize = 4096;

/// Where a login is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum LoginPhase {
    /// The driver's program is being started.
    Starting,
    /// The operator is to open the address and to hand back the code.
    WaitingForCode,
    /// The driver's program tries the code.
    Checking,
    /// The agent has a login.
    Done,
    /// There is no login; `error` says why.
    Failed,
    /// A phase that this build does not know.
    #[serde(other)]
    Unknown,
}

impl LoginPhase {
    /// Whether nothing more comes.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// How a login stands. What the harness says in it is untrusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LoginState {
    /// Which.
    pub id: LoginId,
    /// Where it is.
    pub phase: LoginPhase,
    /// The address to open.
    #[serde(default)]
    pub url: Option<String>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// What the operator wants of the harness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LoginOrder {
    /// Which login; another one than before ends that and begins anew.
    pub id: LoginId,
    /// The code, once there is one.
    #[serde(default)]
    pub code: Option<LoginCode>,
}

impl LoginOrder {
    /// Whether a harness that reports this has done all that is wanted of it.
    pub fn is_heeded(&self, reported: Option<&LoginState>) -> bool {
        reported.is_some_and(|reported| {
            reported.id == self.id
                && (self.code.is_none() || reported.phase.is_over() || reported.phase == LoginPhase::Checking)
        })
    }
}

/// A code that is good for one login. It is in no log: what would print it prints a placeholder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct LoginCode(pub String);

impl fmt::Debug for LoginCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginCode(…)")
    }
}

/// The code that was shown at the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LoginAnswer {
    /// Of which login.
    pub id: LoginId,
    /// The code.
    pub code: LoginCode,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> LoginId {
        LoginId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn an_order_is_heeded_once_the_harness_has_begun_and_once_it_has_the_code() {
        let state = |number, phase| LoginState {
            id: id(number),
            phase,
            url: None,
            error: None,
        };
        let order = |code: Option<&str>| LoginOrder {
            id: id(1),
            code: code.map(|code| LoginCode(code.to_owned())),
        };
        assert!(!order(None).is_heeded(None));
        assert!(!order(None).is_heeded(Some(&state(2, LoginPhase::Done))));
        assert!(order(None).is_heeded(Some(&state(1, LoginPhase::Starting))));
        assert!(!order(Some("c")).is_heeded(Some(&state(1, LoginPhase::WaitingForCode))));
        assert!(order(Some("c")).is_heeded(Some(&state(1, LoginPhase::Checking))));
        assert!(order(Some("c")).is_heeded(Some(&state(1, LoginPhase::Failed))));
    }

    #[test]
    fn a_code_is_not_printed() {
        let order = LoginOrder {
            id: id(1),
            code: Some(LoginCode("secret".to_owned())),
        };
        assert!(!format!("{order:?}").contains("secret"));
    }
}
