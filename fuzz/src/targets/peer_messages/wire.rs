//! How members' messages look in bytes, as `consensus/src/message.rs` has it. Written again here: what is sent is not what is right.

/// What a receiver is at, so that a message can be near to it.
pub(crate) struct Near {
    pub(crate) id: u64,
    pub(crate) term: u64,
    pub(crate) committed: u64,
}

const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    1 << 20,
    1 << 32,
    (1 << 32) + 100,
    1 << 40,
    (1 << 62) - 1,
    1 << 62,
    (1 << 62) + 1,
    u64::MAX - 1,
    u64::MAX,
];

fn near(of: u64, byte: u8) -> u64 {
    match byte {
        0..200 => (of + u64::from(byte)).saturating_sub(100),
        _ => NUMBERS[usize::from(byte - 200) % NUMBERS.len()],
    }
}

impl Near {
    /// 100 is the receiver's term.
    pub(crate) fn term_at(&self, byte: u8) -> u64 {
        near(self.term, byte)
    }

    /// 100 is the last entry that is committed.
    pub(crate) fn index_at(&self, byte: u8) -> u64 {
        near(self.committed, byte)
    }
}

#[derive(Default)]
pub(crate) struct Raft {
    pub(crate) kind: u8,
    pub(crate) reject: u8,
    pub(crate) to: u64,
    pub(crate) from: u64,
    pub(crate) term: u64,
    pub(crate) log_term: u64,
    pub(crate) index: u64,
    pub(crate) commit: u64,
    pub(crate) commit_term: u64,
    pub(crate) reject_hint: u64,
    pub(crate) context: Vec<u8>,
    /// Index, term, configuration.
    pub(crate) snapshot: Option<(u64, u64, Vec<u8>)>,
    pub(crate) entries: Vec<Entry>,
}

pub(crate) struct Entry {
    pub(crate) kind: u8,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) context: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

fn long(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

fn short(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend(bytes);
}

fn numbers(numbers: &[u64], out: &mut Vec<u8>) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

impl Raft {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, 1, self.kind % 13, self.reject];
        numbers(
            &[
                self.to,
                self.from,
                self.term,
                self.log_term,
                self.index,
                self.commit,
                self.commit_term,
                self.reject_hint,
            ],
            &mut out,
        );
        short(&self.context, &mut out);
        match &self.snapshot {
            None => out.push(0),
            Some((index, term, configuration)) => {
                out.push(1);
                numbers(&[*index, *term], &mut out);
                long(configuration, &mut out);
            }
        }
        out.extend((self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            out.push(entry.kind);
            numbers(&[entry.term, entry.index], &mut out);
            short(&entry.context, &mut out);
            long(&entry.data, &mut out);
        }
        out
    }
}

/// Who proposed an entry, as it stands in its context.
pub(crate) fn origin(member: u64, incarnation: u64, sequence: u64) -> Vec<u8> {
    let mut out = Vec::new();
    numbers(&[member, incarnation, sequence], &mut out);
    out
}

/// Voters, learners, outgoing voters, next learners.
pub(crate) fn configuration(lists: &[&[u64]; 4]) -> Vec<u8> {
    let mut out = vec![1, 0];
    for list in lists {
        out.extend((list.len() as u16).to_le_bytes());
        numbers(list, &mut out);
    }
    out
}

pub(crate) fn forward(incarnation: u64, term: u64, proposals: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![1, 2];
    numbers(&[incarnation, term], &mut out);
    out.extend((proposals.len() as u32).to_le_bytes());
    for (sequence, data) in proposals {
        numbers(&[*sequence], &mut out);
        long(data, &mut out);
    }
    out
}

pub(crate) fn refused(incarnation: u64, why: u8, sequences: &[u64]) -> Vec<u8> {
    let mut out = vec![1, 3];
    numbers(&[incarnation], &mut out);
    out.push(why);
    out.extend((sequences.len() as u32).to_le_bytes());
    numbers(sequences, &mut out);
    out
}
