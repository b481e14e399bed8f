//! Where a store may point. Its address is user input, and the operator reaches places that its users do not.
//!
//! Two questions, and both must be answered with yes: one to the address as it is written ([`Policy::target`]), one to the
//! numbers that its host stands for when the connection is made ([`Policy::may_reach`]). The second is asked of
//! the number that is then connected to, so a name that stands for another one a moment later leads nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;

/// What an administrator lets stores point to.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    entries: Vec<Entry>,
}

/// One thing that is allowed: `*.example.com`, `vault.shop.svc`, `http://vault.shop.svc:8200`, `10.1.0.0/16`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Hosts by their names, over TLS, or without it where it says `http://`.
    Host {
        /// Whether it may be reached without TLS.
        plain: bool,
        /// The name, without `*.`.
        name: String,
        /// Whether names below it are meant, and not itself.
        below: bool,
        /// The only port. None: any.
        port: Option<u16>,
    },
    /// Numbers, also of those that are refused by themselves.
    Net {
        /// The first of them.
        first: IpAddr,
        /// How many bits all of them have in common.
        bits: u8,
    },
}

/// An entry that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is neither a host, as in *.example.com or http://vault.shop.svc:8200, nor a net, as in 10.1.0.0/16"
)]
pub struct EntryError(String);

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whether it goes over TLS.
    pub tls: bool,
    /// The host, as it is written, in lower case, without a dot at its end.
    pub host: String,
    /// Whether there was that dot: the name is whole, and no search domain is to be tried with it.
    pub whole: bool,
    /// The port.
    pub port: u16,
}

/// Why a store may not point there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no address of a store.
    #[error("it is no https:// address")]
    NotHttps,
    /// Its host or its port is none.
    #[error("its host or its port is none")]
    Authority,
    /// It has a user name or a password in it, which would stand in status and logs.
    #[error("an address holds no credentials")]
    Credentials,
    /// The policy does not have the host.
    #[error("the operator's --provider-hosts does not allow this host")]
    Host,
    /// The number is of this machine, of its link, or of a cloud's metadata service.
    #[error(
        "it leads to an address that no store has: of this machine, of its link, or of a metadata service"
    )]
    Address,
}

impl Policy {
    /// Of these entries. Without any host among them, every host may be reached over TLS; with one, also a number only
    /// where a net has it.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// Where an address leads, if stores may point there.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn target(&self, address: &Uri) -> Result<Target, Refused> {
        let authority = address.authority().ok_or(Refused::NotHttps)?;
        if authority.as_str().contains('@') {
            return Err(Refused::Credentials);
        }
        let tls = match address.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Refused::NotHttps),
        };
        let written = authority.host();
        let host = written.strip_suffix('.').unwrap_or(written).to_ascii_lowercase();
        let port = port(authority, tls).ok_or(Refused::Authority)?;
        let target = Target { tls, whole: host.len() < written.len(), host, port };
        // What is written as a number is one, whatever else it looks like.
        match number(&target.host) {
            Some(number) if self.is_net(number) => Ok(target),
            Some(_) if !tls => Err(Refused::NotHttps),
            Some(number) => {
                self.may_reach(number)?;
                if self.hosts().next().is_none() { Ok(target) } else { Err(Refused::Host) }
            }
            None if target.host.starts_with('[') => Err(Refused::Authority),
            None if looks_like_a_number(&target.host) => Err(Refused::Address),
            None if self.has(&target) => Ok(target),
            None if tls => Err(Refused::Host),
            None => Err(Refused::NotHttps),
        }
    }

    /// Whether a number that a host stands for may be connected to.
    ///
    /// # Errors
    /// [`Refused::Address`].
    pub fn may_reach(&self, number: IpAddr) -> Result<(), Refused> {
        let number = number.to_canonical();
        if self.is_net(number) || !is_special(number) { Ok(()) } else { Err(Refused::Address) }
    }

    fn is_net(&self, number: IpAddr) -> bool {
        self.entries.iter().any(|entry| match entry {
            Entry::Net { first, bits } => is_in(number.to_canonical(), *first, *bits),
            Entry::Host { .. } => false,
        })
    }

    fn hosts(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Host { .. }))
    }

    fn has(&self, target: &Target) -> bool {
        let mut hosts = self.hosts().peekable();
        if hosts.peek().is_none() {
            return target.tls;
        }
        hosts.any(|entry| entry.is_of(target))
    }
}

