//! From a commit to a realised, rooted system.

mod inputs;
mod logs;
mod named;
mod network;
mod overlay;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use shared::canonical::NotCanonical;
use shared::config::{OVERLAY_FILE, Overlay};
use shared::spec::BuilderKind;
use shared::{AgentName, AgentUid, Digest};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::evaluate::{End, Evaluate, Evaluated, Job, Limits, Log};
use super::fault::{Bounds, Machine, Stage, judge, lost_daemon, message};
use super::flake::MODULE_FILE;
use super::generations::{self, Generations};
use super::program::{Run, find};
use super::store::{Store, StorePath};
use super::surface::{self, Surface};
use crate::host::blocking::blocking;
use crate::host::layout::Layout;
use crate::host::plain::{MAX_OVERLAY, parse_overlay, parse_overlay_of, write_system};
use crate::host::{Builder, HostError, Output, Repos};
use crate::model::build::{BuildOutput, BuildRequest, NixInputs, assemble};
use crate::untrusted::clean;

/// The largest `agent.nix` that is taken for one, in bytes.
const MAX_MODULE: u64 = 1024 * 1024;
/// With less than this on the store's file system, in bytes, the machine is to blame.
const FULL: u64 = 64 * 1024 * 1024;
/// How long Nix's daemon may take to come back, and how often it is looked for.
const BACK_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where and how to build.
pub struct NixOptions {
    /// The hive's folders.
    pub layout: Layout,
    /// The store.
    pub store: Store,
    /// The folder of all agents' profiles; this process may write there, and the collector looks there.
    pub profiles: Utf8PathBuf,
    /// Nix's settings besides the machine's own, as `--option` takes them.
    pub settings: Vec<(String, String)>,
    /// What evaluates.
    pub evaluator: Arc<dyn Evaluate>,
    /// How long building may take.
    pub time: Duration,
}

/// Builds with Nix.
pub struct NixBuilder {
    options: NixOptions,
    repos: Arc<dyn Repos>,
    nix: Utf8PathBuf,
    nix_store: Utf8PathBuf,
}

impl NixBuilder {
    /// A builder that reads commits through `repos` and finds Nix in `search_path`; `None`: it is not there.
    pub fn new(options: NixOptions, repos: Arc<dyn Repos>, search_path: &OsStr) -> Option<Self> {
        Some(Self {
            options,
            repos,
            nix: find(search_path, "nix")?,
            nix_store: find(search_path, "nix-store")?,
        })
    }

    fn settings(&self) -> Vec<String> {
        let mut settings = vec![
            ("allow-import-from-derivation", "false"),
            ("accept-flake-config", "false"),
            ("use-registries", "false"),
            ("eval-cache", "false"),
            ("pure-eval", "true"),
        ];
        if self.options.store.socket.is_none() {
            // Whoever owns the store builds.
            settings.push(("build-users-group", ""));
        }
        let given = self.options.settings.iter();
        settings
            .into_iter()
            .chain(given.map(|(name, value)| (name.as_str(), value.as_str())))
            .flat_map(|(name, value)| ["--option".to_owned(), name.to_owned(), value.to_owned()])
            .collect()
    }

    fn bounds(&self, stage: Stage) -> Bounds {
        let Limits { memory, time } = self.options.evaluator.limits();
        Bounds {
            memory,
            time: if stage == Stage::Evaluating {
                time
            } else {
                self.options.time
            },
        }
    }

    /// Runs `nix-store`.
    async fn store(
        &self,
        job: &Building<'_>,
        stage: Stage,
        words: Vec<String>,
    ) -> Result<Evaluated, HostError> {
        let mut ended = self.run(&job.log, words.clone()).await?;
        if self.is_worth_another_run(job, &ended).await? {
            ended = self.run(&job.log, words).await?;
        }
        self.passed(job, stage, ended).await
    }

    /// Whether a run ended because Nix's daemon did: that is nobody's fault, and no judgement on the input. There is one more
    /// run and no third, since an agent's build could say the same for ever.
    async fn is_worth_another_run(&self, job: &Building<'_>, ended: &Evaluated) -> Result<bool, HostError> {
        if self.options.store.socket.is_none() || !lost_daemon(ended) {
            return Ok(false);
        }
        let note = "hyperhive: the Nix daemon went away; once more\n";
        job.log.add(note.as_bytes().to_vec()).await?;
        self.comes_back().await?;
        Ok(true)
    }

