//! Key sets of external issuers: parsing returns, takes only keys that can be named, and shows nothing of a key.

use holdfast_auth::token::jwks;

pub(crate) fn run(data: &[u8]) {
    if let Ok(keys) = jwks::parse(data) {
        assert!((1..=jwks::MAX_KEYS).contains(&keys.len()));
        assert!(keys.len() + keys.ignored().len() <= jwks::MAX_KEYS);
        let secrets = serde_json::from_slice::<serde_json::Value>(data)
            .map(|file| secret_members(&file))
            .unwrap_or_default();
        assert!(!secrets, "a private or symmetric key was taken");
        // Key ids and no more.
        let _ = format!("{keys:?}");
    }
}

/// Whether a key that is not passed over has a private half, or is symmetric.
fn secret_members(file: &serde_json::Value) -> bool {
    let keys = file["keys"].as_array();
    keys.into_iter().flatten().any(|key| {
        let has = |member: &str| key.get(member).is_some_and(|value| !value.is_null());
        has("k") || has("d") || key["kty"] == "oct"
    })
}
