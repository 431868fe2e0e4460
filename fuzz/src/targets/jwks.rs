//! Key sets of external issuers: parsing returns, takes only keys that can be named, and shows nothing of a key.

use holdfast_auth::token::jwks;

pub(crate) fn run(data: &[u8]) -> bool {
    let Ok(keys) = jwks::parse(data) else {
        return false;
    };
    assert!((1..=jwks::MAX_KEYS).contains(&keys.len()));
    assert!(keys.len() + keys.ignored().len() <= jwks::MAX_KEYS);
    let secrets = serde_json::from_slice::<serde_json::Value>(data)
        .map(|file| has_secrets(&file))
        .unwrap_or_default();
    assert!(!secrets, "a private or symmetric key was taken");
    // Key ids and no more.
    let _ = format!("{keys:?}");
    true
}

/// Whether a key has a private half, or is symmetric.
fn has_secrets(file: &serde_json::Value) -> bool {
    let keys = file["keys"].as_array();
    keys.into_iter().flatten().any(|key| {
        let has = |member: &str| key.get(member).is_some_and(|value| !value.is_null());
        has("k") || has("d") || key["kty"] == "oct"
    })
}
