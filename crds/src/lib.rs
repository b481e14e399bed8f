//! The Kubernetes API types of the group sealedenv.dev.
