use proptest::prelude::*;

use super::*;

fn policy(entries: &[&str]) -> Policy {
    Policy::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
}

fn target(policy: &Policy, address: &str) -> Result<(bool, String, u16), Refused> {
    let Target { tls, host, port, .. } = policy.target(&address.parse().unwrap())?;
    Ok((tls, host, port))
}

#[test]
fn without_hosts_every_one_may_be_reached_over_tls() {
    let policy = policy(&[]);
    let https = |host: &str, port| Ok((true, host.to_owned(), port));
    for (address, expected) in [
        ("https://vault.example.com", https("vault.example.com", 443)),
        ("https://Vault.Example.COM.:8200/v1/x", https("vault.example.com", 8200)),
        ("https://10.0.0.7:8200", https("10.0.0.7", 8200)),
        ("https://[fd12::1]:8200", https("[fd12::1]", 8200)),
        ("http://vault.example.com", Err(Refused::NotHttps)),
        ("http://10.0.0.7", Err(Refused::NotHttps)),
        ("ftp://vault.example.com", Err(Refused::NotHttps)),
        ("/v1/secret", Err(Refused::NotHttps)),
        ("https://user:password@vault.example.com", Err(Refused::Credentials)),
        ("https://127.0.0.1:6443", Err(Refused::Address)),
        ("https://[::1]", Err(Refused::Address)),
        ("https://[::ffff:169.254.169.254]", Err(Refused::Address)),
        ("https://169.254.169.254/latest", Err(Refused::Address)),
        ("https://0x7f000001", Err(Refused::Address)),
        ("https://2130706433", Err(Refused::Address)),
        ("https://127.1", Err(Refused::Address)),
        ("https://127.0.0.1.", Err(Refused::Address)),
        ("https://vault.example.com..", Err(Refused::Address)),
        ("https://vault.example.com:65536", Err(Refused::Authority)),
        ("https://vault.example.com:", Err(Refused::Authority)),
        ("https://10.0.0.7:99999", Err(Refused::Authority)),
        ("https://[vault]", Err(Refused::Authority)),
        ("https://[10.0.0.7]", Err(Refused::Authority)),
    ] {
        assert_eq!(target(&policy, address), expected, "{address}");
    }
}

#[test]
fn hosts_are_those_of_the_list_and_no_others() {
    let policy =
        policy(&["*.vault.example.com", "https://kms.example.com:8443", "http://vault.shop.svc:8200"]);
    for (address, expected) in [
        ("https://a.vault.example.com", Ok(())),
        ("https://a.b.vault.example.com:1", Ok(())),
        ("https://vault.example.com", Err(Refused::Host)),
        ("https://evilvault.example.com", Err(Refused::Host)),
        ("https://a.vault.example.com.evil.org", Err(Refused::Host)),
        ("http://a.vault.example.com", Err(Refused::NotHttps)),
        ("https://kms.example.com:8443", Ok(())),
        ("https://kms.example.com", Err(Refused::Host)),
        ("http://vault.shop.svc:8200", Ok(())),
        ("http://vault.shop.svc:8201", Err(Refused::NotHttps)),
        ("https://vault.shop.svc:8200", Err(Refused::Host)),
    ] {
        assert_eq!(target(&policy, address).map(drop), expected, "{address}");
    }
}

#[test]
fn with_a_host_in_the_list_a_number_is_one_of_a_listed_net() {
    let hosts = policy(&["vault.example.com"]);
    assert_eq!(target(&hosts, "https://10.0.0.7:8200"), Err(Refused::Host));
    assert_eq!(target(&hosts, "https://[fd12::1]"), Err(Refused::Host));
    assert_eq!(target(&hosts, "https://127.0.0.1"), Err(Refused::Address));
    assert_eq!(hosts.may_reach("10.0.0.7".parse().unwrap()), Ok(()), "where a host of the list leads");
    let both = policy(&["vault.example.com", "10.0.0.0/24"]);
    assert!(target(&both, "https://10.0.0.7:8200").is_ok());
    assert_eq!(target(&both, "https://10.0.1.7:8200"), Err(Refused::Host));
}

#[test]
fn a_dot_at_the_end_is_told_apart_and_is_no_other_host() {
    let policy = policy(&["vault.example.com"]);
    let of = |address: &str| policy.target(&address.parse().unwrap()).unwrap();
    assert!(!of("https://vault.example.com").whole);
    assert!(of("https://vault.example.com.").whole);
    assert_eq!(of("https://vault.example.com.").host, "vault.example.com");
}

#[test]
fn what_is_special_is_reached_only_where_it_is_named() {
    let none = policy(&[]);
    for special in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "64:ff9b:1:ffff::",
        "::ffff:0:169.254.169.254",
        "::ffff:0:7f00:1",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "2002:7f00:1::",
    ] {
        assert_eq!(none.may_reach(special.parse().unwrap()), Err(Refused::Address), "{special}");
    }
    for usual in [
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "8.8.8.8",
        "fd12::1",
        "2001:db8::1",
        "fd20:ce::253",
        "fd00:42::41",
        "64:ff9b::a00:1",
        "::ffff:0:10.0.0.1",
    ] {
        assert_eq!(none.may_reach(usual.parse().unwrap()), Ok(()), "{usual}");
    }
    let named = policy(&["127.0.0.0/8", "fd00:ec2::254/128"]);
    assert!(named.may_reach("127.0.0.1".parse().unwrap()).is_ok());
    assert!(named.may_reach("::ffff:127.0.0.1".parse().unwrap()).is_ok(), "the same number");
    assert!(named.may_reach("fd00:ec2::254".parse().unwrap()).is_ok());
    assert!(named.may_reach("fd00:ec2::253".parse().unwrap()).is_err());
    assert!(named.may_reach("169.254.169.254".parse().unwrap()).is_err());
    // A net that is named may be reached without TLS, as it is for a test or a sidecar.
    assert!(target(&named, "http://127.0.0.1:8200").is_ok());
    assert!(target(&named, "http://10.0.0.1:8200").is_err());
}

#[test]
fn what_is_no_entry_is_refused_by_name() {
    for text in [
        "",
        "*",
        "*.",
        "a..b",
        "a b",
        "127.0.0.1",
        "10.0.0.0/33",
        "::/129",
        "x/8",
        "https://a/b",
        "a:b",
        "0x7f",
    ] {
        let error = text.parse::<Entry>().unwrap_err();
        assert!(error.to_string().starts_with(&format!("{text} is neither")), "{text}");
    }
}

proptest! {
    #[test]
    fn any_address_gives_a_target_or_a_refusal(text in "\\PC{0,40}", scheme in "(https?://)?") {
        let Ok(address) = format!("{scheme}{text}").parse::<Uri>() else { return Ok(()) };
        if let Ok(target) = policy(&[]).target(&address) {
            prop_assert!(target.tls && !target.host.is_empty());
            if let Some(number) = number(&target.host) {
                prop_assert!(!is_special(number.to_canonical()));
            }
        }
    }

    #[test]
    fn a_net_has_its_own_numbers_and_no_others(first: u32, bits in 0..=32_u8, other: u32) {
        let mask = if bits == 0 { 0 } else { u32::MAX << (32 - bits) };
        let (first, other) = (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(other));
        let expected = first.to_bits() & mask == other.to_bits() & mask;
        prop_assert_eq!(is_in(other.into(), first.into(), bits), expected);
    }
}
