//! Feature gates: etcd's names, stages and defaults (behaviour §4.3).

use std::collections::BTreeMap;

use crate::spelling::nearest;
use crate::value::parse_bool;

/// A feature that `--feature-gates` can turn on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// Compare the hashes of compactions between members.
    CompactHashCheck,
    /// Answer lease keep-alives without a round through the log.
    FastLeaseKeepAlive,
    /// Compare this member's data with the others' before serving.
    InitialCorruptCheck,
    /// Log the remaining time of leases, so that a leader change does not renew them.
    LeaseCheckpoint,
    /// Keep the remaining time of leases over restarts.
    LeaseCheckpointPersist,
    /// Let important requests pass a full proposal queue.
    PriorityRequest,
    /// Dial other members from this member's advertised address.
    SetMemberLocalAddr,
    /// Report not ready while a defragmentation runs.
    StopGrpcServiceOnDefrag,
    /// Let transactions that write read the store's shared buffer.
    TxnModeWriteWithSharedBuffer,
}

/// How settled a feature is; decides its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Off unless turned on.
    Alpha,
    /// On unless turned off.
    Beta,
}

impl Stage {
    /// As in the label `stage` of the metric `etcd_server_feature_enabled`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }

    /// The gate that sets all features of this stage which are not set by name.
    fn meta_gate(self) -> &'static str {
        match self {
            Self::Alpha => "AllAlpha",
            Self::Beta => "AllBeta",
        }
    }
}

impl Feature {
    /// All features, by name.
    pub const ALL: [Self; 9] = [
        Self::CompactHashCheck,
        Self::FastLeaseKeepAlive,
        Self::InitialCorruptCheck,
        Self::LeaseCheckpoint,
        Self::LeaseCheckpointPersist,
        Self::PriorityRequest,
        Self::SetMemberLocalAddr,
        Self::StopGrpcServiceOnDefrag,
        Self::TxnModeWriteWithSharedBuffer,
    ];

    /// The name in `--feature-gates` and in the metric's label `name`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CompactHashCheck => "CompactHashCheck",
            Self::FastLeaseKeepAlive => "FastLeaseKeepAlive",
            Self::InitialCorruptCheck => "InitialCorruptCheck",
            Self::LeaseCheckpoint => "LeaseCheckpoint",
            Self::LeaseCheckpointPersist => "LeaseCheckpointPersist",
            Self::PriorityRequest => "PriorityRequest",
            Self::SetMemberLocalAddr => "SetMemberLocalAddr",
            Self::StopGrpcServiceOnDefrag => "StopGRPCServiceOnDefrag",
            Self::TxnModeWriteWithSharedBuffer => "TxnModeWriteWithSharedBuffer",
        }
    }

    /// How settled it is.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            Self::FastLeaseKeepAlive | Self::TxnModeWriteWithSharedBuffer => Stage::Beta,
            Self::CompactHashCheck
            | Self::InitialCorruptCheck
            | Self::LeaseCheckpoint
            | Self::LeaseCheckpointPersist
            | Self::PriorityRequest
            | Self::SetMemberLocalAddr
            | Self::StopGrpcServiceOnDefrag => Stage::Alpha,
        }
    }
}

/// Which features are on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeatureGates {
    by_name: BTreeMap<Feature, bool>,
    all_alpha: Option<bool>,
    all_beta: Option<bool>,
}

impl FeatureGates {
    /// Whether `feature` is on.
    #[must_use]
    pub fn enabled(&self, feature: Feature) -> bool {
        let (of_stage, default) = match feature.stage() {
            Stage::Alpha => (self.all_alpha, false),
            Stage::Beta => (self.all_beta, true),
        };
        self.by_name
            .get(&feature)
            .copied()
            .or(of_stage)
            .unwrap_or(default)
    }

    /// Name, stage and state of every gate, the two meta gates included: the series of `etcd_server_feature_enabled`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Stage, bool)> {
        let meta = [(Stage::Alpha, self.all_alpha), (Stage::Beta, self.all_beta)];
        let meta = meta.map(|(stage, state)| (stage.meta_gate(), stage, state.unwrap_or(false)));
        let features =
            Feature::ALL.map(|feature| (feature.name(), feature.stage(), self.enabled(feature)));
        meta.into_iter().chain(features)
    }

    pub(crate) fn set(&mut self, feature: Feature, on: bool) {
        self.by_name.insert(feature, on);
    }

    /// Takes `Name=true,Name=false` on top of what is set already.
    pub(crate) fn merge(&mut self, text: &str) -> Result<(), String> {
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (name, state) = item
                .split_once('=')
                .ok_or_else(|| format!("{item:?}: expected Name=true or Name=false"))?;
            let name = name.trim();
            let on = parse_bool(state.trim()).map_err(|reason| format!("{item:?}: {reason}"))?;
            if name == Stage::Alpha.meta_gate() {
                self.all_alpha = Some(on);
            } else if name == Stage::Beta.meta_gate() {
                self.all_beta = Some(on);
            } else if let Some(feature) = Feature::ALL
                .into_iter()
                .find(|feature| feature.name() == name)
            {
                self.set(feature, on);
            } else {
                let metas = [Stage::Alpha, Stage::Beta].map(Stage::meta_gate);
                let known = Feature::ALL.map(Feature::name).into_iter().chain(metas);
                return Err(format!(
                    "unknown feature gate {name:?}; the nearest known one is {}",
                    nearest(name, known)
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_gates_set_what_is_not_set_by_name() {
        let mut gates = FeatureGates::default();
        assert!(
            !gates.enabled(Feature::LeaseCheckpoint) && gates.enabled(Feature::FastLeaseKeepAlive)
        );
        gates
            .merge("AllAlpha=true, LeaseCheckpoint=false,AllBeta=false")
            .expect("valid");
        let on: Vec<_> = gates
            .iter()
            .filter(|(.., on)| *on)
            .map(|(name, ..)| name)
            .collect();
        assert_eq!(
            on,
            [
                "AllAlpha",
                "CompactHashCheck",
                "InitialCorruptCheck",
                "LeaseCheckpointPersist",
                "PriorityRequest",
                "SetMemberLocalAddr",
                "StopGRPCServiceOnDefrag"
            ]
        );
        assert_eq!(gates.iter().count(), 11);
    }
}
