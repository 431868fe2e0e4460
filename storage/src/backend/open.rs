//! Opening: check the journals, cut a lost tail, let fjall recover, check what it recovered.

use super::{
    JournalCut, Opened, StoreOptions,
    engine::FjallEngine,
    errors::OpenError,
    fjall_writer::{FjallWriter, parse_position, position_bytes},
    generations::{self, Current, ENGINE_DIR, ENGINE_DIR_NEW, MARK_FILE, Unreadable},
    home::Home,
    journal::{self, Ending, Progress},
    keys::{APPLIED_PREFIX, FORMAT_KEY, applied_key},
    mark::Mark,
};
use crate::types::LogPosition;
use fjall::PersistMode;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The store's format: keys, records, the applied records. A store of a newer format is not touched.
const FORMAT_VERSION: u32 = 1;

const ENGINE_VERSION_FILE: &str = "version";
const LOCK_FILE: &str = "store.lock";

enum Failure {
    Damaged { path: PathBuf, reason: String },
    Other(OpenError),
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        Failure::Other(error)
    }
}

impl Failure {
    /// The error that it is where nothing can be set aside.
    fn finally(self) -> OpenError {
        match self {
            Failure::Damaged { path, reason } => OpenError::Damaged { path, reason },
            Failure::Other(error) => error,
        }
    }
}