    /// What the machine looks like now.
    async fn machine(&self) -> Result<Machine, HostError> {
        let store = self.options.store.clone();
        blocking("the store".to_owned(), move || Ok(look_at(&store))).await
    }

    /// Waits until Nix's daemon takes connections again. The one other run must not fail because it was too early.
    async fn comes_back(&self) -> Result<(), HostError> {
        let until = Instant::now() + BACK_WITHIN;
        while !self.machine().await?.is_open {
            if Instant::now() >= until {
                let why = "the Nix store cannot be used: its daemon went away and does not come back";
                return Err(HostError::failed("the store", why));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn run(&self, log: &Log, words: Vec<String>) -> Result<Evaluated, HostError> {
        let mut args = words;
        args.extend(self.settings());
        let mut env = self.options.store.environment();
        for (name, value) in [("HOME", "/nonexistent"), ("USER", "hyperhive")] {
            env.push((name.to_owned(), value.to_owned()));
        }
        let run = Run {
            program: self.nix_store.clone(),
            args,
            env,
            time: self.options.time,
        };
        run.run(log).await
    }

    /// What of a system matters for whoever approves it.
    async fn surface(&self, system: &str) -> Result<Surface, HostError> {
        let link = Utf8Path::new(system).join("toplevel");
        let top = blocking(link.to_string(), move || {
            link.canonicalize_utf8()
                .map_err(HostError::io("find", link.as_str()))
        })
        .await?;
        let words = ["--query", "--requisites", top.as_str()].map(str::to_owned);
        let listed = self.run(&Log::none(), words.to_vec()).await?;
        if listed.end != End::Exit(0) {
            let said = String::from_utf8_lossy(&listed.stderr).into_owned();
            return Err(HostError::failed(top, message(&said, None)));
        }
        let closure: Vec<_> = lines(&listed.stdout).into_iter().map(Utf8PathBuf::from).collect();
        let store = self.options.store.dir.clone();
        blocking(top.to_string(), move || Ok(Surface::read(&store, &top, &closure))).await
    }

    async fn passed(
        &self,
        job: &Building<'_>,
        stage: Stage,
        ended: Evaluated,
    ) -> Result<Evaluated, HostError> {
        if ended.end == End::Exit(0) {
            return Ok(ended);
        }
        let machine = self.machine().await?;
        let tree = job.tree.as_ref().map(|tree| tree.root().as_str());
        Err(judge(stage, &ended, self.bounds(stage), machine, tree))
    }

    async fn evaluate(&self, job: &Building<'_>, meta: &StorePath) -> Result<Answer, HostError> {
        let mut args = vec![
            "--extra-experimental-features".to_owned(),
            "nix-command flakes".to_owned(),
        ];
        args.extend(["eval", "--json", "--offline", "--no-write-lock-file"].map(str::to_owned));
        args.extend(self.settings());
        args.push(format!("path:{meta}#hyperhive"));
        let mut env: BTreeMap<String, String> = self.options.store.environment().into_iter().collect();
        env.insert("HOME".to_owned(), "/tmp".to_owned());
        // There is no file that gives it a name.
        env.insert("USER".to_owned(), "evaluator".to_owned());
        // The collector would reserve a quarter of the machine.
        env.insert("GC_INITIAL_HEAP_SIZE".to_owned(), "33554432".to_owned());
        let evaluation = Job {
            program: self.nix.clone(),
            args,
            env,
            memory: None,
            cpu_secs: None,
        };
        let evaluator = &self.options.evaluator;
        let mut evaluated = evaluator.evaluate(&job.key, evaluation.clone(), &job.log).await?;
        if self.is_worth_another_run(job, &evaluated).await? {
            evaluated = evaluator.evaluate(&job.key, evaluation, &job.log).await?;
        }
        let evaluated = self.passed(job, Stage::Evaluating, evaluated).await?;
        answer::read(&self.options.store, &job.request.agent, &evaluated.stdout)
    }

    /// Builds, and makes what is built a generation, with what is `kept` along with it. Returns its link.
    async fn realise(
        &self,
        job: &Building<'_>,
        wanted: &str,
        expected: &StorePath,
        kept: &[String],
    ) -> Result<Utf8PathBuf, HostError> {
        let folder = self.options.profiles.join(job.request.agent.as_str());
        let (system, config) = blocking(folder.to_string(), move || {
            let generations = Generations::open(folder)?;
            let number = generations.next()?;
            Ok((generations.system_link(number), generations.config_link(number)))
        })
        .await?;
        let root = |link: &Utf8Path| ["--add-root", link.as_str(), "--indirect"].map(str::to_owned);
        if !kept.is_empty() {
            let mut words = vec!["--realise".to_owned()];
            words.extend(kept.iter().cloned());
            words.extend(root(&config));
            self.store(job, Stage::Building, words).await?;
        }
        let mut words = vec!["--realise".to_owned(), wanted.to_owned()];
        words.extend(root(&system));
        self.store(job, Stage::Building, words).await?;
        let (link, expected) = (system.clone(), expected.root().to_owned());
        blocking(system.to_string(), move || {
            let found = link
                .read_link_utf8()
                .map_err(HostError::io("read", link.as_str()))?;
            if found == expected {
                Ok(())
            } else {
                Err(HostError::failed(
                    "the build",
                    format!("it made {found}, not {expected}"),
                ))
            }
        })
        .await?;
        Ok(system)
    }

    async fn begin<'a>(&self, request: &'a BuildRequest) -> Result<Building<'a>, HostError> {
        let key = request
            .key()
            .map_err(|error| HostError::refused("the build", error.to_string()))?;
        let builds = self.options.layout.builds();
        let folder = builds.join(key.as_str());
        let (made, uid) = (folder.clone(), request.uid);
        blocking(folder.to_string(), move || logs::begin(&builds, &made, uid)).await?;
        let log = Log::begin(self.options.layout.build_log(&key)).await?;
        Ok(Building {
            request,
            key,
            folder,
            log,
            tree: None,
        })
    }

    /// What is to be built: the prebuilt system, or what the agent's own module and the operator's come to.
    async fn compose(&self, job: &mut Building<'_>, nix: &NixInputs) -> Result<Composed, HostError> {
        let BuildRequest {
            agent, commit, spec, ..
        } = job.request;
        let module = self
            .repos
            .read_file(agent, commit, MODULE_FILE, MAX_MODULE)
            .await?;
        if module.is_none()
            && let Some(prebuilt) = &spec.system
        {
            let field = format!("agents.{agent}.system");
            let toplevel = self.declared(job, &field, prebuilt).await?;
            return Ok(Composed {
                wanted: toplevel.root().to_string(),
                toplevel,
                paths: Vec::new(),
                own: None,
            });
        }
        if module.is_some() {
            job.tree = Some(self.add_tree(job).await?);
        }
        let sources = self.sources(job, nix).await?;
        let meta = self.add_flake(job, &sources).await?;
        let Answer {
            drv,
            toplevel,
            config,
            paths,
        } = self.evaluate(job, &meta).await?;
        Ok(Composed {
            wanted: drv.to_string(),
            toplevel,
            paths,
            own: module.map(|_| config),
        })
    }

    /// Builds what was composed, checks it, and links the system's folder to its generation.
    async fn put_in_place(
        &self,
        job: &Building<'_>,
        nix: &NixInputs,
        composed: &Composed,
        output: &BuildOutput,
    ) -> Result<(), HostError> {
        let Composed {
            wanted,
            toplevel,
            paths,
            own: _,
        } = composed;
        let mut all = vec![wanted.clone()];
        all.extend(paths.iter().cloned());
        self.check_network(job, nix, &all).await?;
        let mut kept = paths.clone();
        kept.extend(self.named(job, output).await?);
        let generation = self.realise(job, wanted, toplevel, &kept).await?;
        let (store, top) = (self.options.store.dir.clone(), toplevel.root().to_owned());
        blocking(top.to_string(), move || surface::check(&store, &top)).await?;
        write_system(&self.options.layout, &*self.repos, job.request, output).await?;
        let folder = Utf8PathBuf::from(&output.system);
        blocking(output.system.clone(), move || {
            generations::link(&folder, &generation)
        })
        .await
    }
}

/// A build under way.
struct Building<'a> {
    request: &'a BuildRequest,
    key: Digest,
    folder: Utf8PathBuf,
    log: Log,
    tree: Option<StorePath>,
}

