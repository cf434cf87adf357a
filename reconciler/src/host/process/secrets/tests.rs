use std::os::unix::fs::symlink;

use shared::spec::{DriverKind, LimitsSpec, Network};

use super::*;
use crate::host::folders::write_atomic;

struct World {
    root: Utf8PathBuf,
    layout: Layout,
    _keep: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(keep.path())
            .unwrap()
            .canonicalize_utf8()
            .unwrap();
        for folder in ["hive/state/agents/bob/state", "run/secrets", "srv/wiki"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        Self {
            layout: Layout::new(root.join("hive/state"), root.join("hive/run")),
            root,
            _keep: keep,
        }
    }

    fn put(&self, file: &str, content: &[u8]) -> Utf8PathBuf {
        let path = self.root.join(file);
        write_atomic(&path, content, 0o600).unwrap();
        path
    }

    fn launch(&self, file: &Utf8Path) -> Launch {
        let secret = SecretSpec {
            file: file.to_string(),
            version: String::new(),
        };
        Launch {
            agent: "alice".parse().unwrap(),
            uid: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
            harness: "/bin/true".into(),
            claude: None,
            driver: DriverKind::Scripted,
            network: Network::None,
            binds: vec![BindSpec {
                source: self.root.join("srv/wiki").into_string(),
                target: "/wiki".to_owned(),
                read_only: false,
            }],
            limits: LimitsSpec::default(),
            secrets: [("key".to_owned(), secret)].into(),
            user_range: None,
            system: None,
        }
    }

    fn read(&self, file: &Utf8Path) -> Result<SecretValue, HostError> {
        read(&self.launch(file), &self.layout).map(|mut secrets| secrets.remove("key").unwrap())
    }

    /// The error for this file, which must name agent, secret and file.
    #[track_caller]
    fn fault(&self, file: &Utf8Path) -> HostError {
        let error = self.read(file).expect_err("read");
        let said = error.chain();
        assert!(
            said.starts_with(&format!("the secret key of alice, {file}: ")),
            "{said}"
        );
        error
    }
}

#[test]
fn a_secret_is_read_whole_and_through_links_of_the_operator() {
    let world = World::new();
    let file = world.put("run/secrets/1", b"hush\xff\n");
    symlink(&file, world.root.join("run/secrets/key")).unwrap();
    let value = world.read(&world.root.join("run/secrets/key")).unwrap();
    assert_eq!(value.bytes(), b"hush\xff\n");
}

#[test]
fn what_is_no_secret_is_told_without_its_content_and_may_be_put_right() {
    let world = World::new();
    let pipe = world.root.join("pipe");
    rustix::fs::mknodat(
        CWD,
        pipe.as_std_path(),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    let long = "hush".repeat(20_000);
    for (file, what) in [
        (world.root.join("run/secrets/none"), "it is not there"),
        (world.root.join("run/secrets"), "not a regular file"),
        (pipe, "not a regular file"),
        (world.put("empty", b""), "it is empty"),
        (world.put("line", b"\n"), "it is empty"),
        (world.put("long", long.as_bytes()), "larger than 64 KiB"),
    ] {
        let error = world.fault(&file);
        let said = error.chain();
        assert!(said.contains(what) && !said.contains("hush"), "{said}");
        assert!(!error.is_terminal(), "{said}");
    }
    let longest = vec![b'x'; usize::try_from(MAX_SECRET).unwrap()];
    assert!(world.read(&world.put("longest", &longest)).is_ok());
}

/// Else an agent could put a link there, and have any file of the host handed over that the daemon can read.
#[test]
fn a_file_where_an_agent_can_write_is_refused_whatever_it_leads_to() {
    let world = World::new();
    let outside = world.put("run/secrets/key", b"hush");
    let planted = world.root.join("srv/wiki/key");
    symlink(&outside, &planted).unwrap();
    let inside = world.put("hive/state/agents/bob/state/key", b"hush");
    let link = world.root.join("link");
    symlink(&inside, &link).unwrap();
    for file in [planted, inside, link] {
        let error = world.fault(&file);
        assert!(
            error.is_terminal() && error.chain().contains("keep it elsewhere"),
            "{error}"
        );
    }
}

#[test]
fn without_a_sandbox_an_agent_with_secrets_is_refused_and_one_without_is_not() {
    let world = World::new();
    let mut launch = world.launch(&world.root.join("run/secrets/key"));
    let error = permit_unsandboxed(&launch, "there is no bwrap").expect_err("permitted");
    let said = error.chain();
    assert!(
        error.is_terminal() && said.contains("(key)") && said.contains("there is no bwrap"),
        "{said}"
    );
    launch.secrets.clear();
    assert!(permit_unsandboxed(&launch, "there is no bwrap").is_ok());
}

#[test]
fn an_inspection_tells_the_mode_of_each_file_or_what_is_wrong_with_it() {
    let world = World::new();
    let good = world.put("run/secrets/good", b"hush");
    let spec = shared::spec::AgentSpec {
        secrets: [("good", good), ("none", world.root.join("none"))]
            .map(|(name, file)| {
                let file = file.into_string();
                (
                    name.to_owned(),
                    SecretSpec {
                        file,
                        version: String::new(),
                    },
                )
            })
            .into(),
        ..shared::spec::AgentSpec::default()
    };
    let found = inspect(&"alice".parse().unwrap(), &spec, &world.layout);
    let [(good, mode), (none, what)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(good.ends_with("/good (the secret good of alice)") && none.contains("none of alice"));
    assert_eq!(mode.as_ref().unwrap() & 0o777, 0o600);
    assert!(what.as_ref().unwrap_err().starts_with("it is not there"));
}