fn damaged(path: &Path, reason: impl Into<String>) -> Failure {
    Failure::Damaged {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// What an opened directory comes to.
type Parts = (Home, FjallWriter, Opened);

pub(super) fn open(dir: &Path, options: &StoreOptions) -> Result<Parts, OpenError> {
    let (path, reason) = match attempt(dir, options) {
        Ok(done) => return Ok(done),
        Err(Failure::Other(error)) => return Err(error),
        Err(Failure::Damaged { path, reason }) => (path, reason),
    };
    if !options.may_set_aside {
        return Err(OpenError::Damaged { path, reason });
    }
    let aside = set_aside(dir)?;
    tracing::error!(
        damaged = %path.display(), %reason, kept = %aside.display(),
        "store is damaged: it was set aside and must be rebuilt"
    );
    let (home, writer, mut opened) = attempt(dir, options).map_err(Failure::finally)?;
    opened.set_aside = Some(aside);
    Ok((home, writer, opened))
}

/// Begins an empty generation beside the others.
pub(super) fn begin(
    dir: &Path,
    generation: u64,
    options: &StoreOptions,
    lock: &Arc<File>,
) -> Result<FjallWriter, OpenError> {
    let home = generations::home(dir, generation);
    std::fs::create_dir(&home).map_err(OpenError::io(&home))?;
    // The name must be safe before anything points to it.
    sync_dir(dir)?;
    create(&home, options, lock)?;
    open_generation(dir, generation, options, lock)
        .map(|(writer, ..)| writer)
        .map_err(Failure::finally)
}

fn attempt(dir: &Path, options: &StoreOptions) -> Result<Parts, Failure> {
    std::fs::create_dir_all(dir).map_err(OpenError::io(dir))?;
    let lock = lock(dir)?;
    let current = Current::read(dir).map_err(|e| match e {
        Unreadable::Io(e) => OpenError::io(Current::path(dir))(e).into(),
        Unreadable::Damaged => damaged(&Current::path(dir), "says nothing"),
        Unreadable::Newer(found) => OpenError::NewerFormat {
            path: Current::path(dir),
            found: found.into(),
            supported: generations::VERSION.into(),
        }
        .into(),
    })?;
    let home = generations::home(dir, current.generation);
    let engine_dir = home.join(ENGINE_DIR);
    let missing = !engine_dir
        .try_exists()
        .map_err(OpenError::io(&engine_dir))?;
    if missing {
        if current.generation > 0 || Mark::read(&home.join(MARK_FILE)).is_ok_and(|m| m.is_some()) {
            return Err(damaged(&engine_dir, "is missing"));
        }
        if !generations::list(dir)
            .map_err(OpenError::io(dir))?
            .is_empty()
        {
            return Err(damaged(&Current::path(dir), "is missing"));
        }
        create(&home, options, &lock)?;
    }
    let (writer, applied, recovered) = open_generation(dir, current.generation, options, &lock)?;
    let newest = generations::clear(dir, current.generation)?;
    let opened = Opened {
        applied,
        recovered,
        set_aside: None,
        installed: current.installed,
    };
    Ok((Home::directory(dir, lock, newest), writer, opened))
}

/// Opens one generation, whose engine exists, with all checks and repairs.
fn open_generation(
    dir: &Path,
    generation: u64,
    options: &StoreOptions,
    lock: &Arc<File>,
) -> Result<(FjallWriter, LogPosition, Option<JournalCut>), Failure> {
    let home = generations::home(dir, generation);
    let engine_dir = home.join(ENGINE_DIR);
    let mark_path = home.join(MARK_FILE);
    let mark = match Mark::read(&mark_path) {
        Ok(mark) => mark,
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(path = %mark_path.display(), "mark of the last checkpoint is damaged; going on without it");
            None
        }
        Err(e) => return Err(OpenError::io(&mark_path)(e).into()),
    };
    // fjall takes a directory without it for one to be filled anew.
    let version = engine_dir.join(ENGINE_VERSION_FILE);
    if !version.try_exists().map_err(OpenError::io(&version))? {
        return Err(damaged(&version, "is missing"));
    }

    let open = || FjallEngine::open(&engine_dir, generation, options, Arc::clone(lock));
    let (mut walked, mut recovered) = check_journals(dir, &engine_dir, mark.as_ref())?;
    let engine = match open() {
        Ok(engine) => engine,
        Err(fjall::Error::JournalRecovery(error)) => {
            // The check above should have found whatever fjall refuses; where it did not, the mark is known to be good.
            let mark = mark
                .as_ref()
                .ok_or_else(|| damaged(&engine_dir, format!("journal: {error:?}")))?;
            recovered = Some(cut_to_mark(dir, &engine_dir, mark, &format!("{error:?}"))?);
            walked = check_journals(dir, &engine_dir, Some(mark))?.0;
            open().map_err(|e| classify(&engine_dir, e))?
        }
        Err(error) => return Err(classify(&engine_dir, error)),
    };
    check_format(dir, &engine)?;
    let (batch, applied) = read_applied(&engine)?;
    if let Some(mark) = &mark
        && applied.index < mark.position.index
    {
        return Err(damaged(
            &engine_dir,
            format!(
                "holds entries up to {} although {} were synced",
                applied.index, mark.position.index
            ),
        ));
    }
    if let Some(cut) = &recovered {
        tracing::warn!(
            journal = %cut.journal.display(), at = cut.at, reason = %cut.reason,
            kept = cut.kept.as_ref().map(|p| p.display().to_string()), applied = applied.index,
            "store lost an unsynced tail of its journal; the raft log has it"
        );
    }
    let mut writer = FjallWriter {
        engine: Arc::new(engine),
        mark_path,
        batch,
        walked,
        tidied: 0,
        stopped: None,
    };
    if mark.is_none() || recovered.is_some() {
        writer.checkpoint(applied).map_err(|e| OpenError::Engine {
            path: home,
            source: Box::new(e),
        })?;
    }
    Ok((writer, applied, recovered))
}

/// Taken before the journals are touched: fjall takes its own lock only later.
fn lock(dir: &Path) -> Result<Arc<File>, OpenError> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(OpenError::io(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Arc::new(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked {
            path: dir.to_owned(),
        }),
        Err(e) => Err(OpenError::io(path)(e.into())),
    }
}

/// Makes an empty store aside and moves it into place whole: fjall cannot go on with one that was half made.
fn create(home: &Path, options: &StoreOptions, lock: &Arc<File>) -> Result<(), OpenError> {
    let new = home.join(ENGINE_DIR_NEW);
    match std::fs::remove_dir_all(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(OpenError::io(&new)(e));
        }
        _ => {}
    }
    let fill = || {
        let engine = FjallEngine::open(&new, 0, options, Arc::clone(lock))?;
        let mut batch = engine.db.batch();
        batch.insert(&engine.meta, FORMAT_KEY, FORMAT_VERSION.to_be_bytes());
        batch.insert(
            &engine.meta,
            applied_key(0),
            position_bytes(LogPosition::default()),
        );
        batch.commit()?;
        engine.db.persist(PersistMode::SyncAll)
    };
    fill().map_err(|e| match e {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => {
            OpenError::io(&new)(e)
        }
        e => OpenError::Engine {
            path: new.clone(),
            source: Box::new(e),
        },
    })?;
    let engine_dir = home.join(ENGINE_DIR);
    std::fs::rename(&new, &engine_dir).map_err(OpenError::io(&engine_dir))?;
    sync_dir(home)
}

