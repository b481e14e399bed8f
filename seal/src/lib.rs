//! The sealed value format: one value, sealed to public keys and bound to its scope.
