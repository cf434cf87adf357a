//! What a spec must mean, beyond having the right types. Every message says what to write instead.

mod agent;
mod binds;
#[cfg(test)]
mod tests;
pub(super) mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use shared::gate::{GateClass, Verdict};
use shared::spec::{
    BuilderKind, BuilderSpec, EgressSpec, ForgeKind, ForgeSpec, HiveSpec, OperatorSpec, PolicySpec,
    ProgramsSpec, ProxyAuthSpec, RuntimeSpec, Spec, WebSpec,
};

use super::VERSION;
use super::fault::{At, Fault, Findings, quoted};

pub(super) use agent::agent;

/// The faults of a spec that was put together rather than parsed; empty when [`super::parse`] would accept it whole.
pub fn validate(spec: &Spec) -> Vec<Fault> {
    let mut out = Findings::default();
    document(spec, spec.agents.len(), &mut out);
    let mut faults = out.into_faults(&At::Top);
    let known: BTreeSet<String> = spec.agents.keys().map(ToString::to_string).collect();
    let agents = At::Top.key("agents");
    for (name, declared) in &spec.agents {
        let at = agents.key(name.as_str());
        let mut out = Findings::default();
        agent(&at, declared, Some(&known), &mut out);
        faults.extend(out.into_faults(&at));
    }
    faults
}

/// Everything but the agents. `declared` counts those of the document, faulty ones too.
pub(super) fn document(spec: &Spec, declared: usize, out: &mut Findings) {
    let Spec {
        version,
        hive: HiveSpec { name, budget },
        operator: OperatorSpec {
            name: operator,
            pronouns,
        },
        runtime: RuntimeSpec {
            kind: _,
            unsafe_no_sandbox: _,
        },
        builder,
        policy,
        web,
        forge,
        egress,
        harness,
        programs: ProgramsSpec { claude },
        spawn_defaults,
        max_agents,
        agents: _,
    } = spec;
    if *version != VERSION {
        out.judge(
            "version".to_owned(),
            format!("this build reads version {VERSION} only"),
        );
    }
    words::label("hive.name", name, out);
    agent::dollars("hive.budget.usdPerDay", budget.usd_per_day, out);
    for (path, text) in [("operator.name", operator), ("operator.pronouns", pronouns)] {
        if let Some(text) = text {
            words::label(path, text, out);
        }
    }
    for (path, program) in [("harness", harness), ("programs.claude", claude)] {
        if let Some(program) = program {
            words::absolute_path(path, program, out);
        }
    }
    if usize::try_from(*max_agents).is_ok_and(|max| declared > max) && !out.is_patched("maxAgents") {
        out.judge(
            "agents".to_owned(),
            format!(
                "{declared} agents are declared, but maxAgents is {max_agents}: raise it, or declare fewer"
            ),
        );
    }
    self::builder(builder, out);
    self::policy(policy, out);
    self::web(web, out);
    self::egress(egress, out);
    if let Some(forge) = forge {
        self::forge(forge, out);
    }
    // A spawned agent may write to whomever exists then: its recipients are not looked up here.
    agent(&At::Top.key("spawnDefaults"), spawn_defaults, None, out);
}

fn builder(builder: &BuilderSpec, out: &mut Findings) {
    let BuilderSpec {
        kind,
        nixpkgs,
        guest_module,
        max_builds,
        inputs,
        hosts,
    } = builder;
    for (field, example, path) in [
        ("nixpkgs", "/nix/store/…-source", nixpkgs),
        ("guestModule", "/nix/store/…-guest", guest_module),
    ] {
        let at = format!("builder.{field}");
        match path {
            Some(path) => words::absolute_path(&at, path, out),
            None if *kind == BuilderKind::Nix && !out.is_patched("builder.kind") => out.judge(
                at,
                format!("is missing: the nix builder needs it, as in {example:?}"),
            ),
            None => {}
        }
    }
    words::range("builder.maxBuilds", *max_builds, 1, 64, out);
    let at = At::Top.key("builder");
    let at = at.key("inputs");
    for (name, reference) in inputs {
        let at = at.key(name).to_string();
        if !words::is_identifier(name) || ["self", "nixpkgs"].contains(&name.as_str()) {
            out.judge(
                at,
                "cannot name an input: use letters, digits, dashes and underscores, beginning with a letter, and \
                 neither \"self\" nor \"nixpkgs\"",
            );
        } else {
            // Fetching is not the daemon's: in a flake of the operator's, the address is `inputs.NAME.outPath`.
            words::absolute_path(&at, reference, out);
        }
    }
    for host in hosts {
        words::host("builder.hosts", host, out);
    }
}