/// What is to be built.
struct Composed {
    /// A derivation or a store path.
    wanted: String,
    /// What it becomes.
    toplevel: StorePath,
    /// What the config names, likewise.
    paths: Vec<String>,
    /// What the agent's own module says of its config, as JSON.
    own: Option<Vec<u8>>,
}

fn lines(answer: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    text.lines()
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect()
}

fn look_at(store: &Store) -> Machine {
    let is_full = rustix::fs::statvfs(store.dir.as_std_path()).is_ok_and(|space| {
        space.f_bavail.saturating_mul(space.f_frsize) < FULL || space.f_favail == 0 && space.f_files > 0
    });
    let is_open = match &store.socket {
        Some(socket) => std::os::unix::net::UnixStream::connect(socket).is_ok(),
        None => rustix::fs::access(store.dir.as_std_path(), rustix::fs::Access::WRITE_OK).is_ok(),
    };
    Machine { is_full, is_open }
}

#[async_trait]
impl Builder for NixBuilder {
    fn kind(&self) -> BuilderKind {
        BuilderKind::Nix
    }

    async fn build(&self, request: &BuildRequest) -> Result<BuildOutput, HostError> {
        let Some(nix) = &request.nix else {
            return Err(HostError::failed(
                "builder.kind",
                "the daemon builds with Nix, and the spec says otherwise now: restart the daemon",
            ));
        };
        let BuildRequest { agent, commit, .. } = request;
        let json = self
            .repos
            .read_file(agent, commit, OVERLAY_FILE, MAX_OVERLAY)
            .await?;
        let json = json.map_or_else(|| Ok(Overlay::default()), |bytes| parse_overlay(&bytes))?;
        let mut job = self.begin(request).await?;
        let composed = self.compose(&mut job, nix).await?;
        let own = match &composed.own {
            Some(bytes) => parse_overlay_of(MODULE_FILE, "hyperhive.", bytes)?,
            None => Overlay::default(),
        };
        let overlay = overlay::merged(json, own)?;
        let mut realised = request.clone();
        realised.spec.system = Some(composed.toplevel.root().to_string());
        let systems = self.options.layout.systems();
        let not_canonical = |error: NotCanonical| HostError::refused(OVERLAY_FILE, clean(&error.to_string()));
        let output = assemble(&realised, &overlay, |digest| {
            systems.join(digest.as_str()).into_string()
        })
        .map_err(not_canonical)?;
        let output = BuildOutput {
            made_from: Some(request.made_from().map_err(not_canonical)?),
            ..output
        };
        let present = self.present(std::slice::from_ref(&output.system)).await?;
        // The same system under another request: it has its generation, and what its config names is in it.
        if present.get(&output.system) != Some(&true) {
            self.put_in_place(&job, nix, &composed, &output).await?;
        }
        Ok(output)
    }

