//! What every server of the project needs, and nothing about what the project does.
//!
//! | need | here |
//! |---|---|
//! | log lines that cannot be forged, a panic hook that prints no payload | [`log::init`] |
//! | end on SIGTERM or SIGINT | [`shutdown::signal`], [`shutdown::Shutdown`] |
//! | `/livez`, `/readyz`, `/metrics` | [`admin::serve`], [`readiness::Readiness`], [`metrics::registry`] |
//! | count and time requests by path | [`metrics::Requests`] |
//! | count and time what is asked of the API server, see whether its watches live | [`api::ApiMetrics`] |
//! | an HTTP or HTTPS server that survives floods and accept errors | [`serve::serve`] |
//! | a certificate that can be swapped while serving | [`tls::Certificates`] |
//! | make a certificate authority and a leaf in memory, read validity | [`certificate`] |
//! | a certificate that somebody else keeps in files | [`files::Files`] |
//! | a watch that survives a restore of etcd | [`relist::anew_after_errors`] |
//! | choose the TLS implementation once | [`crypto::install`] |
//! | no core dumps, no swap, freed memory is wiped | [`memory`] |
//!
//! Nothing here reads the environment or a configuration file: callers pass what is needed.

pub mod admin;
pub mod api;
pub mod certificate;
mod connections;
pub mod crypto;
pub mod files;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod readiness;
pub mod relist;
pub mod report;
pub mod serve;
pub mod shutdown;
pub mod tls;
