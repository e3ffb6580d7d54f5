//! Where a ZEO server listens, and whom a client asks.

/// An address of a ZEO server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Socket(String),
    /// A host, in lower case, and a port. The host is empty for a server that takes connections to any of its own.
    Port(String, u16),
}

impl Address {
    /// As ZConfig reads it: `host:port`, `port`, `[IPv6]:port`, or a path, which has a `/`.
    pub fn parse(text: &str) -> Option<Address> {
        if text.contains('/') {
            return Some(Address::Socket(text.to_string()));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return None;
        }
        Some(Address::Port(bare.unwrap_or(host).to_lowercase(), port.parse().ok()?))
    }

    /// Whether a client with this address asks a server on its own host that listens on `server`.
    pub fn reaches(&self, server: &Address) -> bool {
        match (self, server) {
            (Address::Socket(client), Address::Socket(server)) => client == server,
            (Address::Port(client, a), Address::Port(server, b)) => {
                let is_any = matches!(server.as_str(), "" | "0.0.0.0" | "::");
                a == b && (client == server || (is_local(client) && (is_any || is_local(server))))
            }
            _ => false,
        }
    }
}

/// Whether a client that names this host means its own. One that names none does.
fn is_local(host: &str) -> bool {
    host.is_empty() || host == "localhost" || host == "::1" || host.starts_with("127.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_reaches_a_server_on_its_host_only() {
        let reaches =
            |client: &str, server: &str| Address::parse(client).unwrap().reaches(&Address::parse(server).unwrap());
        assert!(reaches("localhost:8100", "8100"));
        assert!(reaches("8100", "127.0.0.1:8100"));
        assert!(reaches("[::1]:8100", "[::]:8100"));
        assert!(reaches("DB.example.org:8100", "db.example.org:8100"));
        assert!(reaches("/run/zeo.sock", "/run/zeo.sock"));
        assert!(!reaches("localhost:8100", "8101"));
        assert!(!reaches("db.example.org:8100", "8100"));
        assert!(!reaches("localhost:8100", "db.example.org:8100"));
        assert!(!reaches("/run/zeo.sock", "/run/other.sock"));
        for nonsense in ["", "localhost", "::1", "localhost:", "a:70000", "localhost:zeo"] {
            assert_eq!(Address::parse(nonsense), None, "{nonsense}");
        }
    }
}
