//! Which addresses agents may be connected to (pure): those of the public Internet.
//!
//! A listed name leads wherever whoever runs its zone says, to the machine's own services too. So it is the address that
//! decides, after the name was resolved. What carries another address inside (mapped, translated, tunnelled) is judged by
//! what it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not connected to, for a person.
pub fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, d] = address.octets();
    let why = match (a, b, c, d) {
        // Where clouds tell a machine about itself, its keys included, outside the ranges below.
        (168, 63, 129, 16) => "of a cloud's own services",
        (169, 254, 169, 254) | (100, 100, 100, 200) | (192, 0, 0, 192) => "of a cloud's metadata service",
        (0, ..) => "unspecified",
        (127, ..) => "of the machine itself (loopback)",
        (10, ..) | (192, 168, ..) | (172, 16..=31, ..) => "of a private network",
        (100, 64..=127, ..) => "of a provider's inner network",
        (169, 254, ..) => "link-local",
        (192, 0, 0 | 2, _) | (192, 88, 99, _) | (198, 18 | 19, ..) | (198, 51, 100, _) | (203, 0, 113, _) => {
            "reserved"
        }
        (224..=239, ..) => "multicast",
        (240..=255, ..) => "reserved",
        _ => return None,
    };
    Some(why)
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(inner) = carried(address) {
        return refusal_v4(inner);
    }
    let segments = address.segments();
    let why = match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "of the machine itself (loopback)",
        [0xfc00..=0xfdff, ..] => "of a private network",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "of a private network",
        [0xff00..=0xffff, ..] => "multicast",
        // Teredo tunnels to an address of the fourth version; the rest of 2001::/23 is not of the public Internet.
        [0x2001, 0..=0x01ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => "reserved",
        // All that is given out lies in 2000::/3.
        [0x2000..=0x3fff, ..] => return None,
        _ => "reserved",
    };
    Some(why)
}

/// The address of the fourth version that such an address leads to.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        // Mapped (::ffff:0:0/96), translated (::ffff:0:0:0/96), and by NAT64 (64:ff9b::/96).
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4.
        | [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str) -> Option<&'static str> {
        refusal(address.parse().expect("an address"))
    }

    #[test]
    fn addresses_of_the_public_internet_are_connected_to() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert_eq!(refused(public), None, "{public}");
        }
    }

    #[test]
    fn addresses_of_the_machine_and_its_networks_are_not() {
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "100::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(refused(private).is_some(), "{private}");
        }
    }

    #[test]
    fn metadata_services_of_clouds_are_not() {
        for metadata in [
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
        ] {
            assert!(refused(metadata).is_some(), "{metadata}");
        }
    }

    #[test]
    fn what_carries_another_address_is_judged_by_that() {
        for carrying in [
            "::ffff:127.0.0.1",
            "::ffff:0:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::192.168.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1.1.1.1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:c0a8:101::1",
            // Teredo, whatever it leads to.
            "2001:0:1:1::1",
        ] {
            assert!(refused(carrying).is_some(), "{carrying}");
        }
    }
}
