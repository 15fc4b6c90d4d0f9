//! Who is at the other end of a connection, and whose request it really is behind a proxy.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use crate::config::{Apis, Network};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// The APIs of the listener that it came by.
    pub apis: Apis,
}

/// The address that the request comes from: the peer's, or behind trusted proxies the last address in
/// `X-Forwarded-For` that is not itself a trusted proxy. Who reaches a unix socket is on this machine and trusted.
pub fn client_address(peer: Peer, headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !peer.address.is_none_or(is_trusted) {
        return peer.address.map(|address| address.to_canonical());
    }
    let mut client = peer.address;
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        client = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    client.map(|address| address.to_canonical())
}

/// What stands for the owner of an address: an IPv6 address, of which its owner has the whole /64, without its second half.
pub fn owner(address: IpAddr) -> IpAddr {
    /// The half of an IPv6 address that its owner chooses.
    const CHOSEN_BITS: u32 = 64;
    match address {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> CHOSEN_BITS << CHOSEN_BITS).into()),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: Option<&str>, forwarded: &[&str], trusted: &[&str]) -> Option<String> {
        let peer = Peer { address: peer.map(|text| text.parse().expect("an address")), apis: Apis::ALL };
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().expect("a header value"));
        }
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().expect("a network")).collect();
        client_address(peer, &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_owner_of_an_address_has_all_of_its_network() {
        let owner = |text: &str| owner(text.parse().expect("an address")).to_string();
        assert_eq!(owner("2001:db8:1:2:3:4:5:6"), owner("2001:db8:1:2::1"));
        assert_ne!(owner("2001:db8:1:2::1"), owner("2001:db8:1:3::1"));
        assert_ne!(owner("1.1.1.1"), owner("1.1.1.2"));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client(Some("9.9.9.9"), &["1.1.1.1"], &[]).as_deref(), Some("9.9.9.9"));
        assert_eq!(client(Some("10.0.0.1"), &["1.1.1.1"], &["10.0.0.0/8"]).as_deref(), Some("1.1.1.1"));
        // What stands left of the first untrusted address was written by that address itself.
        let forged = client(Some("10.0.0.1"), &["6.6.6.6, 1.1.1.1, 10.0.0.2"], &["10.0.0.0/8"]);
        assert_eq!(forged.as_deref(), Some("1.1.1.1"));
        assert_eq!(
            client(Some("10.0.0.1"), &["6.6.6.6", "1.1.1.1"], &["10.0.0.1"]).as_deref(),
            Some("1.1.1.1")
        );
        assert_eq!(client(None, &["1.1.1.1"], &[]).as_deref(), Some("1.1.1.1"));
        assert_eq!(client(None, &[], &[]), None);
        assert_eq!(client(Some("10.0.0.1"), &["nonsense"], &["10.0.0.1"]).as_deref(), Some("10.0.0.1"));
    }
}
