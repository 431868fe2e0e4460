//! Walking through a file's lines along the chain: the one set of rules by which files are verified and continued.

use crate::{
    PublicKey,
    chain::{Chain, Checkpoint, Parsed, Position, parse},
};

/// Where a walk is.
pub(crate) struct Walk {
    /// None before the first header or seal.
    chain: Option<Chain>,
    /// The keys that may sign.
    keys: Vec<PublicKey>,
    /// A damaged line of the chain that the next line may explain: with its kind and length.
    odd: Option<(&'static str, u64)>,
    /// Since the last checkpoint, or the beginning.
    seals_since_checkpoint: u64,
    /// Since the last seal, and without checkpoints.
    open_lines: u64,
    last_checkpoint: Option<Position>,
}

/// What a line was.
pub(crate) enum Step {
    Header,
    Seal,
    Checkpoint,
    Line,
}

impl Walk {
    /// At a known place.
    pub(crate) fn at(position: Option<Position>, keys: Vec<PublicKey>) -> Self {
        Self {
            chain: position.map(Chain::at),
            keys,
            odd: None,
            seals_since_checkpoint: 0,
            open_lines: 0,
            last_checkpoint: None,
        }
    }

    pub(crate) fn set_keys(&mut self, keys: Vec<PublicKey>) {
        self.keys = keys;
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.chain.as_ref().map(Chain::position)
    }

    pub(crate) fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// Lines after the last seal that are not checkpoints.
    pub(crate) fn open_lines(&self) -> u64 {
        self.open_lines
    }

    /// Whether the last seal is not covered by a checkpoint.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        self.seals_since_checkpoint > 0
    }

    pub(crate) fn last_checkpoint(&self) -> Option<Position> {
        self.last_checkpoint
    }

    /// A line that begins a file: the chain is where the header says.
    pub(crate) fn begin_file(&mut self, position: Position, line: &[u8]) {
        let mut chain = Chain::at(position);
        chain.add(line);
        self.chain = Some(chain);
        self.open_lines = 1;
        self.seals_since_checkpoint = 0;
    }

    /// Part of a line that is too long to be any of ours.
    pub(crate) fn part(&mut self, bytes: &[u8]) {
        if let Some(chain) = &mut self.chain {
            chain.add(bytes);
        }
    }

    /// The next line, with its end. Says what is wrong.
    pub(crate) fn line(&mut self, line: &[u8], wrong: &mut Vec<String>) -> Step {
        let parsed = parse(line);
        if let Some((what, bytes)) = self.odd.take()
            && !matches!(parsed, Parsed::Resumed { torn_bytes } if torn_bytes == bytes)
        {
            wrong.push(format!("the {what} line before this one is damaged"));
        }
        match parsed {
            Parsed::Seal { position, lines } => {
                self.seal(position, lines, wrong);
                self.open_lines = 0;
                self.seals_since_checkpoint += 1;
                return Step::Seal;
            }
            Parsed::Checkpoint(checkpoint) => {
                self.checkpoint(&checkpoint, wrong);
                self.part(line);
                self.seals_since_checkpoint = 0;
                return Step::Checkpoint;
            }
            Parsed::Header(_) => {
                self.open_lines += 1;
                self.part(line);
                return Step::Header;
            }
            // Without its newline it may be what a crash left of a line; then the next line says so.
            Parsed::Odd(what) => self.odd = Some((what, line.len() as u64 - 1)),
            Parsed::Resumed { .. } | Parsed::Other => {}
        }
        self.open_lines += 1;
        self.part(line);
        Step::Line
    }

    /// Nothing comes after this.
    pub(crate) fn end(&mut self, wrong: &mut Vec<String>) {
        if let Some((what, _)) = self.odd.take() {
            wrong.push(format!("the {what} line at the end is damaged"));
        }
    }

    /// After a seal that is wrong the walk goes on from what it says, so that one damage is reported once.
    fn seal(&mut self, found: Position, lines: u64, wrong: &mut Vec<String>) {
        let Some(chain) = self.chain.as_mut() else {
            self.chain = Some(Chain::at(found));
            return;
        };
        let before = chain.position();
        let has = chain.open_lines();
        chain.seal();
        let computed = chain.position();
        if found == computed && lines == has {
            return;
        }
        wrong.push(if found.seq != computed.seq {
            format!(
                "block {} follows block {}: lines are missing, repeated or out of order",
                found.seq, before.seq
            )
        } else if lines != has {
            format!(
                "block {} has {has} lines and was sealed with {lines}: lines were added or removed",
                found.seq
            )
        } else if lines > 0 {
            format!(
                "block {} was changed: its {lines} lines, or the seal, are not what was written",
                found.seq
            )
        } else {
            format!("the seal of block {} was changed", found.seq)
        });
        *chain = Chain::at(found);
    }

    fn checkpoint(&mut self, found: &Checkpoint, wrong: &mut Vec<String>) {
        if self.chain.is_none() {
            self.chain = Some(Chain::at(found.position));
        }
        let here = self.chain.as_ref();
        let is_here =
            here.is_some_and(|chain| chain.open_lines() == 0 && chain.position() == found.position);
        let signer = self.keys.iter().find(|key| key.kid() == found.kid);
        if !is_here {
            wrong.push(format!(
                "the checkpoint is not of this place but of the end of block {}: lines are missing, added, or the checkpoint is repeated",
                found.position.seq
            ));
        } else if signer.is_none() {
            wrong.push(format!(
                "the checkpoint is signed by the key {}, which is not trusted here",
                found.kid
            ));
        } else if !signer.is_some_and(|key| found.is_signed_by(key)) {
            wrong.push("the signature of the checkpoint is wrong".to_owned());
        } else {
            self.last_checkpoint = Some(found.position);
        }
    }
}