    async fn present(&self, systems: &[String]) -> Result<BTreeMap<String, bool>, HostError> {
        let systems = systems.to_vec();
        blocking("systems".to_owned(), move || {
            let look = |system: String| {
                let present = generations::is_there(Utf8Path::new(&system))?;
                Ok((system, present))
            };
            systems.into_iter().map(look).collect()
        })
        .await
    }

    async fn retain(
        &self,
        agent: &AgentName,
        deployed: &str,
        needed: &BTreeSet<String>,
    ) -> Result<(), HostError> {
        let folder = self.options.profiles.join(agent.as_str());
        let deployed = Utf8PathBuf::from(deployed);
        let mut needed: Vec<_> = needed.iter().map(Utf8PathBuf::from).collect();
        needed.push(deployed.clone());
        blocking(folder.to_string(), move || {
            let generations = Generations::open(folder)?;
            generations.deploy(&deployed)?;
            generations.retain(&needed)
        })
        .await
    }

    async fn forget(&self, agent: &AgentName) -> Result<(), HostError> {
        let folder = self.options.profiles.join(agent.as_str());
        blocking(folder.to_string(), move || {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(HostError::io("remove", folder.as_str())(error))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn log(&self, uid: AgentUid, max: u64) -> Result<Option<Output>, HostError> {
        let builds = self.options.layout.builds();
        blocking(builds.to_string(), move || {
            logs::read(&builds, uid, max).map(Some)
        })
        .await
    }

    async fn difference(&self, from: Option<&str>, to: &str) -> Result<Vec<String>, HostError> {
        let places = from.map(|from| {
            (
                Utf8Path::new(from).join("toplevel"),
                Utf8Path::new(to).join("toplevel"),
            )
        });
        let is_same = blocking(to.to_owned(), move || {
            let real = |link: &Utf8Path| link.canonicalize_utf8().ok();
            Ok(places.is_some_and(|(from, to)| real(&from).is_some() && real(&from) == real(&to)))
        });
        if is_same.await? {
            return Ok(Vec::new());
        }
        let after = self.surface(to).await?;
        let before = match from {
            Some(from) => self.surface(from).await?,
            None => Surface::default(),
        };
        Ok(after.since(&before))
    }
}