impl Entry {
    fn is_of(&self, target: &Target) -> bool {
        let Self::Host { plain, name, below, port } = self else { return false };
        let fits = if *below {
            target.host.strip_suffix(name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            target.host == *name
        };
        fits && *plain != target.tls && port.is_none_or(|port| port == target.port)
    }
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let error = || EntryError(text.to_owned());
        if let Some((first, bits)) = text.split_once('/').filter(|(first, _)| !first.ends_with(':')) {
            let (first, bits) = (number(first).ok_or_else(error)?, bits.parse().map_err(|_| error())?);
            let most = if first.is_ipv4() { 32 } else { 128 };
            return if bits <= most { Ok(Self::Net { first, bits }) } else { Err(error()) };
        }
        let (plain, rest) = match text.strip_prefix("http://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("https://").unwrap_or(text)),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| error())?)),
            None => (rest, None),
        };
        let (name, below) = host.strip_prefix("*.").map_or((host, false), |name| (name, true));
        let name = name.to_ascii_lowercase();
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.split('.').all(is_label) && !looks_like_a_number(&name) {
            Ok(Self::Host { plain, name, below, port })
        } else {
            Err(error())
        }
    }
}

/// A host that is a number: `10.0.0.1`, `[::1]`.
fn number(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(bare) => bare.parse().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// The port, of the scheme where none is written. What is written and is no port is not taken for the scheme's.
fn port(authority: &Authority, tls: bool) -> Option<u16> {
    match authority.as_str().strip_prefix(authority.host())? {
        "" => Some(if tls { 443 } else { 80 }),
        rest => rest.strip_prefix(':')?.parse().ok(),
    }
}

/// Whether some resolver may take it for a number: `127.1`, `0x7f000001`, `2130706433`. No name of the DNS ends so.
fn looks_like_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || last.is_empty() || last.bytes().all(|b| b.is_ascii_digit())
}

fn is_in(number: IpAddr, first: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let shift = width.saturating_sub(u32::from(bits));
        a.checked_shr(shift).unwrap_or_default() == b.checked_shr(shift).unwrap_or_default()
    };
    match (number, first) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

/// Whether it is of this machine, of its link, of many at once, or of a metadata service. Private networks are none of
/// these: that is where most stores are.
fn is_special(number: IpAddr) -> bool {
    match number {
        IpAddr::V4(v4) => is_special_v4(v4),
        IpAddr::V6(v6) => is_special_v6(v6),
    }
}

fn is_special_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, d] = v4.octets();
    // Alibaba Cloud's metadata is in the shared address space, Azure's wire server in public space; Oracle's and
    // AWS' are link-local.
    let metadata = matches!([a, b, c, d], [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192]);
    a == 0 || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || a >= 240 || metadata
}

fn is_special_v6(v6: Ipv6Addr) -> bool {
    let segments = v6.segments();
    // AWS and Oracle have a net for their services each, Google and Scaleway an address.
    let metadata = matches!(
        segments,
        [0xfd00, 0x0ec2 | 0x00c1, ..]
            | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254]
            | [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042]
    );
    // NAT64 of a site's own making: where the address of IPv4 is in it, the site decides.
    let translated = matches!(segments, [0x0064, 0xff9b, 0x0001, ..]);
    // 6to4, NAT64 and addresses that hold one of IPv4 lead where that one leads.
    let inner = match segments {
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0 | 0xffff, 0, high, low]
        | [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    let inner = inner.map(|(high, low)| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    v6.is_unspecified()
        || v6.is_loopback()
        || v6.is_multicast()
        || v6.is_unicast_link_local()
        || metadata
        || translated
        || inner.is_some_and(is_special_v4)
}

#[cfg(test)]
mod tests;
