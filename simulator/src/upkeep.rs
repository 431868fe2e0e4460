//! What a member does by itself: moves rows to its store, cuts its log, removes what was compacted, ends leases, says who it is.

use crate::node::{Input, Waiting};
use crate::world::{Event, World, server_command};
use holdfast_storage::TenantId;
use holdfast_storage::backend::PersistError;
use holdfast_tenant::{Command, MEMBER_LEVEL, MemberVersion, ROW_OVERHEAD_BYTES};

impl World {
    pub(crate) fn upkeep(&mut self, place: usize, incarnation: u64) {
        let now = self.now;
        let node = &mut self.nodes[place];
        let Some(process) = node
            .process
            .as_ref()
            .filter(|p| p.incarnation == incarnation)
        else {
            return;
        };
        if node.busy_until > now {
            let delay = node.busy_until - now;
            return self.schedule(delay, Event::Upkeep { place, incarnation });
        }
        process.set_clock(node.clock(now));
        let delay = self.chance.around(self.plan.upkeep_every);
        self.schedule(delay, Event::Upkeep { place, incarnation });
        if let Err(error) = self.persist(place) {
            return self.failed(place, &error);
        }
        self.prune(place);
        self.end_leases(place);
        self.publish(place);
    }

    /// Moves rows to the store, and now and then syncs it and cuts the log.
    fn persist(&mut self, place: usize) -> Result<(), String> {
        let checkpoint = self.chance.percent(self.plan.checkpoint_percent);
        let Some(process) = &mut self.nodes[place].process else {
            return Ok(());
        };
        let spares = process.core.spares();
        if spares.has_work() {
            match spares.work() {
                Ok(()) | Err(holdfast_storage::log::LogError::NoSpace { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let store = process.tenants.store();
        match store.persist() {
            Ok(_) => {}
            Err(PersistError::NoSpace { .. }) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
        if !checkpoint {
            return Ok(());
        }
        let position = match store.checkpoint() {
            Ok(position) => position,
            Err(PersistError::NoSpace { .. }) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        process
            .core
            .compact_log(position)
            .map_err(|error| error.to_string())?;
        self.truth().counters.log_cuts += 1;
        Ok(())
    }

    /// Removes versions that are dead at the compacted revision, a few at a time.
    fn prune(&mut self, place: usize) {
        let id = self.nodes[place].id;
        let most = 1 + self.chance.below(20) as usize;
        let Some(process) = &mut self.nodes[place].process else {
            return;
        };
        let (dropped, _) = process.tenant.prune(most);
        if dropped.is_empty() {
            return;
        }
        let mut rows = Vec::new();
        let store = process.tenants.store();
        let read = store.get_many(TenantId::DEFAULT, &dropped, &mut rows);
        if read.is_err() || rows.iter().any(Option::is_none) {
            return self
                .violated(|| format!("member {id}: rows {dropped:?} are not there to be removed"));
        }
        let bytes = rows.iter().flatten();
        let bytes = bytes
            .map(|row| ROW_OVERHEAD_BYTES + (row.key.len() + row.value.len()) as u64)
            .sum();
        let tenant = process.tenant.clone();
        process
            .core
            .machine()
            .machine
            .drop_rows(&tenant, dropped, bytes);
    }

    /// The leader ends leases and has their remaining time recorded.
    fn end_leases(&mut self, place: usize) {
        let Some(process) = &mut self.nodes[place].process else {
            return;
        };
        if !process.core.status().leads() {
            return;
        }
        let now = process.clock();
        let mut commands: Vec<Command> = process
            .tenant
            .expired_leases(now, 20)
            .into_iter()
            .map(|id| Command::LeaseRevoke { id })
            .collect();
        let due = process.tenant.due_lease_checkpoints(now, 20);
        if !due.is_empty() {
            commands.push(Command::LeaseCheckpoint(due));
        }
        let term = process.core.status().term();
        for command in commands {
            let Some(process) = &mut self.nodes[place].process else {
                return;
            };
            let ticket = process.ticket(Waiting::Internal);
            let data = server_command(&command);
            // It waits in a queue first.
            self.tell(place, Input::ProposeInTerm { term, data, ticket });
        }
    }

    /// Says once in each process who this member is.
    fn publish(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let (id, instance) = (node.id, 7_000 + node.id);
        let Some(process) = &mut node.process else {
            return;
        };
        let known = process.tenants.members();
        if process.published || process.core.status().leader() == 0 || known.get(id).is_none() {
            return;
        }
        process.published = true;
        let command = Command::MemberPublish {
            id,
            name: format!("m{id}"),
            client_urls: vec![format!("http://c{id}")],
            instance,
            version: MemberVersion {
                level: MEMBER_LEVEL,
                text: "3.7.1".into(),
            },
        };
        let tickets = vec![process.ticket(Waiting::Internal)];
        let data = server_command(&command);
        self.give(place, Input::Propose { data, tickets });
    }
}
