//! What every server of the project needs: logging, signals, health endpoints, metrics, TLS with reload.