fn policy(policy: &PolicySpec, out: &mut Findings) {
    let PolicySpec { spec, agent } = policy;
    let table = |side: &str, verdicts: &BTreeMap<GateClass, Verdict>, out: &mut Findings| {
        for (class, verdict) in verdicts {
            if class.always_asks() && *verdict == Verdict::Auto {
                out.judge(
                    format!("policy.{side}.{class}"),
                    format!("a person always decides on {class}: write \"ask\" or \"never\""),
                );
            }
        }
    };
    table("spec", spec, out);
    table("agent", agent, out);
}

fn web(web: &WebSpec, out: &mut Findings) {
    let WebSpec {
        listen,
        hosts,
        proxy_auth,
    } = web;
    if let Some(listen) = listen
        && listen.parse::<SocketAddr>().is_err()
    {
        out.judge(
            "web.listen".to_owned(),
            format!(
                "expected an address and a port such as \"127.0.0.1:7420\" or \"[::1]:7420\", found {}",
                quoted(listen, 40)
            ),
        );
    }
    for host in hosts {
        words::host("web.hosts", host, out);
    }
    let Some(ProxyAuthSpec {
        header,
        trusted,
        users,
    }) = proxy_auth
    else {
        return;
    };
    if !words::is_header(header) {
        out.judge(
            "web.proxyAuth.header".to_owned(),
            "expected the name of an HTTP header such as \"X-Remote-User\"",
        );
    }
    for address in trusted {
        if address.parse::<IpAddr>().is_err() {
            out.judge(
                "web.proxyAuth.trusted".to_owned(),
                format!(
                    "expected IP addresses such as \"127.0.0.1\", found {}",
                    quoted(address, 40)
                ),
            );
        }
    }
    for user in users {
        words::label("web.proxyAuth.users", user, out);
    }
}

fn egress(egress: &EgressSpec, out: &mut Findings) {
    let EgressSpec {
        model_url,
        api_key_file,
    } = egress;
    if let Some(url) = model_url {
        words::http_url("egress.modelUrl", url, out);
    }
    if let Some(file) = api_key_file {
        words::secret_file("egress.apiKeyFile", file, out);
    }
}

fn forge(forge: &ForgeSpec, out: &mut Findings) {
    let ForgeSpec {
        kind,
        url,
        token_file,
    } = forge;
    let at = || "forge.url".to_owned();
    if !url.contains("{agent}") {
        out.judge(
            at(),
            "must contain {agent}, which stands for the agent's name, as in \"/srv/mirrors/{agent}.git\"",
        );
    } else if url.starts_with('-') || words::has_blank(url) {
        out.judge(
            at(),
            "is not an address: it begins with a dash or contains a blank; write it as in \
             \"https://git.example.com/hive/{agent}.git\"",
        );
    } else if words::has_password(url) {
        out.judge(
            at(),
            "contains a password, which would end up in logs: put it into a file and name that in forge.tokenFile",
        );
    }
    match token_file {
        Some(file) => words::secret_file("forge.tokenFile", file, out),
        None if *kind == ForgeKind::Forgejo && !out.is_patched("forge.kind") => out.judge(
            "forge.tokenFile".to_owned(),
            "is missing: a Forgejo server needs a token; put it into a file and name that here",
        ),
        None => {}
    }
}
