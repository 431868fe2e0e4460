//! Random changes of the membership, against a model written from the rules; through restarts and into a member that joins.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod group;

use group::{Group, founder};
use holdfast_tenant::{Answer, Command, Member, MemberVersion, Membership, Refusal};
use proptest::collection::vec;
use proptest::prelude::*;

/// The members as they were added, and what was removed.
#[derive(Debug)]
struct Model {
    members: Vec<Member>,
    removed: Vec<u64>,
}

impl Model {
    fn at(&self, id: u64) -> Result<usize, Refusal> {
        let at = self.members.iter().position(|member| member.id == id);
        at.ok_or(Refusal::MemberNotFound)
    }

    fn is_taken(&self, urls: &[String], by_other_than: u64) -> bool {
        self.members
            .iter()
            .filter(|member| member.id != by_other_than)
            .flat_map(|member| &member.peer_urls)
            .any(|url| urls.contains(url))
    }

    fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::MemberAdd {
                id,
                peer_urls,
                is_learner,
                max_learners,
            } => {
                if self.removed.contains(id) {
                    return Err(Refusal::MemberNotFound);
                }
                if self.at(*id).is_ok() {
                    return Err(Refusal::MemberExists);
                }
                if self.is_taken(peer_urls, 0) {
                    return Err(Refusal::PeerUrlExists);
                }
                let learners = self.members.iter().filter(|member| member.is_learner);
                if *is_learner && learners.count() >= *max_learners as usize {
                    return Err(Refusal::TooManyLearners);
                }
                self.members.push(Member {
                    id: *id,
                    peer_urls: peer_urls.clone(),
                    is_learner: *is_learner,
                    ..Member::default()
                });
            }
            Command::MemberPromote { id } => {
                let at = self.at(*id)?;
                if !self.members[at].is_learner {
                    return Err(Refusal::NotLearner);
                }
                self.members[at].is_learner = false;
            }
            Command::MemberRemove { id } => {
                let at = self.at(*id)?;
                let others = self.members.iter().filter(|member| member.id != *id);
                if others.filter(|member| !member.is_learner).count() == 0 {
                    return Err(Refusal::NotEnoughStarted);
                }
                self.removed.push(self.members.remove(at).id);
            }
            Command::MemberUpdate { id, peer_urls } => {
                let at = self.at(*id)?;
                if self.is_taken(peer_urls, *id) {
                    return Err(Refusal::PeerUrlExists);
                }
                self.members[at].peer_urls.clone_from(peer_urls);
            }
            Command::MemberPublish {
                id,
                name,
                client_urls,
                instance,
                version,
            } => {
                let at = self.at(*id)?;
                let member = &mut self.members[at];
                if ![0, *instance].contains(&member.instance) {
                    return Err(Refusal::MemberInstance);
                }
                member.name.clone_from(name);
                member.client_urls.clone_from(client_urls);
                member.instance = *instance;
                member.version = version.clone();
            }
            other => panic!("not of the members: {other:?}"),
        }
        Ok(())
    }

    #[track_caller]
    fn check(&self, found: &Membership) {
        let mut expected: Vec<&Member> = self.members.iter().collect();
        expected.sort_by_key(|member| member.id);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        let ids = |learners: bool| -> Vec<u64> {
            let of_kind = expected.iter().filter(|one| one.is_learner == learners);
            of_kind.map(|member| member.id).collect()
        };
        assert_eq!((found.voters(), found.learners()), (ids(false), ids(true)));
        for id in 0..10 {
            assert_eq!(found.is_removed(id), self.removed.contains(&id));
            assert_eq!(found.get(id), self.at(id).ok().map(|at| &self.members[at]));
        }
        let published = expected.iter().filter(|member| member.instance != 0);
        let lowest = published.map(|member| member.version.level).min();
        assert_eq!(found.version().map(|version| version.level), lowest);
    }
}

/// Few of each, so that they meet.
fn command() -> impl Strategy<Value = Command> {
    let id = || 1..9u64;
    let urls = || vec((0..12).prop_map(|n| format!("http://h{n}")), 1..3);
    let version = (1..4u32, "3\\.[0-9]").prop_map(|(level, text)| MemberVersion { level, text });
    let of_publish = (id(), "[a-c]", urls(), 1..3u64, version);
    prop_oneof![
        5 => (id(), urls(), any::<bool>(), 0..4u32).prop_map(
            |(id, peer_urls, is_learner, max_learners)| Command::MemberAdd {
                id,
                peer_urls,
                is_learner,
                max_learners,
            }
        ),
        3 => id().prop_map(|id| Command::MemberPromote { id }),
        2 => id().prop_map(|id| Command::MemberRemove { id }),
        2 => (id(), urls()).prop_map(|(id, peer_urls)| Command::MemberUpdate { id, peer_urls }),
        4 => of_publish.prop_map(
            |(id, name, client_urls, instance, version)| Command::MemberPublish {
                id,
                name,
                client_urls,
                instance,
                version,
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn every_member_comes_to_the_same_membership(
        steps in vec((command(), prop::bool::weighted(0.05)), 1..100),
        founders in 1..4u64,
    ) {
        let founding: Vec<Member> = (1..=founders).map(founder).collect();
        let mut model = Model {
            members: founding.clone(),
            removed: Vec::new(),
        };
        let mut group = Group::found(&founding);
        model.check(&group.members());
        for (command, restart) in &steps {
            let before = group.members();
            let outcome = group.apply(command);
            let expected = model.apply(command);
            prop_assert_eq!(outcome.clone().map(|_| ()), expected, "{:?}", command);
            let after = group.members();
            model.check(&after);
            // Who asks beforehand is told the same.
            prop_assert_eq!(before.after(command), outcome.clone().map(|_| (*after).clone()));
            if let Ok(answer) = outcome {
                prop_assert_eq!(answer, Answer::Members(after));
            } else {
                prop_assert!(std::ptr::eq(&*before, &*after));
            }
            if *restart {
                // What founded it long ago counts no longer.
                group.restart(&[founder(60)]);
                model.check(&group.members());
            }
        }
        let mut joined = Group::with_store(&group.snapshot(), &[]).unwrap();
        prop_assert_eq!(joined.members(), group.members());
        for (command, _) in &steps {
            prop_assert_eq!(joined.apply(command), group.apply(command));
        }
    }
}