/// Checks every journal against itself and the mark. A tail behind the mark that is not whole is cut off, with all that was
/// written after it; anything wrong before the mark is damage.
fn check_journals(
    dir: &Path,
    engine_dir: &Path,
    mark: Option<&Mark>,
) -> Result<(BTreeMap<u64, Progress>, Option<JournalCut>), Failure> {
    let files = journal::list(engine_dir).map_err(OpenError::io(engine_dir))?;
    // fjall would begin a new one, and number its writes below those in the tables.
    let Some((newest, _)) = files.last() else {
        return Err(damaged(engine_dir, "has no journal"));
    };
    if let Some(marked) = mark.and_then(|m| m.journals.last())
        && marked.id > *newest
    {
        return Err(damaged(
            engine_dir,
            format!("journal {} is missing", marked.id),
        ));
    }
    let mut walked = BTreeMap::new();
    for (i, (id, path)) in files.iter().enumerate() {
        let expected = mark.and_then(|m| m.journals.iter().find(|j| j.id == *id));
        let mut crc_at_mark = expected.filter(|j| j.len == 0).map(|j| j.crc);
        let mut progress = Progress::default();
        let ending = journal::walk(path, &mut progress, |p| {
            if expected.is_some_and(|j| j.len == p.len) {
                crc_at_mark = Some(p.crc);
            }
        })
        .map_err(OpenError::io(path))?;
        if let Some(expected) = expected
            && crc_at_mark != Some(expected.crc)
        {
            let what = match ending {
                Ending::Broken { offset, reason, .. } if offset < expected.len => {
                    format!("{reason} at offset {offset}")
                }
                _ => "differs from what was synced".to_owned(),
            };
            return Err(damaged(
                path,
                format!("{what}, within the {} synced bytes", expected.len),
            ));
        }
        walked.insert(*id, progress);
        if let Ending::Broken {
            offset,
            reason,
            unfinished,
        } = ending
        {
            let later = files.get(i + 1..).unwrap_or(&[]);
            let mut cuts = vec![(path.as_path(), offset)];
            // Emptied, not removed: without any journal fjall would forget how far it had numbered its writes.
            cuts.extend(later.iter().map(|(_, path)| (path.as_path(), 0)));
            let kept = if unfinished && later.is_empty() {
                None
            } else {
                Some(keep_tails(dir, &cuts)?)
            };
            cut_files(&cuts)?;
            walked.extend(later.iter().map(|(id, _)| (*id, Progress::default())));
            let cut = JournalCut {
                journal: path.clone(),
                at: offset,
                reason: reason.to_owned(),
                kept,
            };
            return Ok((walked, Some(cut)));
        }
    }
    Ok((walked, None))
}

fn cut_to_mark(
    dir: &Path,
    engine_dir: &Path,
    mark: &Mark,
    reason: &str,
) -> Result<JournalCut, Failure> {
    let files = journal::list(engine_dir).map_err(OpenError::io(engine_dir))?;
    let cuts: Vec<(&Path, u64)> = files
        .iter()
        .map(|(id, path)| {
            let len = mark
                .journals
                .iter()
                .find(|j| j.id == *id)
                .map_or(0, |j| j.len);
            (path.as_path(), len)
        })
        .collect();
    let kept = keep_tails(dir, &cuts)?;
    cut_files(&cuts)?;
    let (journal, at) = cuts
        .iter()
        .rfind(|(_, len)| *len > 0)
        .or(cuts.last())
        .map_or((engine_dir, 0), |&cut| cut);
    Ok(JournalCut {
        journal: journal.to_owned(),
        at,
        reason: reason.to_owned(),
        kept: Some(kept),
    })
}

/// Copies what will be cut off into a directory of its own, `<name>.from-<offset>` each.
fn keep_tails(dir: &Path, cuts: &[(&Path, u64)]) -> Result<PathBuf, OpenError> {
    let aside = free_name(&dir.join("journal-cut"))?;
    std::fs::create_dir(&aside).map_err(OpenError::io(&aside))?;
    for (path, offset) in cuts {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let target = aside.join(format!("{name}.from-{offset}"));
        journal::copy_tail(path, *offset, &target).map_err(OpenError::io(&target))?;
    }
    sync_dir(&aside)?;
    sync_dir(dir)?;
    Ok(aside)
}

