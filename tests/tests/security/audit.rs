//! The audit log as a file, and the program that verifies it.

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{Guarded, PATIENCE, Raw, ServerOptions, eventually, soon};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};
use tempfile::TempDir;

/// A file of the audit log.
pub(crate) struct AuditFile(pub(crate) PathBuf);

impl AuditFile {
    /// A file in `folder`, which the server is to make.
    pub(crate) fn beside(folder: &Path) -> Self {
        Self(folder.join("audit.log"))
    }

    /// The flag that makes the server write it.
    pub(crate) fn flag(&self) -> String {
        format!("--audit-log=file:{}", self.0.display())
    }

    /// Everything in it so far, as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap_or_default()
    }

    /// The whole lines of it so far. Each must be JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let bytes = self.bytes();
        let text = std::str::from_utf8(&bytes).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {line:?}"),
        };
        whole.lines().map(parse).collect()
    }

    /// The records of requests so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["type"] == "rpc");
        lines
    }

    /// Waits until a record is there that `wanted` finds; gives it.
    pub(crate) async fn record(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = || async { self.records().into_iter().find(|record| wanted(record)) };
        eventually(
            Duration::from_secs(10),
            &format!("a record of {what}"),
            look,
        )
        .await
    }

    /// Waits for the record of an ended call of `rpc` by `principal`.
    pub(crate) async fn end_of(&self, rpc: &str, principal: &str) -> Value {
        self.record(&format!("{rpc} by {principal}"), |record| {
            record["rpc"] == rpc && record["stage"] == "end" && record["principal"] == principal
        })
        .await
    }

    /// The numbers of the chain's blocks.
    pub(crate) fn blocks(&self) -> Vec<u64> {
        let mut lines = self.lines();
        lines.retain(|line| line["type"] == "seal");
        let numbers = lines.iter().filter_map(|line| line["seq"].as_u64());
        numbers.collect()
    }

    /// `holdfastctl audit verify` of the log with these arguments beside the key that its first file names.
    pub(crate) fn verify(&self, arguments: &[&str]) -> Verdict {
        let keys = self.0.with_file_name("audit-keys");
        let key = self.lines()[0]["public_key"].as_str().map(str::to_owned);
        fs::write(&keys, key.unwrap()).unwrap();
        self.verify_by(&keys, arguments)
    }

    /// The same with the keys of another file.
    pub(crate) fn verify_by(&self, keys: &Path, arguments: &[&str]) -> Verdict {
        let output = Command::new(holdfastctl())
            .args(["audit", "verify", "--write-out=json"])
            .arg(format!("--public-key={}", keys.display()))
            .args(arguments)
            .arg(&self.0)
            .output()
            .unwrap();
        Verdict::of(&output)
    }
}

/// What `holdfastctl audit verify` said.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Everything is as it was written, and signed to its end.
    pub(crate) is_proven: bool,
    /// The report of the log.
    pub(crate) report: Value,
}

impl Verdict {
    fn of(output: &Output) -> Self {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let report = report[0].clone();
        let is_proven = output.status.success();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(report["proven"], is_proven, "{report} {text}");
        Self { is_proven, report }
    }

    /// Nothing is changed or missing; the end may not be signed yet.
    pub(crate) fn is_intact(&self) -> bool {
        self.report["problems"]
            .as_array()
            .is_some_and(Vec::is_empty)
    }
}

/// The tool: `HOLDFASTCTL_BIN`, else that beside the server under test or the running test, which is built if it is not there.
pub(crate) fn holdfastctl() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        if let Some(path) = env::var_os("HOLDFASTCTL_BIN") {
            return PathBuf::from(path);
        }
        let beside_server = holdfast_tests::server_binary().with_file_name("holdfastctl");
        if beside_server.is_file() {
            return beside_server;
        }
        let test = env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args(["build", "-p", "holdfast-ctl", "--bin", "holdfastctl"]);
        if let Some(name) = profile.file_name().and_then(|name| name.to_str())
            && name != "debug"
        {
            cargo.args(["--profile", name]);
        }
        assert!(
            cargo.status().unwrap().success(),
            "holdfastctl does not build"
        );
        profile.join("holdfastctl")
    };
    BINARY.get_or_init(find).clone()
}

/// A guarded server with an audit file of its own.
pub(crate) struct Audited {
    pub(crate) folder: TempDir,
    pub(crate) file: AuditFile,
    pub(crate) guarded: Guarded,
}

impl Audited {
    /// With these rules, unless there are none.
    pub(crate) async fn start(rules: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = AuditFile::beside(folder.path());
        let mut options = ServerOptions::new().flag(file.flag());
        if !rules.is_empty() {
            let path = folder.path().join("rules.yaml");
            fs::write(&path, rules).unwrap();
            options = options.flag(format!("--audit-rules-file={}", path.display()));
        }
        for flag in flags {
            options = options.flag(*flag);
        }
        let guarded = Guarded::start_with(options).await;
        Self {
            folder,
            file,
            guarded,
        }
    }

    /// Gives the server other rules, and waits until its log says what became of them.
    pub(crate) async fn reload(&self, rules: &str, said: &'static str) {
        let server = &self.guarded.server;
        fs::write(self.folder.path().join("rules.yaml"), rules).unwrap();
        let mark = server.log().len();
        server.signal(Signal::HUP);
        let log = server.log().clone();
        let told = tokio::task::spawn_blocking(move || log.wait_after(mark, said, PATIENCE));
        assert!(
            soon("a line", told).await.unwrap().is_some(),
            "nothing said of {said:?}"
        );
    }
}

/// A call that is not on keys.
pub(crate) trait LeaseCall {
    async fn lease_call(&self, what: &str);
}

impl LeaseCall for Raw {
    async fn lease_call(&self, what: &str) {
        let request = pb::LeaseGrantRequest { ttl: 60, id: 0 };
        let granted = self.grant(request).await;
        assert!(granted.is_ok(), "{what}: {granted:?}");
    }
}