/// The last file first: a crash in between must not leave a hole with newer batches behind it.
fn cut_files(cuts: &[(&Path, u64)]) -> Result<(), OpenError> {
    for (path, len) in cuts.iter().rev() {
        let cut = || {
            let file = OpenOptions::new().write(true).open(path)?;
            if file.metadata()?.len() > *len {
                file.set_len(*len)?;
            }
            file.sync_all()
        };
        cut().map_err(OpenError::io(*path))?;
    }
    Ok(())
}

fn check_format(dir: &Path, engine: &FjallEngine) -> Result<(), Failure> {
    let format = engine
        .meta
        .get(FORMAT_KEY)
        .map_err(|e| classify(engine.dir(), e))?
        .and_then(|v| Some(u32::from_be_bytes(v.as_ref().try_into().ok()?)));
    match format {
        Some(found) if found > FORMAT_VERSION => Err(OpenError::NewerFormat {
            path: dir.to_owned(),
            found,
            supported: FORMAT_VERSION,
        }
        .into()),
        Some(FORMAT_VERSION) => Ok(()),
        _ => Err(damaged(engine.dir(), "has no format version")),
    }
}

/// The number and position of the last batch.
fn read_applied(engine: &FjallEngine) -> Result<(u64, LogPosition), Failure> {
    let mut found = Vec::new();
    for item in engine.meta.prefix([APPLIED_PREFIX]).take(2) {
        let (key, value) = item.into_inner().map_err(|e| classify(engine.dir(), e))?;
        let parsed = key
            .get(1..)
            .and_then(|n| Some(u64::from_be_bytes(n.try_into().ok()?)))
            .zip(parse_position(&value));
        found.push(parsed.ok_or_else(|| damaged(engine.dir(), "applied record is malformed"))?);
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(damaged(engine.dir(), "has no applied record")),
        _ => Err(damaged(
            engine.dir(),
            "lacks batches in the middle of its history",
        )),
    }
}

fn classify(path: &Path, error: fjall::Error) -> Failure {
    let io_error = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            damaged(path, e.to_string())
        }
        _ => OpenError::io(path)(e).into(),
    };
    match error {
        fjall::Error::Locked => OpenError::Locked {
            path: path.to_owned(),
        }
        .into(),
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => io_error(e),
        fjall::Error::InvalidVersion(Some(_)) => OpenError::Engine {
            path: path.to_owned(),
            source: Box::new(error),
        }
        .into(),
        e => damaged(path, e.to_string()),
    }
}

/// Renames the store's directory to the first free `<dir>.damaged-<n>`.
fn set_aside(dir: &Path) -> Result<PathBuf, OpenError> {
    let mut name = dir.as_os_str().to_owned();
    name.push(".damaged");
    let aside = free_name(Path::new(&name))?;
    std::fs::rename(dir, &aside).map_err(OpenError::io(dir))?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
    }
    Ok(aside)
}

fn free_name(base: &Path) -> Result<PathBuf, OpenError> {
    let mut n = 1u32;
    loop {
        let mut name = base.as_os_str().to_owned();
        name.push(format!("-{n}"));
        let path = PathBuf::from(name);
        if !path.try_exists().map_err(OpenError::io(&path))? {
            return Ok(path);
        }
        n += 1;
    }
}

fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    // "" is the parent of a relative path of one part.
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(OpenError::io(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::Store,
        types::{Change, Revision, TenantId},
    };

    #[test]
    fn cutting_back_to_the_mark_leaves_the_state_of_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (store, _) = Store::open(&path, StoreOptions::default()).unwrap();
        let drop_row = Change::DropRow(TenantId::DEFAULT, Revision::first(2));
        let position = |index| LogPosition { index, term: 1 };
        store.stage(position(4), vec![drop_row.clone()]);
        store.persist().unwrap();
        store.checkpoint().unwrap();
        store.stage(position(9), vec![drop_row]);
        store.persist().unwrap();
        drop(store);

        let mark = Mark::read(&path.join(MARK_FILE)).unwrap().unwrap();
        let engine_dir = path.join(ENGINE_DIR);
        let Ok(cut) = cut_to_mark(&path, &engine_dir, &mark, "test") else {
            panic!("cut failed");
        };
        assert_eq!(cut.at, mark.journals[0].len);
        assert!(cut.kept.is_some_and(|k| k.is_dir()));
        let (_, opened) = Store::open(&path, StoreOptions::default()).unwrap();
        assert_eq!(opened.applied, position(4));
    }
}
